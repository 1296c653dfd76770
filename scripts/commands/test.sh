# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_test() {
    cat <<'END'
./qgf test [--slow] [PYTEST ARGUMENT...]

Sets up, checks style (ruff) and types (mypy), and runs the fast tests, in ROS domains of their own, in two passes:
first those that do not mind what else runs, by two workers side by side; then, one after another, those that judge real
time (marked `alone`). Each pass ends with its own summary; the exit code is that of the pass that failed.
  --slow     the slow tests instead, one after another (full trainings over three seeds: hours)
  ./qgf test -k limiter -x      further arguments go to pytest
  ./qgf test -n 4               more workers; -n 0 has none, as --pdb and -s want it
END
}

command_test() {
    prepare "$@"
    claim_domain
    local arguments=() argument failed=() folder status=0 left
    for argument in "${REST[@]}"; do
        if [[ $argument == --slow ]]; then arguments+=(-m slow); else arguments+=("$argument"); fi
    done
    cd "$ROOT" || exit
    say "style: ruff check"
    "$VENV/bin/python" -m ruff check . >&2 || failed+=(style)
    say "types: mypy"
    "$VENV/bin/python" -m mypy >&2 || failed+=(types)
    folder=$(mktemp -d)
    # shellcheck disable=SC2064  # the folder of now
    trap "rm -rf '$folder'" EXIT
    say "tests, first pass: side by side, ROS_DOMAIN_ID=$ROS_DOMAIN_ID and others"
    # A file's tests share fixtures and stay with one worker; the order is that of ros2_ws/src/conftest.py.
    "$VENV/bin/python" -m pytest -p xdist -n 2 --dist loadfile --no-loadscope-reorder --pass=together \
        "--left=$folder/left" "${arguments[@]}" || status=$?
    left=$(cat "$folder/left" 2>/dev/null) || left=0
    # 1: some failed; 5: none was chosen. With anything else (-x, Ctrl-C, a wrong option) nothing more is to be run.
    if ((left > 0)) && [[ $status == [015] ]]; then
        ((status == 0 || status == 5)) || failed+=("the first pass")
        status=0
        say "tests, second pass: one after another, ROS_DOMAIN_ID=$ROS_DOMAIN_ID"
        "$VENV/bin/python" -m pytest --pass=alone "--left=$folder/left" "${arguments[@]}" || status=$?
    fi
    if ((${#failed[@]} > 0)); then
        say "failed before, see above: ${failed[*]}"
        ((status > 1)) || status=1
    fi
    exit "$status"
}

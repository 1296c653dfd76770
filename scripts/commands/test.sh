# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_test() {
    cat <<'END'
./qgf test [--slow] [PYTEST ARGUMENT...]

Sets up, checks style (ruff) and types (mypy), and runs the fast tests, in a ROS domain of their own.
  --slow     the slow tests instead (full trainings over three seeds: hours)
  ./qgf test -k limiter -x      further arguments go to pytest
END
}

command_test() {
    prepare "$@"
    claim_domain
    local arguments=() argument failed=() status=0
    for argument in "${REST[@]}"; do
        if [[ $argument == --slow ]]; then arguments+=(-m slow); else arguments+=("$argument"); fi
    done
    cd "$ROOT" || exit
    say "style: ruff check"
    "$VENV/bin/python" -m ruff check . >&2 || failed+=(style)
    say "types: mypy"
    "$VENV/bin/python" -m mypy >&2 || failed+=(types)
    say "tests: pytest, ROS_DOMAIN_ID=$ROS_DOMAIN_ID"
    "$VENV/bin/python" -m pytest "${arguments[@]}" || status=$?
    if ((${#failed[@]} > 0)); then
        say "failed before the tests, see above: ${failed[*]}"
        exit 1
    fi
    exit "$status"
}

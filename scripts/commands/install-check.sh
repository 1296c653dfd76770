# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_install-check() {
    cat <<'END'
./qgf install-check [--keep]

Proves a robot's set-up by work: copies this checkout to a temporary folder, runs `./qgf setup --robot-only` there with
nothing of this environment, and lets the result load a signed bundle, repeat a golden joint log bit for bit, and run an
arm with policy_node and monitor_node over DDS. Tells the time and the disk that it took. Needs about 1.5 GB in
${TMPDIR:-/tmp} and this checkout's whole environment, in which the log is recorded.
  --keep    leave the folder there
END
}

command_install-check() {
    take_setup_options "$@"
    local keep=''
    [[ ${REST[*]} != --keep ]] || keep=1
    [[ -n $keep ]] || ((${#REST[@]} == 0)) || die "install-check does not know '${REST[*]}'; ./qgf install-check --help"
    ensure_setup
    claim_domain
    local folder clone begun seconds status=0
    folder=$(mktemp -d --tmpdir qgf-install-check.XXXXXX)
    # shellcheck disable=SC2064  # the folder of now
    [[ -n $keep ]] || trap "rm -rf '$folder'" EXIT
    clone="$folder/a robot" # a path with a space
    (
        use_environment workspace
        logged "golden joint log" 15 "$VENV/bin/python" -m qgf_demo.golden "$folder/golden"
    ) || die_with_log "no golden joint log could be recorded"
    mkdir "$clone"
    tar -C "$ROOT" -c --exclude=./.git --exclude=./.venv --exclude=./runs --exclude=./keys --exclude='./ros2_ws/build' \
        --exclude='./ros2_ws/install' --exclude='./ros2_ws/log' --exclude='__pycache__' . | tar -C "$clone" -x
    leave_environment
    begun=$SECONDS
    "$clone/qgf" setup --robot-only || die "the robot's set-up failed, see above"
    seconds=$((SECONDS - begun))
    (
        cd "$clone" || exit
        eval "$(./qgf env)"
        exec .venv/bin/python scripts/robot_check.py "$folder/golden"
    ) || status=$?
    printf '%-5s set-up in %d s, %d MB on disk (%d MB of them .venv)\n' "$( ((status)) && echo fail || echo ok)" "$seconds" \
        "$(du -sm "$clone" | cut -f 1)" "$(du -sm "$clone/.venv" | cut -f 1)"
    [[ -z $keep ]] || say "left in $folder"
    return "$status"
}

# Takes this checkout out of the process's environment, as if `./qgf env` had never been entered.
leave_environment() {
    local name
    if [[ $ROS_MODE == wheels ]]; then
        scrub_ros "$ROOT"
    else
        for name in PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH PATH; do
            export "$name=$(without "${!name:-}" "$ROOT")"
        done
    fi
    unset VIRTUAL_ENV _ROS_WHEELS_BOOTSTRAP_COMPLETE QGF_CONFIG_DIR PYTEST_DISABLE_PLUGIN_AUTOLOAD
}

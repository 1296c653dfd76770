# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_env() {
    cat <<'END'
eval "$(./qgf env)"

Prints the exports that enter the project's environment: python, the ROS libraries, the workspace. Your own ROS_DOMAIN_ID,
ROS_AUTOMATIC_DISCOVERY_RANGE, FASTDDS_BUILTIN_TRANSPORTS and OMP_NUM_THREADS are kept where they are set.
END
}

command_env() {
    (($# == 0)) || die "env does not know '$1'; ./qgf env --help"
    prepare
    local name
    for name in "${ENVIRONMENT[@]}"; do printf 'export %s=%q\n' "$name" "${!name}"; done
    # A ROS that was scrubbed from this process is to leave the caller's shell too.
    for name in AMENT_CURRENT_PREFIX COLCON_PREFIX_PATH; do
        [[ -v $name ]] || printf 'unset %s\n' "$name"
    done
}

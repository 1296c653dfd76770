# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_run() {
    cat <<'END'
./qgf run PACKAGE EXECUTABLE [ARGUMENT...] [--ros-args ...]

Runs a node, as `ros2 run` does, also where there is no ros2. Without arguments it lists what can be run.
  ./qgf run qgf_sim sim_node --ros-args -p robot:=panda
  ./qgf run qgf_sim sim_node --ros-args -p robot:=ur5e -p command_interface:=joint_trajectory -p perturb:=harsh
Its faults are switched while it runs, here from the start: -p fault.delay_s:=0.05 -p fault.dropout:=0.1
END
}

command_run() {
    local executable
    prepare
    if (($# < 2)); then
        printf 'usage: ./qgf run PACKAGE EXECUTABLE [ARGUMENT...]; there are:\n' >&2
        for executable in "$INSTALL"/lib/qgf_*/*; do
            [[ ! -x $executable ]] || printf '  %s %s\n' "$(basename "${executable%/*}")" "${executable##*/}" >&2
        done
        exit 2
    fi
    executable="$INSTALL/lib/$1/$2"
    [[ -f $executable && -x $executable ]] || die "no executable $2 in package $1; ./qgf run lists what there is"
    shift 2
    exec "$executable" "$@"
}

# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_doctor() {
    cat <<'END'
./qgf doctor

Looks for what may be wrong on this machine: versions, torch, rclpy, DDS discovery between two processes, other nodes in
the ROS domain and two that command one arm, clock, disk, real-time rights. One line each with ok, warn or fail, and the remedy. Exits with 1 if a line says fail.
END
}

command_doctor() {
    (($# == 0)) || die "doctor does not know '$1'; ./qgf doctor --help"
    stamps
    if ! is_current; then
        printf 'fail  %-22s not set up for this state of the checkout: run ./qgf setup\n' environment
        exit 1
    fi
    use_environment workspace
    exec "$VENV/bin/python" "$ROOT/scripts/doctor.py"
}

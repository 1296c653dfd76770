# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_robot() {
    cat <<'END'
./qgf robot import URDF [--tool LINK] [--home Q...] [--out FILE]
./qgf robot check NAME_OR_YAML

Writes the description of an arm (config/robots/NAME.yaml) from its URDF, checks it, and draws the arm at home.

END
    parser_help qgf_sim.robot_cli import
}

command_robot() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_sim.robot_cli "${REST[@]}"
}

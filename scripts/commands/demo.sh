# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_demo() {
    cat <<'END'
./qgf demo [--steps N] [--robot NAME] [--seed S] [--keep-running] [--gui]

Trains a plain and a stabilised policy, runs both through the ROS nodes on a simulated arm, measures, and draws
runs/demo-*/report.html. At most 8 minutes on two cores with the set-up, 5 without.

END
    parser_help qgf_demo.cli
}

command_demo() {
    prepare "$@" # the demo claims a ROS domain by itself, with the locks of domain.sh
    exec "$VENV/bin/python" -m qgf_demo.cli "${REST[@]}"
}

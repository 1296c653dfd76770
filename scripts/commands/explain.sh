# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_explain() {
    cat <<'END'
./qgf explain BAG --bundle FILE --json

Tells whose roughness a recorded run holds: the policy's, the observations' noise, the loop's timing or the actuators'.

END
    parser_help qgf_monitor.explain_cli
}

command_explain() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_monitor.explain_cli "${REST[@]}"
}

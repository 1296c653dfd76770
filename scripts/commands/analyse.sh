# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_analyse() {
    cat <<'END'
./qgf analyse BAG --html FILE --compare BAG2 --json

Measures how smooth a recorded run was; its exit code can gate continuous integration.

END
    parser_help qgf_monitor.analyse_cli
}

command_analyse() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_monitor.analyse_cli "${REST[@]}"
}

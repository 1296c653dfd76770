# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_geometry() {
    cat <<'END'
./qgf geometry FOLDER_OR_CHECKPOINT... --plot FILE --json

Measures the critics of reach runs, exactly: how fast the action gradient turns with the state and how sharp the optimum
is. With --plot it draws the field of all runs over the plane in which the first one turns most.

END
    parser_help qgf_trainer.geometry_cli
}

command_geometry() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.geometry_cli "${REST[@]}"
}

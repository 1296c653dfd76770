# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_identify() {
    cat <<'END'
./qgf identify --robot NAME [--joints NAME...] [--bag BAG] [--yes]

Measures an arm's delay, servo lag, friction and noise, and writes them into its YAML. The arm moves a little.

END
    parser_help qgf_sim.identify_node
}

command_identify() {
    prepare "$@"
    [[ -z $ASSUME_YES ]] || REST+=(--yes)
    exec "$VENV/bin/python" -m qgf_sim.identify_node "${REST[@]}"
}

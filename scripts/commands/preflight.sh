# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_preflight() {
    cat <<'END'
./qgf preflight BUNDLE [--robot NAME] [--seconds S] [--json]

Checks a bundle, and listens to the live arm, before a policy may move it: a checklist with remedies.

END
    parser_help qgf_policy.preflight_node
}

command_preflight() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_policy.preflight_node "${REST[@]}"
}

# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_keygen() {
    cat <<'END'
./qgf keygen [--out NAME]

Makes the pair of keys that bundles are signed and checked with.

END
    parser_help qgf_core.signing_cli keygen
}

command_keygen() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_core.signing_cli keygen "${REST[@]}"
}

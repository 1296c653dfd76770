# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_sign() {
    cat <<'END'
./qgf sign BUNDLE --key KEY [--out FILE]

Signs a bundle, so that robots which trust the key will run it.

END
    parser_help qgf_core.signing_cli sign
}

command_sign() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_core.signing_cli sign "${REST[@]}"
}

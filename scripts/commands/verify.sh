# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_verify() {
    cat <<'END'
./qgf verify BUNDLE [--trusted-keys DIR] [--json]

Checks a bundle, and who signed it, as a robot does.

END
    parser_help qgf_core.signing_cli verify
}

command_verify() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_core.signing_cli verify "${REST[@]}"
}

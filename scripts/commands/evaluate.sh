# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_evaluate() {
    cat <<'END'
./qgf evaluate BUNDLE --episodes N --json

Runs a bundle in simulation on fixed goals, or a Gymnasium task's policy.safetensors on fixed seeds, and prints success,
return and every smoothness metric.

END
    parser_help qgf_trainer.cli evaluate
}

command_evaluate() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.cli evaluate "${REST[@]}"
}

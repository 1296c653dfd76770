# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_compare() {
    cat <<'END'
./qgf compare --tasks [ROBOT:]TASK... --methods NAME... --seeds N --out DIR

Trains every method on every task with every seed in processes side by side, and compares them: tables and plots with
interquartile means and bootstrap intervals. The same command goes on where it was interrupted.

END
    parser_help qgf_trainer.comparison_cli
}

command_compare() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.comparison_cli "${REST[@]}"
}

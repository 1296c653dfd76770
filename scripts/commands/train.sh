# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_train() {
    cat <<'END'
./qgf train --robot panda --task reach --algo td3|td3-plain|sac|sac-plain --steps N --seed S --out DIR

Trains a policy and exports it as DIR/bundle.pt, with curves and checkpoints beside it. --task also takes the id of a
Gymnasium task with Box spaces (its policy is DIR/policy.safetensors); --rival trains a policy-side method to compare with.

END
    parser_help qgf_trainer.cli train
}

command_train() {
    prepare "$@"
    exec "$VENV/bin/python" -m qgf_trainer.cli train "${REST[@]}"
}

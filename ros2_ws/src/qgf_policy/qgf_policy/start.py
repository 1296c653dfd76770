# SPDX-License-Identifier: Apache-2.0
"""Entry point of policy_node."""

import importlib

from qgf_core.early import run


def main() -> None:
    """Run policy_node and exit with its code."""
    run(lambda: int(importlib.import_module("qgf_policy.policy_node").main()), unload=False)

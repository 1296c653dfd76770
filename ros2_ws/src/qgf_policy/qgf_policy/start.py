# SPDX-License-Identifier: Apache-2.0
"""Entry point of policy_node."""

from qgf_core.early import run


def main() -> None:
    """Run it and exit with its code."""
    run("qgf_policy.policy_node", unload=False)

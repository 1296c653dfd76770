# SPDX-License-Identifier: Apache-2.0
"""Entry points of the nodes."""

from qgf_core.early import run


def main() -> None:
    """Run sim_node and exit with its code."""
    run("qgf_sim.sim_node")


def camera_node() -> None:
    """Run camera_node and exit with its code."""
    run("qgf_sim.camera_node")

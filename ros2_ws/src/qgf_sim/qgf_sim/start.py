# SPDX-License-Identifier: Apache-2.0
"""Entry points of the nodes."""

import importlib

from qgf_core.early import run


def main() -> None:
    """Run sim_node and exit with its code."""
    run(lambda: int(importlib.import_module("qgf_sim.sim_node").main()))


def camera_node() -> None:
    """Run camera_node and exit with its code."""
    run(lambda: int(importlib.import_module("qgf_sim.camera_node").main()))

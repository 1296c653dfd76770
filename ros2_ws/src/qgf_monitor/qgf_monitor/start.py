# SPDX-License-Identifier: Apache-2.0
"""Entry points of the nodes."""

import importlib

from qgf_core.early import run


def monitor_node() -> None:
    """Run monitor_node and exit with its code."""
    run(lambda: int(importlib.import_module("qgf_monitor.monitor_node").main()))


def governor_node() -> None:
    """Run governor_node and exit with its code."""
    run(lambda: int(importlib.import_module("qgf_monitor.governor_node").main()))

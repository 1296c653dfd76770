# SPDX-License-Identifier: Apache-2.0
"""Entry point of sim_node: signals are dealt with before the heavy imports, or Ctrl-C then would print a traceback."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing has been started yet


def main() -> None:
    """Run sim_node and exit with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    sys.exit(importlib.import_module("qgf_sim.sim_node").main())

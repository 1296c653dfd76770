# SPDX-License-Identifier: Apache-2.0
"""Entry point of the executable: nothing heavy is imported before signals are dealt with.

Importing torch and ROS takes seconds; a Ctrl-C during that time would end in a traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing was started yet, so that nothing is to be halted


def main() -> None:
    """Run policy_node and exit with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    node = importlib.import_module("qgf_policy.policy_node")  # after the handlers, for the reason above
    code = node.main()
    sys.stdout.flush()
    sys.stderr.flush()
    # All that was started has been taken down; unloading torch piece by piece would take another second.
    os._exit(code)

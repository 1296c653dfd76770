# SPDX-License-Identifier: Apache-2.0
"""What a node's executable does first: nothing heavy is imported before signals are dealt with.

Importing torch and ROS takes seconds; a Ctrl-C during that time would end in a traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing was started yet, so that nothing is to be ended


def run(module: str, unload: bool = True) -> None:
    """Import `module`, run its `main`, and exit with its code.

    :param unload: False: once it has taken down all that it started, the process ends at once, as unloading torch piece
        by piece would take another second.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    code = importlib.import_module(module).main()
    if unload:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

# SPDX-License-Identifier: Apache-2.0
"""What a node's executable does first: nothing heavy is imported before signals are dealt with.

Importing torch and ROS takes seconds; a Ctrl-C during that time would end in a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing was started yet, so that nothing is to be ended


def run(start: Callable[[], int], unload: bool = True) -> None:
    """Exit with the code of `start`.

    :param start: imports a node's module and runs its `main`, which deals with signals itself.
    :param unload: False: once it has taken down all that it started, the process ends at once, as unloading torch piece
        by piece would take another second.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    code = start()
    if unload:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

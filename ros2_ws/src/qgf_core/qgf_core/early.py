# SPDX-License-Identifier: Apache-2.0
"""What a node's executable does first and last: signals are dealt with before anything heavy is imported, and a
middleware that hangs while it is taken down does not keep the process.

Importing torch and ROS takes seconds; a Ctrl-C during that time would end in a traceback.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

TAKE_DOWN = 4.0
"""Taking a node down takes a fraction of this [s]; a launch waits for 5 s before it sends the next signal."""


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


@contextlib.contextmanager
def ends_within(seconds: float = TAKE_DOWN) -> Iterator[None]:
    """Round the taking down of nodes, when nothing moves any more: what hangs ends the process with code 1.

    Fast DDS 3.2 was seen to lock itself up when one of its peers left in that moment, inside a call that Python cannot
    interrupt; faulthandler's thread needs no interpreter. It says where it was.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()

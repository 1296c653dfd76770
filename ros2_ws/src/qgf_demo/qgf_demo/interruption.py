# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and a closed terminal end the demo in the same orderly way, once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """The demo was asked to end; no Exception, so that nothing on the way takes it for a failure.

    :ivar number: the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"interrupted by {signal.Signals(number).name}")

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 for Ctrl-C."""
        return 128 + self.number


class Interruption:
    """While entered, the first such signal raises Interrupted in the main thread; later ones cannot disturb the ending,
    which has deadlines of its own."""

    def __init__(self) -> None:
        self._raised = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._raised:
            self._raised = True
            raise Interrupted(number)

    def __enter__(self) -> Interruption:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

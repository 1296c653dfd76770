# SPDX-License-Identifier: Apache-2.0
"""What is to be done again and again, on the steady clock, by the one thread that calls."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

Work = Callable[[], None]


class Ticks:
    """Callbacks with a period, or once after a pause.

    In place of the executor's timers: each of its wake-ups costs a millisecond, for it looks through all of a node.

    :param clock: steady [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, float, Work]] = []
        self._order = itertools.count()

    def every(self, period: float, work: Work) -> None:
        """From one period on [s]. Ticks that were missed are not made up for."""
        self._add(self._clock() + period, period, work)

    def once(self, pause: float, work: Work) -> None:
        """After a pause [s]."""
        self._add(self._clock() + pause, 0.0, work)

    def _add(self, due: float, period: float, work: Work) -> None:
        heapq.heappush(self._due, (due, next(self._order), period, work))

    def run(self) -> float:
        """Do what is due; how long nothing will be [s]."""
        while self._due and self._due[0][0] <= self._clock():
            due, _, period, work = heapq.heappop(self._due)
            work()
            if period > 0.0:
                late = self._clock() - due - period
                self._add(due + period * (1 + max(0, int(late / period) + 1 if late > 0.0 else 0)), period, work)
        return max(0.0, self._due[0][0] - self._clock()) if self._due else 1.0

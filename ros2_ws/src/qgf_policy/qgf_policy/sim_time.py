# SPDX-License-Identifier: Apache-2.0
"""Time as a simulation tells it on /clock, for a loop that ticks at multiples of its period of simulated time."""

from __future__ import annotations

from collections.abc import Callable

from qgf_core.clocks import Clock

POLL = 200_000
"""Pause between two looks for a new time [ns]."""
PATIENCE = 500_000_000
"""A clock that does not move for this long [ns, steady] has stopped."""


class ClockStopped(Exception):
    """Simulated time stands still: the simulation is paused, slow to start, or gone."""


class ClockStepped(Exception):
    """Simulated time went back: the simulation was reset."""


class SimClock:
    """Simulated time, in the loop's thread alone.

    :param newest: the newest time told [ns] since the last call, or None.
    :param steady: the machine's clock, for pauses and for noticing that the simulated one stands still.
    """

    simulated = True

    def __init__(self, newest: Callable[[], int | None], steady: Clock) -> None:
        self._newest, self._steady = newest, steady
        self._time = 0
        self._moved = steady.now()
        self.stopped = False
        """Whether time has stood still for longer than PATIENCE."""

    def now(self) -> int:
        """Present simulated time [ns], 0 before the first was told. :raises ClockStepped: it went back."""
        told = self._newest()
        if told is not None and told != self._time:
            before, self._time = self._time, told
            self._moved, self.stopped = self._steady.now(), False
            if told < before:
                raise ClockStepped(f"from {1e-9 * before:.3f} s to {1e-9 * told:.3f} s")
        return self._time

    def sleep_until(self, deadline: int) -> None:
        """Return once simulated time has reached `deadline` [ns].

        :raises ClockStopped: it stands still; call again. :raises ClockStepped: it went back.
        """
        while self.now() < deadline:
            at = self._steady.now()
            if at - self._moved > PATIENCE:
                self.stopped = True
                self._steady.sleep_until(at + 50 * POLL)
                raise ClockStopped
            self._steady.sleep_until(at + POLL)

# SPDX-License-Identifier: Apache-2.0
"""Clocks for the control loop: the steady clock of the machine, and a virtual one for tests and simulation."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What a fixed-rate loop needs of time, in nanoseconds of a clock that never steps."""

    @property
    def simulated(self) -> bool:
        """Whether it moves in steps of its own: then a wake after the deadline is no fault of the machine."""

    def now(self) -> int:
        """Present time [ns]."""

    def sleep_until(self, deadline: int) -> None:
        """Return at `deadline` [ns] or, if that is past, at once."""


class _Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


class _Request(threading.local):
    """The time to sleep to, made once a thread: making one anew takes a tenth of a sleep's processor time."""

    def __init__(self) -> None:
        self.time = _Timespec()
        self.address = ctypes.addressof(self.time)


class SteadyClock:
    """CLOCK_MONOTONIC with absolute sleeps, so that the time spent awake never adds up to a drift.

    Python has no `clock_nanosleep`; a relative sleep would start from whenever the thread got to run.
    """

    simulated = False
    _TIMER_ABSTIME = 1

    def __init__(self) -> None:
        self._nanosleep = ctypes.CDLL(None).clock_nanosleep
        self._nanosleep.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self._own = _Request()

    def now(self) -> int:
        """Present time [ns]."""
        return time.monotonic_ns()

    def sleep_until(self, deadline: int) -> None:
        """Sleep to the absolute `deadline` [ns]; a signal does not shorten it."""
        request = self._own
        request.time.tv_sec, request.time.tv_nsec = divmod(max(deadline, 0), 1_000_000_000)
        while True:
            code = self._nanosleep(time.CLOCK_MONOTONIC, self._TIMER_ABSTIME, request.address, None)
            if code == 0:
                return
            if code != 4:  # EINTR: try again to the same absolute deadline
                raise OSError(code, os.strerror(code))


class VirtualClock:
    """A clock that moves only when told to, for exact assertions about timing."""

    simulated = False

    def __init__(self, start: int = 0) -> None:
        self._now = start

    def now(self) -> int:
        """Present time [ns]."""
        return self._now

    def advance(self, duration: int) -> None:
        """Move on by `duration` [ns]. :raises ValueError: negative."""
        if duration < 0:
            raise ValueError(f"a steady clock never goes back: {duration} ns")
        self._now += duration

    def sleep_until(self, deadline: int) -> None:
        """Jump to `deadline` [ns] if that is ahead."""
        self._now = max(self._now, deadline)


class Pacer:
    """Absolute deadlines of a fixed-rate loop: a deadline that was missed is counted and skipped, never made up for.

    All cycles start on one grid, so that waking late never adds up. One that wakes later than half a period after its
    deadline is left out too: it would come too close before the next (a limiter allows so much change in a period).

    :param clock: steady or virtual clock.
    :param period: [ns].
    """

    def __init__(self, clock: Clock, period: int) -> None:
        if period <= 0:
            raise ValueError(f"period must be positive: {period} ns")
        self.clock, self.period = clock, period
        self.deadline = clock.now()
        self.skipped = 0

    def wait(self) -> int:
        """Sleep to the next deadline and return it [ns]; those already past are added to `skipped`.

        What the clock's sleep raises leaves all as it was: the next call waits for the same deadline.
        """
        deadline, missed = self.deadline + self.period, 0
        late = self.clock.now() - deadline
        if late > 0:
            missed = -(-late // self.period)
            deadline += missed * self.period
        self.clock.sleep_until(deadline)
        while not self.clock.simulated and 2 * (late := self.clock.now() - deadline) > self.period:
            more = (late + self.period // 2) // self.period
            missed, deadline = missed + more, deadline + more * self.period
            self.clock.sleep_until(deadline)
        self.skipped += missed
        self.deadline = deadline
        return deadline

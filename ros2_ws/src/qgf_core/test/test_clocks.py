# SPDX-License-Identifier: Apache-2.0
"""The clocks and the pacer, exactly, on a virtual clock; and the steady clock against the kernel's."""

from __future__ import annotations

import itertools
import signal
import statistics
import threading
import time

import pytest

from qgf_core.clocks import Pacer, SteadyClock, VirtualClock

MS = 1_000_000


def test_the_virtual_clock_moves_only_when_told():
    clock = VirtualClock(5)
    assert clock.now() == clock.now() == 5
    clock.advance(10)
    clock.sleep_until(12)
    assert clock.now() == 15
    clock.sleep_until(40)
    clock.advance(0)
    assert clock.now() == 40
    with pytest.raises(ValueError, match="never goes back: -1 ns"):
        clock.advance(-1)


def run(work: list[int], period: int = 10 * MS, start: int = 123) -> tuple[list[int], Pacer]:
    """Start times of cycles whose work takes so long [ns], relative to the pacer's creation."""
    clock = VirtualClock(start)
    pacer = Pacer(clock, period)
    starts = []
    for duration in work:
        assert pacer.wait() == clock.now()
        starts.append(clock.now() - start)
        clock.advance(duration)
    return starts, pacer


def test_on_time_is_exact_and_never_drifts():
    starts, pacer = run([3 * MS] * 10_000)
    assert starts == [10 * MS * (k + 1) for k in range(10_000)] and pacer.skipped == 0


def test_work_of_exactly_a_period_is_on_time():
    starts, pacer = run([10 * MS] * 5)
    assert starts == [10 * MS, 20 * MS, 30 * MS, 40 * MS, 50 * MS] and pacer.skipped == 0


@pytest.mark.parametrize(("duration", "skipped"), [
    (10 * MS + 1, 1), (19 * MS, 1), (20 * MS, 1), (20 * MS + 1, 2), (95 * MS, 9), (1000 * MS, 99)])
def test_missed_deadlines_are_skipped_and_counted(duration, skipped):
    starts, pacer = run([duration, 1 * MS, 1 * MS])
    after = (2 + skipped) * 10 * MS
    assert starts == [10 * MS, after, after + 10 * MS]
    assert pacer.skipped == skipped


def test_late_cycles_are_never_bunched():
    """Whatever the work takes, no two cycles start less than a period apart, and all start on the grid."""
    work = [(k * 7919) % 37 * MS for k in range(500)]
    starts, pacer = run(work)
    assert min(b - a for a, b in itertools.pairwise(starts)) == 10 * MS
    assert all(start % (10 * MS) == 0 for start in starts)
    assert starts[-1] == (500 + pacer.skipped) * 10 * MS


class LateClock(VirtualClock):
    """Wakes late by what is next on its list [ns]: a machine that is busy, or stopped the process."""

    def __init__(self, lateness: list[int]) -> None:
        super().__init__()
        self.lateness = iter(lateness)

    def sleep_until(self, deadline: int) -> None:
        super().sleep_until(deadline)
        self.advance(next(self.lateness, 0))


@pytest.mark.parametrize(("late", "start", "skipped"), [
    (4 * MS, 14, 0), (5 * MS, 15, 0), (6 * MS, 20, 1), (10 * MS, 20, 1), (14 * MS, 24, 1), (16 * MS, 30, 2)])
def test_waking_late_by_more_than_half_a_period_leaves_the_cycle_out(late, start, skipped):
    clock = LateClock([late])
    pacer = Pacer(clock, 10 * MS)
    deadline = pacer.wait()
    assert (clock.now(), deadline, pacer.skipped) == (start * MS, (1 + skipped) * 10 * MS, skipped)
    assert pacer.wait() == clock.now() == deadline + 10 * MS


def test_however_late_it_wakes_no_two_cycles_are_closer_than_half_a_period():
    lateness = [(k * 7919) % 23 * MS if k % 5 else 0 for k in range(9000)]
    clock = LateClock(lateness)
    pacer = Pacer(clock, 10 * MS)
    starts, deadlines = [], []
    for _ in range(600):
        deadlines.append(pacer.wait())
        starts.append(clock.now())
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 5 * MS
    assert deadlines[-1] == (600 + pacer.skipped) * 10 * MS
    assert max(s - d for s, d in zip(starts, deadlines, strict=True)) == 5 * MS


def test_a_clock_coarser_than_the_period_still_gets_its_cycles():
    """Simulated time in steps of 30 ms, never on a deadline."""

    class Coarse(VirtualClock):
        simulated = True

        def sleep_until(self, deadline: int) -> None:
            while self.now() < deadline:
                self.advance(30 * MS)

    clock = Coarse(6 * MS)
    pacer = Pacer(clock, 10 * MS)
    pacer.deadline = 0
    for _ in range(50):
        pacer.wait()
    assert clock.now() == (6 + 50 * 30) * MS


def test_time_before_the_first_wait_counts():
    clock = VirtualClock()
    pacer = Pacer(clock, 10)
    clock.advance(35)
    assert pacer.wait() == 40 and pacer.skipped == 3


@pytest.mark.parametrize("period", [0, -5])
def test_a_period_must_be_positive(period):
    with pytest.raises(ValueError, match=f"period must be positive: {period} ns"):
        Pacer(VirtualClock(), period)


def test_the_steady_clock_is_the_monotonic_one():
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = SteadyClock().now()
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def test_the_steady_clock_never_wakes_early():
    clock = SteadyClock()
    late = []
    for k in range(40):
        deadline = clock.now() + (k % 5) * MS + 137
        clock.sleep_until(deadline)
        late.append(clock.now() - deadline)
    assert min(late) >= 0
    assert statistics.median(late) < 5 * MS


def test_a_deadline_that_is_past_returns_at_once():
    clock = SteadyClock()
    start = time.perf_counter()
    for deadline in (0, -5, clock.now() - 10**12, clock.now()):
        clock.sleep_until(deadline)
    assert time.perf_counter() - start < 0.5


def test_deadlines_are_absolute():
    """30 cycles with work in them end on the 30th deadline: nothing adds up."""
    clock = SteadyClock()
    pacer = Pacer(clock, 5 * MS)
    first = pacer.deadline
    while True:
        deadline = pacer.wait()
        assert (deadline - first) % (5 * MS) == 0 and clock.now() >= deadline
        if deadline >= first + 150 * MS:
            break
        time.sleep(0.002)
    assert clock.now() - first >= 150 * MS


def test_a_signal_does_not_shorten_the_sleep():
    clock = SteadyClock()
    received = []
    before = signal.signal(signal.SIGUSR1, lambda *_: received.append(clock.now()))
    try:
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
        timer.start()
        deadline = clock.now() + 200 * MS
        clock.sleep_until(deadline)
        assert clock.now() >= deadline
        timer.join()
        assert received and received[0] < deadline  # handled in the middle of the sleep, not after it
    finally:
        signal.signal(signal.SIGUSR1, before)

# SPDX-License-Identifier: Apache-2.0
"""How well the control loop keeps time."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

STAGES = ("wait", "take", "infer", "limit", "publish")
"""wait: from the deadline until the loop begins; publish: from there until the command and its report are out,
but for what the command waited for its time to leave (`send_delay`)."""
HISTOGRAM_EDGES = tuple(1e-6 * edge for edge in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000))
"""Upper edges of the bins of a stage's times [s]; one more bin holds what is longer."""
OVERRUN_WINDOW = 1.0
"""The overrun budget looks back this far [s]."""
LATE = 0.1
"""A period that begins later than its deadline by more than this share of the period is late."""
LATE_WINDOW = 60.0
"""late10 looks back this far [s], or to the activation."""

_EDGES = [round(1e9 * edge) for edge in HISTOGRAM_EDGES]


class TimingReport(NamedTuple):
    """Timing of the loop; the stages and the jitter over the last report period, late10 over LATE_WINDOW."""

    stage_mean: tuple[float, ...]
    """[s], in the order of STAGES."""
    stage_max: tuple[float, ...]
    """[s]"""
    jitter_rms: float
    """Of the deviation of the period from nominal [s]."""
    jitter_p99: float
    """[s]"""
    jitter_max: float
    """[s]"""
    late10: float
    """Share of periods, in 0..1, that began late by more than 10 % of the period or were left out."""
    histogram: tuple[tuple[int, ...], ...]
    """Cycles since the activation in each bin of HISTOGRAM_EDGES, for each stage."""


class LoopTiming:
    """Collects the timing of each cycle. A cycle only notes its times; they are worked out by the report, many at once,
    which takes a fraction of what it takes cycle by cycle.

    :param period: nominal [ns].
    """

    def __init__(self, period: int) -> None:
        self.period = period
        self._overrun = bytearray(max(1, round(OVERRUN_WINDOW * 1e9 / period)))
        self._late = bytearray(max(1, round(LATE_WINDOW * 1e9 / period)))
        self.reset()

    def reset(self) -> None:
        """Forget everything, as on activation."""
        self._late[:] = bytes(len(self._late))
        self._late_count = self._cycles = 0
        self._last_start = 0
        self._histogram = [[0] * (len(_EDGES) + 1) for _ in STAGES]
        self._overrun[:] = bytes(len(self._overrun))
        self._overrun_count = self._periods = 0
        self._clear_report()

    def _clear_report(self) -> None:
        self._begun: list[tuple[int, int, int]] = []
        self._stages: list[tuple[int, int, int, int, int]] = []

    def begin(self, deadline: int, start: int, skipped: int) -> None:
        """A cycle begins.

        :param deadline: when it should have begun [ns].
        :param start: when it did [ns].
        :param skipped: cycles left out before it.
        """
        self._begun.append((deadline, start, skipped))

    def _work_out(self) -> list[int]:
        """Count what is late in the cycles begun since the last report; returns how far their periods were from
        nominal [ns]."""
        limit, deviations = LATE * self.period, []
        for deadline, start, skipped in self._begun:
            for _ in range(min(skipped, len(self._late))):
                self._record(True)
            self._record(start - deadline > limit)
            if self._last_start:
                deviations.append(abs(start - self._last_start - self.period))
            self._last_start = start
        return deviations

    def _record(self, late: bool) -> None:
        slot = self._cycles % len(self._late)
        self._late_count += late - self._late[slot]
        self._late[slot] = late
        self._cycles += 1

    def overrun_share(self, overrun: bool, skipped: int) -> float:
        """Share of the last second's periods, in 0..1, that were overrun or left out, with this one and the `skipped`
        ones before it."""
        for bad in [True] * min(skipped, len(self._overrun)) + [overrun]:
            slot = self._periods % len(self._overrun)
            self._overrun_count += bad - self._overrun[slot]
            self._overrun[slot] = bad
            self._periods += 1
        return self._overrun_count / len(self._overrun)

    def end(self, stages: tuple[int, int, int, int, int]) -> None:
        """The cycle's work is done; `stages` are the durations [ns] in the order of STAGES."""
        self._stages.append(stages)

    def report(self) -> TimingReport:
        """The figures so far; begins a new report period."""
        stages = [sorted(durations) for durations in zip(*self._stages, strict=True)] or [[0]] * len(STAGES)
        if self._stages:
            for bins, durations in zip(self._histogram, stages, strict=True):
                _add_to(bins, durations)
        # Plain Python: of a tenth of a second's periods, this takes a fifth of what numpy needs, and the loop waits.
        deviations = sorted(self._work_out()) or [0]
        report = TimingReport(
            tuple(1e-9 * sum(durations) / len(durations) for durations in stages),
            tuple(1e-9 * durations[-1] for durations in stages),
            1e-9 * math.sqrt(sum(d * d for d in deviations) / len(deviations)),
            1e-9 * _percentile(deviations, 0.99),
            1e-9 * deviations[-1],
            self._late_count / max(1, min(self._cycles, len(self._late))),
            tuple(tuple(bins) for bins in self._histogram),
        )
        self._clear_report()
        return report


def _add_to(bins: list[int], ordered: list[int]) -> None:
    """Count ordered durations [ns] in the bins of HISTOGRAM_EDGES; one on an edge belongs to the bin below it."""
    below = 0
    for i, edge in enumerate(_EDGES):
        end = bisect.bisect_right(ordered, edge, below)
        bins[i] += end - below
        below = end
    bins[-1] += len(ordered) - below


def _percentile(ordered: list[int], share: float) -> float:
    """Quantile of ordered values, with numpy's linear interpolation."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])

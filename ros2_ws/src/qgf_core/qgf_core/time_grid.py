# SPDX-License-Identifier: Apache-2.0
"""Uneven stamps on a uniform grid: which sample stands where, what is missing, and how the periods jitter."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft as scipy_fft

from qgf_core.gaps import fill_gaps
from qgf_core.samples import Array, median
from qgf_core.smoothness import PeriodJitter, period_jitter

JITTER_BOUND = 0.3
"""RMS deviation of the stamps from the uniform grid, in periods, above which all samples are interpolated."""
MOST_LOST = 4.0
"""More slots than this times the samples are not believed."""
_MISCOUNTED = 3
"""Strong jitter makes the count of periods wrong by up to this."""
_HOPELESS = 1.0
"""RMS deviation of the stamps from any straight line, in periods, above which no other count is tried: steps of three
miscounted periods, in the middle where they weigh most, make 0.75."""


def quick(count: int) -> int:
    """The next number of samples down that transforms fast, where it is 4 % less at most; else `count`, as for the few
    samples that transform fast anyway."""
    fast: int = scipy_fft.prev_fast_len(count, real=True)
    return fast if fast >= 0.96 * count and count > 512 else count


class TimeGrid:
    """Of ascending stamps (T0,) [s].

    Each sample takes the nearest slot of a uniform grid, since stamps jitter more than the loops that they come from;
    slots without a sample are lost ones. Where the stamps' RMS deviation from the grid is above 0.3 periods, that
    picture is wrong: then all samples are to be interpolated (`resampled`).
    """

    def __init__(self, stamps: Array) -> None:
        self.stamps = stamps
        self.intervals: Array = np.diff(stamps)
        self.median_interval = median(self.intervals)
        slots, period, deviation = self._fit()
        self.slots = slots
        """(T0,), the first 0."""
        self.period = period
        """[s]."""
        self.resampled = deviation > JITTER_BOUND
        self.lost = 0 if self.resampled else int(slots[-1]) + 1 - len(slots)
        """Slots without a sample."""
        self._jitter: dict[float, PeriodJitter] = {}
        self._histogram: dict[tuple[float, int], npt.NDArray[np.uint64]] = {}

    def _fit(self) -> tuple[npt.NDArray[np.int_], float, float]:
        steps = np.round(self.intervals / self.median_interval)
        total = int(steps.sum())
        if total > MOST_LOST * len(steps):  # bursts, whose short intervals say nothing of the rate
            total, counted = len(steps), np.arange(len(self.stamps), dtype=np.float64)
        elif total == len(steps) and steps.min() == 1.0:
            counted = np.arange(len(self.stamps), dtype=np.float64)
        else:
            counted = np.concatenate([[0.0], np.cumsum(steps)])
        best = _slots(self.stamps, counted, max(total, 1))
        if best.deviation > 0.1 and best.spread < _HOPELESS:
            nearby = {len(steps), *range(max(1, total - _MISCOUNTED), total + _MISCOUNTED + 1)} - {max(total, 1)}
            for guess in sorted(nearby):
                found = _slots(self.stamps, counted, guess)
                if (found.deviation, guess) < (best.deviation, best.total):
                    best = found
        return best.slots, best.period, best.deviation

    def spread(self, values: Array) -> Array:
        """Samples (n, T0) on the grid, (n, T): as they are, with lost ones filled in by `qgf_core.gaps`; all of them
        interpolated linearly in time where `resampled`. Where anything had to be made up, the oldest few may be left
        out for the transforms' sake: of a prime number of samples they take ten times as long."""
        if not self.resampled and not self.lost:
            return values
        before, share = self._between
        drawn = np.take(values, before, axis=1)
        later = np.take(values, before + 1, axis=1)
        later -= drawn
        later *= share
        drawn += later
        if self.resampled:
            return drawn
        whole = np.empty((len(values), int(self.slots[-1]) + 1))
        whole[:, self.slots] = values
        whole[:, self.missing] = drawn
        fill_gaps(whole, self.missing)
        return whole[:, -quick(whole.shape[1]):]

    @functools.cached_property
    def _between(self) -> tuple[npt.NDArray[np.int_], Array]:
        """For every value to interpolate the sample before it, and how far it is on the way to the next one, 0..1."""
        if self.resampled:
            count = int(np.floor((self.stamps[-1] - self.stamps[0]) / self.period * (1.0 + 1e-9))) + 1
            known, wanted = self.stamps, self.stamps[-1] - np.arange(quick(count))[::-1] * self.period
        else:
            known, wanted = self.slots.astype(np.float64), self.missing.astype(np.float64)
        before = np.clip(np.searchsorted(known, wanted, "right") - 1, 0, len(known) - 2)
        return before, np.clip((wanted - known[before]) / (known[before + 1] - known[before]), 0.0, 1.0)

    @functools.cached_property
    def missing(self) -> npt.NDArray[np.int_]:
        """Slots that are lost, ascending."""
        held = np.zeros(int(self.slots[-1]) + 1, dtype=bool)
        held[self.slots] = True
        return np.flatnonzero(~held)

    def jitter(self, period: float) -> PeriodJitter:
        """`qgf_core.smoothness.period_jitter` of the stamps. :param period: nominal [s]."""
        if period not in self._jitter:
            self._jitter[period] = period_jitter(self.stamps, period)
        return self._jitter[period]

    def histogram(self, period: float, bins: int) -> npt.NDArray[np.uint64]:
        """Intervals (bins,) from half a period [s] too short to half a period too long; the outermost bins hold what is
        beyond."""
        key = (period, bins)
        if key not in self._histogram:
            place = np.floor((self.intervals - 0.5 * period) * (bins / period)).astype(np.int64)
            self._histogram[key] = np.bincount(np.clip(place, 0, bins - 1), minlength=bins).astype(np.uint64)
        return self._histogram[key]


@dataclass(frozen=True)
class _Fit:
    slots: npt.NDArray[np.int_]
    period: float
    deviation: float
    """RMS, of the stamps from their slots [periods]."""
    spread: float
    """RMS, of the stamps from the straight line nearest to them over the counted periods [periods]."""
    total: int


def _slots(stamps: Array, counted: Array, total: int) -> _Fit:
    """Ascending stamps (T0,) on a grid of `total` periods. :param counted: roughly the slots (T0,), for the phase."""
    period = float(stamps[-1] - stamps[0]) / total
    scaled = stamps / period
    off = scaled - counted
    off -= off.sum() / len(off)
    square = float(off @ off)
    # Whatever the phase, every stamp rounds to what was counted. Two may count as one period: then they need two slots.
    if off.max() - off.min() < 0.5 and np.diff(counted).min() > 0.0:
        deviation = math.sqrt(square / len(off))
        return _Fit(counted.astype(int), period, deviation, deviation, total)
    line = counted - 0.5 * counted[-1]
    slope = float(off @ line) / float(line @ line)
    slots = np.round(scaled - median(scaled - counted)).astype(int)
    # A late stamp falls into the slot of its successor, which is in time: it takes the one before.
    order = np.arange(len(slots))
    slots = np.minimum.accumulate((slots - order)[::-1])[::-1] + order
    slots -= slots[0]
    spread = math.sqrt(max(0.0, square - slope * slope * float(line @ line)) / len(off))
    return _Fit(slots, period, float(np.std(scaled - slots)), spread, total)


class TimeGrids:
    """Grids by their stamps: signals of one message have the same, and are worked out once."""

    def __init__(self, kept: int = 4) -> None:
        self._kept, self._known = kept, list[TimeGrid]()

    def of(self, stamps: Array) -> TimeGrid:
        """The grid of ascending stamps (T0,) [s], of which a copy is kept."""
        for grid in self._known:
            if grid.stamps.shape == stamps.shape and np.array_equal(grid.stamps, stamps):
                return grid
        grid = TimeGrid(stamps.copy())
        self._known = [grid, *self._known[:self._kept - 1]]
        return grid

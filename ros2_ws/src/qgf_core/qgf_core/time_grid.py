# SPDX-License-Identifier: Apache-2.0
"""Uneven stamps on a uniform grid: which sample stands where, what is missing, and how the periods jitter."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft as scipy_fft

from qgf_core.samples import Array, median
from qgf_core.smoothness import PeriodJitter, period_jitter

JITTER_BOUND = 0.3
"""RMS deviation of the stamps from the uniform grid, in periods, above which all samples are interpolated."""
MOST_LOST = 4.0
"""More slots than this times the samples are not believed."""
_MISCOUNTED = 3
"""Strong jitter makes the count of periods wrong by up to this."""


def quick(count: int) -> int:
    """The next number of samples down that transforms fast, where it is 4 % less at most; else `count`."""
    fast: int = scipy_fft.prev_fast_len(count, real=True)
    return fast if fast >= 0.96 * count else count


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
        # What a count that is wrong by so little can do to the deviation is no more than this.
        if 0.1 < best.deviation and best.raw < JITTER_BOUND + _MISCOUNTED:
            nearby = {len(steps), *range(max(1, total - _MISCOUNTED), total + _MISCOUNTED + 1)} - {max(total, 1)}
            for guess in sorted(nearby):
                found = _slots(self.stamps, counted, guess)
                if (found.deviation, guess) < (best.deviation, best.total):
                    best = found
        return best.slots, best.period, best.deviation

    def spread(self, values: Array) -> Array:
        """Samples (n, T0) on the grid, (n, T): as they are, with lost ones filled in; all of them interpolated linearly
        in time where `resampled`."""
        if not self.resampled and not self.lost:
            return values
        before, share = self._between
        drawn = values[:, before]
        drawn += share * (values[:, before + 1] - drawn)
        if self.resampled:
            return drawn
        whole = np.empty((len(values), int(self.slots[-1]) + 1))
        whole[:, self.slots] = values
        whole[:, self.missing] = drawn
        return whole

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


@dataclass(frozen=True)
class _Fit:
    slots: npt.NDArray[np.int_]
    period: float
    deviation: float
    """RMS, of the stamps from their slots [periods]."""
    raw: float
    """RMS, of the stamps from the counted periods [periods]."""
    total: int


def _slots(stamps: Array, counted: Array, total: int) -> _Fit:
    """Ascending stamps (T0,) on a grid of `total` periods. :param counted: roughly the slots (T0,), for the phase."""
    period = float(stamps[-1] - stamps[0]) / total
    scaled = stamps / period
    off = scaled - counted
    raw = float(np.std(off))
    if off.max() - off.min() < 0.5:  # whatever the phase, every stamp rounds to what was counted
        return _Fit(counted.astype(int), period, raw, raw, total)
    slots = np.round(scaled - median(off)).astype(int)
    # A late stamp falls into the slot of its successor, which is in time: it takes the one before.
    order = np.arange(len(slots))
    slots = np.minimum.accumulate((slots - order)[::-1])[::-1] + order
    slots -= slots[0]
    return _Fit(slots, period, float(np.std(scaled - slots)), raw, total)


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

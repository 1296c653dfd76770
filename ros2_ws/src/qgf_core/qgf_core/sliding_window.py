# SPDX-License-Identifier: Apache-2.0
"""The newest stretch of a live signal, ready for the batch formulas of `qgf_core.smoothness`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qgf_core.errors import MetricError
from qgf_core.samples import Array, median, positive
from qgf_core.smoothness import PeriodJitter, RowFigures, Smoothness, jerk_filter_length, jerk_rms_rows
from qgf_core.spectral import Spectra
from qgf_core.time_grid import TimeGrid, TimeGrids

GAP_PERIODS, GAP_DURATION = 10.0, 0.05
"""A silence of more than this many periods and this time [s] cuts the window: filling it would invent smoothness."""
PERIOD_FROM = 256
"""The period is the median of so many of the newest intervals."""
FEWEST_SAMPLES = 9
"""Of a window that figures are taken of."""
SHORTEST_INTERVAL = 1e-6
"""Stamps nearer to each other than this [s] are the same."""
RESTART_AFTER = 10
"""Stamps in a row that lie before the newest one, after which the clock is taken to have been set back."""


@dataclass(frozen=True)
class Window:
    """Samples of one window, uniform in time, and what their stamps said.

    `values` (T, n) may be a view into the sliding window: it holds until the next `add`. They lie joint by joint in the
    memory, which all formulas make use of. `grid`: of the stamps as they came.
    """

    values: Array
    grid: TimeGrid
    end: float
    """Stamp of the newest sample [s]."""

    @property
    def sample_rate(self) -> float:
        """[Hz]."""
        return 1.0 / self.grid.period

    @property
    def stamps(self) -> Array:
        """As they came (T0,) [s], counted from the newest (0, the others negative)."""
        return self.grid.stamps

    @property
    def lost(self) -> int:
        """Samples that were missing by the stamps, and are filled in; not counted where `resampled`."""
        return self.grid.lost

    @property
    def resampled(self) -> bool:
        """Whether the stamps were so uneven that all of `values` are interpolated."""
        return self.grid.resampled

    @property
    def duration(self) -> float:
        """From the first sample to one period after the last [s]."""
        return len(self.values) / self.sample_rate

    def _rows(self) -> Array:
        """(n, T): finite, as the sliding window takes no other."""
        if len(self.values) < FEWEST_SAMPLES:
            raise MetricError(f"window: {len(self.values)} samples are too few; give at least {FEWEST_SAMPLES}")
        return self.values.T

    def spectra(self) -> Spectra:
        """Of the values."""
        return Spectra.of_rows(self._rows(), self.sample_rate)

    def measure(self, cutoff: float, deadband: float = 0.0, spectra: Spectra | None = None) -> Smoothness:
        """`qgf_core.smoothness.measure` of the window.

        :param cutoff: [Hz]. :param deadband: [unit of the signal]. :param spectra: of the window, if at hand.
        """
        rows = self._rows()
        return RowFigures(rows, cutoff, np.full(len(rows), deadband), spectra or self.spectra()).of()

    def jerk_rms(self, cutoff: float) -> Array:
        """`qgf_core.smoothness.jerk_rms` of the window (n,), none (0,) where it is too short. :param cutoff: [Hz]."""
        length = jerk_filter_length(self.sample_rate, cutoff)
        return jerk_rms_rows(self.values.T, self.sample_rate, length) if len(self.values) >= length else np.zeros(0)

    def jitter(self, period: float | None = None) -> PeriodJitter:
        """`qgf_core.smoothness.period_jitter` of the stamps. :param period: nominal [s], else the median interval."""
        return self.grid.jitter(self.grid.median_interval if period is None else period)


class SlidingWindow:
    """Ring buffer of the samples of the last `duration` seconds of n joints.

    Every sample is written twice, `capacity` apart, so that the window is one contiguous stretch and no sample moves.

    Stamps decide. One that repeats the newest is dropped; so is one that goes back, but ten of those in a row mean that
    the clock was set back, and the window starts afresh. A silence of more than ten periods and 50 ms cuts it. Else
    each sample takes the nearest slot of a uniform grid with its value unchanged, since stamps jitter more than the
    loops that they come from, and only slots without a sample (lost ones) are filled in: see `qgf_core.gaps`. Where the
    stamps' RMS deviation from the grid is above 0.3 periods, that picture is wrong: all values are interpolated
    linearly at the grid's times, which damps content near Nyquist. See `TimeGrid`.

    :param duration: [s].
    :param joints: n.
    :param capacity: samples kept at most; at higher rates than capacity / duration the window is shorter.
    :param grids: shared with the sliding windows of other signals that come with the same stamps.
    """

    def __init__(self, duration: float, joints: int, capacity: int = 4096, grids: TimeGrids | None = None) -> None:
        self.duration = positive(duration, "duration")
        if joints < 1 or capacity < 2:
            raise MetricError(f"joints: {joints}, capacity: {capacity}; give at least 1 and 2")
        self.joints, self.capacity = joints, capacity
        self._grids = grids or TimeGrids()
        self._windows: dict[float, Window | None] = {}
        self._values: Array = np.zeros((joints, 2 * capacity))
        self._stamps: Array = np.zeros(2 * capacity)
        self._next = 0
        self._length = 0
        self._going_back = 0
        self.repeated = 0
        """Samples dropped because their stamp was that of the newest."""
        self.backward = 0
        """Samples dropped because their stamp was before that of the newest."""
        self.restarts = 0
        """Times that the window began afresh because the clock was set back."""
        self.gaps = 0
        """Silences that cut the window."""
        self._period = 0.0

    def __len__(self) -> int:
        """Samples held, some of which may be older than `duration`."""
        return self._length

    def clear(self) -> None:
        """Forget all samples, but not the counts."""
        self._next = self._length = self._going_back = 0
        self._windows.clear()

    def add(self, stamp: float, values: npt.ArrayLike) -> bool:
        """Take one sample; True if it was kept, False if its stamp repeats or goes back.

        :param stamp: [s].
        :param values: (n,).
        :raises MetricError: not n finite numbers, or a stamp that is not finite.
        """
        row = np.asarray(values, dtype=np.float64)
        if row.shape != (self.joints,) or not np.isfinite(row).all() or not np.isfinite(stamp):
            raise MetricError(f"values: {values!r} at {stamp}; give {self.joints} finite numbers and a finite stamp")
        if self._length:
            newest = self._stamps[self._next - 1 + self.capacity]
            if abs(stamp - newest) < SHORTEST_INTERVAL:
                self.repeated += 1
                return False
            if stamp < newest:
                self.backward += 1
                self._going_back += 1
                if self._going_back < RESTART_AFTER:
                    return False
                self.restarts += 1
                self.clear()
                newest = stamp
            self._going_back = 0
            self.gaps += bool(0.0 < self._silence <= stamp - newest)  # no numpy integer: messages refuse it
        self._write(np.array([stamp]), row[None])
        return True

    def extend(self, stamps: npt.ArrayLike, values: npt.ArrayLike) -> int:
        """Take K samples, as K calls of `add` would, at the cost of about one; returns how many were kept.

        :param stamps: (K,) [s].
        :param values: (K, n).
        :raises MetricError: as `add`; what came before the bad sample is kept.
        """
        times, rows = np.asarray(stamps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        newest = [self._stamps[self._next - 1 + self.capacity]] if self._length else []
        intervals = np.diff(np.concatenate([newest, times]))
        plain = rows.shape == (len(times), self.joints) and len(times) <= self.capacity \
            and np.isfinite(rows).all() and np.isfinite(times).all() and (intervals >= SHORTEST_INTERVAL).all()
        if not plain:
            return sum([self.add(stamp, row) for stamp, row in zip(times, rows, strict=True)])
        if self._silence > 0.0:
            self.gaps += int(np.sum(intervals >= self._silence))
        self._going_back = 0
        self._write(times, rows)
        return len(times)

    def newest(self, count: int) -> Array:
        """The last `count` samples as they came (count, n); a view."""
        stop = self._next + self.capacity
        return self._values[:, stop - min(count, self._length):stop].T

    @property
    def end(self) -> float:
        """Stamp of the newest sample [s]; 0 while there is none."""
        return float(self._stamps[self._next - 1 + self.capacity]) if self._length else 0.0

    @property
    def _silence(self) -> float:
        """Interval that counts as a gap [s]; 0 before the first window, which tells the period."""
        return max(GAP_PERIODS * self._period, GAP_DURATION) if self._period else 0.0

    def _write(self, stamps: Array, rows: Array) -> None:
        """K samples, not more than the capacity, to their two places; where the end is reached, in two parts."""
        self._windows.clear()
        first, capacity = self._next, self.capacity
        room = min(len(stamps), capacity - first)
        for place, begin, end in ((first, 0, room), (0, room, len(stamps))):
            for half in (place, place + capacity):
                self._values[:, half:half + end - begin] = rows[begin:end].T
                self._stamps[half:half + end - begin] = stamps[begin:end]
        self._next = (first + len(stamps)) % capacity
        self._length = min(self._length + len(stamps), capacity)

    def window(self, duration: float | None = None) -> Window | None:
        """The samples of the last `duration` [s], of all that are kept by default, since the last gap; None while
        there are fewer than 3. The same until the next `add`."""
        duration = self.duration if duration is None else duration
        if duration not in self._windows:
            self._windows[duration] = self._window(duration)
        return self._windows[duration]

    def _window(self, duration: float) -> Window | None:
        if self._length < 3:
            return None
        stop = self._next + self.capacity
        stamps = self._stamps[stop - self._length:stop]
        period = self._period = median(np.diff(stamps[-PERIOD_FROM - 1:]))
        # Half a period of grace keeps the number of samples from flickering with the stamps' rounding.
        first = int(np.searchsorted(stamps, stamps[-1] - duration + 0.5 * period))
        gaps = np.flatnonzero(np.diff(stamps[first:]) > max(GAP_PERIODS * period, GAP_DURATION))
        if len(gaps):
            first += int(gaps[-1]) + 1
        if self._length - first < 3:
            return None
        grid = self._grids.of(stamps[first:] - stamps[-1])
        return Window(grid.spread(self._values[:, stop - self._length + first:stop]).T, grid, float(stamps[-1]))

# SPDX-License-Identifier: Apache-2.0
"""The spectrum of a signal, and the metrics that rest on it. `qgf_core.smoothness` offers them with all the others."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy import fft as scipy_fft
from scipy.linalg import blas as scipy_blas

from qgf_core.errors import MetricError
from qgf_core.samples import (
    Array,
    PerJoint,
    blocks,
    columns,
    counts,
    energy,
    joint_rows,
    per_joint,
    positive,
    resolution,
)

SEGMENT_DURATION = 2.0
"""Length of a Welch segment [s]; but never fewer than `SEGMENT_SAMPLES` samples, unless the signal has fewer."""
SEGMENT_SAMPLES = 256
PEAK_REACH = 2
"""Bins on either side of a peak that hold its power: the Hann window spreads a sine over no more."""
FEWEST_SAMPLES = 8
"""Fewest samples of which a spectrum is taken."""
_ROUNDING = 32.0
"""What is left of a signal after detrending counts as rounding below this many eps of the signal's largest value."""


@functools.lru_cache(maxsize=32)
def _window(length: int) -> tuple[Array, Array, float]:
    """Periodic Hann window (length,), the unit vector (length,) along a straight line without its mean, and the mean
    square of the window."""
    hann: Array = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
    line: Array = np.arange(length, dtype=np.float64) - 0.5 * (length - 1)
    line /= math.sqrt(line @ line)
    hann.setflags(write=False)
    line.setflags(write=False)
    return hann, line, float(np.mean(hann * hann))


def _add_power(power: Array, piece: Array, rounding: float, floor: float) -> None:
    """Adds |rfft|^2 (n, F) of a segment (n, L), detrended and Hann-windowed; 0 where it is at rest."""
    length = piece.shape[1]
    hann, line, _ = _window(length)
    # Few passes over memory: this is what a live monitor spends its time on. The mean goes first, on its own: a trend
    # taken from numbers with a large constant part would leave more of it than rounding.
    mean = piece.mean(axis=1, keepdims=True)
    work = piece - mean
    trend = work @ line
    work = scipy_blas.dger(-1.0, line, trend, a=work.T, overwrite_a=True).T
    square = energy(work)
    # At least the largest value: most segments need no closer look.
    largest = np.sqrt(square + trend * trend + length * mean[:, 0] ** 2)
    near = square <= length * np.square(np.maximum(rounding * largest, floor))
    if near.any():
        noise = np.maximum(rounding * np.abs(piece[near]).max(axis=1), floor)
        work[np.flatnonzero(near)[np.sqrt(square[near] / length) <= noise]] = 0.0
    work *= hann
    bins = scipy_fft.rfft(work, axis=1)
    power += np.square(bins.real)
    power += np.square(bins.imag)


class Spectra:
    """One-sided power spectral densities of n joints, and the figures read off them.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param floor: see `spectrum`.

    `frequency` (F,) [Hz], `power` (F, n) [unit^2 / Hz], `flat`: whether the signal came as (T,).
    """

    def __init__(self, signal: npt.ArrayLike, sample_rate: float, floor: float = 0.0) -> None:
        samples, self.flat = columns(signal, FEWEST_SAMPLES, "signal")
        if not floor >= 0.0:
            raise MetricError(f"floor: {floor} must be a number of at least 0")
        self._take(joint_rows(samples), positive(sample_rate, "sample_rate"), _ROUNDING * resolution(signal), floor)

    @classmethod
    def of_rows(cls, rows: Array, sample_rate: float) -> Spectra:
        """Of signals that were checked already, (n, T) float64."""
        spectra = cls.__new__(cls)
        spectra.flat = False
        spectra._take(rows, sample_rate, _ROUNDING * float(np.finfo(np.float64).eps), 0.0)
        return spectra

    def part(self, joints: slice) -> Spectra:
        """Those of some of the joints; a view."""
        spectra = self.__class__.__new__(self.__class__)
        spectra.flat, spectra.sample_rate, spectra.frequency = False, self.sample_rate, self.frequency
        spectra.rows, spectra._whole = self.rows[joints], self._whole[joints]
        return spectra

    def _take(self, rows: Array, sample_rate: float, rounding: float, floor: float) -> None:
        self.sample_rate = sample_rate
        total = rows.shape[1]
        length = min(total, max(SEGMENT_SAMPLES, round(SEGMENT_DURATION * self.sample_rate)))
        # Segments overlap by at least half and are spread evenly from the first sample to the last: the newest samples
        # are what a live judgement is about, so none may be left over at the end.
        count = 1 + math.ceil((total - length) / (length // 2))
        power = np.zeros((len(rows), length // 2 + 1))
        starts = [0] if count == 1 else np.round(np.linspace(0, total - length, count)).astype(int).tolist()
        for start in starts:
            for some in blocks(rows[:, :length]):
                _add_power(power[some], rows[some, start:start + length], rounding, floor)
        power *= 1.0 / (count * self.sample_rate * length * _window(length)[2])
        # One-sided: every bin but 0 and, for an even length, Nyquist stands for a negative frequency too.
        power[:, 1:(length + 1) // 2] *= 2.0
        self.frequency: Array = np.arange(length // 2 + 1) * (self.sample_rate / length)
        self.rows: Array = power
        self._whole = power[:, 1:].sum(axis=1)

    @property
    def power(self) -> Array:
        """(F, n) [unit^2 / Hz]."""
        return self.rows.T

    def _band(self, cutoff: float) -> Array:
        """Sum (n,) of the bins at or above `cutoff` [Hz], the constant part never among them."""
        highest = 0.5 * self.sample_rate
        if not (math.isfinite(cutoff) and 0.0 <= cutoff <= highest * (1.0 + 1e-9)):
            raise MetricError(f"cutoff: {cutoff} Hz is outside 0..{highest:g} Hz, half of the sample rate")
        # The tolerance keeps a bin that stands exactly on the cutoff, whichever way its frequency was rounded.
        first = max(1, int(np.searchsorted(self.frequency, cutoff * (1.0 - 1e-9))))
        return np.asarray(self.rows[:, first:].sum(axis=1))

    def _share(self, part: Array) -> Array:
        """`part` (n,) over the whole power without the constant part (n,); 0 where there is none."""
        whole = self._whole
        return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0.0)

    def high_frequency_ratio(self, cutoff: float) -> Array:
        """(n,), see `high_frequency_ratio`."""
        return np.minimum(self._share(self._band(cutoff)), 1.0)

    def centroid(self) -> Array:
        """(n,) [Hz], see `spectral_centroid`."""
        return self._share(self.rows[:, 1:] @ self.frequency[1:])

    def peaks(self, count: int) -> tuple[Array, Array, Array]:
        """The strongest local maxima of the density, apart by more than `PEAK_REACH` bins, strongest first.

        A peak counts if it is above 12 times the median density (of an even number of bins the greater one of the two
        in the middle): the largest of 1000 bins of white noise stays below.

        :param count: peaks wanted for each joint.
        :returns: frequency [Hz], amplitude of a sine with the peak's power [unit of the signal] (for one at Nyquist
            sqrt(2) of its own) and density [unit^2 / Hz], each (count, n), NaN where a joint has fewer.
        """
        joints, bins = self.rows.shape
        power = np.zeros((joints, bins + 2 * PEAK_REACH))  # nought beyond the ends, and no constant part
        power[:, PEAK_REACH + 1:bins + PEAK_REACH] = self.rows[:, 1:]
        here = power[:, 1:-1]
        height = here * (here >= power[:, 2:])
        height[:, PEAK_REACH + 1:] *= here[:, PEAK_REACH + 1:] > power[:, PEAK_REACH + 1:-2]
        height[:, PEAK_REACH] *= self.rows[:, 1] > self.rows[:, 0]
        row, reach = np.arange(joints)[:, None], np.arange(-PEAK_REACH, PEAK_REACH + 1)
        places = np.empty((count, joints), dtype=np.int64)
        for k in range(count):
            places[k] = height.argmax(axis=1)
            around = places[k][:, None] + reach
            height[row, np.clip(around, 0, height.shape[1] - 1)] = 0.0
        places += 1
        top = power[row[:, 0], places]
        # The median is below when more than half of the densities are: counting costs less than a median.
        below = counts((12.0 * self.rows < top[:, :, None]).reshape(-1, bins)).reshape(count, joints)
        square = power[row, places[:, :, None] + reach].sum(axis=2) * self.frequency[1]
        found = np.array([self.frequency[np.clip(places - PEAK_REACH, 0, bins - 1)], np.sqrt(2.0 * square), top])
        found[:, (top <= 0.0) | (2 * below <= bins)] = np.nan
        return found[0], found[1], found[2]

    def band_rms(self, cutoff: float) -> Array:
        """(n,) [unit of the signal], see `band_rms`."""
        return np.asarray(np.sqrt(self._band(cutoff) * self.frequency[1]))


def spectrum(signal: npt.ArrayLike, sample_rate: float, *, floor: float = 0.0) -> tuple[Array, Array]:
    """One-sided power spectral density by Welch's method.

    Segments of 2 s, but of at least 256 samples (the whole signal if it is shorter), overlapping by at least half, each
    freed of its linear trend and weighted with a periodic Hann window; the mean of their periodograms. Where the
    segments fit without remainder this is `scipy.signal.welch(..., detrend="linear")`. Scaled by Parseval's theorem:
    the sum of power times the bin width is the (Hann-weighted) mean square of the detrended signal.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param floor: a detrended segment whose RMS is at or below this counts as at rest [unit of the signal]. Rounding (32
        eps of the largest value, of the floating-point type that the signal comes in) always does.
    :returns: frequency (F,) [Hz] and power (F,) or (F, n) [unit^2 / Hz].
    :raises MetricError: see `qgf_core.smoothness`.
    """
    spectra = Spectra(signal, sample_rate, floor)
    return spectra.frequency, spectra.power[:, 0] if spectra.flat else spectra.power


def high_frequency_ratio(signal: npt.ArrayLike, sample_rate: float, cutoff: float, *, floor: float = 0.0) -> PerJoint:
    """Share of the power at and above a cutoff: sum_{f >= cutoff} PSD / sum_{f > 0} PSD, in 0..1, of the signal given.

    Detrended, Hann-windowed, Welch: see `spectrum`. To judge a command, give its differences (`numpy.diff`): in those
    the chatter does not drown in the power of the movement. The share stays high for mere sensor noise on an arm that
    holds still, so judge it together with `band_rms`. 0 for a signal at rest.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], 0..sample_rate / 2.
    :param floor: RMS at or below which the signal counts as at rest [unit of the signal].
    :raises MetricError: see `qgf_core.smoothness`.
    """
    spectra = Spectra(signal, sample_rate, floor)
    return per_joint(spectra.high_frequency_ratio(cutoff), spectra.flat)


def spectral_centroid(signal: npt.ArrayLike, sample_rate: float, *, floor: float = 0.0) -> PerJoint:
    """Power-weighted mean frequency, sum_{f > 0} f PSD / sum_{f > 0} PSD [Hz], by `spectrum`; 0 for a signal at rest.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param floor: RMS at or below which the signal counts as at rest [unit of the signal].
    :raises MetricError: see `qgf_core.smoothness`.
    """
    spectra = Spectra(signal, sample_rate, floor)
    return per_joint(spectra.centroid(), spectra.flat)


def band_rms(signal: npt.ArrayLike, sample_rate: float, cutoff: float) -> PerJoint:
    """Root mean square of the signal's content at and above a cutoff [unit of the signal].

    sqrt(sum_{f >= cutoff} PSD df) by `spectrum`; by Parseval's theorem A / sqrt(2) for a sine of amplitude A in the
    band, A for +-A at Nyquist, sigma for white noise and cutoff 0. The Hann window is kept for short signals too: on 50
    samples at 50 Hz a slow settling motion without any chatter reads 1e-4 of its amplitude and less above 10 Hz, where
    an unwindowed transform reads 1e-2. The price is scatter, about 13% of one such reading of noise: average over
    joints and episodes.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], 0..sample_rate / 2.
    :raises MetricError: see `qgf_core.smoothness`.
    """
    spectra = Spectra(signal, sample_rate)
    return per_joint(spectra.band_rms(cutoff), spectra.flat)

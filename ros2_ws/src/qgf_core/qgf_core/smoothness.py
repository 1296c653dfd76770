# SPDX-License-Identifier: Apache-2.0
"""Smoothness and timing metrics: the one set of formulas for training evaluation, simulation and the live monitor.

Signals are arrays (T,) or (T, n): T samples of one or of n joints (or actions), equally spaced at `sample_rate` [Hz].
Results are per joint, a float for (T,) and an array (n,) for (T, n); only the two forms of Sm average over the joints.
All spectral metrics but those two rest on one `spectrum`. A signal at rest has defined values (0), never NaN.

Every function raises `MetricError` for a signal that is empty, too short, not finite, not numeric or not of one or two
dimensions, for a rate that is not positive, and for a cutoff outside of its range.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft as scipy_fft
from scipy import signal as scipy_signal

from qgf_core.errors import MetricError
from qgf_core.samples import Array, PerJoint, blocks, columns, counts, energy, joint_rows, per_joint, positive
from qgf_core.spectral import Spectra, band_rms, high_frequency_ratio, spectral_centroid, spectrum

__all__ = [
    "PeriodJitter", "Smoothness", "amplitude_smoothness", "band_rms", "high_frequency_ratio", "jerk_filter_length",
    "jerk_rms", "ldlj", "mean_absolute_delta", "measure", "paper_smoothness", "period_jitter", "sign_flip_index",
    "sparc", "spectral_centroid", "spectrum", "total_variation_rate",
]


# --- the two forms of Sm --------------------------------------------------------------------------------------------

def _sum_of_frequency_times_magnitude(rows: Array) -> Array:
    """sum_{i < N // 2} |FFT_i| i / N of (n, N), per joint (n,): frequencies in cycles per sample."""
    number = rows.shape[1]
    weight = np.arange(number // 2 + 1) / number
    weight[number // 2] = 0.0
    return np.asarray(np.abs(scipy_fft.rfft(rows, axis=1)) @ weight)


def paper_smoothness(actions: npt.ArrayLike) -> float:
    """Sm in the paper's form: (2 / (N fs)) sum_{i < N / 2} |FFT_i| f_i, mean over the joints, with fs = 1.

    The form of the published tables (public code of PAVE and ASAP), for parity with those only. Traps: the sum ends
    before bin N // 2, so that chatter at Nyquist with even N reads 0; without detrending or window, leakage of the
    movement hides chatter; it grows with sqrt(N) for noise, so compare equal N only. It is (N // 2 - 1) / 2 times
    `amplitude_smoothness`.

    :param actions: (T,) or (T, n), T >= 2.
    :returns: a float also for (T, n) [unit of the actions].
    """
    samples, _ = columns(actions, 2, "actions")
    return float(np.mean(2.0 / samples.shape[0] * _sum_of_frequency_times_magnitude(joint_rows(samples))))


def amplitude_smoothness(actions: npt.ArrayLike, sample_rate: float) -> float:
    """Sm in the amplitude form: (2 / (K fs)) sum M_i f_i, M_i = (2 / N) |rfft_i|, mean over the joints.

    After the public code of CAPS (arXiv:2012.06644), over the K = N // 2 - 1 bins between the constant one and bin
    N // 2, which is left out as in the paper's form. The rate cancels.

    :param actions: (T,) or (T, n), T >= 4.
    :param sample_rate: [Hz].
    :returns: a float also for (T, n) [unit of the actions].
    """
    samples, _ = columns(actions, 4, "actions")
    positive(sample_rate, "sample_rate")
    number = samples.shape[0]
    bins = number // 2 - 1
    return float(np.mean(2.0 / bins * (2.0 / number) * _sum_of_frequency_times_magnitude(joint_rows(samples))))


# --- differences ----------------------------------------------------------------------------------------------------

def mean_absolute_delta(actions: npt.ArrayLike) -> PerJoint:
    """mean |a_k - a_{k-1}| [unit per step]. :param actions: (T,) or (T, n), T >= 2."""
    samples, flat = columns(actions, 2, "actions")
    return per_joint(np.mean(np.abs(np.diff(samples, axis=0)), axis=0), flat)


def total_variation_rate(actions: npt.ArrayLike, sample_rate: float) -> PerJoint:
    """sample_rate mean |a_k - a_{k-1}| [unit / s]. :param actions: (T,) or (T, n), T >= 2. :param sample_rate: [Hz]."""
    return positive(sample_rate, "sample_rate") * mean_absolute_delta(actions)


def sign_flip_index(actions: npt.ArrayLike, deadband: float = 0.0) -> PerJoint:
    """Share, in 0..1, of the T - 2 pairs of consecutive differences that have opposite signs.

    A pair counts as a flip only if both of its differences exceed the deadband; the share is of all pairs.

    :param actions: (T,) or (T, n), T >= 3.
    :param deadband: [unit of the actions], >= 0.
    """
    samples, flat = columns(actions, 3, "actions")
    if not (math.isfinite(deadband) and deadband >= 0.0):
        raise MetricError(f"deadband: {deadband} must be a finite number of at least 0")
    return per_joint(_flips(np.diff(joint_rows(samples)), deadband), flat)


def _flips(delta: Array, deadband: float | Array) -> Array:
    """The index (n,) by the differences (n, T - 1). :param deadband: for all, or for each joint (n, 1)."""
    up, down = delta > deadband, delta < -deadband
    flips = up[:, 1:] & down[:, :-1]
    flips |= down[:, 1:] & up[:, :-1]
    return counts(flips) / flips.shape[1]


# --- movements ------------------------------------------------------------------------------------------------------

_JERK_ORDER = 5


@functools.lru_cache(maxsize=64)
def _jerk_filter_length(cutoff: float) -> int:
    """`jerk_filter_length` for a cutoff in cycles per sample."""

    def gain(length: int) -> float:
        taps = scipy_signal.savgol_coeffs(length, _JERK_ORDER, deriv=3, use="dot")
        phase = 2.0 * np.pi * cutoff * (np.arange(length) - length // 2)
        return float(abs(taps @ np.exp(1j * phase))) / (2.0 * np.pi * cutoff) ** 3

    if cutoff >= 0.5 or gain(_JERK_ORDER + 2) <= 0.5:
        return 4
    short, long = _JERK_ORDER + 2, 2 * _JERK_ORDER + 5
    while gain(long) > 0.5:
        short, long = long, 2 * long + 1
    while long - short > 2:
        middle = (short + long) // 4 * 2 + 1
        short, long = (middle, long) if gain(middle) > 0.5 else (short, middle)
    return long


def jerk_filter_length(sample_rate: float, cutoff: float) -> int:
    """Samples of the polynomial fit by which `jerk_rms` differentiates; 4 where it takes the plain third difference.

    The shortest odd number of which the response at the cutoff is at most half of the true third derivative's.

    :param sample_rate: [Hz]. :param cutoff: [Hz].
    """
    # Rounded, so that the measured rate of a live signal does not make a new filter in every window.
    return _jerk_filter_length(float(f"{positive(cutoff, 'cutoff') / positive(sample_rate, 'sample_rate'):.3g}"))


@functools.lru_cache(maxsize=16)
def _jerk_taps(length: int) -> tuple[Array, Array]:
    """Taps (length,) of the fitted polynomial's third derivative at its middle, and (length // 2, length) at each of
    the samples before, of which those of the samples after are the mirror image with the sign changed."""
    middle = scipy_signal.savgol_coeffs(length, _JERK_ORDER, deriv=3, use="dot")
    ends = np.array([scipy_signal.savgol_coeffs(length, _JERK_ORDER, deriv=3, pos=i, use="dot")
                     for i in range(length // 2)])
    return middle, ends


@functools.lru_cache(maxsize=16)
def _jerk_response(length: int, size: int) -> npt.NDArray[np.complex128]:
    """Transform (size // 2 + 1,) of the taps at the middle, as a convolution takes them."""
    return np.asarray(scipy_fft.rfft(_jerk_taps(length)[0][::-1], size))


def _mean_square_jerk(rows: Array, length: int) -> Array:
    """Of (n, T), per joint (n,) [unit^2 per sample^6]. :param length: of the fit."""
    moved = rows - rows[:, :1]  # so that a constant is exactly 0, whatever its size
    if length == 4:
        third = np.diff(moved, 3)
        return energy(third) / third.shape[1]
    # By FFT: its cost does not grow with the filter's length, which grows with the sample rate. Round the circle only
    # those values are wrong that the filter does not cover whole.
    number, ends = rows.shape[1], _jerk_taps(length)[1]
    size = scipy_fft.next_fast_len(number, real=True)
    bins = scipy_fft.rfft(moved, size, axis=1)
    bins *= _jerk_response(length, size)
    middle = scipy_fft.irfft(bins, size, axis=1, overwrite_x=True)[:, length - 1:number]
    return (energy(middle) + energy(moved[:, :length] @ ends.T) + energy(moved[:, :-length - 1:-1] @ ends.T)) / (
        middle.shape[1] + 2 * len(ends))


def jerk_rms(position: npt.ArrayLike, sample_rate: float, cutoff: float) -> PerJoint:
    """Root mean square of the third derivative of position [unit / s^3], after a low-pass at `cutoff`.

    Without a low-pass, encoder quantisation drowns it: 2e-5 rad turns 3.3 rad/s^3 into 222 at 200 Hz. Low-pass and
    derivative are one step here, a local least-squares polynomial of order 5 (Savitzky-Golay), as long as it takes for
    its response to halve (-6 dB) at the cutoff. Exact for a quintic. At both ends the outermost polynomial is used, so
    that a window cut out of a movement shows no false jerk there; it lets a little more pass: of a sine at the cutoff a
    window of 2 s reads 0.4 to 0.8 by its phase, of one at 1.5 times the cutoff 0.05. Where fewer than 7 samples would
    be fitted (a cutoff above about a third of the rate) nothing is filtered: the plain third difference.

    :param position: (T,) or (T, n) [rad], T at least `jerk_filter_length(sample_rate, cutoff)`.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], positive.
    """
    length = jerk_filter_length(sample_rate, cutoff)
    samples, flat = columns(position, length, "position")
    return per_joint(jerk_rms_rows(joint_rows(samples), sample_rate, length), flat)


def jerk_rms_rows(rows: Array, sample_rate: float, length: int) -> Array:
    """`jerk_rms` (n,) of signals that were checked already (n, T). :param length: `jerk_filter_length`."""
    mean_square = np.concatenate([_mean_square_jerk(rows[some], length) for some in blocks(rows)])
    return np.asarray(np.sqrt(mean_square) * float(sample_rate) ** 3)


def sparc(speed: npt.ArrayLike, sample_rate: float, cutoff: float = 10.0, amplitude_threshold: float = 0.05,
          padding: int = 4) -> PerJoint:
    """Spectral arc length of a movement's speed, dimensionless; nearer 0 is smoother.

    -integral_0^wc sqrt((1 / wc)^2 + (dV/dw)^2) dw, V the magnitude spectrum over its largest value, wc the last
    frequency up to `cutoff` at which V reaches `amplitude_threshold` (Balasubramanian et al. 2015). It is made for
    single movements from rest to rest, and blind above the cutoff: the authors' 10 Hz suit human arms; take at least
    50 Hz to see a robot's chatter. Without any movement (all zero): 0.

    :param speed: (T,) or (T, n), T >= 3.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], positive; beyond half of the sample rate it has no effect.
    :param amplitude_threshold: 0..1.
    :param padding: zeros are appended up to 2^padding times the next power of two.
    :raises MetricError: also if nothing of a (signed) speed lies below the cutoff.
    """
    samples, flat = columns(speed, 3, "speed")
    rate, cutoff = positive(sample_rate, "sample_rate"), positive(cutoff, "cutoff")
    if not 0.0 <= amplitude_threshold < 1.0:
        raise MetricError(f"amplitude_threshold: {amplitude_threshold} is outside 0..1")
    bins = 2 ** (math.ceil(math.log2(samples.shape[0])) + padding)
    frequency = np.arange(bins // 2 + 1) * (rate / bins)
    result = np.zeros(samples.shape[1])
    for joint, magnitude in enumerate(np.abs(np.fft.rfft(samples, bins, axis=0)).T):
        largest = magnitude.max()
        if largest == 0.0:
            continue
        counted = np.flatnonzero((frequency <= cutoff) & (magnitude >= amplitude_threshold * largest))
        if len(counted) < 2:
            raise MetricError(f"speed: nothing of it lies below the cutoff of {cutoff:g} Hz; raise the cutoff")
        first, last = counted[0], counted[-1]
        along = np.diff(frequency[first:last + 1]) / (frequency[last] - frequency[first])
        result[joint] = -np.sum(np.hypot(along, np.diff(magnitude[first:last + 1]) / largest))
    return per_joint(result, flat)


def ldlj(speed: npt.ArrayLike, sample_rate: float) -> PerJoint:
    """Log dimensionless jerk of a movement's speed, dimensionless; nearer 0 is smoother.

    -ln[(T^3 / v_peak^2) integral |d2v/dt2|^2 dt], T the number of samples over the rate, v_peak the largest |v|
    (Balasubramanian et al. 2015). For single movements from rest to rest. 0 where there is no jerk beyond rounding.

    :param speed: (T,) or (T, n), T >= 3.
    :param sample_rate: [Hz]; it cancels.
    """
    samples, flat = columns(speed, 3, "speed")
    positive(sample_rate, "sample_rate")
    number = samples.shape[0]
    peak = np.abs(samples).max(axis=0)
    bend = np.diff(samples / np.where(peak > 0.0, peak, 1.0), 2, axis=0)
    jerk = float(number) ** 3 * np.sum(bend * bend, axis=0)
    moves = np.sqrt(np.mean(bend * bend, axis=0)) > 8.0 * np.finfo(np.float64).eps
    return per_joint(-np.log(jerk, out=np.zeros_like(jerk), where=moves), flat)


# --- timing ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class PeriodJitter:
    """Deviations e_k = (t_k - t_{k-1}) - period of a loop's periods: RMS, 99th percentile and maximum of |e_k| [s]."""

    rms: float
    p99: float
    maximum: float
    overruns: int
    """Periods longer than 1.5 times nominal, or whose work took longer than the nominal period."""


def period_jitter(stamps: npt.ArrayLike, period: float, work: npt.ArrayLike | None = None) -> PeriodJitter:
    """How well a loop kept its period.

    :param stamps: (T,) times of the cycles on a steady clock [s], T >= 2. Seconds since 1970 have a resolution of only
        0.24 us in float64: subtract the first stamp while they are integers.
    :param period: nominal period [s].
    :param work: (T - 1,) time spent working in each period [s].
    """
    times, flat = columns(stamps, 2, "stamps")
    if not flat:
        raise MetricError(f"stamps: shape {times.shape}; give (T,)")
    nominal = positive(period, "period")
    periods = np.diff(times[:, 0])
    late = periods > 1.5 * nominal
    if work is not None:
        durations, _ = columns(work, 1, "work")
        if durations.shape != (len(periods), 1):
            raise MetricError(f"work: shape {np.shape(work)}; give one duration for each of the {len(periods)} periods")
        late |= durations[:, 0] > nominal
    error = np.abs(periods - nominal)
    # The percentile as numpy.percentile gives it, without what that costs beside the work.
    place = 0.99 * (len(error) - 1)
    below = int(place)
    ordered = np.partition(error, (below, min(below + 1, len(error) - 1)))
    p99 = ordered[below] + (place - below) * (ordered[min(below + 1, len(error) - 1)] - ordered[below])
    return PeriodJitter(rms=float(np.sqrt(np.mean(error * error))), p99=float(p99), maximum=float(error.max()),
                        overruns=int(np.count_nonzero(late)))


# --- all that is defined for any signal -----------------------------------------------------------------------------

@dataclass(frozen=True)
class Smoothness:
    """Metrics of one signal (T, n): arrays (n,) and the two averages, as the functions of the same names give them."""

    high_frequency_ratio: Array
    delta_high_frequency_ratio: Array
    """High-frequency ratio of the differences, which tells chatter from movement. The first one is taken twice, where
    the window's weight is nought: they are then as many as the samples, and a prime number less of them takes ten times
    as long to transform."""
    band_rms: Array
    spectral_centroid: Array
    mean_absolute_delta: Array
    total_variation_rate: Array
    sign_flip_index: Array
    paper_smoothness: float
    amplitude_smoothness: float


def measure(signal: npt.ArrayLike, sample_rate: float, cutoff: float, deadband: float = 0.0,
            spectra: Spectra | None = None) -> Smoothness:
    """Every metric that is defined for any signal, with its spectrum taken once.

    :param signal: (T,) or (T, n), T >= 9; (T,) counts as one joint.
    :param sample_rate: [Hz].
    :param cutoff: of `high_frequency_ratio` and `band_rms` [Hz], 0..sample_rate / 2.
    :param deadband: of `sign_flip_index` [unit of the signal].
    :param spectra: of this signal, where the caller has them.
    """
    samples, _ = columns(signal, 9, "signal")
    rows = joint_rows(samples)
    return RowFigures(rows, cutoff, np.full(len(rows), deadband), spectra or Spectra(signal, sample_rate)).of()


class RowFigures:
    """`measure` of signals that were checked already, (n, T), of one or several sources: together they cost less.

    :param rows: (n, T), T >= 9.
    :param cutoff: [Hz].
    :param deadband: for each joint (n,) [unit of its signal].
    :param spectra: of the rows.
    """

    def __init__(self, rows: Array, cutoff: float, deadband: Array, spectra: Spectra) -> None:
        if not (np.isfinite(deadband).all() and deadband.min() >= 0.0):
            raise MetricError(f"deadband: {deadband.min()} must be a finite number of at least 0")
        self._number, self._rate = rows.shape[1], spectra.sample_rate
        self._variation, self._flips, self._chatter, self._magnitude = (np.empty(len(rows)) for _ in range(4))
        for some in blocks(rows):
            # What several of them share is worked out once, while it is in the cache.
            differences = np.empty((some.stop - some.start, self._number))
            np.subtract(rows[some, 1:], rows[some, :-1], out=differences[:, 1:])
            differences[:, 0] = differences[:, 1]
            self._variation[some] = np.abs(differences[:, 1:]).sum(axis=1)
            self._flips[some] = _flips(differences[:, 1:], deadband[some, None])
            self._chatter[some] = Spectra.of_rows(differences, self._rate).high_frequency_ratio(cutoff)
            self._magnitude[some] = _sum_of_frequency_times_magnitude(rows[some])
        self._variation /= self._number - 1
        self._ratio, self._rms = spectra.high_frequency_ratio(cutoff), spectra.band_rms(cutoff)
        self._centroid = spectra.centroid()

    def of(self, joints: slice = slice(None)) -> Smoothness:
        """The figures of these joints, the averages over them."""
        paper = float(np.mean(2.0 / self._number * self._magnitude[joints]))
        return Smoothness(
            high_frequency_ratio=self._ratio[joints], delta_high_frequency_ratio=self._chatter[joints],
            band_rms=self._rms[joints], spectral_centroid=self._centroid[joints],
            mean_absolute_delta=self._variation[joints], total_variation_rate=self._rate * self._variation[joints],
            sign_flip_index=self._flips[joints], paper_smoothness=paper,
            amplitude_smoothness=2.0 / (self._number // 2 - 1) * paper,
        )

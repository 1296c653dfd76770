# SPDX-License-Identifier: Apache-2.0
"""Smoothness and timing metrics: the one set of formulas for training evaluation, simulation and the live monitor.

Signals are arrays (T,) or (T, n): T samples of one or of n joints (or actions), equally spaced in time at `sample_rate`
[Hz]. Results are per joint: a float for (T,), an array (n,) for (T, n); only the two forms of Sm average over the joints.
All spectral metrics but those two rest on one `spectrum`. A signal at rest has defined values (0), never NaN.

Every function raises `MetricError` for a signal that is empty, too short, not finite, not numeric or not of one or two
dimensions, for a rate that is not positive, and for a cutoff outside 0..sample_rate / 2.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import signal as scipy_signal

from qgf_core.errors import MetricError

Array: TypeAlias = npt.NDArray[np.float64]
PerJoint: TypeAlias = "float | Array"

_SEGMENT_DURATION = 2.0
"""Length of a Welch segment [s]; a segment never has fewer than `_SEGMENT_SAMPLES` samples, unless the signal has."""
_SEGMENT_SAMPLES = 256
_SPECTRUM_SAMPLES = 8
"""Fewest samples of which a spectrum is taken."""
_ROUNDING = 32.0
"""What is left of a signal after detrending counts as rounding below this many eps of the signal's largest value."""


# --- arguments ------------------------------------------------------------------------------------------------------

def _columns(signal: npt.ArrayLike, minimum: int, name: str) -> tuple[Array, float, bool]:
    """`signal` as finite float64 (T, n), the eps of the type it came in, and whether it came as (T,)."""
    try:
        given = np.asarray(signal)
        precision = np.finfo(given.dtype).eps if np.issubdtype(given.dtype, np.floating) else np.finfo(np.float64).eps
        array = given.astype(np.float64, copy=False) if not np.iscomplexobj(given) else None
    except (TypeError, ValueError) as error:
        raise MetricError(f"{name}: not an array of numbers ({error})") from error
    if array is None:
        raise MetricError(f"{name}: complex numbers; give real ones")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise MetricError(f"{name}: shape {array.shape}; give (T,) or (T, n)")
    if array.shape[0] < minimum:
        raise MetricError(f"{name}: {array.shape[0]} samples are too few; give at least {minimum}")
    if not np.isfinite(array).all():
        raise MetricError(f"{name}: holds a number that is not finite")
    return (array[:, None], float(precision), True) if array.ndim == 1 else (array, float(precision), False)


def _positive(value: float, name: str) -> float:
    if not (math.isfinite(value) and value > 0.0):
        raise MetricError(f"{name}: {value} must be a positive number")
    return float(value)


def _band(frequency: Array, sample_rate: float, cutoff: float) -> npt.NDArray[np.bool_]:
    """Bins at or above `cutoff` [Hz], the constant part never among them."""
    if not (math.isfinite(cutoff) and 0.0 <= cutoff <= 0.5 * sample_rate * (1.0 + 1e-9)):
        raise MetricError(f"cutoff: {cutoff} Hz is outside 0..{0.5 * sample_rate:g} Hz, half of the sample rate")
    # The tolerance keeps a bin that stands exactly on the cutoff, whichever way its frequency was rounded.
    return (frequency > 0.0) & (frequency >= cutoff * (1.0 - 1e-9))


def _result(values: Array, flat: bool) -> PerJoint:
    return float(values[0]) if flat else values


# --- the spectrum ---------------------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=32)
def _window(length: int) -> tuple[Array, Array]:
    """Periodic Hann window (length,), and the unit vector (length,) along a straight line without its mean."""
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)
    line = np.arange(length) - 0.5 * (length - 1)
    line /= np.linalg.norm(line)
    hann.setflags(write=False)
    line.setflags(write=False)
    return hann, line


def _power(columns: Array, sample_rate: float, precision: float, floor: float) -> tuple[Array, Array]:
    """Frequencies (F,) [Hz] and one-sided power spectral density (F, n) [unit^2 / Hz] of (T, n)."""
    samples = columns.shape[0]
    length = min(samples, max(_SEGMENT_SAMPLES, round(_SEGMENT_DURATION * sample_rate)))
    # Segments overlap by at least half and are spread evenly from the first sample to the last: the newest samples are
    # what a live judgement is about, so none may be left over at the end.
    count = 1 + math.ceil((samples - length) / (length // 2))
    starts = np.round(np.linspace(0, samples - length, count)).astype(int)
    hann, line = _window(length)
    power = np.zeros((columns.shape[1], length // 2 + 1))
    joints = np.ascontiguousarray(columns.T)
    for start in starts:
        piece = joints[:, start:start + length]
        rounding = _ROUNDING * precision * np.abs(piece).max(axis=1)
        piece = piece - piece.mean(axis=1, keepdims=True)
        piece -= (piece @ line)[:, None] * line
        still = np.sqrt(np.mean(piece * piece, axis=1)) <= np.maximum(rounding, floor)
        piece[still] = 0.0
        bins = np.fft.rfft(piece * hann, axis=1)
        power += bins.real ** 2 + bins.imag ** 2
    power /= count * sample_rate * np.sum(hann * hann)
    # One-sided: every bin but 0 and, for an even length, Nyquist stands for a negative frequency too.
    power[:, 1:(length + 1) // 2] *= 2.0
    return np.arange(length // 2 + 1) * (sample_rate / length), power.T


def spectrum(signal: npt.ArrayLike, sample_rate: float, *, floor: float = 0.0) -> tuple[Array, Array]:
    """One-sided power spectral density by Welch's method.

    Segments of 2 s, but of at least 256 samples (the whole signal if it is shorter), overlapping by at least half, each
    freed of its linear trend and weighted with a periodic Hann window; the mean of their periodograms. Where the
    segments fit without remainder this is `scipy.signal.welch(..., detrend="linear")`. Scaled by Parseval: the sum of
    power times the bin width is the (Hann-weighted) mean square of the detrended signal.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param floor: a detrended segment whose RMS is at or below this counts as at rest [unit of the signal]. Rounding (32
        eps of the largest value, of the floating-point type that the signal comes in) always does.
    :returns: frequency (F,) [Hz] and power (F,) or (F, n) [unit^2 / Hz].
    """
    columns, precision, flat = _columns(signal, _SPECTRUM_SAMPLES, "signal")
    if not floor >= 0.0:
        raise MetricError(f"floor: {floor} must not be negative")
    frequency, power = _power(columns, _positive(sample_rate, "sample_rate"), precision, floor)
    return frequency, power[:, 0] if flat else power


def _ratio(frequency: Array, power: Array, band: npt.NDArray[np.bool_]) -> Array:
    total = power[frequency > 0.0].sum(axis=0)
    return np.divide(power[band].sum(axis=0), total, out=np.zeros_like(total), where=total > 0.0)


def _centroid(frequency: Array, power: Array) -> Array:
    total = power[1:].sum(axis=0)
    return np.divide(frequency[1:] @ power[1:], total, out=np.zeros_like(total), where=total > 0.0)


def _band_rms(frequency: Array, power: Array, band: npt.NDArray[np.bool_]) -> Array:
    return np.asarray(np.sqrt(power[band].sum(axis=0) * frequency[1]))


def high_frequency_ratio(signal: npt.ArrayLike, sample_rate: float, cutoff: float, *, floor: float = 0.0) -> PerJoint:
    """Share of the power at and above a cutoff: sum_{f >= cutoff} PSD / sum_{f > 0} PSD, in 0..1, of the signal given.

    Detrended, Hann-windowed, Welch: see `spectrum`. To judge a command, give its differences (`numpy.diff`): those do
    not drown the chatter in the power of the movement. The share stays high for mere sensor noise on an arm that holds
    still, so judge it together with `band_rms`. 0 for a signal at rest.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], 0..sample_rate / 2.
    :param floor: RMS at or below which the signal counts as at rest [unit of the signal].
    """
    frequency, power = spectrum(signal, sample_rate, floor=floor)
    return _result_of(_ratio(frequency, power, _band(frequency, sample_rate, cutoff)))


def spectral_centroid(signal: npt.ArrayLike, sample_rate: float, *, floor: float = 0.0) -> PerJoint:
    """Power-weighted mean frequency, sum_{f > 0} f PSD / sum_{f > 0} PSD [Hz], by `spectrum`; 0 for a signal at rest.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param floor: RMS at or below which the signal counts as at rest [unit of the signal].
    """
    return _result_of(_centroid(*spectrum(signal, sample_rate, floor=floor)))


def band_rms(signal: npt.ArrayLike, sample_rate: float, cutoff: float) -> PerJoint:
    """Root mean square of the signal's content at and above a cutoff [unit of the signal].

    sqrt(sum_{f >= cutoff} PSD df) by `spectrum`: Parseval's theorem, so A / sqrt(2) for a sine of amplitude A in the
    band, sigma for white noise and cutoff 0, A for +-A at Nyquist. The Hann window is kept for short signals too: on 50
    samples a slow settling motion without any chatter reads 1e-5 of its amplitude, where an unwindowed transform reads
    1e-2. The price is scatter, about 13% of one 50-sample reading of noise; average over joints and episodes.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], 0..sample_rate / 2.
    """
    frequency, power = spectrum(signal, sample_rate)
    return _result_of(_band_rms(frequency, power, _band(frequency, sample_rate, cutoff)))


def _result_of(values: Array) -> PerJoint:
    return float(values) if np.ndim(values) == 0 else values


# --- the two forms of Sm --------------------------------------------------------------------------------------------

def _sum_of_frequency_times_magnitude(columns: Array) -> Array:
    """sum_{i < N / 2} |FFT_i| i / N per joint: frequencies in cycles per sample."""
    samples = columns.shape[0]
    magnitude = np.abs(np.fft.rfft(columns, axis=0))[: samples // 2]
    return np.asarray(np.arange(samples // 2) / samples @ magnitude)


def paper_smoothness(actions: npt.ArrayLike) -> float:
    """Sm in the paper's form: (2 / (N fs)) sum_{i < N / 2} |FFT_i| f_i, mean over the joints, with fs = 1.

    The form of the published tables (public code of PAVE and ASAP), for parity with those only. Traps: the sum ends
    before bin N // 2, so chatter at Nyquist with even N reads exactly 0; without detrending or window, leakage of the
    movement hides chatter; it grows with sqrt(N) for noise, so compare equal N only. About N / 4 times
    `amplitude_smoothness`.

    :param actions: (T,) or (T, n), T >= 2.
    :returns: a float also for (T, n) [unit of the actions].
    """
    columns, _, _ = _columns(actions, 2, "actions")
    return float(np.mean(2.0 / columns.shape[0] * _sum_of_frequency_times_magnitude(columns)))


def amplitude_smoothness(actions: npt.ArrayLike, sample_rate: float) -> float:
    """Sm in the amplitude form: (2 / (K fs)) sum M_i f_i, M_i = (2 / N) |rfft_i|, mean over the joints.

    Over the K = N // 2 - 1 bins that the paper's form counts without the constant one, so that the two differ by exactly
    K / 2. After the public code of CAPS (arXiv:2012.06644). The rate cancels; chatter at Nyquist with even N reads 0.

    :param actions: (T,) or (T, n), T >= 4.
    :param sample_rate: [Hz].
    :returns: a float also for (T, n) [unit of the actions].
    """
    columns, _, _ = _columns(actions, 4, "actions")
    _positive(sample_rate, "sample_rate")
    samples = columns.shape[0]
    bins = samples // 2 - 1
    return float(np.mean(2.0 / bins * (2.0 / samples) * _sum_of_frequency_times_magnitude(columns)))


# --- differences ----------------------------------------------------------------------------------------------------

def mean_absolute_delta(actions: npt.ArrayLike) -> PerJoint:
    """mean |a_k - a_{k-1}| [unit per step]. :param actions: (T,) or (T, n), T >= 2."""
    columns, _, flat = _columns(actions, 2, "actions")
    return _result(np.mean(np.abs(np.diff(columns, axis=0)), axis=0), flat)


def total_variation_rate(actions: npt.ArrayLike, sample_rate: float) -> PerJoint:
    """sample_rate mean |a_k - a_{k-1}| [unit / s]. :param actions: (T,) or (T, n), T >= 2. :param sample_rate: [Hz]."""
    columns, _, flat = _columns(actions, 2, "actions")
    rate = _positive(sample_rate, "sample_rate")
    return _result(rate * np.mean(np.abs(np.diff(columns, axis=0)), axis=0), flat)


def sign_flip_index(actions: npt.ArrayLike, deadband: float = 0.0) -> PerJoint:
    """Share, in 0..1, of the T - 2 pairs of consecutive differences whose signs are opposite.

    Only pairs in which both differences exceed the deadband count as flips; all pairs count in the share.

    :param actions: (T,) or (T, n), T >= 3.
    :param deadband: [unit of the actions], >= 0.
    """
    columns, _, flat = _columns(actions, 3, "actions")
    if not (math.isfinite(deadband) and deadband >= 0.0):
        raise MetricError(f"deadband: {deadband} must be a number of at least 0")
    delta = np.diff(columns, axis=0)
    sign = np.where(np.abs(delta) > deadband, np.sign(delta), 0.0)
    return _result(np.mean(sign[1:] * sign[:-1] < 0.0, axis=0), flat)


# --- movements ------------------------------------------------------------------------------------------------------

_JERK_ORDER = 5


@functools.lru_cache(maxsize=64)
def jerk_filter_length(sample_rate: float, cutoff: float) -> int:
    """Samples of the polynomial fit by which `jerk_rms` differentiates; 4 where it takes the plain third difference.

    The shortest odd length whose response at the cutoff is at most half of the true third derivative's.
    """
    omega = 2.0 * np.pi * cutoff / sample_rate

    def gain(length: int) -> float:
        half = length // 2
        taps = scipy_signal.savgol_coeffs(length, _JERK_ORDER, deriv=3, use="dot")
        return float(abs(taps @ np.exp(1j * omega * np.arange(-half, half + 1)))) / omega ** 3

    if cutoff >= 0.5 * sample_rate or gain(7) <= 0.5:
        return 4
    short, long = 7, 9
    while gain(long) > 0.5:
        short, long = long, 2 * long + 1
    while long - short > 2:
        middle = (short + long) // 4 * 2 + 1
        short, long = (middle, long) if gain(middle) > 0.5 else (short, middle)
    return long


def jerk_rms(position: npt.ArrayLike, sample_rate: float, cutoff: float) -> PerJoint:
    """Root mean square of the third derivative of position [unit / s^3], after a low-pass at `cutoff`.

    Without a low-pass, encoder quantisation drowns it: 2e-5 rad turns 3.3 rad/s^3 into 222 at 200 Hz. Low-pass and
    derivative are one step here, a local least-squares polynomial of order 5 (Savitzky-Golay), as long as it takes for
    its response to halve (-6 dB) at the cutoff: exact for movements that are a quintic, and at the window's ends the
    polynomial itself is used, so that cutting a window out of a movement adds no false jerk. Content at 1.5 cutoff is
    damped to 5%. Where the cutoff leaves fewer than 7 samples (above about a third of the rate), nothing is filtered:
    the plain third difference.

    :param position: (T,) or (T, n) [rad], T at least `jerk_filter_length(sample_rate, cutoff)`.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], positive.
    """
    rate = _positive(sample_rate, "sample_rate")
    length = jerk_filter_length(rate, _positive(cutoff, "cutoff"))
    columns, _, flat = _columns(position, length, "position")
    moved = columns - columns[0]  # a constant becomes exactly 0, whatever its size
    if length == 4:
        jerk = np.diff(moved, 3, axis=0) * rate ** 3
    else:
        jerk = scipy_signal.savgol_filter(moved, length, _JERK_ORDER, deriv=3, delta=1.0 / rate, axis=0, mode="interp")
    return _result(np.sqrt(np.mean(jerk * jerk, axis=0)), flat)


def sparc(speed: npt.ArrayLike, sample_rate: float, cutoff: float = 10.0, amplitude_threshold: float = 0.05,
          padding: int = 4) -> PerJoint:
    """Spectral arc length of a movement's speed, dimensionless; nearer 0 is smoother.

    -integral_0^wc sqrt((1 / wc)^2 + (dV/dw)^2) dw, V the magnitude spectrum over its largest value, wc the last
    frequency below `cutoff` at which V reaches `amplitude_threshold` (Balasubramanian et al. 2015). It is made for
    single movements from rest to rest, and blind above the cutoff: the default of 10 Hz, the authors', is for human
    arms; take at least 50 Hz to see a robot's chatter. Without any movement (all zero): 0.

    :param speed: (T,) or (T, n), T >= 3.
    :param sample_rate: [Hz].
    :param cutoff: [Hz], positive; above half of the sample rate it has no effect.
    :param amplitude_threshold: in 0..1.
    :param padding: zeros are appended up to 2^padding times the next power of two.
    :raises MetricError: also if nothing of a signed speed lies below the cutoff.
    """
    columns, _, flat = _columns(speed, 3, "speed")
    rate, cutoff = _positive(sample_rate, "sample_rate"), _positive(cutoff, "cutoff")
    if not 0.0 <= amplitude_threshold < 1.0:
        raise MetricError(f"amplitude_threshold: {amplitude_threshold} is outside 0..1")
    bins = 2 ** (math.ceil(math.log2(columns.shape[0])) + padding)
    frequency = np.arange(bins // 2 + 1) * (rate / bins)
    spectra = np.abs(np.fft.rfft(columns, bins, axis=0)).T
    lengths = np.zeros(columns.shape[1])
    for joint, magnitude in enumerate(spectra):
        largest = magnitude.max()
        if largest == 0.0:
            continue
        counted = np.flatnonzero((frequency <= cutoff) & (magnitude >= amplitude_threshold * largest))
        if len(counted) < 2 or counted[-1] == counted[0]:
            raise MetricError(f"speed: nothing of it lies below the cutoff of {cutoff:g} Hz; raise the cutoff")
        arc = slice(counted[0], counted[-1] + 1)
        along = np.diff(frequency[arc]) / (frequency[counted[-1]] - frequency[counted[0]])
        lengths[joint] = -np.sum(np.hypot(along, np.diff(magnitude[arc]) / largest))
    return _result(lengths, flat)


def ldlj(speed: npt.ArrayLike, sample_rate: float) -> PerJoint:
    """Log dimensionless jerk of a movement's speed, dimensionless; nearer 0 is smoother.

    -ln[(T^3 / v_peak^2) integral |d2v/dt2|^2 dt], T the number of samples over the rate, v_peak the largest |v|
    (Balasubramanian et al. 2015). For single movements from rest to rest. 0 where the speed never changes.

    :param speed: (T,) or (T, n), T >= 3.
    :param sample_rate: [Hz].
    """
    columns, _, flat = _columns(speed, 3, "speed")
    rate = _positive(sample_rate, "sample_rate")
    samples = columns.shape[0]
    peak = np.abs(columns).max(axis=0)
    # (T / dt)^3 sum (second difference / peak)^2: the powers of the rate cancel but for T's samples.
    second = np.diff(columns / np.where(peak > 0.0, peak, 1.0), 2, axis=0)
    jerk = float(samples) ** 3 * np.sum(second * second, axis=0)
    moving = jerk > samples ** 4 * (_ROUNDING * np.finfo(np.float64).eps) ** 2
    return _result(np.where(moving, -np.log(np.where(moving, jerk, 1.0)), 0.0) + 0.0 * rate, flat)


# --- timing ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class PeriodJitter:
    """Deviation of the periods from nominal, e_k = (t_k - t_{k-1}) - period. rms, p99 and maximum are of |e| [s]."""

    rms: float
    p99: float
    maximum: float
    overruns: int
    """Periods longer than 1.5 times nominal, or whose work took longer than the nominal period."""


def period_jitter(stamps: npt.ArrayLike, period: float, work: npt.ArrayLike | None = None) -> PeriodJitter:
    """How well a loop kept its period.

    :param stamps: (T,) times of the cycles on a steady clock [s], T >= 2. Times of day have a resolution of only 0.24 us
        in float64: subtract the first one while they are still integers.
    :param period: nominal period [s].
    :param work: (T - 1,) or (T,) time spent working in each cycle [s]; only the last T - 1 count.
    """
    columns, _, flat = _columns(stamps, 2, "stamps")
    if not flat:
        raise MetricError(f"stamps: shape {columns.shape}; give (T,)")
    nominal = _positive(period, "period")
    periods = np.diff(columns[:, 0])
    late = periods > 1.5 * nominal
    if work is not None:
        durations, _, _ = _columns(work, len(periods), "work")
        if len(durations) not in (len(periods), len(periods) + 1) or durations.shape[1] != 1:
            raise MetricError(f"work: shape {durations.shape}; give one duration for each of the {len(periods)} periods")
        late |= durations[-len(periods):, 0] > nominal
    error = np.abs(periods - nominal)
    return PeriodJitter(float(np.sqrt(np.mean(error * error))), float(np.percentile(error, 99.0)), float(error.max()),
                        int(late.sum()))


# --- all of them at once --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Smoothness:
    """The metrics of one signal (T, n): arrays (n,) in the units of the functions of the same names."""

    high_frequency_ratio: Array
    band_rms: Array
    spectral_centroid: Array
    mean_absolute_delta: Array
    total_variation_rate: Array
    sign_flip_index: Array
    paper_smoothness: float
    amplitude_smoothness: float


def measure(signal: npt.ArrayLike, sample_rate: float, cutoff: float, deadband: float = 0.0) -> Smoothness:
    """Every metric that is defined for any signal, with its spectrum taken once.

    :param signal: (T,) or (T, n), T >= 8.
    :param sample_rate: [Hz].
    :param cutoff: of `high_frequency_ratio` and `band_rms` [Hz], 0..sample_rate / 2.
    :param deadband: of `sign_flip_index` [unit of the signal].
    """
    columns, precision, _ = _columns(signal, _SPECTRUM_SAMPLES, "signal")
    rate = _positive(sample_rate, "sample_rate")
    frequency, power = _power(columns, rate, precision, 0.0)
    band = _band(frequency, rate, cutoff)
    delta = np.asarray(mean_absolute_delta(columns))
    return Smoothness(
        high_frequency_ratio=_ratio(frequency, power, band), band_rms=_band_rms(frequency, power, band),
        spectral_centroid=_centroid(frequency, power), mean_absolute_delta=delta, total_variation_rate=rate * delta,
        sign_flip_index=np.asarray(sign_flip_index(columns, deadband)), paper_smoothness=paper_smoothness(columns),
        amplitude_smoothness=amplitude_smoothness(columns, rate))

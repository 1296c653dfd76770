# SPDX-License-Identifier: Apache-2.0
"""How an arm answers its commands: delay and deviation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft as scipy_fft

from qgf_core.errors import MetricError
from qgf_core.samples import Array, blocks, columns, energy, joint_rows, positive

MOST_UNEXPLAINED = 0.5
"""Share of the command's variance that may be left unanswered at the best delay; above it there is no delay to tell."""


@dataclass(frozen=True)
class Response:
    """Of n joints. `lag` [s], NaN where the command did not move or was not answered."""

    lag: float
    error: Array
    """RMS of measured minus commanded at the same time (n,) [unit of the signals]."""
    aligned_error: Array
    """The same with the measured value `lag` later (n,); equal to `error` where there is no lag."""


def response(command: npt.ArrayLike, measured: npt.ArrayLike, sample_rate: float, longest_lag: float,
             floor: float = 0.0) -> Response:
    """Delay by which the measured signal follows the command, and how far it is from it.

    The delay is that of the joint whose command varies most: where the variance of y(t + lag) - x(t) is smallest, over
    the same samples of x for every lag. Its varying part is the cross-correlation, computed by FFT; a parabola through
    the three values round the minimum gives it finer than a sample.

    :param command: x, (T, n), T at least 16 and twice the longest lag.
    :param measured: y, (T, n), of the same quantity at the same times.
    :param sample_rate: [Hz].
    :param longest_lag: longer ones are not looked for [s].
    :param floor: standard deviation of a command below which it does not move [unit of the signals].
    :raises MetricError: other shapes, or too few samples.
    """
    x, _ = columns(command, 16, "command")
    y, _ = columns(measured, 16, "measured")
    lags = round(positive(longest_lag, "longest_lag") * positive(sample_rate, "sample_rate")) + 1
    if x.shape != y.shape or len(x) < 2 * lags:
        raise MetricError(f"command {x.shape} and measured {y.shape}: give the same shape, at least {2 * lags} samples")
    x, y = joint_rows(x), joint_rows(y)
    number = x.shape[1]
    error = np.sqrt(np.concatenate([energy(y[some] - x[some]) for some in blocks(x)]) / number)
    joint = int(np.argmax(np.concatenate([energy(x[some] - x[some].mean(axis=1)[:, None]) for some in blocks(x)])))
    lag = _lag(x[joint], y[joint], lags, floor)
    if np.isnan(lag):
        return Response(lag, error, error)
    whole, part = int(lag), lag - int(lag)
    aligned = np.sqrt(np.concatenate([_aligned(x[some], y[some], whole, part) for some in blocks(x)]))
    return Response(lag / sample_rate, error, aligned)


def _aligned(x: Array, y: Array, whole: int, part: float) -> Array:
    """Mean square (n,) of y(t + whole + part) - x(t), (n, T) each, y linear between samples."""
    end = x.shape[1] - whole - 1
    later = y[:, whole + 1:whole + 1 + end] - y[:, whole:whole + end]
    later *= part
    later += y[:, whole:whole + end]
    later -= x[:, :end]
    return energy(later) / end


def _lag(x: Array, y: Array, lags: int, floor: float) -> float:
    """In samples, for one joint (T,)."""
    overlap = len(x) - lags
    x = x[:overlap] - x[:overlap].mean()
    power = float(np.mean(x * x))
    if power <= max(floor, 1e-12) ** 2:
        return float("nan")
    y = y - y.mean()
    size = scipy_fft.next_fast_len(len(y), real=True)  # x ends `lags` before y: nothing comes round the circle
    product = scipy_fft.irfft(scipy_fft.rfft(y, size) * np.conj(scipy_fft.rfft(x, size)), size)[:lags]
    sums = np.concatenate([[0.0], np.cumsum(y)])
    squares = np.concatenate([[0.0], np.cumsum(y * y)])
    mean = (sums[overlap:overlap + lags] - sums[:lags]) / overlap
    left = power + (squares[overlap:overlap + lags] - squares[:lags]) / overlap - mean**2 - 2.0 * product / overlap
    best = int(np.argmin(left))
    if left[best] > MOST_UNEXPLAINED * power or best == lags - 1:
        return float("nan")
    if best == 0:
        return 0.0
    before, here, after = left[best - 1:best + 2]
    bend = before - 2.0 * here + after
    return best + (0.5 * float(before - after) / float(bend) if bend > 0.0 else 0.0)

# SPDX-License-Identifier: Apache-2.0
"""Statistics over few seeds: interquartile mean and stratified bootstrap intervals.

Method: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv:2108.13264.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A point estimate with its bootstrap interval."""

    estimate: float
    low: float
    high: float


def interquartile_mean(values: ArrayLike) -> NDArray[np.float64]:
    """Mean of the middle half along the last axis: floor(n / 4) values are left out at each end, so that fewer than
    four give the plain mean. :raises ValueError: no values, or not finite."""
    array = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    if array.ndim == 0 or array.shape[-1] == 0 or not np.isfinite(array).all():
        raise ValueError("the interquartile mean needs finite values, at least one")
    cut = array.shape[-1] // 4
    return np.asarray(array[..., cut : array.shape[-1] - cut].mean(axis=-1))


def bootstrap(
    strata: Sequence[ArrayLike], *, confidence: float = 0.95, repetitions: int = 5000, seed: int = 0
) -> Interval:
    """Interquartile mean over all values, and its percentile interval when each stratum is drawn from anew.

    :param strata: the runs of each task; runs are drawn with replacement within their task alone.
    :raises ValueError: no stratum, an empty one, values that are not finite, or a confidence outside of (0, 1).
    """
    arrays = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not arrays or any(array.ndim != 1 or array.size == 0 for array in arrays) or not 0 < confidence < 1:
        raise ValueError("the bootstrap needs strata of at least one value each and a confidence in (0, 1)")
    estimate = float(interquartile_mean(np.concatenate(arrays)))
    rng = np.random.default_rng(seed)
    drawn = [array[rng.integers(0, array.size, (repetitions, array.size))] for array in arrays]
    means = interquartile_mean(np.concatenate(drawn, axis=1))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))

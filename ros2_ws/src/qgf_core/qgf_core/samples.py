# SPDX-License-Identifier: Apache-2.0
"""Arguments of the metrics: signals of samples and joints, checked once and in one shape."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from qgf_core.errors import MetricError

Array: TypeAlias = npt.NDArray[np.float64]
PerJoint: TypeAlias = "float | Array"


def columns(signal: npt.ArrayLike, minimum: int, name: str) -> tuple[Array, bool]:
    """`signal`, (T,) or (T, n), as finite float64 (T, n), and whether it came as (T,).

    :param minimum: least T.
    :param name: of the argument, for the message.
    :raises MetricError: empty, too short, of another shape, not numeric, or not finite.
    """
    try:
        given = np.asarray(signal)
        array = None if np.iscomplexobj(given) else given.astype(np.float64, copy=False)
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
    return (array[:, None], True) if array.ndim == 1 else (array, False)


def joint_rows(samples: Array) -> Array:
    """`samples` (T, n) as (n, T) with each joint's in one stretch of memory; a view where they lie so already."""
    rows = samples.T
    return rows if rows.strides[1] == rows.itemsize else np.ascontiguousarray(rows)


BLOCK = 1 << 15
"""Numbers worked on at a time: with what is made of them they fit into a core's own cache."""


def blocks(rows: Array) -> Iterator[slice]:
    """Slices of the joints of (n, T), as many at a time as `BLOCK` allows."""
    step = max(1, BLOCK // rows.shape[1])
    return (slice(first, min(first + step, len(rows))) for first in range(0, len(rows), step))


def energy(rows: Array) -> Array:
    """Sum of squares (n,) of each of (n, T)."""
    return np.asarray((rows[:, None, :] @ rows[:, :, None])[:, 0, 0])


def counts(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int_]:
    """How many are true (n,) in each of (n, T): row by row, as counting along an axis makes integers of all first."""
    return np.array([np.count_nonzero(row) for row in flags])


def resolution(signal: npt.ArrayLike) -> float:
    """Relative spacing (eps) of the floating-point type that `signal` comes in; float64's for any other type."""
    kind = getattr(signal, "dtype", np.dtype(np.float64))
    return float(np.finfo(kind).eps) if np.issubdtype(kind, np.floating) else float(np.finfo(np.float64).eps)


def median(values: Array) -> float:
    """Of (T,), T >= 1, finite: `numpy.median` without what that costs beside the work."""
    middle = len(values) // 2
    # Numpy takes several times as long to find one place than to find two.
    ordered = np.partition(values, (max(middle - 1, 0), middle))
    return float(ordered[middle]) if len(values) % 2 else 0.5 * float(ordered[middle - 1] + ordered[middle])


def positive(value: float, name: str) -> float:
    """`value` as a float. :raises MetricError: not a finite number above 0."""
    if not (math.isfinite(value) and value > 0.0):
        raise MetricError(f"{name}: {value} must be a finite number above 0")
    return float(value)


def per_joint(values: Array, flat: bool) -> PerJoint:
    """Results (n,) as they are, or the only one of them as a float for a signal that came as (T,)."""
    return float(values[0]) if flat else values

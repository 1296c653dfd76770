# SPDX-License-Identifier: Apache-2.0
"""The elementwise passes of `qgf_trainer.field_function`, each reading and writing its arrays once.

Rows: n of s + eps, n of s', then all of s, of which the first n ("here") have a field. So rows 0 .. 3 n have a field,
rows 2 n on a value. Arrays are (rows, width) unless told; u may have a single row that stands for all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import DOUBLE_KINDS, NOTHING, given, kernel_for_kinds, written

Array = NDArray[np.floating]


@kernel_for_kinds(DOUBLE_KINDS, lambda x: NOTHING(*[given(x, 2)] * 3, *[written(x, 2)] * 4))
def bend_forward(z: Array, gate: Array, t: Array, h: Array, slope: Array, bend: Array, p: Array) -> None:
    """From z, q = sigmoid(z) and the tangents t (n, width): h = z q, f' = q + h (1 - q), and where there is a field
    f'' = (f' + q - h q) (1 - q) and p = f' t."""
    rows, width = z.shape
    n, with_field = t.shape[0], bend.shape[0]
    one = z.dtype.type(1)
    for i in range(rows):
        for j in range(width):
            q = gate[i, j]
            value = z[i, j] * q
            h[i, j] = value
            slope[i, j] = q + value * (one - q)
        if i < with_field:
            for j in range(width):
                q = gate[i, j]
                bend[i, j] = (slope[i, j] + q - h[i, j] * q) * (one - q)
        if 2 * n <= i < with_field:
            for j in range(width):
                p[i - 2 * n, j] = slope[i, j] * t[i - 2 * n, j]


@kernel_for_kinds(DOUBLE_KINDS, lambda x: NOTHING(*[given(x, 2)] * 4, written(x, 2), written(x)))
def deltas(u: Array, slope: Array, bend: Array, t: Array, delta: Array, second: Array) -> None:
    """d = u f' where there is a field; the layer's sum of u f'' t^2 is added to `second` (n,)."""
    with_field, width = delta.shape
    n, last = t.shape[0], u.shape[0] - 1
    for i in range(with_field):
        k = min(i, last)
        for j in range(width):
            delta[i, j] = u[k, j] * slope[i, j]
        if i >= 2 * n:
            total = second[i - 2 * n]
            for j in range(width):
                tangent = t[i - 2 * n, j]
                total += bend[i, j] * tangent * tangent * u[k, j]
            second[i - 2 * n] = total


@kernel_for_kinds(DOUBLE_KINDS, lambda x: NOTHING(given(x), *[given(x, 2)] * 7, *[written(x, 2)] * 3))
def bend_backward(
    c: Array, t: Array, u: Array, d_delta: Array, z: Array, gate: Array, slope: Array, bend: Array, d_u: Array,
    d_z: Array, d_t: Array,
) -> None:
    """What the field's and the curvature's derivatives make of a layer: d_u, d_z and d_t (n, width), all written anew.

    :param c: derivative by the curvature (n,). :param d_delta: by the layer's d.
    """
    rows, width = z.shape
    n, with_field, last = t.shape[0], bend.shape[0], u.shape[0] - 1
    one, two, three = z.dtype.type(1), z.dtype.type(2), z.dtype.type(3)
    for i in range(rows):
        if i >= with_field:
            for j in range(width):
                d_z[i, j] = 0
            continue
        k = min(i, last)
        for j in range(width):
            d_u[i, j] = d_delta[i, j] * slope[i, j]
            d_z[i, j] = bend[i, j] * d_delta[i, j] * u[k, j]
        if i >= 2 * n:
            here = i - 2 * n
            weight = c[here]
            for j in range(width):
                tangent, q, x = t[here, j], gate[i, j], z[i, j]
                weighted = weight * tangent
                along = weighted * bend[i, j]
                d_u[i, j] += along * tangent
                d_t[here, j] = two * along * u[k, j]
                rest = one - q
                r, m = q * rest, rest - q  # f''' = r (m (3 + z m) - 2 z r)
                third = ((x * m + three) * m - two * x * r) * r
                d_z[i, j] += weighted * tangent * third * u[k, j]


@kernel_for_kinds(DOUBLE_KINDS, lambda x: NOTHING(given(x), given(x), given(x, 2), written(x, 2)))
def value_backward(d_value: Array, weight: Array, slope: Array, d_z: Array) -> None:
    """Adds the values' derivative (B,) times the last weights (width,) times f' to d_z."""
    rows, width = d_z.shape
    first = rows - d_value.shape[0]
    for i in range(first, rows):
        factor = d_value[i - first]
        for j in range(width):
            d_z[i, j] += factor * weight[j] * slope[i, j]


@kernel_for_kinds(DOUBLE_KINDS, lambda x: NOTHING(*[given(x, 2)] * 5, *[written(x, 2)] * 2))
def layer_backward(
    d_h: Array, d_p: Array, slope: Array, bend: Array, t: Array, d_z: Array, d_t: Array
) -> None:
    """Adds what comes from the layer above by h, and by p = f' t (n, width), to d_z and d_t (n, width)."""
    rows, width = d_z.shape
    n, with_field = t.shape[0], bend.shape[0]
    for i in range(rows):
        for j in range(width):
            d_z[i, j] += d_h[i, j] * slope[i, j]
        if 2 * n <= i < with_field:
            here = i - 2 * n
            for j in range(width):
                d_z[i, j] += d_p[here, j] * t[here, j] * bend[i, j]
                d_t[here, j] += d_p[here, j] * slope[i, j]

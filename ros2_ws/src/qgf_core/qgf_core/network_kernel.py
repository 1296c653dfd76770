# SPDX-License-Identifier: Apache-2.0
"""One pass of a small network on one observation, in float32. What the programme means: see qgf_core.network."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import INTEGER, NOTHING, SINGLE, given, kernel_for, written

Floats = NDArray[np.float32]

LINEAR, ADD, SUB, MUL, DIV, CLAMP, SILU, RELU, TANH, SIGMOID, ELU, LEAKY_RELU = range(12)


@kernel_for(NOTHING, given(INTEGER, 2), given(SINGLE), given(SINGLE), written(SINGLE, 2), written(SINGLE),
            any_order_of_sums=True)
def run_network(
    programme: NDArray[np.int64], parameters: Floats, observation: Floats, work: Floats, out: Floats
) -> None:
    """Writes the network's answer to `out` (n_out,).

    :param programme: (k, 3), one row for each operation: code, width of its result, where its parameters begin.
    :param parameters: of all operations, end to end; a linear layer's weight (out, in) row by row, then its bias.
    :param work: (2, widest), overwritten.
    """
    one = np.float32(1.0)
    n = observation.size
    x, y = work[0], work[1]
    for i in range(n):
        x[i] = observation[i]
    for k in range(programme.shape[0]):
        code, size, at = programme[k, 0], programme[k, 1], programme[k, 2]
        if code == LINEAR:
            bias = at + size * n
            for i in range(size):
                row = parameters[at + i * n : at + (i + 1) * n]
                total = parameters[bias + i]
                for j in range(n):
                    total += row[j] * x[j]
                y[i] = total
            x, y, n = y, x, size
        elif code == ADD:
            for i in range(n):
                x[i] += parameters[at + i]
        elif code == SUB:
            for i in range(n):
                x[i] -= parameters[at + i]
        elif code == MUL:
            for i in range(n):
                x[i] *= parameters[at + i]
        elif code == DIV:
            for i in range(n):
                x[i] /= parameters[at + i]
        elif code == CLAMP:  # as all below: what is not a number stays none
            for i in range(n):
                if x[i] < parameters[at]:
                    x[i] = parameters[at]
                elif x[i] > parameters[at + 1]:
                    x[i] = parameters[at + 1]
        elif code == SILU:
            for i in range(n):
                x[i] = x[i] / (one + math.exp(-x[i]))
        elif code == RELU:
            for i in range(n):
                if x[i] < 0.0:
                    x[i] = 0.0
        elif code == TANH:
            for i in range(n):
                x[i] = math.tanh(x[i])
        elif code == SIGMOID:
            for i in range(n):
                x[i] = one / (one + math.exp(-x[i]))
        elif code == ELU:
            for i in range(n):
                if x[i] < 0.0:
                    x[i] = parameters[at] * math.expm1(x[i])
        else:  # LEAKY_RELU
            for i in range(n):
                if x[i] < 0.0:
                    x[i] *= parameters[at]
    for i in range(n):
        out[i] = x[i]

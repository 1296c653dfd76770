# SPDX-License-Identifier: Apache-2.0
"""The usual joint state: every required joint, once, with finite numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import BOOLEAN, FLOAT, INTEGER, given, kernel_for, written

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@kernel_for(BOOLEAN, given(), given(), given(INTEGER), given(), written(FLOAT, 2))
def in_order(position: Array, velocity: Array, columns: Integers, signs: Array, out: Array) -> bool:
    """Whether all numbers are finite; then positions and velocities stand in `out` (2, n), in the robot's order and the
    URDF's signs.

    :param position: of the message (k,) [rad]. :param velocity: of the message (k,) [rad/s].
    :param columns: where each joint stands in the message (n,), each below k.
    """
    for i in range(columns.size):
        q, v = position[columns[i]], velocity[columns[i]]
        if not (math.isfinite(q) and math.isfinite(v)):
            return False
        out[0, i], out[1, i] = q * signs[i], v * signs[i]
    return True

# SPDX-License-Identifier: Apache-2.0
"""The usual joint state: every required joint, once, with finite numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import BOOLEAN, FLOAT, INTEGER, given, kernel_for, written

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@kernel_for(BOOLEAN, given(), given(), given(INTEGER), given(), INTEGER, INTEGER, INTEGER, written(FLOAT, 2),
            written(INTEGER), written(INTEGER), written(INTEGER))
def merge_whole(
    position: Array, velocity: Array, columns: Integers, signs: Array, sampled_at: int, now: int, stamp: int,
    state: Array, sampled: Integers, arrived: Integers, stamps: Integers,
) -> bool:
    """Whether all numbers are finite; if not, nothing that is written means anything but `arrived` and `stamps`, which
    are as they were.

    :param position: of the message (k,) [rad]. :param velocity: of the message (k,) [rad/s].
    :param columns: where each joint stands in the message (n,), each below k.
    :param signs: to the URDF's (n,).
    :param state: positions and velocities are written here (2, n), in the robot's order and the URDF's signs.
    :param sampled: `sampled_at` is written here (n,) [ns]. :param arrived: `now` (n,) [ns].
    :param stamps: `stamp` (n,) [ns].
    """
    n = columns.size
    for i in range(n):
        q, v = position[columns[i]], velocity[columns[i]]
        if not (math.isfinite(q) and math.isfinite(v)):
            return False
        state[0, i], state[1, i] = q * signs[i], v * signs[i]
    for i in range(n):
        sampled[i], arrived[i], stamps[i] = sampled_at, now, stamp
    return True

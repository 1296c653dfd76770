# SPDX-License-Identifier: Apache-2.0
"""Where an arm is expected to be after one more period."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import FLOAT, NOTHING, given, kernel_for, written

Array = NDArray[np.float64]


@kernel_for(NOTHING, given(), given(), FLOAT, FLOAT, FLOAT, written(), written())
def follow(
    measured: Array, command: Array, forget: float, lag: float, period: float, expected: Array, velocity: Array
) -> None:
    """Moves `expected` (n,) [rad] and `velocity` (n,) [rad/s] on by a period.

    :param measured: where the arm was (n,) [rad]. :param command: that takes effect now (n,) [rad/s].
    :param forget: share of the difference from what was measured that is forgotten.
    :param lag: share of the way to the command that the drive makes in a period.
    """
    for i in range(expected.size):
        if forget > 0.0:
            expected[i] = expected[i] + forget * (measured[i] - expected[i])
        velocity[i] = velocity[i] + lag * (command[i] - velocity[i])
        expected[i] = expected[i] + velocity[i] * period

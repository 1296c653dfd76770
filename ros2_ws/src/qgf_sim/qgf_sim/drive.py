# SPDX-License-Identifier: Apache-2.0
"""How a drive follows a command: a pure delay, then a first-order lag."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from qgf_core.robot import DriveSpec

Vector = NDArray[np.float64]


class Drive:
    """Delay and lag of the joints' servos at the physics rate.

    :param spec: latency and time constant.
    :param period: physics period [s]; the latency is rounded to whole periods.
    :param joints: number of joints.
    """

    delay: int
    """Whole periods that a command waits."""

    def __init__(self, spec: DriveSpec, period: float, joints: int) -> None:
        self.delay = round(spec.latency / period)
        # Exact step of dy/dt = (u - y) / T over one period with constant u.
        self._blend = 1.0 - math.exp(-period / spec.time_constant) if spec.time_constant > 0 else 1.0
        self._queue: deque[Vector] = deque()
        self._output = np.zeros(joints)

    def reset(self, value: Vector) -> None:
        """All commands so far, and the output, were `value` (n,)."""
        self._output = np.array(value, dtype=np.float64)
        self._queue = deque([self._output.copy()] * self.delay)

    def step(self, command: Vector) -> Vector:
        """What the servo asks for in this physics period (n,), for the command (n,) that is in force now."""
        self._queue.append(command)
        self._output = self._output + self._blend * (self._queue.popleft() - self._output)
        return self._output

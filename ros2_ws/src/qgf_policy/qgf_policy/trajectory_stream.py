# SPDX-License-Identifier: Apache-2.0
"""A stream of position commands as one-point trajectories that joint_trajectory_controller follows without a stop.

The controller goes in a straight line from its present command to the point and stands there until the next message. A
point due in one period is reached before a message that is late by anything: the arm stops and restarts, a hundred
times a second. A point with velocities must end at rest, which is a stop by itself. Here the point lies further ahead
on the way that the last two commands point out, so that the line to it has their speed, and a late or lost message
changes nothing; if no more come, the arm ends at most HORIZON_PERIODS periods further on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]

HORIZON_PERIODS = 3
"""A point is due after this many command periods: one message may be lost and the next be late by nearly a period."""
SHORTEST_HORIZON = 15_000_000
"""But not sooner than this [ns], about the worst that an ordinary computer keeps a loop waiting."""
ROUNDING = 1e-9
"""Allowed where two steps are compared [rad]."""


def horizon_of(period: int) -> int:
    """When a point is due after it was sent [ns], for commands that are `period` [ns] apart."""
    return max(HORIZON_PERIODS * period, SHORTEST_HORIZON)


class TrajectoryStream:
    """Turns the commands of consecutive periods into points that lie ahead of them.

    :param robot: its acceleration and position limits.
    :param period: time between commands [ns].
    """

    def __init__(self, robot: RobotSpec, period: int) -> None:
        self.horizon = horizon_of(period)
        """When a point is due after it was sent [ns]."""
        self._ahead = self.horizon / period - 1.0  # a command is due in one period by itself
        self._lower, self._upper, self._signs = robot.position_lower, robot.position_upper, robot.signs
        self._largest_change = robot.acceleration_limit * (1e-9 * period) ** 2 + ROUNDING
        self._position: Vector | None = None
        self._step = np.zeros(len(robot.joints))

    def point(self, command: Vector) -> Vector:
        """Where to be after `horizon`: (n,) [rad], as `command` (n,) in the driver's signs.

        Between two activations the arm may have been moved. A change of velocity beyond the acceleration limit is not
        the limiter's; it is told from a motion by that, and not prolonged.
        """
        position = command * self._signs
        step = np.zeros_like(position) if self._position is None else position - self._position
        going_on = bool(np.all(np.abs(step - self._step) <= self._largest_change))
        self._position, self._step = position, step
        if going_on:
            position = position + self._ahead * step
        return np.asarray(np.clip(position, self._lower, self._upper) * self._signs)

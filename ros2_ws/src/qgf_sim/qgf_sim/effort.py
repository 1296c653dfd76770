# SPDX-License-Identifier: Apache-2.0
"""Torques that follow the limited command of an effort interface: inverse dynamics, and feedback on what it leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qgf_core.kinematics import Kinematics
from qgf_core.limiter import LimitedCommand

Vector = NDArray[np.float64]
_VELOCITY_GAIN = 10.0
"""[1/s]: with a control period of 20 ms and as much latency the loop keeps two thirds of its phase margin."""
_POSITION_GAIN = 0.25 * _VELOCITY_GAIN**2
"""[1/s^2]: critically damped."""


def following_torque(
    kinematics: Kinematics, command: LimitedCommand, position: Vector, velocity: Vector, damping: float
) -> Vector:
    """Torque (n,) [N m]: M (a + kv (v - dq) + kp (p - q)) + Coriolis + gravity + damping dq, by the URDF's masses.

    :param command: p, v and a.
    :param position: measured (n,) [rad].
    :param velocity: measured (n,) [rad/s].
    :param damping: of the joints [N m s/rad].
    """
    wanted = (command.acceleration + _VELOCITY_GAIN * (command.velocity - velocity)
              + _POSITION_GAIN * (command.position - position))
    return np.asarray(kinematics.torque(position, velocity, wanted) + damping * velocity)

# SPDX-License-Identifier: Apache-2.0
"""From a policy's rate to the drive's: the commands between two inferences lie on a straight line.

A policy at 50 Hz asks for a new joint velocity every 20 ms; a drive at 500 Hz would see a staircase of ten equal
commands and a jump. The interpolator leads from each wish to the next over a control period T in m equal steps, and the
limiter then rounds the corners. In training and on the arm it is this one.

What it costs is time: a wish that changes by 1 is met by k / m after k commands, and so comes later than the staircase
by the area between the two,
    lag = T / m * sum over k = 1..m of (1 - k / m) = T (m - 1) / (2 m).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def substeps_of(control_rate: float, command_rate: float) -> int:
    """Commands in a control period.

    :param control_rate: [Hz]
    :param command_rate: [Hz]; 0 is the control rate.
    :raises ValueError: no integer multiple of the control rate.
    """
    rate = command_rate or control_rate
    substeps = round(rate / control_rate)
    if substeps < 1 or abs(substeps * control_rate - rate) > 1e-9 * rate:
        raise ValueError(f"command_rate {rate:g} Hz is no multiple of the control rate {control_rate:g} Hz")
    return substeps


def interpolation_lag(control_rate: float, command_rate: float) -> float:
    """How much later than a staircase the commands come [s]; arguments and errors as in `substeps_of`."""
    substeps = substeps_of(control_rate, command_rate)
    return (substeps - 1) / (2.0 * substeps * control_rate)


class Interpolator:
    """Straight lines between the velocities that are asked for, one after the other.

    :param joints: number of joints.
    :param substeps: commands in a control period; with 1 it does nothing.
    """

    def __init__(self, joints: int, substeps: int) -> None:
        if joints < 1 or substeps < 1:
            raise ValueError(f"joints {joints} and substeps {substeps} must be positive")
        self.substeps = substeps
        self.restart(np.zeros(joints))

    def restart(self, velocity: Vector) -> None:
        """The last command was `velocity` (n,) [rad/s], and it is all that is asked for."""
        self._from = self._to = self._last = np.array(velocity, dtype=np.float64)
        self._done = self.substeps

    def aim(self, velocity: Vector) -> None:
        """A new control period begins, which leads from the last command to `velocity` (n,) [rad/s]."""
        self._from, self._to, self._done = self._last, velocity, 0

    def step(self) -> Vector:
        """Velocity (n,) [rad/s] of the next command; the end of the line stays, where no new one is given."""
        self._done += 1
        if self._done >= self.substeps:
            self._last = self._to
        else:
            self._last = self._from + (self._done / self.substeps) * (self._to - self._from)
        return self._last

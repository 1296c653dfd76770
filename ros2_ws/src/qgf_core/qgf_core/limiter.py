# SPDX-License-Identifier: Apache-2.0
"""The one limiter: position, velocity, acceleration and jerk limits on a stream of commands, for training and the arm.

Commands are h apart: a' in [a - J h, a + J h] and [-A, A], v' = v + a' h, p' = p + v' h. A command is allowed only if
from the state that it leads to a halt within all limits still exists (viability).

Velocity: a' is the largest acceleration that can fade to zero, by J h a period, before the velocity passes its target:
    a' h + sum over k >= 1 of max(a' - k J h, 0) h = |target - v|.
Position: p' + D(v', a') <= p_max, where D is the distance of the shortest jerk-limited stop. From a speed v0 at zero
acceleration it is
    D0(v0) = v0 / 2 (v0 / A + A / J)   if v0 >= A^2 / J,   else v0 sqrt(v0 / J),
and from an acceleration a, by extending the motion to where a was or will be zero, v0 = v + a^2 / (2 J),
    D(v, a) = D0(v0) + v a / J + a^3 / (3 J^2).
D belongs to continuous time; the sampled brake travels no further: D(v', a') + v' h <= D(v, a) for any state and period
(the tests search for an exception), so that a brake that fits once fits ever after.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core import limiter_kernel as kernel
from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]


class LimitedCommand(NamedTuple):
    """What may be sent: arrays (n,)."""

    position: Vector
    """[rad]"""
    velocity: Vector
    """[rad/s]"""
    acceleration: Vector
    """[rad/s^2]"""
    limited: bool
    """Whether it differs from what was asked for."""


class Limiter:
    """Holds the last command's position, velocity and acceleration and lets them change only within the limits.

    Limits that hold at the start hold exactly for every command. A start outside may come back, but never goes further
    out than it must, and keeps the acceleration and jerk limits.

    :param robot: limits and margin.
    :param period: time between commands [s].
    :param response_time: how long an arm whose measured position is given goes on by itself after a command [s]:
        latency plus lag. Without measured positions it has no effect: the commands themselves are then limited.
    """

    def __init__(self, robot: RobotSpec, period: float, response_time: float = 0.0) -> None:
        if not (0.0 < period < np.inf and 0.0 <= response_time < np.inf):
            raise ValueError(f"period {period} s must be positive and response_time {response_time} s not negative")
        self.period = period
        self._response = response_time
        self._forgetting = float(-np.expm1(-period / response_time)) if response_time > 0 else 1.0
        self._velocity = robot.velocity_limit
        lower, upper = robot.position_lower + robot.position_margin, robot.position_upper - robot.position_margin
        # Further from a limit than this, no allowed command can need it.
        reach = self._velocity * (period + response_time) + stop_distance(
            self._velocity, robot.acceleration_limit, robot.acceleration_limit, robot.jerk_limit)
        zones = (lower + reach, upper - reach)
        limits = (self._velocity, robot.acceleration_limit, robot.jerk_limit, lower, upper, *zones)
        self._limits = np.ascontiguousarray(np.stack(np.broadcast_arrays(*limits), axis=1), dtype=np.float64)
        self._state = np.zeros((4, len(self._limits)))
        self.reset(robot.home)

    def reset(self, position: Vector, velocity: Vector | None = None) -> None:
        """Start from joint positions (n,) [rad] and velocities (n,) [rad/s], by default at rest.

        A velocity beyond its limit is taken as the limit. :raises ValueError: not finite, or another shape.
        """
        p = self._demand(position, "position")
        v = np.zeros(p.shape) if velocity is None else self._demand(velocity, "velocity")
        for name, values in (("position", p), ("velocity", v)):
            if not np.isfinite(values).all():
                raise ValueError(f"{name} {values.tolist()} must be finite")
        v = np.clip(v, -self._velocity, self._velocity)
        self._state = np.stack([p, v, np.zeros(p.shape), v])

    @property
    def position(self) -> Vector:
        """Of the last command (n,) [rad]."""
        return self._state[kernel.POSITION].copy()

    @property
    def velocity(self) -> Vector:
        """Of the last command (n,) [rad/s]."""
        return self._state[kernel.SPEED].copy()

    @property
    def at_rest(self) -> bool:
        """Whether the last command was a standstill."""
        return all(abs(v) < 1e-9 for v in self._state[kernel.SPEED].tolist())

    def step(self, desired_velocity: Vector, measured_position: Vector | None = None) -> LimitedCommand:
        """The command of this period.

        :param desired_velocity: (n,) [rad/s].
        :param measured_position: (n,) [rad]: where a velocity-controlled arm is; without it the commanded position
            counts, as a position interface needs.
        :raises ValueError: a number that is not finite, or another shape; the limiter's state is then unchanged.
        """
        desired, closed = self._demand(desired_velocity, "desired velocity"), measured_position is not None
        measured = desired if measured_position is None else self._demand(measured_position, "measured position")
        out = np.empty((3, len(self._limits)))
        answer = kernel.limit_step(
            desired, measured, closed, self._limits, self._state, self.period, self._response, self._forgetting, out)
        if answer == kernel.BAD_DESIRED:
            raise ValueError(f"desired velocity {desired.tolist()} must be finite")
        if answer == kernel.BAD_MEASURED:
            raise ValueError(f"measured position {measured.tolist()} must be finite")
        return LimitedCommand(out[0], out[1], out[2], answer == kernel.LIMITED)

    def _demand(self, values: Vector, name: str) -> Vector:
        array = np.ascontiguousarray(values, dtype=np.float64)
        if array.shape != self._velocity.shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {self._velocity.shape}")
        return array if array.flags.aligned else array.copy()


def stop_distance(velocity: Vector, acceleration: Vector, acceleration_limit: Vector, jerk_limit: Vector) -> Vector:
    """How far ahead (n,) [rad, >= 0] the shortest jerk-limited stop reaches, from a velocity and acceleration.

    :param velocity: (n,) [rad/s], positive towards what is ahead.
    :param acceleration: (n,) [rad/s^2], within the limit.
    :param acceleration_limit: (n,) [rad/s^2].
    :param jerk_limit: (n,) [rad/s^3].
    """
    arrays = [np.array(x, dtype=np.float64) for x in
              np.broadcast_arrays(velocity, acceleration, acceleration_limit, jerk_limit)]
    out = np.empty(arrays[0].shape)
    v, a, limit, jerk = (array.reshape(-1) for array in arrays)
    kernel.stop_distances(v, a, limit, jerk, out.reshape(-1))
    return out

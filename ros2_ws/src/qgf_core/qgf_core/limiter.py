# SPDX-License-Identifier: Apache-2.0
"""The one limiter: position, velocity, acceleration and jerk limits on a stream of commands, in training and on the arm.

A command is allowed only if from the state that it leads to a halt within all limits still exists (viability). With v, a the
velocity and acceleration of the last command, J and A the limits and h the period, the velocity stage keeps
    v' + a'^2 / (2 J) <= V,       v' = v + a' h,   a' in [a - J h, a + J h] and [-A, A],
and the position stage keeps
    p + v' (h + r) + D(v', a') <= p_max,
where r is the arm's response time and D the distance of the shortest jerk-limited stop: from speed v0 at zero acceleration it is
    D0(v0) = v0 / 2 (v0 / A + A / J)   if v0 >= A^2 / J,   else v0 sqrt(v0 / J),
and from acceleration a, by extending the motion to where a was or will be zero, v0 = v + a^2 / (2 J),
    D(v, a) = D0(v0) + v a / J + a^3 / (3 J^2).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]
_BISECTIONS = 14


@dataclasses.dataclass(frozen=True)
class LimitedCommand:
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

    :param robot: limits and margin.
    :param period: time between commands [s].
    :param response_time: how long the arm goes on by itself after a command [s]: latency plus lag for a velocity
        interface, 0 for a position interface.
    """

    def __init__(self, robot: RobotSpec, period: float, response_time: float = 0.0) -> None:
        if period <= 0 or response_time < 0:
            raise ValueError(f"period {period} s must be positive and response_time {response_time} s not negative")
        self.period = period
        self._response = response_time
        self._velocity, self._acceleration, self._jerk = robot.velocity_limit, robot.acceleration_limit, robot.jerk_limit
        self._lower = robot.position_lower + robot.position_margin
        self._upper = robot.position_upper - robot.position_margin
        self._p = robot.home.copy()
        self._v = np.zeros_like(self._p)
        self._a = np.zeros_like(self._p)

    def reset(self, position: Vector, velocity: Vector | None = None) -> None:
        """Start from joint positions (n,) [rad] and velocities (n,) [rad/s], by default at rest."""
        if not (np.isfinite(position).all() and (velocity is None or np.isfinite(velocity).all())):
            raise ValueError("the limiter cannot start from a state that is not finite")
        self._p = np.array(position, dtype=np.float64)
        self._v = np.zeros_like(self._p) if velocity is None else np.array(velocity, dtype=np.float64)
        self._a = np.zeros_like(self._p)

    @property
    def at_rest(self) -> bool:
        """Whether the last command was a standstill."""
        return bool(np.all(np.abs(self._v) < 1e-6))

    def step(self, desired_velocity: Vector, measured_position: Vector | None = None) -> LimitedCommand:
        """The command of this period.

        :param desired_velocity: (n,) [rad/s].
        :param measured_position: (n,) [rad]: where a velocity-controlled arm is; without it the commanded position counts,
            as a position interface needs.
        :raises ValueError: a number that is not finite; the limiter's state is then unchanged.
        """
        h = self.period
        position = self._p if measured_position is None else np.asarray(measured_position, dtype=np.float64)
        if not (np.isfinite(desired_velocity).all() and np.isfinite(position).all()):
            raise ValueError("desired velocity and measured position must be finite")
        wanted = np.clip(desired_velocity, -self._velocity, self._velocity)
        a = self._towards(wanted)
        a = self._keep_from(a, self._upper - position, self._v, self._a_brake(np.minimum(wanted, 0.0)))
        a = -self._keep_from(-a, position - self._lower, -self._v, -self._a_brake(np.maximum(wanted, 0.0)))
        self._a = a
        self._v = self._v + a * h
        self._p = position + self._v * h
        limited = bool(np.any(np.abs(self._v - desired_velocity) > 1e-9))
        return LimitedCommand(self._p.copy(), self._v.copy(), a.copy(), limited)

    def _towards(self, velocity: Vector) -> Vector:
        """Acceleration (n,) that brings the velocity there soonest without passing it."""
        h, jerk = self.period, self._jerk
        error = velocity - self._v
        # Root of a' h + a'^2 / (2 J) = |error|: what is left after a' fades at the jerk limit ends on the target.
        a = np.sign(error) * jerk * (np.sqrt(h * h + 2.0 * np.abs(error) / jerk) - h)
        lower = np.maximum(-self._acceleration, self._a - jerk * h)
        upper = np.minimum(self._acceleration, self._a + jerk * h)
        return np.clip(a, lower, upper)

    def _a_brake(self, velocity: Vector) -> Vector:
        return self._towards(velocity)

    def _keep_from(self, a: Vector, room: Vector, v: Vector, brake: Vector) -> Vector:
        """`a`, lowered where needed so that a halt fits in the `room` (n,) [rad] ahead; `brake` where nothing fits."""
        fits = self._fits(a, room, v)
        if fits.all():
            return a
        low, high = np.minimum(brake, a), a
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            good = self._fits(middle, room, v)
            low, high = np.where(good, middle, low), np.where(good, high, middle)
        return np.where(fits, a, low)

    def _fits(self, a: Vector, room: Vector, v: Vector) -> NDArray[np.bool_]:
        after = v + a * self.period
        return np.asarray(after * self.period + np.maximum(after, 0.0) * (self._response + self.period)
                          + stop_distance(after, a, self._acceleration, self._jerk) <= np.maximum(room, 0.0))


def stop_distance(velocity: Vector, acceleration: Vector, acceleration_limit: Vector, jerk_limit: Vector) -> Vector:
    """How far ahead (n,) [rad, >= 0] the shortest jerk-limited stop reaches from a velocity [rad/s] and acceleration [rad/s^2]."""
    v, a, jerk = velocity, acceleration, jerk_limit
    v0 = v + a * a / (2.0 * jerk)
    start = np.maximum(v0, 0.0)
    from_zero_acceleration = np.where(start >= acceleration_limit**2 / jerk,
                                      0.5 * start * (start / acceleration_limit + acceleration_limit / jerk),
                                      start * np.sqrt(start / jerk))
    distance = from_zero_acceleration + v * a / jerk + a**3 / (3.0 * jerk**2)
    # Braking already harder than needed: the velocity crosses zero before the acceleration is back at zero.
    overbraked = (a < 0) & (v < a * a / (2.0 * jerk))
    crossing = (-a - np.sqrt(np.maximum(a * a - 2.0 * jerk * np.maximum(v, 0.0), 0.0))) / jerk
    distance = np.where(overbraked, 0.5 * np.maximum(v, 0.0) * crossing, distance)
    return np.asarray(np.where((v <= 0) & ((a <= 0) | (v0 <= 0)), 0.0, np.maximum(distance, 0.0)))

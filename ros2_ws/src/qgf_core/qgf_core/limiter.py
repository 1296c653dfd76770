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

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]

_HALVINGS = 12
"""Of the interval that an acceleration near a position limit is sought in."""


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


class _Limits(NamedTuple):
    """Of one joint [rad, rad/s, rad/s^2, rad/s^3]; between the zones, its position limits need no thought."""

    velocity: float
    acceleration: float
    jerk: float
    lower: float
    upper: float
    lower_zone: float
    upper_zone: float


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
        # For the few numbers of an arm, plain floats take a fraction of the time of arrays (and of the memory that the
        # processor must fetch anew in each period of a control loop).
        self._limits = [_Limits(*numbers) for numbers in zip(*(values.tolist() for values in limits), strict=True)]
        self._p: list[float] = []
        self._v: list[float] = []
        self.reset(robot.home)

    def reset(self, position: Vector, velocity: Vector | None = None) -> None:
        """Start from joint positions (n,) [rad] and velocities (n,) [rad/s], by default at rest.

        A velocity beyond its limit is taken as the limit. :raises ValueError: not finite, or another shape.
        """
        p = self._demand(np.asarray(position, dtype=np.float64), "position")
        v = np.zeros(len(p)) if velocity is None else np.asarray(velocity, dtype=np.float64)
        self._demand(v, "velocity")
        self._p, self._v = p, np.clip(v, -self._velocity, self._velocity).tolist()
        self._a = [0.0] * len(self._p)
        self._trailing = self._v  # velocity of an arm that follows with the response time as its lag

    @property
    def position(self) -> Vector:
        """Of the last command (n,) [rad]."""
        return np.array(self._p)

    @property
    def velocity(self) -> Vector:
        """Of the last command (n,) [rad/s]."""
        return np.array(self._v)

    @property
    def at_rest(self) -> bool:
        """Whether the last command was a standstill."""
        return all(abs(v) < 1e-9 for v in self._v)

    def step(self, desired_velocity: Vector, measured_position: Vector | None = None) -> LimitedCommand:
        """The command of this period.

        :param desired_velocity: (n,) [rad/s].
        :param measured_position: (n,) [rad]: where a velocity-controlled arm is; without it the commanded position
            counts, as a position interface needs.
        :raises ValueError: a number that is not finite, or another shape; the limiter's state is then unchanged.
        """
        desired = self._demand(np.asarray(desired_velocity, dtype=np.float64), "desired velocity")
        place = self._p
        if measured_position is not None:
            place = self._demand(np.asarray(measured_position, dtype=np.float64), "measured position")
        chosen = self._towards(desired)
        if any(not m.lower_zone <= p <= m.upper_zone for p, m in zip(place, self._limits, strict=True)):
            chosen = self._within(chosen, place, self._response if measured_position is not None else 0.0)
        h, forgetting = self.period, self._forgetting
        v = [v + a * h for v, a in zip(self._v, chosen, strict=True)]
        p = [p + v * h for p, v in zip(place, v, strict=True)]
        self._p, self._v, self._a = p, v, chosen
        self._trailing = [t + forgetting * (v - t) for t, v in zip(self._trailing, v, strict=True)]
        limited = any(abs(v - d) > 1e-9 for v, d in zip(v, desired, strict=True))
        return LimitedCommand(np.array(p), np.array(v), np.array(chosen), limited)

    def _demand(self, values: Vector, name: str) -> list[float]:
        if values.shape != self._velocity.shape:
            raise ValueError(f"{name} has shape {values.shape}, expected {self._velocity.shape}")
        numbers: list[float] = values.tolist()
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{name} {numbers} must be finite")
        return numbers

    def _towards(self, velocity: list[float]) -> list[float]:
        """Acceleration (n,) that brings each joint to its velocity soonest without passing it."""
        joints = zip(velocity, self._v, self._a, self._limits, strict=True)
        return [_towards(wanted, v, a, limits, self.period) for wanted, v, a, limits in joints]

    def _within(self, chosen: list[float], position: list[float], response: float) -> list[float]:
        """`chosen` (n,), changed where a position limit is near."""
        within = list(chosen)
        for i, (p, limits) in enumerate(zip(position, self._limits, strict=True)):
            if limits.lower_zone <= p <= limits.upper_zone:
                continue
            v, last, trailing = self._v[i], self._a[i], self._trailing[i]
            brake = _towards(0.0, v, last, limits, self.period)
            keep = (limits, self.period, response)
            a = _keep_from(limits.upper - p, chosen[i], last, v, trailing, brake, *keep)
            within[i] = -_keep_from(p - limits.lower, -a, -last, -v, -trailing, -brake, *keep)
        return within


def _towards(velocity: float, v: float, a: float, limits: _Limits, period: float) -> float:
    """Acceleration that brings a joint from `v` and `a` to the velocity soonest without passing it."""
    error = max(-limits.velocity, min(velocity, limits.velocity)) - v
    size, step = abs(error), limits.jerk * period
    # How many further periods the fade takes: J h^2 m (m + 1) / 2 <= |error|; then the equation is linear in a'.
    m = math.floor(0.5 * (math.sqrt(1.0 + 8.0 * size / (step * period)) - 1.0))
    towards = math.copysign((size / period + 0.5 * step * m * (m + 1.0)) / (m + 1.0), error)
    lower, upper = max(-limits.acceleration, a - step), min(limits.acceleration, a + step)
    return min(max(towards, lower), upper)


def _keep_from(
    room: float, a: float, last: float, v: float, trailing: float, brake: float, limits: _Limits, period: float,
    response: float,
) -> float:
    """`a`, lowered where needed so that a halt fits in the `room` [rad] ahead, down to a full brake.

    :param last: acceleration of the last command. :param trailing: velocity of an arm that follows with a lag.
    :param brake: acceleration that brings the velocity to zero soonest.
    """
    room, going_on = max(room, 0.0), max(trailing, 0.0) * response

    def fits(candidate: float) -> bool:
        after = v + candidate * period
        reach = after * period + max(going_on, after * response)
        return reach + _stop_distance(after, candidate, limits.acceleration, limits.jerk) <= room

    if fits(a):
        return a
    # Where the motion leads away from this limit, it is enough not to turn round.
    low, high = min(brake, max(last - limits.jerk * period, 0.0), a), a
    # The distance grows with velocity and acceleration: all below one that fits, fit.
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def stop_distance(velocity: Vector, acceleration: Vector, acceleration_limit: Vector, jerk_limit: Vector) -> Vector:
    """How far ahead (n,) [rad, >= 0] the shortest jerk-limited stop reaches, from a velocity and acceleration.

    :param velocity: (n,) [rad/s], positive towards what is ahead.
    :param acceleration: (n,) [rad/s^2], within the limit.
    :param acceleration_limit: (n,) [rad/s^2].
    :param jerk_limit: (n,) [rad/s^3].
    """
    arrays = np.broadcast_arrays(velocity, acceleration, acceleration_limit, jerk_limit)
    return np.array([_stop_distance(*numbers) for numbers in zip(*(x.tolist() for x in arrays), strict=True)])


def _stop_distance(v: float, a: float, acceleration_limit: float, jerk: float) -> float:
    fade = a * a / (2.0 * jerk)
    if v <= 0.0 and (a <= 0.0 or v + fade <= 0.0):
        return 0.0
    if a < 0.0 and v < fade:
        # Braking already harder than needed: at full jerk the velocity v + a t + J t^2 / 2 crosses zero while a < 0.
        crossing = 2.0 * v / (math.sqrt(max(a * a - 2.0 * jerk * v, 0.0)) - a)
        return crossing * (v + crossing * (0.5 * a + jerk * crossing / 6.0))
    v0 = max(v + fade, 0.0)
    if v0 >= acceleration_limit * acceleration_limit / jerk:
        distance = 0.5 * v0 * (v0 / acceleration_limit + acceleration_limit / jerk)
    else:
        distance = v0 * math.sqrt(v0 / jerk)
    return max(distance + a / jerk * (v + 2.0 / 3.0 * fade), 0.0)

# SPDX-License-Identifier: Apache-2.0
"""One period of the limiter for all joints; formulas: see qgf_core.limiter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import BOOLEAN, FLOAT, INTEGER, NOTHING, compiled, given, kernel_for, written

Array = NDArray[np.float64]

VELOCITY, ACCELERATION, JERK, LOWER, UPPER, LOWER_ZONE, UPPER_ZONE = range(7)
"""Columns of the limits [rad/s, rad/s^2, rad/s^3, rad]; between the zones, position limits need no thought."""
POSITION, SPEED, ACCELERATING, TRAILING = range(4)
"""Rows of the state: of the last command [rad, rad/s, rad/s^2], and velocity of an arm that follows it [rad/s]."""
ALLOWED, LIMITED, BAD_DESIRED, BAD_MEASURED = range(4)
"""What `limit_step` answers."""
_HALVINGS = 12
"""Of the interval that an acceleration near a position limit is sought in."""


@compiled
def _towards(velocity: float, v: float, a: float, joint: Array, period: float) -> float:
    """Acceleration that brings a joint from `v` and `a` to the velocity soonest without passing it."""
    error = max(-joint[VELOCITY], min(velocity, joint[VELOCITY])) - v
    size, step = abs(error), joint[JERK] * period
    # How many further periods the fade takes: J h^2 m (m + 1) / 2 <= |error|; then the equation is linear in a'.
    m = float(math.floor(0.5 * (math.sqrt(1.0 + 8.0 * size / (step * period)) - 1.0)))
    towards = math.copysign((size / period + 0.5 * step * m * (m + 1.0)) / (m + 1.0), error)
    lower, upper = max(-joint[ACCELERATION], a - step), min(joint[ACCELERATION], a + step)
    return min(max(towards, lower), upper)


@compiled
def stop_distance_of(v: float, a: float, acceleration_limit: float, jerk: float) -> float:
    """Of one joint; see `qgf_core.limiter.stop_distance`."""
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


@compiled
def _fits(
    candidate: float, v: float, room: float, going_on: float, joint: Array, period: float, response: float
) -> bool:
    after = v + candidate * period
    reach = after * period + max(going_on, after * response)
    return reach + stop_distance_of(after, candidate, joint[ACCELERATION], joint[JERK]) <= room


@compiled
def _keep_from(
    room: float, a: float, last: float, v: float, trailing: float, brake: float, joint: Array, period: float,
    response: float,
) -> float:
    """`a`, lowered where needed so that a halt fits in the `room` [rad] ahead, down to a full brake.

    :param last: acceleration of the last command. :param trailing: velocity of an arm that follows with a lag.
    :param brake: acceleration that brings the velocity to zero soonest.
    """
    room, going_on = max(room, 0.0), max(trailing, 0.0) * response
    if _fits(a, v, room, going_on, joint, period, response):
        return a
    # Where the motion leads away from this limit, it is enough not to turn round.
    low, high = min(brake, max(last - joint[JERK] * period, 0.0), a), a
    # The distance grows with velocity and acceleration: all below one that fits, fit.
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _fits(middle, v, room, going_on, joint, period, response):
            low = middle
        else:
            high = middle
    return low


@kernel_for(INTEGER, given(), given(), BOOLEAN, given(FLOAT, 2), written(FLOAT, 2), FLOAT, FLOAT, FLOAT,
            written(FLOAT, 2))
def limit_step(
    desired: Array, measured: Array, closed: bool, limits: Array, state: Array, period: float, response: float,
    forgetting: float, out: Array,
) -> int:
    """Moves `state` (4, n) on by a period and writes position, velocity and acceleration to `out` (3, n).

    A number that is not finite changes nothing.

    :param desired: (n,) [rad/s]. :param measured: (n,) [rad], read where `closed`.
    :param forgetting: share of the way that the trailing velocity takes in a period.
    """
    n = desired.size
    for i in range(n):
        if not math.isfinite(desired[i]):
            return BAD_DESIRED
        if closed and not math.isfinite(measured[i]):
            return BAD_MEASURED
    answer = ALLOWED
    for i in range(n):
        place = measured[i] if closed else state[POSITION, i]
        v, last, trailing, joint = state[SPEED, i], state[ACCELERATING, i], state[TRAILING, i], limits[i]
        a = _towards(desired[i], v, last, joint, period)
        if not (joint[LOWER_ZONE] <= place <= joint[UPPER_ZONE]):
            brake = _towards(0.0, v, last, joint, period)
            going_on = response if closed else 0.0
            a = _keep_from(joint[UPPER] - place, a, last, v, trailing, brake, joint, period, going_on)
            a = -_keep_from(place - joint[LOWER], -a, -last, -v, -trailing, -brake, joint, period, going_on)
        v = v + a * period
        place = place + v * period
        state[POSITION, i], state[SPEED, i], state[ACCELERATING, i] = place, v, a
        state[TRAILING, i] = trailing + forgetting * (v - trailing)
        out[0, i], out[1, i], out[2, i] = place, v, a
        if abs(v - desired[i]) > 1e-9:
            answer = LIMITED
    return answer


@kernel_for(NOTHING, given(), given(), given(), given(), written())
def stop_distances(v: Array, a: Array, acceleration_limit: Array, jerk: Array, out: Array) -> None:
    """Of many joints, all arrays (n,)."""
    for i in range(v.size):
        out[i] = stop_distance_of(v[i], a[i], acceleration_limit[i], jerk[i])

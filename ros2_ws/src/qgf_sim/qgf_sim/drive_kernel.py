# SPDX-License-Identifier: Apache-2.0
"""The drives' answers over the physics steps of a command, see qgf_sim.drive."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import compiled

VELOCITY, POSITION, EFFORT = 0, 1, 2
"""Kinds of drive."""
KIND, DELAY, NOW, FIRST, WAITING, CLOCK = 0, 1, 2, 3, 4, 5
"""Places in `clock`: the kind; the delay and the time [ns]; where the oldest command that waits stands in the ring, and
how many wait; from CLOCK on, when each place of the ring takes effect [ns]."""
INPUT, OUTPUT, RATE, MOTOR, JOINT, RING = 0, 1, 2, 3, 4, 5
"""Rows of `memory`: command in force; the servo's answer and its derivative; of the backlash, where motor and joint
are; from RING on, the ring of commands that wait."""
TIME_CONSTANT, DAMPING_RATIO, GAIN, STICTION, DRAG, TOP_SPEED, BACKLASH = 0, 1, 2, 3, 4, 5, 6
"""Places in `actuator`: those of ActuatorSpec; STICTION [rad/s] and DRAG are friction over stiffness."""


@compiled
def run_drive(
    command: NDArray[np.float64],
    period: int,
    actuator: NDArray[np.float64],
    clock: NDArray[np.int64],
    memory: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Writes what the servos ask for in each of the next physics periods; returns how many commands wait.

    :param command: (n,) in force now and in all of them.
    :param period: length of each [ns].
    :param actuator: see above.
    :param clock: see above, changed. It must have places for a command a period more than wait.
    :param memory: (RING + places, n), changed.
    :param out: (periods, n), overwritten.
    """
    kind, delay, now, first, waiting = clock[KIND], clock[DELAY], clock[NOW], clock[FIRST], clock[WAITING]
    places, n = clock.size - CLOCK, command.size
    time_constant, damping = actuator[TIME_CONSTANT], actuator[DAMPING_RATIO]
    seconds, backlash = period * 1e-9, actuator[BACKLASH]
    for k in range(out.shape[0]):
        place = (first + waiting) % places
        waiting += 1
        clock[CLOCK + place] = now + delay
        for i in range(n):
            memory[RING + place, i] = command[i]
        end = now + period
        while now < end:
            # Up to the next change of the command in force, the solution with a constant input is exact.
            until = end
            if waiting > 0 and clock[CLOCK + first] < end:
                until = clock[CLOCK + first]
            if until > now:
                if kind == EFFORT or time_constant == 0.0:
                    for i in range(n):
                        memory[OUTPUT, i] = memory[INPUT, i]
                elif damping == 0.0:  # dy/dt = (u - y) / T
                    blend = 1.0 - math.exp(-(until - now) * 1e-9 / time_constant)
                    for i in range(n):
                        memory[OUTPUT, i] = memory[OUTPUT, i] + blend * (memory[INPUT, i] - memory[OUTPUT, i])
                else:  # d2y/dt2 = (u - y) / T^2 - 2 D / T dy/dt, for e = y - u and w = 1 / T:
                    # (e, e') after t = exp(-D w t) [[c + D s, s / w], [-w s, c - D s]] (e, e')
                    #                 with c = cosh(r w t), s = sinh(r w t) / r, r^2 = D^2 - 1
                    angle, square = (until - now) * 1e-9 / time_constant, damping * damping - 1.0
                    turn = square * angle * angle
                    if abs(turn) < 1e-6:  # c and s by their series, whose next terms are below 1e-20
                        faded = math.exp(-damping * angle)
                        c = faded * (1.0 + turn / 2.0 + turn * turn / 24.0)
                        s = faded * angle * (1.0 + turn / 6.0 + turn * turn / 120.0)
                    elif square > 0.0:  # as two exponentials, for cosh may overflow; D - r = 1 / (D + r)
                        root = math.sqrt(square)
                        slow, fast = math.exp(-angle / (damping + root)), math.exp(-(damping + root) * angle)
                        c, s = 0.5 * (slow + fast), 0.5 * (slow - fast) / root
                    else:
                        root, faded = math.sqrt(-square), math.exp(-damping * angle)
                        c, s = faded * math.cos(root * angle), faded * math.sin(root * angle) / root
                    for i in range(n):
                        error, rate = memory[OUTPUT, i] - memory[INPUT, i], memory[RATE, i]
                        memory[OUTPUT, i] = memory[INPUT, i] + (c + damping * s) * error + time_constant * s * rate
                        memory[RATE, i] = (c - damping * s) * rate - s / time_constant * error
                now = until
            while waiting > 0 and clock[CLOCK + first] <= now and clock[CLOCK + first] < end:
                for i in range(n):
                    memory[INPUT, i] = memory[RING + first, i]
                first = (first + 1) % places
                waiting -= 1
        for i in range(n):
            value = memory[OUTPUT, i]
            if kind == VELOCITY:
                value = value * actuator[GAIN]
                # The speed v at which the servo's torque k (u - v) meets the friction c sign(v) + d v; 0 below it.
                driven = abs(value) - actuator[STICTION]
                if driven < 0.0:
                    driven = 0.0
                value = math.copysign(driven / (1.0 + actuator[DRAG]), value)
                if value > actuator[TOP_SPEED]:
                    value = actuator[TOP_SPEED]
                elif value < -actuator[TOP_SPEED]:
                    value = -actuator[TOP_SPEED]
            if kind != EFFORT and backlash > 0.0:
                motor = value if kind == POSITION else memory[MOTOR, i] + value * seconds
                before = joint = memory[JOINT, i]
                if joint < motor - 0.5 * backlash:
                    joint = motor - 0.5 * backlash
                elif joint > motor + 0.5 * backlash:
                    joint = motor + 0.5 * backlash
                memory[MOTOR, i], memory[JOINT, i] = motor, joint
                value = joint if kind == POSITION else (joint - before) / seconds
            out[k, i] = value
    clock[NOW], clock[FIRST], clock[WAITING] = now, first, waiting
    return waiting

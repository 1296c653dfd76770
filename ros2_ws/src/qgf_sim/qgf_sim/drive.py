# SPDX-License-Identifier: Apache-2.0
"""How a drive follows a command: a pure delay, a lag of first or second order, friction, saturation, backlash."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from qgf_core.robot import DriveSpec

Vector = NDArray[np.float64]
_STICTION_SPEED = 0.01
"""Where Coulomb friction against a torque reaches three quarters of its strength [rad/s]."""


@dataclasses.dataclass(frozen=True)
class ActuatorSpec:
    """The drives of an arm. The defaults beyond delay and lag are ideal."""

    delay: float = 0.02
    """From a command to its effect [s]; any fraction of the physics period."""
    time_constant: float = 0.04
    """First order: lag of the servo [s]. Second order: one over its natural frequency [s/rad]."""
    damping_ratio: float = 0.0
    """Of a servo of second order; 0: it is of first order."""
    gain: float = 1.0
    """Speed reached by speed asked for."""
    coulomb: float = 0.0
    """Dry friction [N m]: a servo does not move below it, a torque loses it."""
    viscous: float = 0.0
    """Friction by speed [N m s/rad] that the servo sees, on top of the simulated joint_damping."""
    stiffness: float = 50.0
    """Torque of the velocity servo by error of speed [N m s/rad]; turns friction into lost speed."""
    backlash: float = 0.0
    """Play between motor and joint, from one end to the other [rad]."""
    top_speed: float = math.inf
    """Where the servo's speed saturates [rad/s]."""

    def __post_init__(self) -> None:
        for name in ("delay", "time_constant", "damping_ratio", "coulomb", "viscous", "backlash"):
            if getattr(self, name) < 0:
                raise ValueError(f"actuator: {name} {getattr(self, name)} must not be negative")
        for name in ("gain", "stiffness", "top_speed"):
            if getattr(self, name) <= 0:
                raise ValueError(f"actuator: {name} {getattr(self, name)} must be positive")


def actuator_of(drive: DriveSpec) -> ActuatorSpec:
    """The actuator that a robot's YAML describes."""
    return ActuatorSpec(drive.latency, drive.time_constant, drive.damping_ratio, drive.gain, drive.coulomb)


class Drive:
    """The joints' servos at the physics rate.

    Time is counted in whole nanoseconds, so that a delay is exact also where it is no multiple of the period, and the
    lag is integrated exactly over the parts of a period before and after a command takes effect.

    :param spec: the actuators, or a robot's latency and time constant.
    :param period: physics period [s].
    :param joints: number of joints.
    :param kind: what commands are: velocities [rad/s], positions [rad] or efforts [N m]. Gain, friction and saturation
        are a velocity servo's; a position has delay, lag and backlash, an effort delay only, as torque loops are fast.
    """

    def __init__(
        self,
        spec: DriveSpec | ActuatorSpec,
        period: float,
        joints: int,
        kind: Literal["velocity", "position", "effort"] = "velocity",
    ) -> None:
        self.spec = actuator_of(spec) if isinstance(spec, DriveSpec) else spec
        self._kind, self._period, self._delay = kind, round(period * 1e9), round(self.spec.delay * 1e9)
        actuator = self.spec
        self._sticks = actuator.coulomb > 0.0 or actuator.viscous > 0.0
        self._limited = math.isfinite(actuator.top_speed)
        # Most drives have none of this, and the physics loop is hot.
        self._ideal = kind == "effort" or not (
            actuator.backlash > 0.0 or (kind == "velocity" and (actuator.gain != 1.0 or self._sticks or self._limited))
        )
        self._blends: dict[int, float] = {}
        self._transitions: dict[int, NDArray[np.float64]] = {}
        self.reset(np.zeros(joints))

    @property
    def delay_periods(self) -> int:
        """Periods that begin before a command takes effect."""
        return -(-self._delay // self._period)

    def reset(self, value: Vector) -> None:
        """All commands so far, and the output, were `value` (n,)."""
        self._time = 0
        self._queue: deque[tuple[int, Vector]] = deque()
        self._input = self._output = np.array(value, dtype=np.float64)
        self._rate = np.zeros_like(self._output)
        # Of the backlash: where the motor is, in the joint's unit, and the joint that it takes along.
        self._motor, self._joint = np.zeros_like(self._output), np.zeros_like(self._output)
        if self._kind == "position":
            self._joint = self._output.copy()

    def step(self, command: Vector, period: int | None = None) -> Vector:
        """What the servo asks for in this physics period (n,), for the command (n,) that is in force now.

        :param period: of this one step [ns], where it is not the usual one.
        """
        now = self._time
        self._time += self._period if period is None else period
        self._queue.append((now + self._delay, command))
        while self._queue and self._queue[0][0] < self._time:
            effect, value = self._queue.popleft()
            if effect > now:
                self._advance(effect - now)
                now = effect
            self._input = value
        self._advance(self._time - now)
        if self._ideal:
            return self._output
        return self._at_the_joint((self._period if period is None else period) * 1e-9)

    def _advance(self, duration: int) -> None:
        """Exact solution over `duration` [ns] with constant input u."""
        spec = self.spec
        if self._kind == "effort" or spec.time_constant == 0.0:
            self._output = self._input
        elif spec.damping_ratio == 0.0:  # dy/dt = (u - y) / T
            if duration not in self._blends:
                self._blends[duration] = 1.0 - math.exp(-duration * 1e-9 / spec.time_constant)
            self._output = self._output + self._blends[duration] * (self._input - self._output)
        else:  # d2y/dt2 = (u - y) / T^2 - 2 D / T dy/dt
            if duration not in self._transitions:
                rate = 1.0 / spec.time_constant
                system = np.array([[0.0, 1.0], [-rate * rate, -2.0 * spec.damping_ratio * rate]])
                self._transitions[duration] = scipy.linalg.expm(system * (duration * 1e-9))
            error, self._rate = self._transitions[duration] @ np.stack([self._output - self._input, self._rate])
            self._output = self._input + error

    def _at_the_joint(self, period: float) -> Vector:
        spec, output = self.spec, self._output
        if self._kind == "velocity":
            if spec.gain != 1.0:
                output = spec.gain * output
            if self._sticks:
                # The speed v at which the servo's torque k (u - v) meets the friction c sign(v) + d v; 0 below it.
                driven = np.maximum(np.abs(output) - spec.coulomb / spec.stiffness, 0.0)
                output = np.copysign(driven / (1.0 + spec.viscous / spec.stiffness), output)
            if self._limited:
                output = np.minimum(np.maximum(output, -spec.top_speed), spec.top_speed)
        if spec.backlash > 0.0:
            self._motor = output if self._kind == "position" else self._motor + output * period
            before, half = self._joint, 0.5 * spec.backlash
            self._joint = np.minimum(np.maximum(before, self._motor - half), self._motor + half)
            output = self._joint if self._kind == "position" else (self._joint - before) / period
        return output

    def friction_torque(self, velocity: Vector) -> Vector:
        """What friction takes from a torque at the joints' speed (n,) [rad/s]: (n,) [N m]."""
        return self.spec.coulomb * np.tanh(velocity / _STICTION_SPEED) + self.spec.viscous * velocity

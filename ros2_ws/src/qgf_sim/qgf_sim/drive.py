# SPDX-License-Identifier: Apache-2.0
"""How a drive follows a command: a pure delay, a lag of first or second order, friction, saturation, backlash."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qgf_core.robot import DriveSpec
from qgf_sim import drive_kernel as kernel

Vector = NDArray[np.float64]
_PLACES = 8
"""For commands that wait, beyond those that fit into the delay."""
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
        self._period, self._delay = round(period * 1e9), round(self.spec.delay * 1e9)
        actuator = self.spec
        self._kind = {"velocity": kernel.VELOCITY, "position": kernel.POSITION, "effort": kernel.EFFORT}[kind]
        self._actuator = np.array([
            actuator.time_constant, actuator.damping_ratio, actuator.gain, actuator.coulomb / actuator.stiffness,
            actuator.viscous / actuator.stiffness, actuator.top_speed, actuator.backlash])
        self._joints = joints
        self.reset(np.zeros(joints))
        self.run(np.zeros(joints), 0)  # the kernel is loaded here, and not in the middle of a motion

    @property
    def delay_periods(self) -> int:
        """Periods that begin before a command takes effect."""
        return -(-self._delay // self._period)

    def reset(self, value: Vector) -> None:
        """All commands so far, and the output, were `value` (n,)."""
        value = np.asarray(value, dtype=np.float64)
        self._waiting, self._places = 0, self.delay_periods + _PLACES
        self._clock = np.zeros(kernel.CLOCK + self._places, dtype=np.int64)
        self._clock[kernel.KIND], self._clock[kernel.DELAY] = self._kind, self._delay
        self._memory = np.zeros((kernel.RING + self._places, self._joints))
        self._memory[kernel.INPUT] = self._memory[kernel.OUTPUT] = value
        if self._kind == kernel.POSITION:
            self._memory[kernel.JOINT] = value

    def step(self, command: Vector, period: int | None = None) -> Vector:
        """What the servo asks for in this physics period (n,), for the command (n,) that is in force now.

        :param period: of this one step [ns], where it is not the usual one.
        """
        answer: Vector = self.run(command, 1, period)[0]
        return answer

    def run(self, command: Vector, steps: int, period: int | None = None) -> Vector:
        """The same for the next `steps` physics periods, in all of which `command` is in force: (steps, n)."""
        command = np.ascontiguousarray(command, dtype=np.float64)
        if command.shape != (self._joints,):
            raise ValueError(f"command has shape {command.shape}, expected {(self._joints,)}")
        answers = np.empty((steps, self._joints))
        if self._waiting + steps > self._places:
            self._make_room(steps)
        self._waiting = kernel.run_drive(command, self._period if period is None else period, self._actuator,
                                         self._clock, self._memory, answers)
        return answers

    def _make_room(self, steps: int) -> None:
        """For periods shorter than the usual one, of which more fit into the delay."""
        clock, memory, head, rows = self._clock, self._memory, kernel.CLOCK, kernel.RING
        first, more = clock[kernel.FIRST], self._places + steps
        self._clock = np.concatenate([clock[:head], np.roll(clock[head:], -first), np.zeros(more, dtype=np.int64)])
        self._clock[kernel.FIRST] = 0
        self._memory = np.concatenate(
            [memory[:rows], np.roll(memory[rows:], -first, axis=0), np.zeros((more, self._joints))])
        self._places += more

    def friction_torque(self, velocity: Vector) -> Vector:
        """What friction takes from a torque at the joints' speed (n,) [rad/s]: (n,) [N m]."""
        return self.spec.coulomb * np.tanh(velocity / _STICTION_SPEED) + self.spec.viscous * velocity

# SPDX-License-Identifier: Apache-2.0
"""The stand-in for an arm and its ros2_control driver: commands in, noisy joint states out, stepped by its caller."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pybullet
from numpy.typing import NDArray

from qgf_core.errors import ConfigError, RobotError
from qgf_core.robot import CommandInterface, RobotSpec
from qgf_sim.engine import Interface
from qgf_sim.engines import Engine, make_arm
from qgf_sim.faults import FaultInjector, FaultSettings
from qgf_sim.perturb import Perturbation, draw, load_perturbation
from qgf_sim.reach import ReachConfig
from qgf_sim.sensors import SensorSpec, StateSensor
from qgf_sim.trajectory import TrajectoryFollower, TrajectoryPoint

Vector = NDArray[np.float64]
_SOURCE = "sim_node"


def _described(description: str) -> dict[str, str]:
    return {"description": description}


@dataclasses.dataclass(frozen=True)
class DoubleSettings:
    """How the stand-in behaves; sim_node's parameters of the same names, `default_settings` gives their defaults."""

    command_interface: CommandInterface = dataclasses.field(
        metadata=_described("What commands mean: velocity [rad/s], position [rad], effort [N m; gravity is not "
                            "compensated, until the first command the brakes hold], or joint_trajectory. Only that "
                            "topic is listened to."))
    physics_rate: float = dataclasses.field(
        metadata=_described("Physics steps per second [Hz], a multiple of state_rate."))
    state_rate: float = dataclasses.field(
        metadata=_described("Rate of joint_states [Hz]."))
    command_timeout: float = dataclasses.field(
        metadata=_described("Without a command for this long [s] the arm comes to rest (velocity: 0; position: the "
                            "last command; effort: the brakes hold; a trajectory is followed to its end). 0: the last "
                            "command is in force for ever, as in the real controllers."))
    interpolate_from_desired_state: bool = dataclasses.field(
        metadata=_described("Whether a new trajectory begins at the command in force, else at the measured state; the "
                            "real controller's parameter of this name, there false if not set."))
    position_noise: float = dataclasses.field(
        metadata=_described("Standard deviation of the noise on measured joint positions [rad]."))
    velocity_noise: float = dataclasses.field(
        metadata=_described("Standard deviation of the noise on measured joint velocities [rad/s]."))
    start_position: tuple[float, ...] = dataclasses.field(
        metadata=_described("Pose at the start and after ~/reset [rad], in the order and sign of the YAML's home."))
    seed: int = dataclasses.field(
        metadata=_described("Seed of the sensor noise, of faults and of the perturbation."))
    engine: Engine = dataclasses.field(
        metadata=_described("Physics: pybullet or mujoco."))
    perturb: str = dataclasses.field(
        metadata=_described("How the arm differs from its description: a name in config/perturb or a YAML file, drawn "
                            "once, by the seed; its dropout and state_delay become fault.dropout and fault.delay_s. "
                            "Empty: not at all."))

    def __post_init__(self) -> None:
        for name in ("physics_rate", "state_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(_SOURCE, name, f"{getattr(self, name)} Hz must be positive", "correct the value")
        for name in ("command_timeout", "position_noise", "velocity_noise", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(_SOURCE, name, f"{getattr(self, name)} must not be negative", "correct the value")
        ratio = self.physics_rate / self.state_rate
        if ratio < 1 - 1e-9 or abs(ratio - round(ratio)) > 1e-9:
            raise ConfigError(_SOURCE, "physics_rate",
                              f"{self.physics_rate} Hz is no multiple of state_rate {self.state_rate} Hz",
                              "change one of the two")


def default_settings(robot: RobotSpec, task: ReachConfig) -> dict[str, object]:
    """A value for every field of DoubleSettings: the robot's rates and interface, the task's noise and physics."""
    # The task's physics, sped up where the arm reports its state more often or at a rate that does not fit.
    physics_rate = task.physics_rate
    if (physics_rate / robot.state_rate) % 1.0 != 0.0:
        physics_rate = robot.state_rate * math.ceil(physics_rate / robot.state_rate)
    noise = [task.position_noise, task.velocity_noise]
    if robot.identified is not None:
        noise = [robot.identified.typical("position_noise"), robot.identified.typical("velocity_noise")]
    return {"command_interface": robot.command_interface, "physics_rate": physics_rate, "state_rate": robot.state_rate,
            "command_timeout": 0.0, "interpolate_from_desired_state": True, "position_noise": noise[0],
            "velocity_noise": noise[1], "start_position": robot.home.tolist(), "seed": 0,
            "engine": "pybullet", "perturb": ""}


class JointSample(NamedTuple):
    """State of all movable joints in the order of RobotDouble.joint_names, in the driver's sign."""

    position: Vector
    """(m,) [rad; m for a prismatic finger]"""
    velocity: Vector
    """(m,) [rad/s; m/s]"""


class _Command(NamedTuple):
    value: Vector
    arrival: int | None
    """[ns], None for the standstill before the first command."""


class RobotDouble:
    """An arm with its driver. Time is handed in, so that it runs as well in a test as in a real-time loop.

    `accept` may be called from another thread than the other methods.

    :param robot: which arm; its signs are applied to commands and states.
    :raises ConfigError: a setting does not fit the robot.
    :raises RobotError: PyBullet cannot simulate it.
    """

    def __init__(self, robot: RobotSpec, settings: DoubleSettings, gui: bool = False) -> None:
        n = len(robot.joints)
        start = np.array(settings.start_position, dtype=np.float64)
        if start.shape != (n,):
            raise ConfigError(_SOURCE, "start_position", f"{start.size} values for {n} joints",
                              "give one per joint [rad]")
        outside = (start < robot.position_lower) | (start > robot.position_upper)
        if outside.any():
            joint = robot.joints[int(np.argmax(outside))]
            raise ConfigError(_SOURCE, "start_position", f"{list(settings.start_position)} is outside the limits "
                              f"{list(joint.position)} rad of '{joint.name}'", "choose a pose inside")
        if gui and not os.environ.get("DISPLAY"):  # PyBullet would end the whole process
            raise ConfigError(_SOURCE, "gui", "there is no display (DISPLAY is not set)",
                              "run it on a desktop or without gui")
        self.robot, self.settings = robot, settings
        self._start, self._timeout = start, round(settings.command_timeout * 1e9)
        kind = settings.command_interface
        self._interface: Interface = "position" if kind == "joint_trajectory" else kind
        if self._interface == "position":
            self._lower, self._upper = robot.position_lower, robot.position_upper
        else:
            self._upper = robot.velocity_limit if kind == "velocity" else robot.effort_limit
            self._lower = -self._upper
        self._follower = TrajectoryFollower(robot.joint_names)
        self._random = np.random.default_rng(settings.seed)
        perturbation = load_perturbation(settings.perturb) if settings.perturb else Perturbation()
        noise = SensorSpec(settings.position_noise, settings.velocity_noise)
        drawn = draw(perturbation, robot, noise, np.random.default_rng([settings.seed, 1]))
        self._arm = make_arm(settings.engine, robot, settings.physics_rate, gui, perturbation.payload is not None)
        if settings.perturb:
            self._arm.configure(drawn.actuator, drawn.physics)
        # A late or lost message is the injector's matter; the control period's jitter is that of whoever controls.
        self._sensor = StateSensor(dataclasses.replace(drawn.sensor, delay=0.0, dropout=0.0))
        # Its kernel is loaded here, before time counts; `reset` forgets what was measured.
        self._sensor.measure(start, np.zeros(n), 0.0, np.random.default_rng(0))
        self.joint_names = robot.joint_names + self._arm.other_joint_names
        self.faults = FaultInjector(self.joint_names, n, settings.seed)
        self.faults.settings = FaultSettings(delay_s=drawn.sensor.delay, dropout=drawn.sensor.dropout)
        self.accepted = self.malformed = self.beyond_limits = self.ignored = 0
        self.timed_out = False
        self.reset()

    def reset(self) -> None:
        """To the start pose, at rest, all commands forgotten. Counters, faults and the noise go on."""
        self._arm.reset(self._start)
        self._sensor.reset()
        self._wait_at(self._start)
        self._measured = (self._start, np.zeros(self._start.size))
        self.timed_out = False

    def _wait_at(self, position: Vector) -> None:
        """No command is in force any more: stay at `position` (n,) [rad] until the next."""
        self._follower.reset(position)
        self._command = _Command(position if self._interface == "position" else np.zeros(position.size), None)

    def accept(self, values: Sequence[float], now: int) -> str:
        """Take a command in the robot's joint order and the driver's sign, arrived at `now` [ns].

        :return: "" or why it was refused, in words; the command before it then stays in force. What is beyond the
            robot's velocity, position or effort limits is cut to them and counted; what a stopped arm or an inactive
            controller is told has no effect and is counted.
        """
        if self._is_deaf():
            return ""
        value = np.array(values, dtype=np.float64)
        if value.shape != self._start.shape:
            self.malformed += 1
            return f"{value.size} values for {self._start.size} joints"
        if not np.isfinite(value).all():
            self.malformed += 1
            return f"not finite: {value.tolist()}"
        value *= self.robot.signs
        allowed = np.clip(value, self._lower, self._upper)
        if np.any(np.abs(allowed - value) > 1e-9):
            self.beyond_limits += 1
        self.accepted += 1
        self._command = _Command(allowed, now)  # one assignment, so that `step` sees the old or the new one
        return ""

    def accept_trajectory(
        self, names: Sequence[str], points: Sequence[TrajectoryPoint], now: int, start: int | None = None
    ) -> str:
        """The same of a trajectory in the driver's sign that begins at `start` [ns; None: now]; see TrajectoryFollower.

        Where it leaves the position limits, points or cubics between them, it is cut to them.
        """
        if self._is_deaf():
            return ""
        begin = None if self.settings.interpolate_from_desired_state else self._measured
        refusal = self._follower.accept(names, points, now, start, self.robot.signs, begin)
        if refusal:
            self.malformed += 1
            return refusal
        order = [list(names).index(joint.name) for joint in self.robot.joints]
        positions = self.robot.signs * np.array([list(point.positions) for point in points])[:, order]
        if np.any((positions < self._lower - 1e-9) | (positions > self._upper + 1e-9)):
            self.beyond_limits += 1
        self.accepted += 1
        return ""

    def _is_deaf(self) -> bool:
        faults = self.faults.settings
        deaf = faults.protective_stop or faults.inactive_controller
        self.ignored += deaf
        return deaf

    def step(self, now: int) -> None:
        """Simulate one physics period that begins at `now` [ns]. :raises RobotError: the physics window was closed."""
        faults = self.faults.settings
        try:
            if faults.protective_stop:
                self._wait_at(self._arm.state()[0])
            elif faults.inactive_controller:  # a position drive keeps its last target
                self._wait_at(self._demand(now)[0])
            demand, interface = self._demand(now)
            self._arm.step(demand, "brake" if faults.protective_stop else interface)
        except pybullet.error as error:
            raise RobotError(_SOURCE, "", f"the physics is gone ({error})", "leave its window open") from error

    def _demand(self, now: int) -> tuple[Vector, Interface]:
        """What the drives are told in the period that begins at `now` [ns]."""
        if self.settings.command_interface == "joint_trajectory":
            return np.clip(self._follower.sample(now)[0], self._lower, self._upper), "position"
        command = self._command
        self.timed_out = self._timeout > 0 and command.arrival is not None and now - command.arrival > self._timeout
        if self._interface == "velocity" and self.timed_out:
            return np.zeros(command.value.size), "velocity"
        if self._interface == "effort" and (self.timed_out or command.arrival is None):
            return command.value, "brake"
        return command.value, self._interface

    def read(self) -> tuple[JointSample, JointSample]:
        """The state as the sensors tell it, and as it is. Each call draws new noise; a gripper's joints carry none."""
        (position, velocity), (other_position, other_velocity) = self._arm.state(), self._arm.other_state()
        signs = self.robot.signs
        truth = JointSample(np.concatenate([signs * position, other_position]),
                            np.concatenate([signs * velocity, other_velocity]))
        elapsed = 1.0 / self.settings.state_rate
        told, speed = self._measured = self._sensor.measure(position, velocity, elapsed, self._random)
        measured = JointSample(np.concatenate([signs * told, other_position]),
                               np.concatenate([signs * speed, other_velocity]))
        return measured, truth

    def close(self) -> None:
        """Leave the physics."""
        self._arm.close()

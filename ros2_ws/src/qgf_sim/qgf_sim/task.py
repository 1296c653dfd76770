# SPDX-License-Identifier: Apache-2.0
"""The contract between a task and the one environment: what a task is told, draws, measures and rewards.

A task knows neither physics nor sensors. The environment hands it the true state once a control period; the task
answers with an error, named reward terms, and the forces that push the arm.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core.action import INTERFACES, ActionKind, ActionSpec
from qgf_core.interpolator import substeps_of
from qgf_core.kinematics import Kinematics
from qgf_core.observation import ObservationTerm
from qgf_core.reference import JointReference
from qgf_core.robot import Box, RobotSpec
from qgf_sim.engine import Interface, Push

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ActionConfig:
    """What the policy's output means to the arm."""

    kind: ActionKind = "joint_velocity"
    """The drives then take velocities, positions (joint_position, joint_position_delta) or torques (joint_effort)."""
    scale: float = 1.0
    """Share of a joint's full action: policy_velocity; its way in a control period; the furthest that a limit is from
    home; effort."""
    time_constant: float = 0.1
    """Of the way to a joint_position target [s]."""
    posture_rate: float = 0.0
    """Pull home in the task's null space [1/s], see qgf_core.action."""

    def __post_init__(self) -> None:
        if not 0.0 < self.scale <= 1.0:
            raise ValueError(f"action: scale {self.scale} lies outside 0 .. 1")

    @property
    def interface(self) -> Interface:
        """What the drives take."""
        return INTERFACES[self.kind]

    def spec(self, robot: RobotSpec, control_rate: float, posture_task: Literal["position", "pose"]) -> ActionSpec:
        """The same for a robot, as the manifest tells it."""
        full = {
            "joint_velocity": robot.policy_velocity,
            "joint_position": np.maximum(robot.position_upper - robot.home, robot.home - robot.position_lower),
            "joint_position_delta": robot.policy_velocity / control_rate,
            "joint_effort": robot.effort_limit,
        }[self.kind]
        scale = full if self.scale == 1.0 else self.scale * full
        return ActionSpec(self.kind, tuple(scale.tolist()), self.time_constant, self.posture_rate, posture_task)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What every task's YAML in config/tasks may say, beside `kind`, which tells the task (see qgf_sim.tasks)."""

    observation: tuple[ObservationTerm, ...]
    control_rate: float = 50.0
    """[Hz]"""
    physics_rate: float = 200.0
    """Least rate of the physics [Hz]; a control period takes a whole number of steps, which are shortened to fit."""
    command_rate: float = 0.0
    """Rate at which the drives get commands [Hz], a multiple of control_rate: they lie on straight lines from action to
    action, behind the limiter. 0: the control rate, without lines."""
    episode_steps: int = 150
    start_spread: float = 0.2
    """[rad]"""
    position_noise: float = 0.002
    """[rad]"""
    velocity_noise: float = 0.02
    """[rad/s]"""
    action: ActionConfig = ActionConfig()

    def __post_init__(self) -> None:
        self.demand("be positive", "physics_rate", "episode_steps")
        self.demand("not be negative", "start_spread", "position_noise", "velocity_noise")
        if not 10.0 <= self.control_rate <= 1000.0:
            raise ValueError(f"control_rate {self.control_rate} Hz lies outside 10 .. 1000")
        substeps_of(self.control_rate, self.command_rate)

    def demand(self, what: Literal["be positive", "not be negative"], *names: str) -> None:
        """:raises ValueError: one of the fields is not."""
        for name in names:
            value = getattr(self, name)
            if value < 0 or (what == "be positive" and value == 0):
                raise ValueError(f"{name} {value} must {what}")

    @property
    def commands(self) -> int:
        """Commands in a control step."""
        return substeps_of(self.control_rate, self.command_rate)

    @property
    def substeps(self) -> int:
        """Physics steps in a control step."""
        commands = self.commands
        return commands * max(1, math.ceil(self.physics_rate / (commands * self.control_rate) - 1e-9))

    @property
    def stepped_rate(self) -> float:
        """Rate at which the physics is stepped in fact [Hz]."""
        return self.substeps * self.control_rate


class Drawn(NamedTuple):
    """An episode, as the seed has it."""

    start: Vector
    """(n,) [rad]"""
    goal: Vector
    """(3,) [m], (7,) with a quaternion, or (0,) where a reference takes its place"""
    reference: JointReference | None = None
    told: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """More of what was drawn, for `info`."""


class ManifestFields(NamedTuple):
    """What a bundle's manifest says of goals and references."""

    goal_region: Box | None
    goal_orientation: Any = None
    reference_speed: float = 1.0


class Task(abc.ABC):
    """One task on one arm.

    :param config: what its YAML says.
    :param robot: the arm.
    :param kinematics: its tool.
    """

    posture_task: Literal["position", "pose"] = "position"
    """What a pull home must leave alone."""
    error_figure: str
    """What a thousandth of the error is called in evaluations: final_distance_mm or final_error_mrad."""
    tolerance: float
    """Success: the error is at most this [m or rad]."""

    def __init__(self, config: Any, robot: RobotSpec, kinematics: Kinematics) -> None:
        self.config, self.robot, self.kinematics = config, robot, kinematics
        self.difficulty = 1.0
        """0: as narrow as can be, 1: the whole task; set by a curriculum."""

    @abc.abstractmethod
    def draw(self, generator: np.random.Generator, start: Vector | None) -> Drawn:
        """The next episode, which begins at `start` (n,) [rad] where that is given.

        What is drawn from `generator` does not depend on whether it is.
        """

    @abc.abstractmethod
    def begin(self, drawn: Drawn, position: Vector) -> float:
        """The episode begins at the true joint position (n,) [rad]. Returns the error."""

    @abc.abstractmethod
    def measure(self, position: Vector, action: NDArray[np.floating], time: float) -> tuple[float, dict[str, float]]:
        """Error and reward terms by name after a control period.

        :param position: true (n,) [rad]. :param action: (n,) in [-1, 1]. :param time: since the episode began [s].
        """

    @abc.abstractmethod
    def fields(self) -> ManifestFields:
        """For the manifest."""

    def push(self, time: float) -> Push | None:
        """The force on the arm in the control period that begins at `time` [s]."""
        return None


def draw_start(config: TaskConfig, robot: RobotSpec, generator: np.random.Generator, share: float = 1.0) -> Vector:
    """A start pose (n,) [rad] round home, inside the margins; `share` of the spread."""
    spread = config.start_spread if share == 1.0 else share * config.start_spread
    start = robot.home + generator.uniform(-spread, spread, len(robot.joints))
    return np.clip(start, robot.position_lower + robot.position_margin, robot.position_upper - robot.position_margin)

# SPDX-License-Identifier: Apache-2.0
"""The one observation builder: the environments in training and the policy node on the robot both call it."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qgf_core.kinematics import Kinematics
from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]
TermName = Literal["joint_position", "joint_velocity", "previous_action", "tool_position_error"]

UNITS: dict[str, str] = {
    "joint_position": "rad, relative to home",
    "joint_velocity": "share of policy_velocity",
    "previous_action": "[-1, 1], unlimited, 0 after activation",
    "tool_position_error": "m, tool minus goal, in the base frame",
}


@dataclasses.dataclass(frozen=True)
class ObservationTerm:
    """One named part of the observation."""

    name: TermName
    scale: float = 1.0
    """Factor on the term's value; the unit before it is UNITS[name]."""
    history: int = 1
    """Number of samples, the newest first; the oldest known one stands in for those before the start."""

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"observation term '{self.name}': history {self.history} must be at least 1")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ValueError(f"observation term '{self.name}': scale {self.scale} must be finite and not 0")


class ObservationBuilder:
    """Turns a joint state and a goal into the policy's input.

    :param terms: the declared terms, in order.
    :param robot: joint order, home and scales.
    :param kinematics: of the same joints.
    """

    def __init__(self, terms: Sequence[ObservationTerm], robot: RobotSpec, kinematics: Kinematics) -> None:
        if kinematics.joint_names != robot.joint_names:
            raise ValueError(f"kinematics of joints {kinematics.joint_names} do not fit {robot.joint_names}")
        self.terms = tuple(terms)
        self._robot, self._kinematics = robot, kinematics
        self._history: list[deque[Vector]] = [deque(maxlen=term.history) for term in self.terms]
        joints = len(robot.joints)
        self.size = sum(term.history * (3 if term.name == "tool_position_error" else joints) for term in self.terms)

    def reset(self) -> None:
        """Forget the history: the next sample is the first."""
        for history in self._history:
            history.clear()

    def build(self, position: Vector, velocity: Vector, previous_action: Vector, goal: Vector) -> NDArray[np.float32]:
        """The observation (size,) float32; call once a control period.

        :param position: joint positions (n,) [rad], in the robot's order and the URDF's sign.
        :param velocity: joint velocities (n,) [rad/s].
        :param previous_action: the policy's unlimited output of the last period (n,), 0 after activation.
        :param goal: tool position asked for (3,) [m] in the base frame.
        """
        parts: list[Vector] = []
        for term, history in zip(self.terms, self._history, strict=True):
            if term.name == "joint_position":
                value = position - self._robot.home
            elif term.name == "joint_velocity":
                value = velocity / self._robot.policy_velocity
            elif term.name == "previous_action":
                value = previous_action
            else:
                value = self._kinematics.tool_position(position) - goal
            history.appendleft(np.asarray(value * term.scale, dtype=np.float64))
            parts.extend(history)
            parts.extend([history[-1]] * (term.history - len(history)))
        return np.concatenate(parts).astype(np.float32)

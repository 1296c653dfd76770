# SPDX-License-Identifier: Apache-2.0
"""The one observation builder: the environments in training and the policy node on the robot both call it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qgf_core import arm_kernel as kernel
from qgf_core.kinematics import Kinematics
from qgf_core.reference import JointReference
from qgf_core.robot import RobotSpec
from qgf_core.rotation import rotation_between

Vector = NDArray[np.float64]
TermName = Literal[
    "joint_position",
    "joint_velocity",
    "previous_action",
    "tool_position_error",
    "tool_orientation_error",
    "reference_error",
    "reference_velocity",
]
Aim = Literal["position", "pose", "reference"]
"""What a policy is told to reach: a tool position, a tool position and orientation, or a joint reference."""

UNITS: dict[str, str] = {
    "joint_position": "rad, relative to home",
    "joint_velocity": "share of policy_velocity",
    "previous_action": "[-1, 1], unlimited, 0 after activation",
    "tool_position_error": "m, tool minus goal, in the base frame",
    "tool_orientation_error": "rad, rotation vector from the goal to the tool, in the base frame",
    "reference_error": "rad, joint position minus reference, per time of the preview",
    "reference_velocity": "share of policy_velocity, of the reference, per time of the preview",
}
_SOURCES: dict[str, int] = {
    "joint_position": kernel.POSITION,
    "joint_velocity": kernel.VELOCITY,
    "previous_action": kernel.ACTION,
    "tool_position_error": kernel.TOOL,
}
"""What the kernel works out by itself."""
_OF_REFERENCE = ("reference_error", "reference_velocity")


@dataclasses.dataclass(frozen=True)
class ObservationTerm:
    """One named part of the observation."""

    name: TermName
    scale: float = 1.0
    """Factor on the term's value; the unit before it is UNITS[name]."""
    history: int = 1
    """Number of samples, the newest first; the oldest known one stands in for those before the start. Earlier tool
    position errors are told of the present goal: where the tool was, less where it shall be now."""
    preview: tuple[float, ...] = (0.0,)
    """Of a reference term: how far ahead of now the reference is looked at [s], once for each of these times."""

    def __post_init__(self) -> None:
        if not self.preview or not all(0.0 <= time <= 10.0 for time in self.preview):
            raise ValueError(f"observation term '{self.name}': preview {list(self.preview)} s must lie in 0 .. 10")
        if self.preview != (0.0,) and self.name not in _OF_REFERENCE:
            raise ValueError(f"observation term '{self.name}': only a reference has a preview")
        if self.history < 1:
            raise ValueError(f"observation term '{self.name}': history {self.history} must be at least 1")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ValueError(f"observation term '{self.name}': scale {self.scale} must be finite and not 0")


    def width(self, joints: int) -> int:
        """Numbers in one sample of an arm with so many joints."""
        if self.name.startswith("tool_"):
            return 3
        return joints * len(self.preview)


def aim_of(terms: Sequence[ObservationTerm]) -> Aim:
    """What a policy that sees these terms must be given. :raises ValueError: both a goal and a reference."""
    names = {term.name for term in terms}
    if names.isdisjoint(_OF_REFERENCE):
        return "pose" if "tool_orientation_error" in names else "position"
    if any(name.startswith("tool_") for name in names):
        raise ValueError("observation: terms of a goal and of a reference together")
    return "reference"


class ObservationBuilder:
    """Turns a joint state and a goal or reference into the policy's input.

    :param terms: the declared terms, in order.
    :param robot: joint order, home and scales.
    :param kinematics: of the same joints.
    """

    def __init__(self, terms: Sequence[ObservationTerm], robot: RobotSpec, kinematics: Kinematics) -> None:
        if kinematics.joint_names != robot.joint_names:
            raise ValueError(f"kinematics of joints {kinematics.joint_names} do not fit {robot.joint_names}")
        self.terms = tuple(terms)
        self._robot, self._kinematics = robot, kinematics
        joints = len(robot.joints)
        self.size = sum(term.history * term.width(joints) for term in self.terms)
        self._given = [term for term in self.terms if term.name not in _SOURCES]
        self._sees_tool = any(term.name == "tool_position_error" for term in self.terms)
        chain = kinematics.chain if self._sees_tool else None
        self._by_kernel = chain is not None
        self._joints, self._fixed = chain or (np.zeros((0, 2), dtype=np.int64), np.zeros((0, 12)))
        self._matrix = np.zeros((3, 3))
        self._programme = np.array([(_SOURCES.get(term.name, kernel.GIVEN), term.width(joints), term.history)
                                    for term in self.terms], dtype=np.int64).reshape(-1, 3)
        self._factors = np.array([term.scale for term in self.terms], dtype=np.float64)
        self._scales = np.array([robot.home, robot.policy_velocity])
        self._state = np.zeros((3, joints))
        self._aim = np.zeros(6 + sum(term.width(joints) for term in self._given))
        self._past, self._fresh = np.zeros(self.size), True
        ends = np.cumsum([term.history * term.width(joints) for term in self.terms]).tolist()
        self._past_errors = [(self._past[end - 3 * term.history : end].reshape(-1, 3), term.scale)
                             for term, end in zip(self.terms, ends, strict=True)
                             if term.name == "tool_position_error" and term.history > 1]
        self._observe()  # the kernel is loaded here, and not in the middle of a motion
        self.reset()

    def reset(self) -> None:
        """Forget the history: the next sample is the first."""
        self._fresh = True

    def build(
        self,
        position: Vector,
        velocity: Vector,
        previous_action: Vector,
        goal: Vector,
        reference: JointReference | None = None,
        time: float = 0.0,
    ) -> NDArray[np.float32]:
        """The observation (size,) float32; call once a control period.

        :param position: joint positions (n,) [rad], in the robot's order and the URDF's sign.
        :param velocity: joint velocities (n,) [rad/s].
        :param previous_action: the policy's unlimited output of the last period (n,), 0 after activation.
        :param goal: tool position asked for (3,) [m] in the base frame, and behind it, where the terms speak of a
            pose, its orientation as a quaternion x y z w: (7,).
        :param reference: where the joints shall be; for the reference terms.
        :param time: on the reference's clock [s].
        """
        state, aim = self._state, self._aim
        state[0], state[1], state[2] = position, velocity, previous_action
        if self._sees_tool:
            if self._past_errors and (goal[0] != aim[3] or goal[1] != aim[4] or goal[2] != aim[5]):
                for errors, scale in self._past_errors:
                    errors += scale * (aim[3:6] - goal[:3])
            aim[3:6] = goal[:3]
            if not self._by_kernel:
                aim[:3] = self._kinematics.tool_position(position)
        if self._given:
            aim[6:] = np.concatenate([self._of_aim(term, position, goal, reference, time) for term in self._given])
        return self._observe()

    def _observe(self) -> NDArray[np.float32]:
        observation = np.empty(self.size, dtype=np.float32)
        kernel.build_observation(
            self._state, self._aim, self._scales, self._programme, self._factors, self._past, self._fresh,
            self._joints, self._fixed, self._matrix, observation)
        self._fresh = False
        return observation

    def _of_aim(
        self, term: ObservationTerm, position: Vector, goal: Vector, reference: JointReference | None, time: float
    ) -> Vector:
        if term.name == "tool_orientation_error":
            return rotation_between(self._kinematics.tool_pose(position)[1], goal[3:])
        return self._of_reference(term, position, reference, time)

    def _of_reference(
        self, term: ObservationTerm, position: Vector, reference: JointReference | None, time: float
    ) -> Vector:
        if reference is None:
            raise ValueError(f"observation term '{term.name}' needs a reference")
        ahead = [reference.at(time + preview) for preview in term.preview]
        if term.name == "reference_error":
            return np.concatenate([position - wanted for wanted, _ in ahead])
        return np.concatenate([speed / self._robot.policy_velocity for _, speed in ahead])

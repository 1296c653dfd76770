# SPDX-License-Identifier: Apache-2.0
"""The one action decoder: from the policy's output in [-1, 1] to the joint velocity that it asks for.

Every kind ends as a desired velocity, so that the one limiter stands behind all of them:
    joint_velocity          v = scale a
    joint_position_delta    v = scale a / T                                  a step of the commanded position per period
    joint_position          v = (home + scale a - q) / time_constant         within policy_velocity
    joint_effort            v = v_last + T M(q)^-1 (scale a - d v_last)      torque beyond gravity on the arm set free
q is where the limiter takes the arm to be: measured under velocity control, commanded under position control.

A redundant arm drifts where the task does not look. `posture_rate` k adds a pull home in the task's null space,
    v += N(q) k (home - q),     N = 1 - J^T (J J^T)^-1 J,
which to first order moves no tool. It is one code for training and for the robot, as the rest of the action.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qgf_core import arm_kernel as kernel
from qgf_core.kinematics import Kinematics
from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]
ActionKind = Literal["joint_velocity", "joint_position", "joint_position_delta", "joint_effort"]

ACTION_UNITS: dict[str, str] = {
    "joint_velocity": "rad/s",
    "joint_position": "rad from home",
    "joint_position_delta": "rad per control period",
    "joint_effort": "N m beyond gravity",
}
INTERFACES: dict[str, Literal["velocity", "position", "effort"]] = {
    "joint_velocity": "velocity",
    "joint_position": "position",
    "joint_position_delta": "position",
    "joint_effort": "effort",
}
"""What the drives take in training, by the kind of action."""
_SINGULAR = 1e-4
"""Added to J J^T [m^2 or rad^2]: near a singular pose the null space fades in smoothly instead of jumping."""
_POSTURE_SHARE = 0.5
"""Of policy_velocity, which the pull home may use."""


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """Meaning of the policy's output."""

    kind: ActionKind
    scale: tuple[float, ...]
    """What an action of 1 means, one per joint; the unit is ACTION_UNITS[kind]."""
    time_constant: float = 0.1
    """Of the way to a joint_position target [s]; the other kinds have none."""
    posture_rate: float = 0.0
    """Rate of the pull home in the task's null space [1/s]; 0: none."""
    posture_task: Literal["position", "pose"] = "position"
    """What the pull must not move: the tool's position, or its orientation as well."""

    def __post_init__(self) -> None:
        if not self.scale or not all(0.0 < scale < math.inf for scale in self.scale):
            raise ValueError(f"action scale {list(self.scale)} must be positive")
        if not 0.0 < self.time_constant < math.inf:
            raise ValueError(f"action: time_constant {self.time_constant} s must be positive")
        if not 0.0 <= self.posture_rate <= 10.0:
            raise ValueError(f"action: posture_rate {self.posture_rate} 1/s lies outside 0 .. 10")


class ActionDecoder:
    """Turns an action into the joint velocity that it asks for, before any limit.

    :param spec: kind, scale and posture.
    :param robot: home and speeds.
    :param kinematics: of the same joints.
    :param period: control period [s].
    """

    def __init__(self, spec: ActionSpec, robot: RobotSpec, kinematics: Kinematics, period: float) -> None:
        if len(spec.scale) != len(robot.joints):
            raise ValueError(f"action has {len(spec.scale)} entries for {len(robot.joints)} joints")
        self.spec, self._kinematics, self._period = spec, kinematics, period
        self._scale = np.array(spec.scale, dtype=np.float64)
        self._home, self._speed = robot.home, robot.policy_velocity
        self._damping = robot.drive.joint_damping
        self._lower = robot.position_lower + robot.position_margin
        self._upper = robot.position_upper - robot.position_margin
        self._scaled(self._scale)  # the kernel is loaded here, and not in the middle of a motion

    def _scaled(self, action: NDArray[np.floating]) -> Vector:
        scaled = np.empty_like(self._scale)
        kernel.scale_action(np.array(action, dtype=np.float64), self._scale, scaled)
        return scaled

    def decode(
        self, action: NDArray[np.floating], position: Vector | None = None, velocity: Vector | None = None
    ) -> Vector:
        """Desired joint velocity (n,) [rad/s] for an action (n,).

        :param position: (n,) [rad] that the limiter goes by; only a joint_velocity or a joint_position_delta without
            posture does without.
        :param velocity: of the last command (n,) [rad/s]; for joint_effort.
        :raises ValueError: wrong shape, or a missing argument.
        """
        if action.shape != self._scale.shape:
            raise ValueError(f"action has shape {action.shape}, expected {self._scale.shape}")
        scaled = self._scaled(action)
        kind, posture = self.spec.kind, self.spec.posture_rate > 0.0
        if kind == "joint_velocity":
            wanted = scaled
        elif kind == "joint_position_delta":
            wanted = scaled / self._period
        if kind in ("joint_velocity", "joint_position_delta") and not posture:
            return wanted
        if position is None or (kind == "joint_effort" and velocity is None):
            raise ValueError(f"an action of kind {kind} needs the arm's position, joint_effort its velocity as well")
        if kind == "joint_position":
            target = np.clip(self._home + scaled, self._lower, self._upper)
            wanted = np.clip((target - position) / self.spec.time_constant, -self._speed, self._speed)
        elif kind == "joint_effort":
            assert velocity is not None
            torque = scaled - self._damping * velocity
            wanted = velocity + self._period * np.linalg.solve(self._kinematics.mass_matrix(position), torque)
        return wanted + self._posture(position) if posture else wanted

    def _posture(self, position: Vector) -> Vector:
        """The pull home (n,) [rad/s] that leaves the task alone."""
        if self.spec.posture_task == "pose":
            jacobian = self._kinematics.tool_pose_jacobian(position)
        else:
            jacobian = self._kinematics.tool_jacobian(position)
        pull = self.spec.posture_rate * (self._home - position)
        inner = jacobian @ jacobian.T + _SINGULAR * np.eye(len(jacobian))
        pull = pull - jacobian.T @ np.linalg.solve(inner, jacobian @ pull)
        # Slowed as a whole: cutting single joints would lead out of the null space.
        return np.asarray(pull / max(1.0, float(np.max(np.abs(pull) / (_POSTURE_SHARE * self._speed)))))

# SPDX-License-Identifier: Apache-2.0
"""Reach with orientation: bring the tool to a position and turn it as told."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qgf_core.kinematics import Kinematics
from qgf_core.manifest import OrientationRegion
from qgf_core.robot import RobotSpec
from qgf_core.rotation import quaternion_of, rotation_between, turned
from qgf_sim.reach import ReachConfig, ReachTask
from qgf_sim.task import Drawn, ManifestFields

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReachPoseConfig(ReachConfig):
    """Reach with orientation; every field of config/tasks/reach_pose.yaml.

    One error counts both, distance + arm_length * angle [m]: reward and success are those of `reach` with it.
    """

    orientation_spread: float = 0.4
    """Goals are turned from the tool's orientation at home by up to this, about an axis drawn evenly [rad]."""
    arm_length: float = 0.3
    """What an angle is worth [m/rad]: at such a distance from the tool point it moves things so far."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demand("be positive", "orientation_spread", "arm_length")


class ReachPoseTask(ReachTask):
    """Bring the tool to a position and an orientation."""

    posture_task = "pose"
    error_figure = "final_error_mm"
    config: ReachPoseConfig

    def __init__(self, config: ReachPoseConfig, robot: RobotSpec, kinematics: Kinematics) -> None:
        super().__init__(config, robot, kinematics)
        self._middle = quaternion_of(kinematics.tool_pose(robot.home)[1])

    def draw(self, generator: np.random.Generator, start: Vector | None) -> Drawn:
        """Start and goal, a position with a quaternion."""
        drawn = super().draw(generator, start)
        axis = generator.normal(size=3)
        angle = generator.uniform(0.0, self.difficulty * self.config.orientation_spread)
        orientation = turned(self._middle, angle * axis / np.linalg.norm(axis))
        return drawn._replace(goal=np.concatenate([drawn.goal, orientation]))

    def fields(self) -> ManifestFields:
        """Where goals lie and how they are turned."""
        x, y, z, w = self._middle.tolist()
        region = OrientationRegion((x, y, z, w), self.config.orientation_spread)
        return ManifestFields(self.config.goal_region, region)

    def error(self, position: Vector) -> float:
        """Distance and angle together [m]."""
        point, matrix = self.kinematics.tool_pose(position)
        angle = float(np.linalg.norm(rotation_between(matrix, self._goal[3:])))
        return float(np.linalg.norm(point - self._goal[:3])) + self.config.arm_length * angle

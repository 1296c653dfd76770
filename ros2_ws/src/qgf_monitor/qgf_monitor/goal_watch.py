# SPDX-License-Identifier: Apache-2.0
"""What the policy was told last, and how far the tool is from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qgf_core.kinematics import Kinematics
from qgf_core.manifest import Manifest
from qgf_core.samples import Array


class GoalWatch:
    """Remembers the newest goal; with a policy's manifest it also knows the arm that goes there."""

    def __init__(self) -> None:
        self._goal: tuple[Array, str, float] | None = None
        self._manifest: Manifest | None = None
        self._kinematics: Kinematics | None = None

    def use(self, manifest: Manifest | None) -> None:
        """The policy whose goals these are; None: nobody knows."""
        self._manifest = manifest
        self._kinematics = None if manifest is None or manifest.aim == "reference" else manifest.kinematics()

    def tell(self, position: Sequence[float], frame: str, arrival: float) -> bool:
        """A goal has come; False where it is none. A goal repeated is the same goal, and keeps its age.

        :param position: (3,) [m] in `frame`. :param arrival: on a steady clock [s].
        """
        goal = np.array(position, dtype=np.float64)
        if not np.isfinite(goal).all():
            return False
        if self._goal is None or self._goal[1] != frame or not np.array_equal(self._goal[0], goal):
            self._goal = goal, frame, arrival
        return True

    def figures(self, joint_names: Sequence[str], position: Array, now: float) -> dict[str, float]:
        """`goal_age` [s] and `goal_distance` [m] of a report; the latter NaN where the arm, one of its joints or the
        goal's frame is not known. Nothing while there is no goal.

        :param position: measured (n,) [rad], in the driver's signs. :param now: on a steady clock [s].
        """
        if self._goal is None:
            return {}
        goal, frame, arrival = self._goal
        distance = math.nan
        if self._kinematics is not None and self._manifest is not None:
            robot, known = self._manifest.robot, dict(zip(joint_names, position, strict=True))
            if frame == robot.base_frame and all(name in known for name in robot.joint_names):
                joints = np.array([known[name] for name in robot.joint_names]) * robot.signs
                distance = float(np.linalg.norm(self._kinematics.tool_position(joints) - goal))
        return {"goal_age": now - arrival, "goal_distance": distance}

    def values(self, figures: Mapping[str, float]) -> dict[str, object]:
        """For the diagnosis: the goal, and the `figures` of the newest report."""
        if self._goal is None:
            return {}
        goal, frame, _ = self._goal
        return {"position [m]": " ".join(f"{x:.4g}" for x in goal), "frame": frame,
                **{name: f"{value:.4g}" for name, value in figures.items()}}

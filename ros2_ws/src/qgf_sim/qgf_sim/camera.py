# SPDX-License-Identifier: Apache-2.0
"""Pictures of an arm, by PyBullet's software renderer: no display is needed."""

from __future__ import annotations

import itertools
import math
from types import TracebackType

import numpy as np
import pybullet
from numpy.typing import NDArray

from qgf_core.errors import RobotError
from qgf_core.kinematics import Kinematics
from qgf_core.robot import RobotSpec, read_urdf, strip_meshes
from qgf_sim.quiet import quiet_native_output

Image = NDArray[np.uint8]
_BONE = (0.85, 0.45, 0.15, 1.0)
_TOOL = (0.1, 0.6, 0.2, 1.0)
_VIEW_ANGLE = 45.0
"""Vertical [degrees]."""


class Camera:
    """Looks at one arm from the front left, from so far away that it is in the picture in most poses.

    It has a physics client of its own, in which nothing is simulated, so that looking does not slow the physics down.
    An arm without any visual shape is drawn as a skeleton.

    :raises RobotError: PyBullet cannot load the URDF.
    """

    def __init__(self, robot: RobotSpec) -> None:
        self._robot = robot
        self._kinematics = Kinematics(strip_meshes(read_urdf(robot)), robot.joint_names, robot.tool)
        with quiet_native_output():
            self._client = pybullet.connect(pybullet.DIRECT)
            try:
                self._body = pybullet.loadURDF(robot.urdf, useFixedBase=True, physicsClientId=self._client)
            except pybullet.error as error:
                pybullet.disconnect(self._client)
                raise RobotError(robot.urdf, "", f"PyBullet cannot load it ({error})",
                                 "mend the URDF or its mesh paths") from error
        client = {"physicsClientId": self._client}
        count = pybullet.getNumJoints(self._body, **client)
        infos = [pybullet.getJointInfo(self._body, i, **client) for i in range(count)]
        by_name = {info[1].decode(): info[0] for info in infos}
        self._joints = [by_name[name] for name in robot.joint_names]
        links = {info[12].decode(): info[0] for info in infos}
        # The joints' axes and the tool are the ends of the bones.
        self._ends = [*self._joints, links[robot.tool.link]]
        self._bare = not pybullet.getVisualShapeData(self._body, **client)
        self._bones: list[int] = []
        self._marker = self._shape(pybullet.GEOM_SPHERE, _TOOL, radius=0.015)
        points = self._place(robot.home)
        # Length of the chain [m]: no pose reaches further. The view is that of home and stays.
        self._reach = max(0.1, sum(float(np.linalg.norm(b - a)) for a, b in itertools.pairwise(points)))
        self._center = 0.5 * (np.min(points, axis=0) + np.max(points, axis=0))

    def _shape(self, kind: int, color: tuple[float, ...], **size: float) -> int:
        visual = pybullet.createVisualShape(kind, rgbaColor=color, physicsClientId=self._client, **size)
        return int(pybullet.createMultiBody(baseVisualShapeIndex=visual, physicsClientId=self._client))

    def _place(self, position: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Pose the arm at `position` (n,) [rad]; returns base, joints and tool point in space (n + 2, 3) [m]."""
        client = {"physicsClientId": self._client}
        for i, q in zip(self._joints, position, strict=True):
            pybullet.resetJointState(self._body, i, float(q), **client)
        points = [np.array(pybullet.getLinkState(self._body, i, computeForwardKinematics=1, **client)[4])
                  for i in self._ends[:-1]]
        return [np.zeros(3), *points, self._kinematics.tool_position(np.asarray(position, dtype=np.float64))]

    def image(self, position: NDArray[np.float64], width: int = 320, height: int = 240) -> Image:
        """The arm at joint positions (n,) [rad]: (height, width, 3) RGB."""
        client = {"physicsClientId": self._client}
        points = self._place(position)
        if self._bare:
            self._draw_bones(points)
        pybullet.resetBasePositionAndOrientation(self._marker, points[-1].tolist(), (0, 0, 0, 1), **client)
        distance = 0.55 * self._reach / math.tan(math.radians(0.5 * _VIEW_ANGLE))
        view = pybullet.computeViewMatrixFromYawPitchRoll(self._center.tolist(), distance, 50.0, -25.0, 0.0, 2)
        lens = pybullet.computeProjectionMatrixFOV(_VIEW_ANGLE, width / height, 0.01, 10.0 * distance)
        _, _, pixels, _, _ = pybullet.getCameraImage(
            width, height, view, lens, renderer=pybullet.ER_TINY_RENDERER, shadow=1, lightDirection=(1, -1, 2),
            **client)
        return np.ascontiguousarray(np.reshape(np.asarray(pixels, np.uint8), (height, width, 4))[:, :, :3])

    def _draw_bones(self, points: list[NDArray[np.float64]]) -> None:
        client = {"physicsClientId": self._client}
        if not self._bones:  # their lengths never change
            for a, b in itertools.pairwise(points):
                length = max(float(np.linalg.norm(b - a)), 1e-3)
                self._bones.append(self._shape(pybullet.GEOM_CAPSULE, _BONE, radius=0.03 * self._reach, length=length))
        for bone, a, b in zip(self._bones, points[:-1], points[1:], strict=True):
            pybullet.resetBasePositionAndOrientation(bone, (0.5 * (a + b)).tolist(), _turned_z(b - a), **client)

    def close(self) -> None:
        """Leave the physics client."""
        if self._client >= 0:
            pybullet.disconnect(self._client)
        self._client = -1

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _turned_z(direction: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Quaternion (x, y, z, w) that turns the z axis into a direction (3,)."""
    length = float(np.linalg.norm(direction))
    x, y, z = direction / length if length > 1e-9 else (0.0, 0.0, 1.0)
    if z < -0.999999:
        return 1.0, 0.0, 0.0, 0.0
    w = math.sqrt(2.0 * (1.0 + z))  # half-angle form of the rotation about z x direction
    return -y / w, x / w, 0.0, 0.5 * w

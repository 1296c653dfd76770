# SPDX-License-Identifier: Apache-2.0
"""Kinematics and dynamics of an arm's tool point, by pinocchio, from URDF text.

The tool's place, which every control period asks for, is worked out by a kernel along the chain from base to tool; the
chain is read from pinocchio's model, and what the kernel does not know stays pinocchio's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pinocchio
from numpy.typing import NDArray

from qgf_core import arm_kernel as kernel
from qgf_core.errors import RobotError
from qgf_core.robot import ToolSpec, parse_urdf


class Kinematics:
    """Where the tool is for given joint positions.

    :param urdf_text: the URDF; meshes are not needed.
    :param joint_names: joints in the order of the position vectors; all others are held at their neutral position.
    :param tool: tool link and the point in it.
    :raises RobotError: the URDF cannot be read, or lacks a joint or the link.
    """

    def __init__(self, urdf_text: str, joint_names: Sequence[str], tool: ToolSpec) -> None:
        parse_urdf(urdf_text, "URDF")  # pinocchio's reader writes pages to stderr where the XML is broken
        try:
            full = pinocchio.buildModelFromXML(urdf_text)
        except (ValueError, RuntimeError) as error:
            raise RobotError("URDF", "", f"pinocchio cannot read it ({error})", "mend the URDF") from error
        remedy = "use the URDF that the robot was described with"
        for name in joint_names:
            if not full.existJointName(name):
                raise RobotError("URDF", name, "there is no such joint", remedy)
        if not full.existFrame(tool.link):
            raise RobotError("URDF", tool.link, "there is no such link", remedy)
        locked = [i for i, name in enumerate(full.names) if i > 0 and name not in joint_names]
        self._model = pinocchio.buildReducedModel(full, locked, pinocchio.neutral(full))
        self._data = self._model.createData()
        self._frame = self._model.getFrameId(tool.link)
        self._offset = np.asarray(tool.offset, dtype=np.float64)
        self.joint_names = tuple(joint_names)
        joints = [self._model.joints[self._model.getJointId(name)] for name in joint_names]
        # In pinocchio a continuous joint is a point on the unit circle: two numbers of q, (cos, sin), for one angle.
        self._continuous = np.array([joint.nq == 2 for joint in joints])
        self._q_index = np.array([joint.idx_q for joint in joints])
        self._v_index = np.array([joint.idx_v for joint in joints])
        self._q = pinocchio.neutral(self._model)
        self._plain = not self._continuous.any() and self._q_index.tolist() == list(range(len(self._q)))
        self.chain = self._read_chain()
        """The way to the tool as `place_tool` of arm_kernel takes it, `joints` and `fixed`; None where a joint neither
        turns about nor slides along an axis."""
        self._position, self._goal = np.zeros(len(joints)), np.zeros(3)
        self._point, self._matrix = np.zeros(3), np.zeros((3, 3))
        self.tool_pose(self._position)  # the kernels are loaded here, and not in the middle of a motion
        self.tool_distance(self._position, self._goal)

    def _read_chain(self) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        model, frame = self._model, self._model.frames[self._frame]
        path: list[int] = []
        joint = frame.parentJoint
        while joint:
            path.insert(0, joint)
            joint = model.parents[joint]
        place_of = {index: place for place, index in enumerate(self._v_index.tolist())}
        joints: list[tuple[int, int]] = []
        fixed: list[NDArray[np.float64]] = []
        turned = np.eye(3)  # from the joint's frame to one whose z is the joint's axis
        for joint in path:
            motion = np.asarray(self._data.joints[joint].S).reshape(-1)
            if motion.size != 6 or np.any(motion[:3]) == np.any(motion[3:]):
                return None
            kind = kernel.PRISMATIC if np.any(motion[:3]) else kernel.REVOLUTE
            before, turned = turned, _z_along(motion[:3] + motion[3:])
            placement = model.jointPlacements[joint]
            fixed.append(_row(before.T @ placement.rotation @ turned, before.T @ placement.translation))
            joints.append((kind, place_of[model.joints[joint].idx_v]))
        point = frame.placement.act(self._offset)
        fixed.append(_row(turned.T @ frame.placement.rotation, turned.T @ point))
        return np.array(joints, dtype=np.int64).reshape(-1, 2), np.array(fixed)

    def _configuration(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        if position.shape != self._q_index.shape:
            raise ValueError(f"joint position has shape {position.shape}, expected {self._q_index.shape}")
        if self._plain:
            return np.ascontiguousarray(position, dtype=np.float64)
        if self._continuous.any():
            index = self._q_index[self._continuous]
            self._q[index] = np.cos(position[self._continuous])
            self._q[index + 1] = np.sin(position[self._continuous])
            self._q[self._q_index[~self._continuous]] = position[~self._continuous]
        else:
            self._q[self._q_index] = position
        return self._q

    def tool_position(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tool point (3,) [m] in the base frame for joint positions (n,) [rad]."""
        if self.chain is None:
            return self.tool_pose_by_pinocchio(position)[0]
        self._take(position)
        point = np.empty(3)
        kernel.place_tool(self._position, *self.chain, point, self._matrix)
        return point

    def tool_distance(self, position: NDArray[np.float64], goal: NDArray[np.float64]) -> float:
        """Distance of the tool point from a goal (3,) [m] in the base frame."""
        if self.chain is None:
            return math.dist(self.tool_position(position), goal)
        self._take(position)
        self._goal[:] = goal
        return kernel.tool_distance(self._position, self._goal, *self.chain, self._point, self._matrix)

    def _take(self, position: NDArray[np.float64]) -> None:
        """A copy, so that the kernel meets one kind of array."""
        if position.shape != self._position.shape:
            raise ValueError(f"joint position has shape {position.shape}, expected {self._position.shape}")
        self._position[:] = position

    def tool_pose(self, position: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Tool point (3,) [m] and the tool link's rotation matrix (3, 3), both in the base frame."""
        if self.chain is None:
            return self.tool_pose_by_pinocchio(position)
        return self.tool_position(position), self._matrix.copy()

    def tool_pose_by_pinocchio(
        self, position: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same, of any arm."""
        pinocchio.forwardKinematics(self._model, self._data, self._configuration(position))
        placement = pinocchio.updateFramePlacement(self._model, self._data, self._frame)
        return np.asarray(placement.act(self._offset)), np.array(placement.rotation)

    def tool_jacobian(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """d tool_position / d joint_position (3, n) [m/rad]."""
        return self.tool_pose_jacobian(position)[:3]

    def tool_pose_jacobian(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same (6, n), with the tool's angular velocity in the base frame [rad/rad] below."""
        q = self._configuration(position)
        jacobian = pinocchio.computeFrameJacobian(self._model, self._data, q, self._frame,
                                                  pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED)
        jacobian = jacobian.reshape(6, -1)  # of a single joint pinocchio gives (6,)
        lever = self._data.oMf[self._frame].rotation @ self._offset
        # The point moves with the frame's linear velocity plus omega x lever.
        columns = jacobian[:3] + np.cross(jacobian[3:].T, lever).T
        return np.vstack([columns, jacobian[3:]])[:, self._v_index]

    def mass_matrix(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint-space inertia (n, n) [kg m^2] by the URDF's masses."""
        matrix = pinocchio.crba(self._model, self._data, self._configuration(position))
        upper = np.triu(matrix)
        return np.asarray((upper + np.triu(upper, 1).T)[np.ix_(self._v_index, self._v_index)])

    def torque(
        self, position: NDArray[np.float64], velocity: NDArray[np.float64], acceleration: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joint torques (n,) [N m] of that motion against inertia and gravity (0, 0, -9.81), by the URDF's masses."""
        v, a = np.zeros(self._model.nv), np.zeros(self._model.nv)
        v[self._v_index], a[self._v_index] = velocity, acceleration
        return np.asarray(pinocchio.rnea(self._model, self._data, self._configuration(position), v, a)[self._v_index])


def _z_along(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rotation (3, 3) that takes z to the unit vector `axis` (3,)."""
    if axis.tolist() == [0.0, 0.0, 1.0]:
        return np.eye(3)
    x = np.cross(np.eye(3)[np.argmin(np.abs(axis))], axis)  # across the axis and the direction furthest from it
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(axis, x), axis], axis=1)


def _row(rotation: NDArray[np.float64], translation: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([rotation.reshape(-1), translation])

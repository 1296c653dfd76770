# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics against PyBullet's link states, numeric derivatives and geometry by hand."""

from __future__ import annotations

import numpy as np
import pybullet
import pytest

from qgf_core.errors import RobotError
from qgf_core.kinematics import Kinematics
from qgf_core.robot import ToolSpec, load_robot, read_urdf, strip_meshes


class Oracle:
    """PyBullet's idea of the same arm."""

    def __init__(self, urdf_path: str) -> None:
        self.client = pybullet.connect(pybullet.DIRECT)
        self.body = pybullet.loadURDF(urdf_path, useFixedBase=True, physicsClientId=self.client)
        self.joint, self.link = {}, {}
        for i in range(pybullet.getNumJoints(self.body, physicsClientId=self.client)):
            info = pybullet.getJointInfo(self.body, i, physicsClientId=self.client)
            self.joint[info[1].decode()] = self.link[info[12].decode()] = i

    def tool_position(self, names, position, tool: ToolSpec) -> np.ndarray:
        for name, value in zip(names, position, strict=True):
            pybullet.resetJointState(self.body, self.joint[name], value, physicsClientId=self.client)
        state = pybullet.getLinkState(self.body, self.link[tool.link], computeForwardKinematics=True,
                                      physicsClientId=self.client)
        rotation = np.array(pybullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
        return np.array(state[4]) + rotation @ np.array(tool.offset)

    def close(self) -> None:
        pybullet.disconnect(self.client)


@pytest.fixture(params=["panda", "iiwa", "ur5e"])
def arm(request):
    spec = load_robot(request.param)
    oracle = Oracle(spec.urdf)
    yield spec, oracle
    oracle.close()


def random_poses(spec, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(spec.position_lower, spec.position_upper, (count, len(spec.joints)))


@pytest.mark.parametrize("offset", [None, (0.05, -0.02, 0.3)])
def test_against_pybullet(arm, offset):
    spec, oracle = arm
    tool = spec.tool if offset is None else ToolSpec(spec.tool.link, offset)
    kinematics = Kinematics(strip_meshes(read_urdf(spec)), spec.joint_names, tool)
    for q in random_poses(spec, 200):
        ours = kinematics.tool_position(q)
        assert ours.shape == (3,) and ours.dtype == np.float64
        assert np.abs(ours - oracle.tool_position(spec.joint_names, q, tool)).max() < 1e-6


def test_any_link_can_be_the_tool(arm):
    spec, oracle = arm
    q = random_poses(spec, 1)[0]
    for link in list(oracle.link)[1:]:
        tool = ToolSpec(link, (0.01, 0.02, 0.03))
        ours = Kinematics(strip_meshes(read_urdf(spec)), spec.joint_names, tool).tool_position(q)
        assert np.abs(ours - oracle.tool_position(spec.joint_names, q, tool)).max() < 1e-6


def test_the_order_of_joints_is_the_callers(arm):
    spec, _ = arm
    urdf = strip_meshes(read_urdf(spec))
    plain = Kinematics(urdf, spec.joint_names, spec.tool)
    order = np.array([i for i in (4, 0, 6, 2, 5, 1, 3) if i < len(spec.joints)])
    shuffled = Kinematics(urdf, [spec.joint_names[i] for i in order], spec.tool)
    for q in random_poses(spec, 20):
        np.testing.assert_allclose(shuffled.tool_position(q[order]), plain.tool_position(q), atol=1e-14)
        np.testing.assert_allclose(shuffled.tool_jacobian(q[order]), plain.tool_jacobian(q)[:, order], atol=1e-14)


def test_the_meshes_make_no_difference(arm):
    spec, _ = arm
    q = random_poses(spec, 1)[0]
    with_meshes = Kinematics(read_urdf(spec), spec.joint_names, spec.tool)
    without = Kinematics(strip_meshes(read_urdf(spec)), spec.joint_names, spec.tool)
    np.testing.assert_array_equal(with_meshes.tool_position(q), without.tool_position(q))


def numeric_jacobian(kinematics: Kinematics, q: np.ndarray, step: float = 1e-6) -> np.ndarray:
    columns = [(kinematics.tool_position(q + step * e) - kinematics.tool_position(q - step * e)) / (2 * step)
               for e in np.eye(len(q))]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.1, -0.2, 0.3)])
def test_the_jacobian_is_the_numeric_derivative(arm, offset):
    spec, _ = arm
    kinematics = Kinematics(strip_meshes(read_urdf(spec)), spec.joint_names, ToolSpec(spec.tool.link, offset))
    for q in random_poses(spec, 30, seed=1):
        jacobian = kinematics.tool_jacobian(q)
        assert jacobian.shape == (3, len(spec.joints))
        np.testing.assert_allclose(jacobian, numeric_jacobian(kinematics, q), atol=1e-8)


def by_hand(q: np.ndarray) -> np.ndarray:
    """The two-joint arm of conftest, tool 0.1 m along z of the tip: a planar elbow, turned by the shoulder."""
    shoulder, elbow = q
    radius = 0.4 + 0.3 * np.cos(elbow) + 0.1 * np.sin(elbow)  # a positive turn about y takes x towards -z
    height = 0.5 - 0.3 * np.sin(elbow) + 0.1 * np.cos(elbow)
    return np.array([radius * np.cos(shoulder), radius * np.sin(shoulder), height])


@pytest.mark.parametrize("names", [("shoulder", "elbow"), ("elbow", "shoulder")])
def test_a_continuous_joint_by_hand(two_joint_urdf, names):
    kinematics = Kinematics(two_joint_urdf, names, ToolSpec("tip", (0.0, 0.0, 0.1)))
    order = [("shoulder", "elbow").index(name) for name in names]
    for q in np.random.default_rng(2).uniform(-9.0, 9.0, (50, 2)):
        np.testing.assert_allclose(kinematics.tool_position(q[order]), by_hand(q), atol=1e-14)
        jacobian = kinematics.tool_jacobian(q[order])
        np.testing.assert_allclose(jacobian, numeric_jacobian(kinematics, q[order]), atol=1e-8)
    turns = [kinematics.tool_position(np.array([0.3, elbow])[order]) for elbow in (0.7, 0.7 + 2 * np.pi)]
    np.testing.assert_allclose(turns[0], turns[1], atol=1e-14)


def test_joints_left_out_stay_at_their_neutral_position(two_joint_urdf):
    kinematics = Kinematics(two_joint_urdf, ["elbow"], ToolSpec("tip", (0.0, 0.0, 0.1)))
    np.testing.assert_allclose(kinematics.tool_position(np.array([0.7])), by_hand(np.array([0.0, 0.7])), atol=1e-14)
    jacobian = kinematics.tool_jacobian(np.array([0.7]))
    assert jacobian.shape == (3, 1)
    np.testing.assert_allclose(jacobian, numeric_jacobian(kinematics, np.array([0.7])), atol=1e-8)


def test_results_are_the_callers_own(two_joint_urdf):
    kinematics = Kinematics(two_joint_urdf, ["shoulder", "elbow"], ToolSpec("tip"))
    first = kinematics.tool_position(np.array([0.1, 0.2]))
    jacobian = kinematics.tool_jacobian(np.array([0.1, 0.2]))
    kept = first.copy(), jacobian.copy()
    kinematics.tool_position(np.array([1.1, -0.2]))
    kinematics.tool_jacobian(np.array([1.1, -0.2]))
    np.testing.assert_array_equal(first, kept[0])
    np.testing.assert_array_equal(jacobian, kept[1])


def test_refused(two_joint_urdf):
    tool = ToolSpec("tip")
    for urdf, joints, link, message in (
            (two_joint_urdf, ["wrist"], tool, "URDF: wrist: there is no such joint; "),
            (two_joint_urdf, ["flange"], tool, "URDF: flange: there is no such joint; "),
            (two_joint_urdf, ["elbow"], ToolSpec("hand"), "URDF: hand: there is no such link; "),
            ("<robot", ["elbow"], tool, "URDF: not well-formed XML ("),
            ("", ["elbow"], tool, "URDF: not well-formed XML ("),
            ("<robot name='x'/>", ["elbow"], tool, "URDF: "),
            (two_joint_urdf.replace('<child link="fore"/>', '<child link="nowhere"/>'), ["elbow"], tool, "URDF: ")):
        with pytest.raises(RobotError) as caught:
            Kinematics(urdf, joints, link)
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    kinematics = Kinematics(two_joint_urdf, ["shoulder", "elbow"], tool)
    for wrong in (np.zeros(1), np.zeros(3), np.zeros((2, 1)), np.zeros(())):
        with pytest.raises(ValueError, match=r"joint position has shape .*, expected \(2,\)"):
            kinematics.tool_position(wrong)


def test_positions_of_any_memory_layout_and_kind_of_number(arm):
    robot, _ = arm
    kinematics = Kinematics(read_urdf(robot), robot.joint_names, robot.tool)
    q = np.linspace(-0.5, 0.75, len(robot.joint_names)).astype(np.float32).astype(np.float64)
    expected = kinematics.tool_position(q)
    frozen = q.copy()
    frozen.flags.writeable = False
    for other in (q.astype(np.float32), np.repeat(q, 3)[::3], q[::-1].copy()[::-1], frozen):
        np.testing.assert_array_equal(kinematics.tool_position(other), expected)

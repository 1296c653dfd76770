# SPDX-License-Identifier: Apache-2.0
"""The kernels of kinematics, observation and action: against pinocchio, against numpy, and as the Python they are."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from qgf_core import arm_kernel as kernel
from qgf_core.action import ActionDecoder, ActionSpec
from qgf_core.kinematics import Kinematics
from qgf_core.observation import ObservationBuilder, ObservationTerm
from qgf_core.robot import ToolSpec, load_robot, read_urdf, strip_meshes

CHAIN = """<?xml version="1.0"?><robot name="chain"><link name="base"/>{links}</robot>"""
LINK = """<link name="l{k}"/><joint name="j{k}" type="{kind}"><parent link="{parent}"/><child link="l{k}"/>
<origin xyz="{x}" rpy="{r}"/><axis xyz="{axis}"/><limit lower="-3" upper="3" velocity="1" effort="1"/></joint>"""


def arm(name: str, offset=None) -> tuple[Kinematics, int]:
    robot = load_robot(name)
    tool = robot.tool if offset is None else ToolSpec(robot.tool.link, offset)
    return Kinematics(strip_meshes(read_urdf(robot)), robot.joint_names, tool), len(robot.joints)


def drawn_chain(seed: int) -> tuple[Kinematics, int]:
    """Five joints, sliding, turning and continuous, about skew axes; a branch with two more, in shuffled order."""
    random, links = np.random.default_rng(seed), ""
    axes = [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0, -1, 0), *random.normal(size=(3, 3)).tolist()]
    for k, parent in enumerate(("base", "l0", "l1", "l2", "l3", "l1", "l5")):
        text = [" ".join(f"{v:.6f}" for v in values) for values in (random.normal(size=3), random.normal(size=3))]
        kind = ("revolute", "prismatic", "continuous")[random.integers(3)]
        links += LINK.format(k=k, kind=kind, parent=parent, x=text[0], r=text[1],
                             axis=" ".join(map(str, axes[random.integers(len(axes))])))
    names = [f"j{k}" for k in random.permutation(7)]
    return Kinematics(CHAIN.format(links=links), names, ToolSpec("l4", (0.1, -0.2, 0.3))), 7


CASES = [("panda", None), ("iiwa", (0.05, -0.02, 0.3)), ("ur5e", None), *((seed, None) for seed in range(12))]


@pytest.mark.parametrize(("which", "offset"), CASES)
def test_the_tool_is_where_pinocchio_sees_it(which, offset):
    kinematics, n = arm(which, offset) if isinstance(which, str) else drawn_chain(which)
    assert kinematics.chain is not None
    for q in np.random.default_rng(1).uniform(-6.0, 6.0, (50, n)):
        point, matrix = kinematics.tool_pose(q)
        expected = kinematics.tool_pose_by_pinocchio(q)
        np.testing.assert_allclose(point, expected[0], rtol=0, atol=1e-12 * max(1.0, np.abs(point).max()))
        np.testing.assert_allclose(matrix, expected[1], rtol=0, atol=1e-12)
        goal = point + np.array([0.3, 0.0, -0.4])
        assert kinematics.tool_distance(q, goal) == pytest.approx(0.5, abs=1e-12)
        joints, fixed = kinematics.chain
        again = np.zeros(3), np.zeros((3, 3))
        kernel.place_tool.py_func(q, joints, fixed, *again)
        assert np.array_equal(again[0], point) and np.array_equal(again[1], matrix)


def test_what_the_kernel_does_not_know_is_pinocchios():
    robot, (kinematics, n) = load_robot("panda"), arm("panda")
    q, goal = robot.home + 0.1, np.array([0.4, 0.1, 0.5])
    terms = (ObservationTerm("tool_position_error"),)
    given = q, np.zeros(n), np.zeros(n), goal
    first = ObservationBuilder(terms, robot, kinematics).build(*given), kinematics.tool_distance(q, goal)
    kinematics.chain = None
    second = ObservationBuilder(terms, robot, kinematics).build(*given), kinematics.tool_distance(q, goal)
    np.testing.assert_allclose(first[0], second[0], atol=1e-7)
    assert first[1] == pytest.approx(second[1], abs=1e-12)
    assert np.array_equal(kinematics.tool_pose(q)[0], kinematics.tool_pose_by_pinocchio(q)[0])


def terms_of(random: np.random.Generator) -> list[ObservationTerm]:
    names = random.permutation(["joint_position", "joint_velocity", "previous_action", "tool_position_error",
                                "tool_orientation_error"])[: random.integers(1, 6)]
    return [ObservationTerm(name, float(random.choice([1.0, -2.5])), history=int(random.integers(1, 4)))
            for name in names]


@pytest.mark.parametrize("seed", range(10))
def test_observations_against_arrays(seed, monkeypatch):
    """The same in numpy, with a deque for each history; and the kernel as Python, to the last bit."""
    random, robot, (kinematics, n) = np.random.default_rng(seed), load_robot("panda"), arm("panda")
    terms = terms_of(random)
    builder, plain = (ObservationBuilder(terms, robot, kinematics) for _ in range(2))
    for _ in range(2):  # a reset between the two
        builder.reset()
        plain.reset()
        past = [deque(maxlen=term.history) for term in terms]
        for _ in range(5):
            q, v, a, goal = random.normal(size=n), random.normal(size=n), random.normal(size=n), random.normal(size=7)
            goal[3:] /= np.linalg.norm(goal[3:])
            only = ObservationBuilder([ObservationTerm("tool_orientation_error")], robot, kinematics)
            values = {"joint_position": q - robot.home, "joint_velocity": v / robot.policy_velocity,
                      "previous_action": a, "tool_position_error": kinematics.tool_position(q),
                      "tool_orientation_error": only.build(q, v, a, goal)}
            expected = []
            for term, history in zip(terms, past, strict=True):
                history.appendleft(values[term.name] * term.scale)
                known = [*history, *[history[-1]] * (term.history - len(history))]
                if term.name == "tool_position_error":  # earlier ones too are told of the present goal
                    known = [tool - goal[:3] * term.scale for tool in known]
                expected += known
            found = builder.build(q, v, a, goal)
            np.testing.assert_allclose(found, np.concatenate(expected), rtol=2e-7, atol=1e-9)
            with monkeypatch.context() as patch:
                for name in ("build_observation", "place_tool"):
                    patch.setattr(kernel, name, getattr(kernel, name).py_func)
                assert np.array_equal(plain.build(q, v, a, goal), found)


def test_any_kind_of_array_meets_the_one_compiled_kernel():
    """A kernel is compiled for each kind of array that it meets, in the middle of a control loop if need be."""
    robot, (kinematics, n) = load_robot("panda"), arm("panda")
    builder = ObservationBuilder([ObservationTerm("joint_position"), ObservationTerm("tool_position_error")], robot,
                                 kinematics)
    decoder = ActionDecoder(ActionSpec("joint_velocity", (1.0,) * n), robot, kinematics, 0.02)
    goal = np.array([0.4, 0.1, 0.5])

    def all_of(q, aim, action):
        return builder.build(q, q, q, aim), kinematics.tool_distance(q, aim), decoder.decode(action).tolist()

    q, action = robot.home.copy(), np.full(n, 0.5)
    expected = all_of(q, goal, action)
    known = [len(f.signatures) for f in (kernel.build_observation, kernel.tool_distance, kernel.scale_action)]
    frozen, every_second = q.copy(), np.repeat(q, 2)[::2]
    frozen.flags.writeable = False
    still = goal.copy()
    still.flags.writeable = False
    for position in (frozen, every_second):
        found = all_of(position, still, action.astype(np.float32))
        assert np.array_equal(found[0], expected[0]) and found[1:] == expected[1:]
    assert known == [len(f.signatures) for f in (kernel.build_observation, kernel.tool_distance, kernel.scale_action)]


def test_an_action_beyond_the_scale_is_cut_and_what_is_no_number_stays_none():
    action, scale, out = np.array([0.5, -2.0, 7.0, np.nan]), np.array([2.0, 0.3, 0.1, 1.0]), np.zeros(4)
    for scaled in (kernel.scale_action, kernel.scale_action.py_func):
        scaled(action, scale, out)
        assert out[:3].tolist() == [1.0, -0.3, 0.1] and np.isnan(out[3])

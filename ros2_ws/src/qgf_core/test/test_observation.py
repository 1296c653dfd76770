# SPDX-License-Identifier: Apache-2.0
"""The observation builder and the action decoder, number by number."""

from __future__ import annotations

import math
import typing

import numpy as np
import pytest

from qgf_core.action import ActionDecoder, ActionSpec
from qgf_core.kinematics import Kinematics
from qgf_core.observation import UNITS, ObservationBuilder, ObservationTerm, TermName, aim_of
from qgf_core.reference import JointReference

GOAL = np.array([0.5, 0.1, 0.6])


@pytest.fixture
def builder(two_joint_robot, two_joint_urdf):
    """Makes a builder of terms for the two-joint arm: home (0.25, -0.5), policy_velocity (0.5, 2)."""
    def make(*terms: ObservationTerm) -> ObservationBuilder:
        kinematics = Kinematics(two_joint_urdf, two_joint_robot.joint_names, two_joint_robot.tool)
        return ObservationBuilder(terms, two_joint_robot, kinematics)
    return make


def state(q=(0.25, -0.5), dq=(0.0, 0.0), action=(0.0, 0.0), goal=GOAL):
    return np.array(q), np.array(dq), np.array(action), np.array(goal)


def test_each_term_by_hand(builder):
    q, dq, action = (0.75, 0.0), (0.25, -1.0), (0.5, -1.5)
    assert builder(ObservationTerm("joint_position")).build(*state(q)).tolist() == [0.5, 0.5]
    assert builder(ObservationTerm("joint_velocity")).build(*state(q, dq)).tolist() == [0.5, -0.5]
    assert builder(ObservationTerm("previous_action")).build(*state(q, dq, action)).tolist() == [0.5, -1.5]
    # Elbow straight, tool 0.1 m above the tip, 0.7 m out at angle 0.75, 0.6 m high.
    error = builder(ObservationTerm("tool_position_error")).build(*state(q))
    np.testing.assert_allclose(error, [0.7 * math.cos(0.75) - 0.5, 0.7 * math.sin(0.75) - 0.1, 0.0], atol=1e-7)
    assert error.dtype == np.float32


def test_scale_and_order_of_terms(builder):
    built = builder(ObservationTerm("previous_action", scale=-2.0), ObservationTerm("tool_position_error", scale=5.0),
                    ObservationTerm("joint_position", scale=4.0), ObservationTerm("joint_velocity", scale=0.5))
    assert built.size == 9
    observation = built.build(*state((0.75, 0.0), (0.25, -1.0), (0.5, -1.5)))
    expected = [-1.0, 3.0, 5 * (0.7 * math.cos(0.75) - 0.5), 5 * (0.7 * math.sin(0.75) - 0.1), 0.0, 2.0, 2.0,
                0.25, -0.25]
    np.testing.assert_allclose(observation, expected, atol=1e-6)


def test_history_newest_first_and_the_oldest_stands_in(builder):
    built = builder(ObservationTerm("joint_position", scale=2.0, history=3), ObservationTerm("previous_action"),
                    ObservationTerm("tool_position_error", history=2))
    assert built.size == 6 + 2 + 6

    def positions(q0: float) -> list[float]:
        return built.build(*state((0.25 + q0, -0.5)))[:6].tolist()
    assert positions(1.0) == [2.0, 0.0] * 3
    assert positions(0.5) == [1.0, 0.0, 2.0, 0.0, 2.0, 0.0]
    assert positions(0.25) == [0.5, 0.0, 1.0, 0.0, 2.0, 0.0]
    assert positions(0.125) == [0.25, 0.0, 0.5, 0.0, 1.0, 0.0]
    built.reset()
    assert positions(-0.5) == [-1.0, 0.0] * 3


def test_history_keeps_its_own_numbers(builder):
    built = builder(ObservationTerm("previous_action", history=2))
    q, dq, action, goal = state(action=(0.5, 0.25))
    built.build(q, dq, action, goal)
    action[:] = 9.0
    assert built.build(q, dq, np.array([1.0, 2.0]), goal).tolist() == [1.0, 2.0, 0.5, 0.25]


def test_history_of_the_error_is_told_of_the_present_goal(builder):
    """A new goal is no jump of the tool: as if it had been there all the time."""
    terms = ObservationTerm("joint_position", history=2), ObservationTerm("tool_position_error", scale=5.0, history=3)
    built, known = builder(*terms), builder(*terms)
    path = [(0.1 * k, -0.5 + 0.2 * k) for k in range(4)]
    for q in path[:2]:
        built.build(*state(q, goal=(0.5, -0.1, 0.2)))
    later = [built.build(*state(q, goal=(1.5, 0.1, 0.6))) for q in path[2:]]
    expected = [known.build(*state(q, goal=(1.5, 0.1, 0.6))) for q in path][2:]
    np.testing.assert_allclose(later, expected, atol=1e-6)
    built.reset()
    known.reset()
    np.testing.assert_allclose(built.build(*state(goal=(0.0, 0.0, 0.0))), known.build(*state(goal=(0.0, 0.0, 0.0))))


def test_the_same_joints_are_demanded(two_joint_robot, two_joint_urdf):
    turned = Kinematics(two_joint_urdf, ["elbow", "shoulder"], two_joint_robot.tool)
    with pytest.raises(ValueError, match="do not fit"):
        ObservationBuilder([ObservationTerm("joint_position")], two_joint_robot, turned)


@pytest.mark.parametrize(("fields", "message"), [
    ({"history": 0}, "history 0 must be at least 1"), ({"history": -3}, "history -3 must be at least 1"),
    ({"scale": 0.0}, "scale 0.0 must be finite and not 0"), ({"scale": math.nan}, "scale nan must be finite and not 0"),
    ({"scale": math.inf}, "scale inf must be finite and not 0")])
def test_terms_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ObservationTerm("joint_position", **fields)


def test_every_term_has_a_unit():
    assert set(UNITS) == set(typing.get_args(TermName))


def test_a_reference_by_hand(builder):
    """From (0.25, -0.5) to (0.75, 0.5) in 2 s, from rest to rest: in the middle at 1.5 times (0.25, 0.5) rad/s."""
    reference = JointReference(np.array([0.0, 2.0]), np.array([[0.25, -0.5], [0.75, 0.5]]))
    error = builder(ObservationTerm("reference_error", scale=2.0, preview=(0.0, 1.0)))
    assert error.size == 4
    np.testing.assert_allclose(error.build(*state((0.35, 0.0)), reference, 1.0), [-0.3, 0.0, -0.8, -1.0], atol=1e-6)
    speed = builder(ObservationTerm("reference_velocity", preview=(0.0, 1.0)))
    np.testing.assert_allclose(speed.build(*state(), reference, 1.0), [0.375 / 0.5, 0.75 / 2.0, 0.0, 0.0], atol=1e-6)
    with pytest.raises(ValueError, match="needs a reference"):
        speed.build(*state())


def test_an_orientation_by_hand(builder):
    """The elbow, whose axis is y, turned by 0.3 rad more than the goal, at shoulder angle 0: a turn about y."""
    term = builder(ObservationTerm("tool_orientation_error", scale=2.0))
    goal = np.concatenate([GOAL, [0.0, math.sin(0.1), 0.0, math.cos(0.1)]])  # 0.2 rad about y
    np.testing.assert_allclose(term.build(*state((0.0, 0.5), goal=goal)), [0.0, 0.6, 0.0], atol=1e-6)


@pytest.mark.parametrize(("names", "aim"), [
    (["joint_position"], "position"), (["tool_position_error"], "position"),
    (["tool_position_error", "tool_orientation_error"], "pose"), (["reference_velocity"], "reference")])
def test_what_a_policy_must_be_told(names, aim):
    assert aim_of([ObservationTerm(name) for name in names]) == aim


def test_a_goal_and_a_reference_together_are_refused():
    with pytest.raises(ValueError, match="a goal and of a reference together"):
        aim_of([ObservationTerm("reference_error"), ObservationTerm("tool_position_error")])


@pytest.mark.parametrize(("name", "preview", "words"), [
    ("reference_error", (), "preview"), ("reference_error", (-0.1,), "preview"),
    ("joint_position", (0.1,), "only a reference has a preview")])
def test_previews_refused(name, preview, words):
    with pytest.raises(ValueError, match=words):
        ObservationTerm(name, preview=preview)


def test_action_by_hand(two_joint_robot, two_joint_urdf):
    kinematics = Kinematics(two_joint_urdf, two_joint_robot.joint_names, two_joint_robot.tool)
    decoder = ActionDecoder(ActionSpec("joint_velocity", (1.2, 0.5)), two_joint_robot, kinematics, 0.02)
    decoded = decoder.decode(np.array([0.5, -1.0], dtype=np.float32))
    assert decoded.tolist() == [0.6, -0.5] and decoded.dtype == np.float64
    assert decoder.decode(np.array([7.0, -7.0])).tolist() == [1.2, -0.5]  # beyond the range is its end
    assert np.isnan(decoder.decode(np.array([np.nan, 0.0]))[0])  # for the limiter to refuse, never silently a number
    for wrong in (np.zeros(1), np.zeros(3), np.zeros((1, 2)), np.zeros(())):
        with pytest.raises(ValueError, match=r"action has shape .*, expected \(2,\)"):
            decoder.decode(wrong)


@pytest.mark.parametrize("scale", [(), (1.0, 0.0), (-1.0,), (math.nan,), (math.inf,), (1.0, math.nan)])
def test_action_scale_must_be_positive(scale):
    with pytest.raises(ValueError, match=r"action scale .* must be positive"):
        ActionSpec("joint_velocity", scale)

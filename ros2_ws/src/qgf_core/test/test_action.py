# SPDX-License-Identifier: Apache-2.0
"""The action decoder: each kind by hand, the pull home, and the limiter behind every kind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core.action import ACTION_UNITS, ActionDecoder, ActionSpec
from qgf_core.kinematics import Kinematics
from qgf_core.limiter import Limiter
from qgf_core.robot import load_robot, read_urdf, strip_meshes

PANDA = load_robot("panda")
KINEMATICS = Kinematics(strip_meshes(read_urdf(PANDA)), PANDA.joint_names, PANDA.tool)
PERIOD = 0.02
KINDS = sorted(ACTION_UNITS)
SCALES = {
    "joint_velocity": PANDA.policy_velocity,
    "joint_position": np.full(7, 1.0),
    "joint_position_delta": PANDA.policy_velocity * PERIOD,
    "joint_effort": PANDA.effort_limit,
}


def decoder(kind="joint_velocity", scale=None, period=PERIOD, **more) -> ActionDecoder:
    spec = ActionSpec(kind, tuple(np.asarray(SCALES[kind] if scale is None else scale).tolist()), **more)
    return ActionDecoder(spec, PANDA, KINEMATICS, period)


def test_a_velocity_and_a_step_need_no_state():
    half = np.full(7, 0.5)
    np.testing.assert_array_equal(decoder().decode(half), 0.5 * PANDA.policy_velocity)
    np.testing.assert_allclose(decoder("joint_position_delta", np.full(7, 0.01)).decode(half), 0.005 / 0.02)
    np.testing.assert_array_equal(decoder().decode(np.full(7, 9.0)), PANDA.policy_velocity)  # cut to [-1, 1]


def test_a_position_is_approached_with_its_time_constant_and_no_faster_than_the_policy_may_go():
    position = decoder("joint_position", np.full(7, 0.5), time_constant=0.2)
    action = np.zeros(7)
    action[0] = 0.2  # target 0.1 rad from home
    np.testing.assert_allclose(position.decode(action, PANDA.home), [0.5, 0, 0, 0, 0, 0, 0], atol=1e-12)
    assert position.decode(np.ones(7), PANDA.home) == pytest.approx(PANDA.policy_velocity)
    # A target beyond a limit is the limit less its margin: joint 4 of the Panda may not stretch beyond -0.0698.
    far = decoder("joint_position", np.full(7, 3.0)).decode(np.full(7, 1.0), PANDA.position_upper - 0.05 - 0.01)
    np.testing.assert_allclose(far[3], 0.01 / 0.1)


def test_a_torque_accelerates_the_mass_that_it_meets():
    effort = decoder("joint_effort", np.full(7, 10.0))
    action, v = np.array([0, 0, 0, 1.0, 0, 0, 0]), np.full(7, 0.1)
    wanted = effort.decode(action, PANDA.home, v)
    # M dv = T (tau - d v), by a second way to M: torques of unit accelerations less those of none.
    rest = KINEMATICS.torque(PANDA.home, np.zeros(7), np.zeros(7))
    mass = np.column_stack([KINEMATICS.torque(PANDA.home, np.zeros(7), unit) - rest for unit in np.eye(7)])
    np.testing.assert_allclose(mass @ (wanted - v) / PERIOD, 10.0 * action - 0.5 * v, atol=1e-8)
    np.testing.assert_allclose(mass, KINEMATICS.mass_matrix(PANDA.home), atol=1e-9)


@pytest.mark.parametrize(("kind", "more"), [("joint_position", {}), ("joint_effort", {}),
                                            ("joint_velocity", {"posture_rate": 1.0})])
def test_what_needs_the_state_says_so(kind, more):
    with pytest.raises(ValueError, match="needs the arm's position"):
        decoder(kind, **more).decode(np.zeros(7))


@pytest.mark.parametrize(("fields", "words"), [
    ({"scale": (0.0,) * 7}, "must be positive"), ({"scale": ()}, "must be positive"),
    ({"time_constant": 0.0}, "time_constant 0.0 s must be positive"),
    ({"posture_rate": -1.0}, "posture_rate -1.0"), ({"posture_rate": float("nan")}, "posture_rate nan")])
def test_a_bad_spec_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(ActionSpec("joint_velocity", (1.0,) * 7), **fields)
    with pytest.raises(ValueError, match="6 entries for 7 joints"):
        ActionDecoder(ActionSpec("joint_velocity", (1.0,) * 6), PANDA, KINEMATICS, PERIOD)


# ---- the pull home --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["position", "pose"])
def test_the_pull_home_moves_the_joints_and_not_the_tool(task):
    pull = decoder(posture_rate=1.0, posture_task=task)
    q = PANDA.home + np.array([0.3, 0.2, 0.5, -0.1, 0.6, 0.2, -0.4])
    v = pull.decode(np.zeros(7), q)
    assert np.abs(v).max() > 0.05
    assert (np.abs(v) <= 0.5 * PANDA.policy_velocity + 1e-12).all()
    assert v @ (PANDA.home - q) > 0.0  # nearer home
    h = 1e-5
    before, after = KINEMATICS.tool_pose(q), KINEMATICS.tool_pose(q + h * v)
    assert np.linalg.norm(after[0] - before[0]) / h < 2e-3 * np.linalg.norm(v)  # [m/s] of [rad/s]
    turning = np.linalg.norm(after[1] - before[1]) / h
    assert (turning < 5e-3 * np.linalg.norm(v)) == (task == "pose")


def test_the_pull_brings_the_posture_home_where_the_tool_leaves_it_free():
    """From a pose with the tool where it is at home, along the null space back to home itself."""
    pull, q = decoder(posture_rate=2.0), PANDA.home.copy()
    point = KINEMATICS.tool_position(PANDA.home)
    away = np.linalg.svd(KINEMATICS.tool_jacobian(q))[2][3:].T @ np.array([0.5, -0.4, 0.3, 0.2])
    q = q + away
    for _ in range(30):  # back to the same tool position
        q = q - np.linalg.pinv(KINEMATICS.tool_jacobian(q)) @ (KINEMATICS.tool_position(q) - point)
    first = np.abs(q - PANDA.home).max()
    for _ in range(400):
        q = q + 0.01 * pull.decode(np.zeros(7), q)
    assert first > 0.2 and np.abs(q - PANDA.home).max() < 0.05 * first
    assert np.linalg.norm(KINEMATICS.tool_position(q) - point) < 0.005


def test_the_pull_stays_bounded_in_a_singular_pose():
    stretched = np.array([0.0, 0.0, 0.0, -0.0698, 0.0, 1.6, 0.0])
    v = decoder(posture_rate=10.0).decode(np.zeros(7), stretched)
    assert np.isfinite(v).all() and (np.abs(v) <= 0.5 * PANDA.policy_velocity + 1e-12).all()


# ---- behind every kind stands the limiter ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), rate=st.sampled_from([10.0, 50.0, 333.0, 1000.0]),
       posture=st.sampled_from([0.0, 3.0]), held=st.integers(1, 15), noise=st.sampled_from([0.0, 0.01]))
def test_the_limits_hold_for_every_kind_at_every_rate(kind, seed, rate, posture, held, noise):
    """Random actions, held for a while so that joints reach their limits; the arm follows at once, measured with
    noise."""
    generator, h = np.random.default_rng(seed), 1.0 / rate
    scale = SCALES[kind] if kind != "joint_position_delta" else PANDA.policy_velocity * h
    decode = decoder(kind, scale, h, posture_rate=posture, time_constant=max(0.1, 2 * h)).decode
    closed = kind == "joint_velocity"
    limiter = Limiter(PANDA, h, 0.06 if closed else 0.0)
    lower, upper = PANDA.position_lower + 0.05, PANDA.position_upper - 0.05
    q = generator.uniform(lower + 0.1, upper - 0.1)
    limiter.reset(q)
    last_v, last_a, action = np.zeros(7), np.zeros(7), np.zeros(7)
    for k in range(60):
        if k % held == 0:
            action = generator.choice([-1.0, -0.4, 0.7, 1.0], 7)
        measured = q + generator.normal(0.0, noise, 7) if closed else None
        base = limiter.position if measured is None else measured
        command = limiter.step(decode(action, base, limiter.velocity), measured)
        assert (np.abs(command.velocity) <= PANDA.velocity_limit + 1e-9).all()
        acceleration = (command.velocity - last_v) / h
        assert (np.abs(acceleration) <= PANDA.acceleration_limit + 1e-6).all()
        assert (np.abs(acceleration - last_a) <= PANDA.jerk_limit * h + 1e-6).all()
        last_v, last_a = command.velocity, acceleration
        q = q + h * command.velocity
        if measured is None or noise == 0.0:
            assert (q >= lower - 1e-9).all() and (q <= upper + 1e-9).all()
        else:
            assert (q >= PANDA.position_lower).all() and (q <= PANDA.position_upper).all()

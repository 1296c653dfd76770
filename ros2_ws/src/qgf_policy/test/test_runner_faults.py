# SPDX-License-Identifier: Apache-2.0
"""Faults, goals, halts and the emergency stop of the runner on a virtual clock, with exact times and numbers."""

import dataclasses

import numpy as np
import pytest

from qgf_core.errors import StateError
from qgf_policy.status import Mode

GOAL = (0.5, 0.1, 0.4)
MS = 1_000_000
SCALE = np.array([1.2, 1.2, 1.2, 1.2, 1.5, 1.5, 1.5])  # speed of a full action in the robot's YAML [rad/s]


def modes(rig):
    return [event.mode for event in rig.runner.events]


# ------------------------------------------------------------------------------------------------------ faults


def test_stale_state_holds_exactly_after_three_periods(rig):
    r = rig(0.8, ramp_duration=0.0)
    r.activate()
    r.run(50)
    r.frozen_at = r.clock.now()
    statuses = [r.step()[1] for _ in range(6)]  # ages 0, 10, 20, 30, 40, 50 ms
    assert [s.mode for s in statuses] == [Mode.ACTIVE] * 4 + [Mode.HOLDING] * 2
    assert "is 50.0 ms old, allowed are 30.0 ms" in statuses[-1].fault and "panda_joint1" in statuses[-1].fault
    assert r.runner.counters.faults_stale_state == 2


def test_one_nanosecond_over_the_limit_is_stale(rig):
    r = rig(0.8, ramp_duration=0.0)
    r.activate()
    _, status = r.step(r.state(sampled=np.array([10**9] * 6 + [10**9 - 30 * MS])))
    assert status.mode == Mode.ACTIVE
    _, status = r.step(r.state(sampled=np.array([r.clock.now()] * 6 + [r.clock.now() - 30 * MS - 1])))
    assert status.mode == Mode.HOLDING and "panda_joint7" in status.fault


def test_state_timeout_stands_in_for_stale_periods(rig):
    r = rig(0.8, ramp_duration=0.0, state_timeout=0.055)
    r.activate()
    r.frozen_at = r.clock.now()
    assert [r.step()[1].mode for _ in range(7)] == [Mode.ACTIVE] * 6 + [Mode.HOLDING]


def test_a_hold_ramps_to_zero_within_the_limits_and_keeps_publishing_exact_zeros(rig):
    r = rig(1.0, ramp_duration=0.0)
    r.activate()
    moving = r.run(50)[-1].values
    np.testing.assert_allclose(moving, SCALE)
    r.frozen_at = r.clock.now() - 31 * MS
    commands = r.run(60)
    robot, h = r.robot, 0.01
    velocities = np.array([moving] + [c.values for c in commands])
    assert np.all(np.diff(velocities, axis=0) <= 1e-12), "no joint speeds up"
    # From v0 with a_max, 1.2 / 7.5 = 0.16 s for the slowest joint, plus a few periods to fade the acceleration out.
    rest = np.flatnonzero(np.all(velocities == 0.0, axis=1))[0]
    assert 16 <= rest <= 20
    assert np.all(velocities[rest:] == 0.0)
    acceleration = np.diff(velocities, axis=0) / h
    assert np.all(np.abs(acceleration) <= robot.acceleration_limit + 1e-9)
    assert np.all(np.abs(np.diff(acceleration, axis=0)) / h <= robot.jerk_limit + 1e-6)
    assert all(c.raw_action is None and "old" in c.reason for c in commands)


def test_after_stale_state_the_policy_resumes_through_a_new_ramp(rig):
    r = rig(0.5)
    r.activate()
    r.run(60)
    r.frozen_at = r.clock.now() - 31 * MS
    r.run(40)
    r.frozen_at = None
    commands = r.run(51)
    for tick, factor in [(0, 0.0), (10, 0.05792), (25, 0.5), (50, 1.0)]:
        np.testing.assert_allclose(commands[tick].values, 0.5 * factor * SCALE, rtol=0, atol=1e-12)
    assert modes(r) == [Mode.RAMPING, Mode.ACTIVE, Mode.HOLDING, Mode.RAMPING, Mode.ACTIVE]


@pytest.mark.parametrize(
    ("change", "counter"),
    [
        ({"missing": ("panda_joint2",)}, "faults_incomplete_state"),
        ({"position": np.array([0, 0, np.nan, 0, 0, 0, 0])}, "faults_non_finite_state"),
        ({"velocity": np.array([0, 0, 0, 0, 0, -np.inf, 0])}, "faults_non_finite_state"),
        ({"refusals": (StateError("malformed_state", "lengths"),)}, "faults_malformed_state"),
        ({"refusals": (StateError("non_finite_state", "nan"),)}, "faults_non_finite_state"),
    ],
)
def test_a_bad_state_holds_at_once_and_is_counted_once(rig, change, counter):
    r = rig(1.0, ramp_duration=0.0)
    r.activate()
    before = r.run(30)[-1].values
    command, status = r.step(r.state(**change))
    assert status.mode == Mode.HOLDING and status.fault and command.reason == status.fault
    assert np.all(np.isfinite(command.values)) and np.all(command.values < before)
    assert dataclasses.asdict(r.runner.counters)[counter] == 1
    assert sum(v for k, v in dataclasses.asdict(r.runner.counters).items() if k.startswith("faults")) == 1
    _, status = r.step()
    assert status.mode in (Mode.RAMPING, Mode.ACTIVE) and status.fault == ""


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.array([0, 0, 0, np.inf, 0, 0, 0]), np.zeros(6)])
def test_a_bad_action_holds_and_is_tried_again(rig, bad):
    good, answers = np.full(7, 0.5), []
    r = rig(lambda observation: answers.pop(0) if answers else good, ramp_duration=0.1)
    r.activate()
    before = r.run(30)[-1].values
    answers += [bad] * 3
    held = r.run(3)
    assert r.runner.status().mode == Mode.HOLDING and r.runner.counters.faults_non_finite_action == 3
    assert all(c.raw_action is None and np.all(np.isfinite(c.values)) for c in held)
    assert np.all(held[0].values < before) and np.all(held[2].values < held[0].values)
    assert r.run(12)[-1].reason == "" and r.runner.status().mode == Mode.ACTIVE


def test_an_exception_in_the_model_holds_and_names_its_reason(rig):
    def fail(observation):
        raise RuntimeError(
            "The following operation failed in the TorchScript interpreter.\nRuntimeError: bad kernel"
        )

    r = rig(fail)
    r.activate()
    command, status = r.step()
    assert status.mode == Mode.HOLDING and status.fault == "running the policy failed: RuntimeError: bad kernel"
    assert np.all(command.values == 0.0) and r.runner.counters.faults_model_exception == 1


# ------------------------------------------------------------------------------------------------------ goals


def test_without_a_goal_the_arm_is_held(rig):
    r = rig(1.0)
    r.activate(goal=None)
    commands = r.run(5)
    assert all(
        np.all(c.values == 0.0) and c.goal_stamp == 0 and c.reason == "no goal was received yet"
        for c in commands
    )
    assert r.runner.counters.faults_stale_goal == 5 and r.runner.status().mode == Mode.HOLDING
    r.runner.set_goal(GOAL, "panda_link0", 42, r.clock.now())
    command, status = r.step()
    assert status.mode == Mode.RAMPING and command.goal_stamp == 42


@pytest.mark.parametrize(
    ("position", "frame", "words"),
    [
        ((0.5, np.nan, 0.4), "panda_link0", "not three finite numbers"),
        ((0.5, 0.1), "panda_link0", "not three finite numbers"),
        (GOAL, "world", "frame 'world' is not the base frame 'panda_link0'"),
        (GOAL, "", "frame ''"),
        ((0.671 + 1e-6, 0.0, 0.4), "panda_link0", "outside the region trained on"),
    ],
)
def test_a_bad_goal_is_refused_and_the_one_before_stays(rig, position, frame, words):
    r = rig(0.5)
    r.activate()
    r.run(3)
    with pytest.raises(StateError, match=words):
        r.runner.set_goal(position, frame, 99, r.clock.now())
    assert r.runner.counters.faults_rejected_goal == 1 and words.split("'")[0] in r.runner.goal_refusal
    command, status = r.step()
    assert command.goal_stamp == 77 and status.mode == Mode.RAMPING
    r.runner.set_goal((0.6709, 0.0, 0.4), "panda_link0", 100, r.clock.now())  # within the tolerance of 1 mm
    assert r.runner.goal_refusal == ""


def test_the_goal_reaches_the_observation(rig):
    r = rig(0.0)
    r.activate()
    r.step()
    tool = r.runner.manifest.kinematics().tool_position(r.robot.home)
    observed = r.policy.observations[-1][-3:]
    np.testing.assert_allclose(observed, 5.0 * (tool - np.array(GOAL)), atol=1e-6)


def test_a_goal_times_out_only_where_that_is_asked_for(rig):
    r = rig(0.5, goal_timeout=0.05)
    r.activate()
    assert [r.step()[1].mode for _ in range(7)] == [Mode.RAMPING] * 6 + [Mode.HOLDING]
    assert r.runner.status().fault == "the goal is 0.06 s old, allowed are 0.05 s"
    forever = rig(0.0)
    forever.activate()
    forever.clock.advance(3600 * 10**9)
    assert forever.step()[1].mode != Mode.HOLDING


def test_deactivation_forgets_the_goal(rig):
    r = rig(0.5)
    r.activate()
    r.run(5)
    r.runner.deactivate()
    while r.step()[0] is not None:
        pass
    r.activate(goal=None)
    assert r.step()[1].mode == Mode.HOLDING


# ------------------------------------------------------------------------------------------- halt, emergency stop


def test_deactivation_halts_repeats_zero_for_a_tenth_of_a_second_and_falls_silent(rig):
    r = rig(1.0, ramp_duration=0.0)
    r.activate()
    r.run(50)
    r.runner.deactivate()
    values, statuses = [], []
    while (stepped := r.step())[0] is not None:
        values.append(stepped[0].values)
        statuses.append(stepped[1].mode)
    zeros = [bool(np.all(v == 0.0)) for v in values]
    assert zeros.index(True) <= 20 and zeros[-11:] == [True] * 11 and sum(zeros) == 11
    assert statuses[:-1] == [Mode.HALTING] * (len(values) - 1) and r.runner.status().mode == Mode.INACTIVE
    assert not r.runner.commanding


def test_a_halt_needs_no_state(rig):
    r = rig(1.0, ramp_duration=0.0)
    r.activate()
    r.run(50)
    r.runner.deactivate()
    nothing = r.state(position=np.full(7, np.nan), velocity=np.full(7, np.nan), missing=r.robot.joint_names)
    values = [r.step(nothing)[0] for _ in range(30)]
    assert np.all(values[25].values == 0.0)


def test_the_emergency_stop_latches(rig):
    r = rig(1.0, ramp_duration=0.0)
    r.activate()
    r.run(50)
    r.runner.estop("button")
    r.runner.estop("button again")
    assert r.runner.counters.estops == 1
    stopped = r.run(100)
    assert np.all(stopped[0].values < SCALE) and np.all(stopped[0].values > 0), "within the limits, not at once"
    assert all(np.all(c.values == 0.0) for c in stopped[25:]), "and zeros go on"
    status = r.runner.status()
    assert status.mode == Mode.ESTOPPED and "button" in status.fault
    for refused in (
        lambda: r.activate(goal=None),
        lambda: r.runner.set_goal(GOAL, "panda_link0", 1, r.clock.now()),
    ):
        with pytest.raises(StateError, match="emergency stop is latched"):
            refused()
    r.runner.deactivate()
    while r.step()[0] is not None:
        pass
    assert r.runner.status().mode == Mode.ESTOPPED
    with pytest.raises(StateError, match=r"\(button\); call ~/reset_estop first"):
        r.activate(goal=None)
    r.runner.reset_estop()
    assert r.runner.status().mode == Mode.INACTIVE and r.step()[0] is None
    r.activate()
    assert r.step()[1].mode == Mode.ACTIVE


def test_a_reset_while_commanding_needs_rest_and_a_new_activation(rig):
    r = rig(1.0, ramp_duration=0.0)
    with pytest.raises(StateError, match="no emergency stop"):
        r.runner.reset_estop()
    r.activate()
    r.run(50)
    r.runner.estop("button")
    r.step()
    with pytest.raises(StateError, match="still being brought to rest"):
        r.runner.reset_estop()
    r.run(30)
    r.runner.reset_estop()
    assert r.runner.status().mode == Mode.HALTING
    while r.step()[0] is not None:
        pass
    assert r.runner.status().mode == Mode.INACTIVE


def test_an_emergency_stop_while_inactive_forbids_activation(rig):
    r = rig()
    r.runner.estop("button")
    with pytest.raises(StateError, match="latched"):
        r.activate(goal=None)
    assert r.step()[0] is None and r.runner.status().mode == Mode.ESTOPPED


def test_the_last_resort_stops_without_state_or_policy(rig):
    r = rig(1.0, ramp_duration=0.0)
    r.activate()
    before = r.run(50)[-1].values
    values, rest = [before], False
    while not rest:
        value, rest = r.runner.halt_step()
        values.append(value)
    assert len(values) < 25 and np.all(values[-1] == 0.0)
    assert np.all(np.abs(np.diff(values, axis=0)) <= r.robot.acceleration_limit * 0.01 + 1e-12)

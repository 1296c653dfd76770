# SPDX-License-Identifier: Apache-2.0
"""The runner on a virtual clock: ramps, activation, interfaces, rates, with exact times and numbers."""

import dataclasses

import numpy as np
import pytest

from qgf_core.errors import ConfigError, StateError
from qgf_core.robot import load_robot
from qgf_policy.joint_state import JointState
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings
from qgf_policy.status import Mode

GOAL = (0.5, 0.1, 0.4)
MS = 1_000_000
SCALE = np.array([1.2, 1.2, 1.2, 1.2, 1.5, 1.5, 1.5])  # speed of a full action in the robot's YAML [rad/s]


def modes(rig):
    return [event.mode for event in rig.runner.events]


def test_nothing_is_commanded_before_activation(rig):
    r = rig()
    command, status = r.step()
    assert command is None and status.mode == Mode.INACTIVE and status.fault == ""


def test_the_ramp_follows_the_minimum_jerk_profile(rig):
    r = rig(0.5)
    r.activate()
    commands = r.run(61)
    # 10 t^3 - 15 t^4 + 6 t^5 worked out by hand at t = 0, 0.2, 0.5, 0.8 and 1 of the 0.5 s.
    for tick, factor in [(0, 0.0), (10, 0.05792), (25, 0.5), (40, 0.94208), (50, 1.0), (60, 1.0)]:
        np.testing.assert_allclose(commands[tick].values, 0.5 * factor * SCALE, rtol=0, atol=1e-12)
    assert [c.reason for c in commands[:50]] == ["ramping in"] * 50
    assert [c.reason for c in commands[50:]] == [""] * 11
    assert modes(r) == [Mode.RAMPING, Mode.ACTIVE]
    assert [c.sequence for c in commands] == list(range(61))


def test_without_a_ramp_only_the_limiter_stands_between(rig):
    r = rig(0.1, ramp_duration=0.0)
    r.activate()
    _, status = r.step()
    assert status.mode == Mode.ACTIVE
    assert r.run(10)[-1].values == pytest.approx(np.float32(0.1) * SCALE, abs=1e-12)


def test_actions_and_commands_equal_the_training_loop_bit_by_bit(bundle):
    """A second writing of what the environment does, over a noisy joint log."""
    manifest = bundle.manifest
    generator = np.random.default_rng(3)
    runner = PolicyRunner(bundle, RunnerSettings(ramp_duration=0.0))
    builder, decoder, limiter = (
        manifest.observation_builder(),
        manifest.action_decoder(),
        manifest.velocity_limiter(),
    )
    position = manifest.robot.home + generator.uniform(-0.2, 0.2, 7)
    velocity, previous, goal = np.zeros(7), np.zeros(7), np.array(GOAL)
    largest = 0.0
    for k in range(300):
        now = 10**9 + k * 10 * MS
        q = position + generator.normal(0, 0.002, 7)
        dq = velocity + generator.normal(0, 0.02, 7)
        state = JointState(q.copy(), dq.copy(), np.full(7, now), now)
        if k == 0:
            limiter.reset(q)
            runner.set_goal(GOAL, "panda_link0", 1, now)
            runner.activate(state, now)
        observation = builder.build(q, dq, previous, goal)
        action = bundle.act(observation)
        limited = limiter.step(decoder.decode(action), q)
        previous = action
        command, _ = runner.step(state, now)
        np.testing.assert_array_equal(command.observation, observation)
        np.testing.assert_array_equal(command.raw_action, action)
        np.testing.assert_array_equal(command.values, limited.velocity)
        largest = max(largest, float(np.abs(action - previous).max()), float(np.abs(limited.velocity).max()))
        velocity = limited.velocity
        position = position + 0.01 * velocity
    assert largest > 0.3, "the policy must have moved the arm"


def test_previous_action_is_the_unlimited_output_and_zero_after_activation(rig):
    values = iter(np.linspace(-3.0, 3.0, 1000))  # leaves [-1, 1]: what is fed back is what the policy gave
    r = rig(lambda observation: np.full(7, next(values)))
    r.activate()
    commands = r.run(5)
    seen = [observation[21:28] for observation in r.policy.observations]
    np.testing.assert_array_equal(seen[0], np.zeros(7))
    for before, observed in zip(commands, seen[1:], strict=False):
        np.testing.assert_array_equal(observed, before.raw_action)
    r.runner.deactivate()
    while r.step()[0] is not None:
        pass
    r.activate()
    r.step()
    np.testing.assert_array_equal(r.policy.observations[-1][21:28], np.zeros(7))


def test_history_starts_anew_after_activation_and_after_a_hold(rig):
    r = rig(0.5)
    r.activate()
    r.run(30)
    first, later = r.policy.observations[0], r.policy.observations[-1]
    np.testing.assert_array_equal(first[:7], first[7:14])  # the newest stands in for the one before the start
    assert np.abs(later[:7] - later[7:14]).min() > 0
    r.step(r.state(missing=("panda_joint1",)))
    r.step()
    resumed = r.policy.observations[-1]
    np.testing.assert_array_equal(resumed[:7], resumed[7:14])
    np.testing.assert_array_equal(resumed[21:28], np.zeros(7))


# ------------------------------------------------------------------------------------------------------ activation


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"missing": ("panda_joint4",)}, "incomplete_state", "panda_joint4"),
        ({"sampled": np.full(7, 10**9 - 30 * MS - 1)}, "stale_state", "30.0 ms old, allowed are 30.0 ms"),
        ({"position": np.full(7, np.nan)}, "non_finite_state", "not finite"),
        ({"velocity": np.array([0, 0, 0, np.inf, 0, 0, 0])}, "non_finite_state", "not finite"),
        (
            {"position": np.array([0, 0, 0, 0.3, 0, 2, 0])},
            "position_limit",
            "joint 'panda_joint4' stands at 0.3000 rad",
        ),
        (
            {"velocity": np.array([0, 0, 0, 0, 0, -2.7, 0])},
            "velocity_limit",
            "joint 'panda_joint6' moves at -2.700",
        ),
        ({"refusals": (StateError("malformed_state", "named twice"),)}, "malformed_state", "named twice"),
    ],
)
def test_activation_demands_a_good_state(rig, change, kind, words):
    r = rig()
    with pytest.raises(StateError, match=words) as refused:
        r.runner.activate(r.state(**change), r.clock.now())
    assert refused.value.kind == kind
    assert r.step()[0] is None and r.runner.status().mode == Mode.INACTIVE
    r.activate()


def test_a_state_of_exactly_three_periods_is_fresh_enough(rig):
    r = rig()
    r.runner.activate(r.state(sampled=np.full(7, 10**9 - 30 * MS)), r.clock.now())


def test_the_limiter_starts_where_and_as_fast_as_the_arm_is(rig):
    r = rig(0.0, ramp_duration=0.0)
    r.position = r.position + 0.3
    r.velocity = np.array([0.05, 0, 0, 0, 0, 0.8, 0])  # joint 6 moves: then no joint is taken as resting
    r.activate()
    command, _ = r.step()
    # Brakes from the measured speed with at most the acceleration limit, 15 and 20 rad/s^2, within 10 ms.
    assert command.values[5] == pytest.approx(0.8 - 20.0 * 0.01)
    assert 0.0 <= command.values[0] < 0.05
    resting = rig(0.0, ramp_duration=0.0)
    resting.velocity = np.full(7, 0.09)  # noise
    resting.activate()
    assert np.all(resting.step()[0].values == 0.0)


def test_a_second_activation_is_refused_while_commanding(rig):
    r = rig()
    r.activate()
    with pytest.raises(StateError, match="still being brought to rest"):
        r.runner.activate(r.state(), r.clock.now())


# ------------------------------------------------------------------------------------- interfaces, rates and scales


def test_the_position_interface_starts_at_the_measured_and_holds_the_last_command(rig):
    r = rig(0.5, command_interface="position", ramp_duration=0.0)
    r.position = r.position + 0.1
    r.activate()
    first = r.step()[0].values
    np.testing.assert_allclose(first, r.position, atol=0.01)
    moving = r.run(30)
    steps = np.diff([c.values for c in moving], axis=0)
    np.testing.assert_allclose(steps[-1], 0.5 * SCALE * 0.01, atol=1e-12)
    r.position = r.position - 0.05  # the arm lags behind: a hold must not jump there
    r.frozen_at = r.clock.now() - 31 * MS
    held = np.array([moving[-1].values] + [c.values for c in r.run(60)])
    assert np.all(np.diff(held, axis=0) >= 0.0) and np.all(np.diff(held, axis=0) <= steps[-1] + 1e-9)
    np.testing.assert_allclose(held[30:], np.broadcast_to(held[-1], held[30:].shape), rtol=0, atol=1e-9)
    assert np.all(held[-1] > moving[-1].values) and np.all(held[-1] - moving[-1].values < 0.05)
    r.frozen_at = None
    resumed = r.run(5)
    np.testing.assert_allclose(resumed[0].values, held[-1], atol=0.01)


def test_a_trajectory_point_is_a_position(rig):
    r = rig(0.5, command_interface="joint_trajectory", ramp_duration=0.0)
    r.activate()
    np.testing.assert_allclose(r.step()[0].values, r.robot.home, atol=0.01)


def test_effort_is_refused(manifest, bundle):
    with pytest.raises(ConfigError, match=r"effort.*gravity compensation"):
        PolicyRunner(bundle, RunnerSettings(command_interface="effort"))


@pytest.mark.parametrize("rate", [50.0, 150.0, 250.0, 99.0])
def test_a_command_rate_that_is_no_multiple_is_refused(bundle, rate):
    with pytest.raises(ConfigError, match="no multiple of the control rate 100 Hz"):
        PolicyRunner(bundle, RunnerSettings(command_rate=rate))


def test_speed_scale_scales_the_velocity_and_nothing_else(rig):
    slow, fast = rig(0.5, speed_scale=0.25, ramp_duration=0.0), rig(0.5, ramp_duration=0.0)
    for r in (slow, fast):
        r.activate()
    a, b = slow.run(40)[-1], fast.run(40)[-1]
    np.testing.assert_allclose(a.values, 0.25 * b.values, atol=1e-12)
    np.testing.assert_array_equal(a.raw_action, b.raw_action)
    slow.runner.speed_scale = 1.0
    np.testing.assert_allclose(slow.run(40)[-1].values, b.values, atol=1e-12)
    for bad in (0.0, 0.09, 1.01, np.nan):
        with pytest.raises(ValueError, match="speed_scale"):
            RunnerSettings(speed_scale=bad)


def test_signs_turn_the_command_back_to_the_driver(rig):
    panda = load_robot("panda")
    joints = [dataclasses.replace(j, sign=-1 if i in (1, 4) else 1) for i, j in enumerate(panda.joints)]
    r = rig(0.5, robot=dataclasses.replace(panda, joints=tuple(joints)), ramp_duration=0.0)
    r.activate()
    np.testing.assert_allclose(r.run(40)[-1].values, 0.5 * SCALE * [1, -1, 1, 1, -1, 1, 1], atol=1e-12)
    p = rig(0.0, robot=r.robot, command_interface="position")
    p.activate()
    np.testing.assert_allclose(p.step()[0].values, panda.home * [1, -1, 1, 1, -1, 1, 1], atol=1e-12)


def test_inference_every_nth_command_and_the_limiter_at_every_one(rig):
    r = rig(1.0, command_rate=1000.0, ramp_duration=0.0)
    r.activate()
    commands = r.run(500)
    assert [c.inference for c in commands] == [i % 10 == 0 for i in range(500)]
    assert len(r.policy.observations) == 50
    assert [c.sequence for c in commands[::10]] == list(range(50)) and r.runner.status().cycles == 50
    velocities = np.array([c.values for c in commands])
    acceleration = np.diff(velocities, axis=0) * 1000.0
    assert np.all(np.abs(acceleration) <= r.robot.acceleration_limit + 1e-9)
    assert np.all(np.abs(np.diff(acceleration, axis=0)) * 1000.0 <= r.robot.jerk_limit + 1e-6)
    np.testing.assert_allclose(velocities[-1], SCALE, atol=1e-9)


def test_left_out_command_periods_do_not_move_the_inference_grid(rig):
    r = rig(0.5, command_rate=1000.0)
    r.activate()
    begun = r.clock.now()
    inferences = []
    for k in range(60):
        if k == 13:
            r.clock.advance(4 * MS)  # four periods are lost
        if k == 30:
            r.clock.advance(23 * MS)  # two whole control periods and more
        at = (r.clock.now() - begun) // MS
        if r.step()[0].inference:
            inferences.append(at)
    assert inferences == [0, 10, 20, 30, 57, 60, 70, 80]


def test_a_fault_between_inferences_holds_at_once_and_resumes_at_the_next(rig):
    r = rig(1.0, command_rate=1000.0, ramp_duration=0.0)
    r.activate()
    r.run(395)
    r.step(r.state(missing=("panda_joint1",)))
    assert r.runner.status().mode == Mode.HOLDING
    held = r.run(4)
    assert all(c.raw_action is None for c in held) and r.runner.counters.faults_incomplete_state == 1
    assert r.run(1)[0].raw_action is not None and r.runner.status().mode == Mode.ACTIVE


def test_the_stale_limit_counts_control_periods_also_at_a_higher_command_rate(rig):
    r = rig(1.0, command_rate=1000.0, ramp_duration=0.0)
    r.activate()
    r.frozen_at = r.clock.now()
    assert [r.step()[1].mode for _ in range(32)] == [Mode.ACTIVE] * 31 + [Mode.HOLDING]


def test_state_age_and_stamps_are_told(rig):
    r = rig(0.5)
    r.activate()
    command, status = r.step(r.state(sampled=np.full(7, r.clock.now() - 7 * MS), stamp=123))
    assert status.state_age == pytest.approx(0.007) and command.state_stamp == 123


def test_control_rate_of_the_manifest_sets_the_periods(rig):
    runner = PolicyRunner(rig().policy, RunnerSettings(command_rate=500.0))
    assert (runner.control_period, runner.command_period, runner.substeps) == (10 * MS, 2 * MS, 5)

# SPDX-License-Identifier: Apache-2.0
"""Arm and policy parting: an arm that does not follow, a policy stuck at full size, a tool leaving its space."""

import dataclasses

import numpy as np
import pytest

from qgf_core.errors import ConfigError, StateError
from qgf_core.kinematics import Kinematics
from qgf_core.limiter import stop_distance
from qgf_core.robot import Box, load_robot, read_urdf, strip_meshes
from qgf_policy.settings import RunnerSettings
from qgf_policy.status import Mode
from qgf_policy.supervision import FORGETTING_TIME, Space, Supervisor, Tracking
from qgf_policy.trajectory_stream import TrajectoryStream

PANDA = load_robot("panda")


def rig_kinematics():
    return Kinematics(strip_meshes(read_urdf(PANDA)), PANDA.joint_names, PANDA.tool)


def drive(latency, time_constant):
    spec = dataclasses.replace(PANDA.drive, latency=latency, time_constant=time_constant)
    return dataclasses.replace(PANDA, drive=spec)


def test_the_expected_position_is_the_drives_response_to_the_commands():
    """Against the closed form: from rest, v commanded, latency L, lag T: v (t - L - T (1 - exp(-(t - L) / T)))."""
    h, v, latency, lag = 0.001, 0.8, 0.02, 0.04
    tracking = Tracking(drive(latency, lag), h, forgetting=False)
    tracking.reset(np.zeros(7))
    for _ in range(300):
        tracking.command(np.full(7, v), None)
    t = 0.3 - latency
    expected = v * (t - lag * (1 - np.exp(-t / lag)))
    assert tracking.error(np.zeros(7)) == pytest.approx(np.full(7, -expected), rel=5e-3)


def test_an_arm_that_stands_still_shows_its_speed_times_the_forgetting_time():
    h, v = 0.01, 0.4
    tracking = Tracking(drive(0.0, 0.0), h, forgetting=True)
    tracking.reset(np.zeros(7))
    for _ in range(3000):
        tracking.command(np.full(7, v), np.zeros(7))
    assert np.abs(tracking.error(np.zeros(7))) == pytest.approx(np.full(7, v * FORGETTING_TIME), rel=0.03)


def test_an_arm_that_follows_shows_nothing_for_ever_even_if_its_velocity_is_off_a_little():
    h, q, tracking, worst = 0.01, np.zeros(7), Tracking(drive(0.0, 0.0), 0.01, forgetting=True), 0.0
    tracking.reset(q)
    for k in range(6000):
        v = np.full(7, np.sin(0.01 * k) + 0.5)
        tracking.command(v, q)
        q = q + 1.03 * v * h
        worst = max(worst, np.abs(tracking.error(q)).max())
    assert worst < 0.03 * 1.5 * FORGETTING_TIME * 1.1


@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_an_arm_that_stops_following_is_brought_to_rest_and_wants_a_new_activation(rig, interface):
    r = rig(0.6, command_interface=interface, ramp_duration=0.0)
    r.activate()
    r.run(30)
    assert r.runner.status().mode == Mode.ACTIVE
    r.stuck, r.velocity = True, np.zeros(7)
    commands = []
    for _ in range(200):
        command, status = r.step()
        if command is None:
            break
        commands.append(command.values)
    assert status.mode == Mode.INACTIVE and not r.runner.commanding
    assert "rad from where its commands should have brought it" in status.fault and "activate again" in status.fault
    assert status.counters.faults_tracking_error == 1
    # 0.6 x 1.2 .. 1.5 rad/s: beyond 0.3 rad after 0.4 to 0.6 s, then the halt and a tenth of a second of repetitions.
    assert 0.3 < len(commands) * 0.01 < 1.2
    if interface == "velocity":
        assert not np.any(commands[-1]) and np.abs(commands[0]).max() > 0.5
    assert r.step()[0] is None, "nothing more is commanded"
    r.stuck = False
    r.activate()
    first = r.step()[0].values
    reached = r.position if interface == "position" else np.zeros(7)
    assert np.all(np.abs(first - reached) <= PANDA.acceleration_limit * 0.01 + 1e-9), "from where it stands"
    assert r.runner.status().fault == "" and r.runner.status().counters.faults_tracking_error == 1


def test_a_slow_or_late_arm_within_the_bounds_is_no_fault(rig):
    r = rig(lambda observation: np.sin(observation[:7] * 50.0), ramp_duration=0.0)
    r.activate()
    r.run(2000)
    assert r.runner.counters.faults_tracking_error == 0


def test_without_a_limit_tracking_is_not_judged(rig):
    r = rig(0.6, tracking_limit=0.0, ramp_duration=0.0)
    r.activate()
    r.stuck = True
    assert len(r.run(200)) == 200


def test_an_action_at_full_size_for_too_long_ends_the_activation(rig):
    r = rig(lambda o: np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), saturation_time=0.5, ramp_duration=0.0)
    r.activate()
    commands, status = 0, None
    while (step := r.step())[0] is not None:
        commands, status = commands + 1, step[1]
    assert 0.5 < commands * 0.01 < 0.5 + PANDA.stop_time + 0.15
    assert "'panda_joint3' for full speed for 0.51 s" in r.runner.status().fault
    assert r.runner.counters.faults_saturated_action == 1 and status.mode in (Mode.HALTING, Mode.INACTIVE)


def test_short_full_actions_are_no_fault(rig):
    count = iter(range(10**6))
    r = rig(lambda o: np.full(7, 1.0 if next(count) % 40 < 35 else 0.9), saturation_time=0.5, ramp_duration=0.0)
    r.activate()
    r.run(100)
    assert r.runner.counters.faults_saturated_action == 0


def test_the_tool_never_leaves_its_workspace_nor_enters_a_keep_out_box(rig):
    kinematics = rig().runner.manifest.kinematics()
    home = kinematics.tool_position(PANDA.home)
    workspace = Box(tuple(home - 0.08), tuple(home + 0.08))
    generator = np.random.default_rng(3)
    ended = 0
    for _ in range(30):
        action = generator.uniform(-0.9, 0.9, 7)
        keep_out = (Box(tuple(home + np.array([0.04, -1, -1])), tuple(home + np.array([0.06, 1, 1]))),)
        r = rig(lambda o, a=action: a, space=Space(workspace, keep_out), ramp_duration=0.0)
        r.activate()
        for _ in range(150):
            if r.step()[0] is None:
                break
            tool = kinematics.tool_position(r.position)
            assert workspace.contains(tool) and not keep_out[0].contains(tool)
        ended += r.runner.counters.faults_workspace
        if r.runner.counters.faults_workspace:
            assert "the tool would come to" in r.runner.status().fault
    assert ended > 20, "the box is small: most of these leave it"


def test_a_controller_that_goes_on_by_itself_for_longer_is_stopped_earlier():
    """By hand: after v (going_on + latency + lag) and the stop, the first joint has turned so far."""
    kinematics, drive = rig_kinematics(), PANDA.drive
    velocity = np.array([0.5, 0, 0, 0, 0, 0, 0])

    def tool_after(seconds):
        turned = 0.5 * (seconds + drive.latency + drive.time_constant)
        turned += stop_distance(velocity, np.zeros(7), PANDA.acceleration_limit, PANDA.jerk_limit)[0]
        return kinematics.tool_position(PANDA.home + np.array([turned, 0, 0, 0, 0, 0, 0]))

    between = float(0.5 * (tool_after(0.01) + tool_after(0.06))[1])  # the arm turns towards y
    assert tool_after(0.06)[1] - tool_after(0.01)[1] > 0.005
    space = Space(Box((-2.0, -2.0, -2.0), (2.0, between, 2.0)))

    def judged(**further):
        supervisor = Supervisor(PANDA, kinematics, period=0.01, control_period=0.02, forgetting=False,
                                tracking_limit=0.0, saturation_time=0.0, space=space, **further)
        return supervisor.judge_motion(PANDA.home, velocity)

    assert judged() is None
    assert judged(going_on=0.06).kind == "workspace"


def test_trajectory_points_are_judged_by_their_horizon(rig, monkeypatch):
    given = {}
    monkeypatch.setattr("qgf_policy.runner.Supervisor", lambda *a, **k: given.update(k))
    rig(0.1, command_interface="joint_trajectory", command_rate=100.0)
    assert given["going_on"] == pytest.approx(1e-9 * TrajectoryStream(PANDA, 10_000_000).horizon) == pytest.approx(0.03)
    rig(0.1, command_interface="position", command_rate=100.0)
    assert given["going_on"] == 0.0


def test_a_start_outside_the_space_is_refused(rig):
    home = rig().runner.manifest.kinematics().tool_position(PANDA.home)
    r = rig(0.1, space=Space(keep_out=(Box(tuple(home - 0.01), tuple(home + 0.01)),)))
    with pytest.raises(StateError, match="inside the keep-out box") as caught:
        r.activate()
    assert caught.value.kind == "workspace"


def test_an_abort_is_a_halt_within_the_limits_and_harmless_otherwise(rig):
    r = rig(0.9, ramp_duration=0.0)
    r.runner.abort(StateError("overruns", "too early"))
    assert r.runner.counters.faults_overruns == 0
    r.activate()
    r.run(60)
    r.runner.abort(StateError("overruns", "the machine is too busy"))
    r.runner.abort(StateError("second_commander", "another"))
    velocities = [r.velocity]
    while (command := r.step()[0]) is not None:
        velocities.append(command.values)
    acceleration = np.diff(velocities, axis=0) / 0.01
    assert np.all(np.abs(acceleration) <= PANDA.acceleration_limit * (1 + 1e-6))
    assert r.runner.counters.faults_overruns == 1 and r.runner.counters.faults_second_commander == 0
    r.runner.deactivate()
    assert r.runner.status().fault.startswith("the machine is too busy"), "why it ended stays told"


# ------------------------------------------------------------------------------------------------------ hot swap




def test_a_swap_blends_between_both_policies_without_a_jump(rig):
    r = rig(0.5, ramp_duration=0.2, tracking_limit=0.0)
    r.activate()
    r.run(60)
    new = type(r.policy)(r.runner.manifest, lambda observation: np.full(7, -0.25))
    assert r.runner.replace(new, r.clock.now()) is r.policy
    scale = PANDA.policy_velocity
    before = r.velocity
    np.testing.assert_allclose(before, 0.5 * scale, atol=1e-9)
    seen = [before]
    for k in range(30):
        command, _ = r.step()
        seen.append(command.values)
        assert np.all(command.raw_action == -0.25)
        if k == 10:  # half of the blend: t = 1/2, share 1/2
            np.testing.assert_allclose(command.values, 0.125 * scale, atol=0.12)
    np.testing.assert_allclose(seen[-1], -0.25 * scale, atol=1e-9)
    assert np.all(np.abs(np.diff(seen, axis=0)) / 0.01 <= PANDA.acceleration_limit * (1 + 1e-6))
    # At its steepest a minimum-jerk blend changes by 1.875 / T.
    assert np.abs(np.diff(seen, axis=0)).max() <= 1.05 * 1.875 / 0.2 * 0.01 * 0.75 * scale.max()
    # 60 periods alone, then those of the blend at 0, 10 .. 190 ms, and the one at 200 ms in which it ends.
    asked = len(r.policy.observations)
    assert asked == 60 + 21 and len(new.observations) == 30
    r.run(5)
    assert len(r.policy.observations) == asked, "the old one is asked no more"


def test_a_swap_for_another_arm_or_rate_changes_nothing(rig, manifest):
    r = rig(0.5)
    r.activate()
    r.run(5)
    for change in ({"control_rate": 50.0}, {"robot": dataclasses.replace(manifest.robot, stop_time=0.4)}):
        other = type(r.policy)(dataclasses.replace(manifest, **change), lambda o: np.zeros(7))
        with pytest.raises(ConfigError, match="deactivate first"):
            r.runner.replace(other, r.clock.now())
    assert np.all(r.step()[0].raw_action == 0.5)


def test_a_new_policy_that_fails_holds_and_an_old_one_that_fails_is_let_go(rig):
    r = rig(0.5, ramp_duration=0.3)
    r.activate()
    r.run(60)

    def fail(observation):
        raise RuntimeError("gone")

    r.policy.rule = fail
    new = type(r.policy)(r.runner.manifest, lambda observation: np.full(7, 0.2))
    r.runner.replace(new, r.clock.now())
    r.run(10)
    assert r.runner.status().mode == Mode.ACTIVE and r.runner.counters.faults_model_exception == 0
    broken = type(r.policy)(r.runner.manifest, fail)
    r.runner.replace(broken, r.clock.now())
    r.run(10)
    assert r.runner.status().mode == Mode.HOLDING and r.runner.counters.faults_model_exception > 0


def test_a_goal_outside_the_new_policys_region_is_forgotten(rig, manifest):
    r = rig(0.5)
    r.activate()
    r.run(5)
    small = dataclasses.replace(manifest, goal_region=Box((0.9, 0.9, 0.9), (1.0, 1.0, 1.0)))
    r.runner.replace(type(r.policy)(small, lambda o: np.zeros(7)), r.clock.now())
    assert "no goal" in r.step()[1].fault


def test_settings_out_of_range_are_refused():
    for bad in ({"tracking_limit": -1.0}, {"saturation_time": float("inf")}):
        with pytest.raises(ValueError, match="tracking_limit and saturation_time"):
            RunnerSettings(**bad)


def test_the_expected_position_by_the_formulas():
    """Against the recursion written out in numpy, with and without a measured position."""
    arm, rng = load_robot("panda"), np.random.default_rng(0)
    for forgetting in (False, True):
        tracking = Tracking(arm, 0.02, forgetting)
        start = arm.home
        tracking.reset(start)
        lag, forget = -np.expm1(-0.02 / arm.drive.time_constant), -np.expm1(-0.02 / FORGETTING_TIME)
        delay = round(arm.drive.latency / 0.02)
        expected, speed, sent = start.copy(), np.zeros(7), [np.zeros(7)] * delay
        for k in range(30):
            command, measured = rng.normal(size=7), expected + rng.normal(scale=0.01, size=7)
            given = measured if k % 3 else None
            if given is not None and forgetting:
                expected = expected + forget * (given - expected)
            sent.append(command)
            speed = speed + lag * (sent.pop(0) - speed)
            expected = expected + speed * 0.02
            tracking.command(command, given)
            np.testing.assert_allclose(tracking.error(np.zeros(7)), -expected, rtol=0, atol=1e-15)

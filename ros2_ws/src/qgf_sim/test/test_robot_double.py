# SPDX-License-Identifier: Apache-2.0
"""The stand-in arm, stepped by hand: commands, refusals, timeout, signs, noise, reset."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from qgf_core.config import from_mapping
from qgf_core.errors import ConfigError, RobotError
from qgf_core.robot import RobotSpec, load_robot
from qgf_sim.reach import load_reach
from qgf_sim.robot_double import DoubleSettings, RobotDouble, default_settings

PANDA = load_robot("panda")
TASK = load_reach()
PERIOD = 5_000_000
"""A physics period [ns]."""
REST = 5e-3
"""PyBullet's velocity motors let the Panda's elbow sink at 2 mrad/s."""


def settings(robot: RobotSpec = PANDA, **changes: object) -> DoubleSettings:
    return from_mapping(DoubleSettings, default_settings(robot, TASK) | changes, "sim_node")


@pytest.fixture
def double():
    """Makes doubles without noise: `double(robot, **settings)`."""
    made = []

    def make(robot: RobotSpec = PANDA, **changes: object) -> RobotDouble:
        quiet = {"position_noise": 0.0, "velocity_noise": 0.0}
        made.append(RobotDouble(robot, settings(robot, **(quiet | changes))))
        return made[-1]

    yield make
    for one in made:
        one.close()


def run(double: RobotDouble, steps: int, start: int = 0) -> int:
    """Step and return the time reached [ns]."""
    for k in range(steps):
        double.step(start + k * PERIOD)
    return start + steps * PERIOD


def velocity(double: RobotDouble) -> np.ndarray:
    return double.read()[1].velocity[:7]


def test_defaults_are_the_robots_and_the_tasks():
    assert settings() == DoubleSettings(
        command_interface="velocity", physics_rate=200.0, state_rate=200.0, command_timeout=0.0,
        interpolate_from_desired_state=True, position_noise=0.002, velocity_noise=0.02,
        start_position=(0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.785), seed=0, engine="pybullet", perturb="")


@pytest.mark.parametrize(("state_rate", "physics_rate"),
                         [(50.0, 200.0), (200.0, 200.0), (500.0, 500.0), (150.0, 300.0)])
def test_the_physics_is_as_fast_as_the_arms_state_rate_needs(state_rate, physics_rate):
    robot = dataclasses.replace(PANDA, state_rate=state_rate)
    assert settings(robot).physics_rate == physics_rate


@pytest.mark.parametrize(("changes", "text"), [
    ({"physics_rate": 300.0}, "physics_rate: 300.0 Hz is no multiple of state_rate 200.0 Hz"),
    ({"physics_rate": 100.0}, "physics_rate: 100.0 Hz is no multiple of state_rate 200.0 Hz"),
    ({"state_rate": 0.0}, "state_rate: 0.0 Hz must be positive"),
    ({"command_timeout": -1.0}, "command_timeout: -1.0 must not be negative"),
    ({"position_noise": -1e-3}, "position_noise: -0.001 must not be negative"),
    ({"seed": -1}, "seed: -1 must not be negative"),
    ({"command_interface": "torque"}, "command_interface: 'torque' is not known; choose one of: position, velocity, "
     "effort, joint_trajectory"),
    ({"engine": "drake"}, "engine: 'drake' is not known; choose one of: pybullet, mujoco"),
    ({"start_position": [0.0, 0.0]}, "start_position: 2 values for 7 joints"),
    ({"start_position": [0.0, -0.3, 0.0, 0.5, 0.0, 2.0, 0.785]},
     r"outside the limits \[-3.0718, -0.0698\] rad of 'panda_joint4'"),
])
def test_bad_settings_are_refused_in_one_line_that_names_them(changes, text):
    with pytest.raises(ConfigError, match=text) as caught:
        RobotDouble(PANDA, settings(**changes))
    assert str(caught.value).startswith("sim_node: ") and "\n" not in str(caught.value)


def test_a_window_needs_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(ConfigError, match="sim_node: gui: there is no display"):
        RobotDouble(PANDA, settings(), gui=True)


def test_all_movable_joints_are_told_of(double):
    arm = double()
    assert arm.joint_names == (*PANDA.joint_names, "panda_finger_joint1", "panda_finger_joint2")
    measured, truth = arm.read()
    for sample in (measured, truth):
        assert sample.position.shape == sample.velocity.shape == (9,)
    assert truth.position == pytest.approx([*PANDA.home, 0.0, 0.0])
    assert double(load_robot("iiwa")).joint_names == load_robot("iiwa").joint_names


def test_a_velocity_command_moves_its_joint_and_stays_in_force(double):
    arm = double()
    now = run(arm, 20)
    assert np.abs(velocity(arm)).max() < REST
    assert arm.accept([0, 0, 0, 0.3, 0, 0, 0], now) == ""
    run(arm, 200, now)
    assert velocity(arm)[3] == pytest.approx(0.3, rel=0.04)
    assert np.abs(np.delete(velocity(arm), 3)).max() < 0.01
    # 1 s at 0.3 rad/s less the latency of 20 ms and the lag of 40 ms.
    assert arm.read()[1].position[3] == pytest.approx(PANDA.home[3] + 0.3 * (1.0 - 0.06), rel=0.01)
    run(arm, 200, now + 200 * PERIOD)
    assert velocity(arm)[3] == pytest.approx(0.3, rel=0.04)
    assert arm.accepted == 1 and not arm.timed_out


def test_a_position_command_is_reached_and_held(double):
    arm = double(command_interface="position")
    run(arm, 50)
    assert arm.read()[1].position[:7] == pytest.approx(PANDA.home, abs=1e-3)
    target = PANDA.home + 0.1 * np.array([1, -1, 1, -1, 1, -1, 1])
    assert arm.accept(target.tolist(), 0) == ""
    run(arm, 300)
    assert arm.read()[1].position[:7] == pytest.approx(target, abs=1e-3)
    assert np.abs(velocity(arm)).max() < 1e-3


def test_the_timeout_brings_a_velocity_to_rest_and_a_new_command_ends_it(double):
    arm = double(command_timeout=0.1)
    arm.accept([0.3] * 7, 0)
    run(arm, 21)  # steps begin at 0, 5, ... 100 ms: none is later than the timeout
    assert not arm.timed_out and (velocity(arm) > 0.2).all()
    arm.step(21 * PERIOD)
    assert arm.timed_out
    now = run(arm, 100, 22 * PERIOD)
    assert np.abs(velocity(arm)).max() < REST
    arm.accept([0.3] * 7, now)
    run(arm, 20, now)
    assert not arm.timed_out and (velocity(arm) > 0.2).all()


def test_the_timeout_holds_the_last_position(double):
    arm = double(command_interface="position", command_timeout=0.1)
    target = PANDA.home + 0.1
    arm.accept(target.tolist(), 0)
    run(arm, 300)
    assert arm.timed_out
    assert arm.read()[1].position[:7] == pytest.approx(target, abs=1e-3)


def test_before_the_first_command_nothing_times_out(double):
    arm = double(command_timeout=0.1)
    run(arm, 100)
    assert not arm.timed_out


@pytest.mark.parametrize(("bad", "text"), [
    ([], "0 values for 7 joints"),
    ([0.1] * 6, "6 values for 7 joints"),
    ([0.1] * 9, "9 values for 7 joints"),
    ([float("nan")] + [0.0] * 6, "not finite"),
    ([0.0] * 6 + [float("-inf")], "not finite"),
])
def test_a_malformed_command_is_refused_counted_and_without_effect(double, bad, text):
    arm = double()
    arm.accept([0.2] * 7, 0)
    now = run(arm, 100)
    assert text in arm.accept(bad, now)
    run(arm, 100, now)
    assert velocity(arm) == pytest.approx(np.full(7, 0.2), abs=0.01)
    assert (arm.accepted, arm.malformed, arm.beyond_limits) == (1, 1, 0)


def test_commands_beyond_the_limits_are_cut_and_counted(double):
    arm = double()
    assert arm.accept([9.0, 0, 0, 0, 0, 0, 0], 0) == ""
    run(arm, 60)
    assert velocity(arm)[0] == pytest.approx(PANDA.velocity_limit[0], rel=0.05)
    assert arm.beyond_limits == 1
    arm.accept(PANDA.velocity_limit.tolist(), 0)
    assert (arm.accepted, arm.beyond_limits) == (2, 1)
    position = double(command_interface="position")
    position.accept([1e300] * 7, 0)
    run(position, 1000)
    reached = position.read()[1].position[:7]
    assert np.isfinite(reached).all() and (reached <= PANDA.position_upper + 0.01).all()


def flipped(*joints: int) -> RobotSpec:
    return dataclasses.replace(PANDA, joints=tuple(
        dataclasses.replace(joint, sign=-1) if i in joints else joint for i, joint in enumerate(PANDA.joints)))


@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_signs_apply_to_commands_and_to_states(double, interface):
    """A driver that counts joints 2 and 4 the other way round sees the mirror image of the same motion."""
    straight, mirrored = double(command_interface=interface), double(flipped(1, 3), command_interface=interface)
    signs = np.array([1, -1, 1, -1, 1, 1, 1.0])
    command = np.full(7, 0.2) if interface == "velocity" else PANDA.home + 0.1
    straight.accept(command.tolist(), 0)
    mirrored.accept((signs * command).tolist(), 0)
    for arm in (straight, mirrored):
        run(arm, 100)
    here, there = straight.read()[1], mirrored.read()[1]
    assert here.position[3] - PANDA.home[3] > 0.05
    assert np.array_equal(there.position[:7], signs * here.position[:7])
    assert np.array_equal(there.velocity[:7], signs * here.velocity[:7])
    assert np.array_equal(there.position[7:], here.position[7:])


def test_cutting_to_limits_counts_in_the_urdfs_sign(double):
    arm = double(flipped(3), command_interface="position")
    # Joint 4 turns from -3.07 to -0.07 rad; its driver counts from 0.07 to 3.07.
    home = arm.robot.signs * PANDA.home
    assert home[3] == pytest.approx(2.2)
    arm.accept(home.tolist(), 0)
    assert arm.beyond_limits == 0
    arm.accept((arm.robot.signs * home).tolist(), 0)
    assert arm.beyond_limits == 1


def test_noise_has_the_declared_strength_and_only_on_what_is_driven():
    arm = RobotDouble(PANDA, settings(position_noise=0.01, velocity_noise=0.05))
    measured, truth = zip(*(arm.read() for _ in range(1000)), strict=True)
    arm.close()
    position = np.array([m.position - t.position for m, t in zip(measured, truth, strict=True)])
    velocities = np.array([m.velocity - t.velocity for m, t in zip(measured, truth, strict=True)])
    assert position[:, :7].std(0) == pytest.approx(np.full(7, 0.01), rel=0.1)
    assert velocities[:, :7].std(0) == pytest.approx(np.full(7, 0.05), rel=0.1)
    assert not position[:, 7:].any() and not velocities[:, 7:].any()
    assert len({t.position.tobytes() for t in truth}) == 1


def test_the_seed_decides_the_noise():
    def sample(seed: int) -> bytes:
        arm = RobotDouble(PANDA, settings(seed=seed))
        measured, _ = arm.read()
        arm.close()
        return measured.position.tobytes()

    assert sample(1) == sample(1) != sample(2)


@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_reset_goes_to_the_start_at_rest_with_commands_forgotten(double: Callable[..., RobotDouble], interface):
    start = [0.1, -0.2, 0.3, -2.0, 0.1, 1.9, 0.5]
    arm = double(command_interface=interface, start_position=start)
    arm.accept(([0.5] * 7) if interface == "velocity" else (np.array(start) + 0.3).tolist(), 0)
    now = run(arm, 100)
    assert np.abs(arm.read()[1].position[:7] - start).max() > 0.1
    arm.reset()
    assert arm.read()[1].position[:7] == pytest.approx(start)
    assert not velocity(arm).any()
    run(arm, 200, now)
    assert arm.read()[1].position[:7] == pytest.approx(start, abs=REST)


def test_a_closed_window_is_told_in_one_line(double):
    arm = double()
    arm.close()
    with pytest.raises(RobotError, match="the physics is gone"):
        arm.step(0)


@pytest.mark.parametrize("engine", ["pybullet", "mujoco"])
def test_another_arm_than_the_described_one(double, engine, tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("gain: {fixed: 0.5}\npayload: {fixed: 2.0}\nposition_quantum: {fixed: 0.01}\n"
                    "dropout: {fixed: 0.25}\nstate_delay: {fixed: 0.004}\ntime_constant: {uniform: [1.0, 3.0]}\n")
    arms = [double(engine=engine, perturb=str(path), seed=seed) for seed in (1, 1, 2)]
    logs = []
    for arm in arms:
        assert (arm.faults.settings.dropout, arm.faults.settings.delay_s) == (0.25, 0.004)
        arm.accept([0.4] * 7, 0)
        run(arm, 10)
        logs.append(velocity(arm))
        run(arm, 90, 10 * PERIOD)
        assert velocity(arm) == pytest.approx(np.full(7, 0.2), rel=0.08)
        told = arm.read()[0].position[:7] / 0.01
        assert told == pytest.approx(np.round(told), abs=1e-9)
    assert np.array_equal(logs[0], logs[1]) and not np.array_equal(logs[0], logs[2])

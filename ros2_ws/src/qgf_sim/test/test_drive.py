# SPDX-License-Identifier: Apache-2.0
"""The drive: by hand, and as the joints of the simulated arm follow it."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg

from qgf_core.robot import DriveSpec, load_robot
from qgf_sim import drive_kernel
from qgf_sim.arm import PyBulletArm
from qgf_sim.drive import ActuatorSpec, Drive

RATE = 200.0
PERIOD = 1.0 / RATE


def test_worked_by_hand():
    # Two periods of delay; a time constant of one period makes each step close 1 - 1/e of the gap.
    drive = Drive(DriveSpec(latency=0.02, time_constant=0.01), period=0.01, joints=1)
    drive.reset(np.zeros(1))
    outputs = [drive.step(np.array([u]))[0] for u in (1.0, 1.0, 0.0, 0.0, 0.0)]
    first = 1.0 - math.exp(-1.0)
    second = first + (1.0 - first) * first
    assert outputs == pytest.approx([0.0, 0.0, first, second, second * (1.0 - first)], abs=1e-12)


def test_without_delay_or_lag_the_command_is_the_output():
    drive = Drive(DriveSpec(latency=0.0, time_constant=0.0), PERIOD, joints=2)
    drive.reset(np.zeros(2))
    for command in ([0.3, -0.7], [1.0, 2.0], [0.0, 0.0]):
        assert drive.step(np.array(command)).tolist() == command


def test_reset_fills_the_delay_with_its_value():
    drive = Drive(DriveSpec(latency=0.02, time_constant=0.04), PERIOD, joints=1)
    drive.reset(np.array([0.5]))
    assert [drive.step(np.array([9.0]))[0] for _ in range(4)] == [0.5] * 4
    assert drive.step(np.array([9.0]))[0] == pytest.approx(0.5 + 8.5 * (1 - math.exp(-PERIOD / 0.04)))


@pytest.mark.parametrize(("robot", "joint"), [(robot, joint) for robot, joints in
                                              (("panda", 7), ("iiwa", 7), ("ur5e", 6)) for joint in range(joints)])
def test_a_joint_follows_the_analytic_first_order_response(robot, joint):
    spec = load_robot(robot)
    arm = PyBulletArm(spec, RATE)
    command = np.zeros(len(spec.joints))
    command[joint] = 0.5
    velocity = []
    for _ in range(80):
        arm.step(command)
        velocity.append(arm.state()[1])
    position = arm.state()[0]
    arm.close()
    time = PERIOD * np.arange(1, 81) - spec.drive.latency
    expected = np.where(time > 0, 0.5 * (1.0 - np.exp(-time / spec.drive.time_constant)), 0.0)
    assert np.abs(np.array(velocity)[:, joint] - expected).max() <= 0.03 * 0.5
    # The joint's way is the integral; the others stay.
    assert position[joint] - spec.home[joint] == pytest.approx(PERIOD * expected.sum(), rel=0.02)
    assert np.abs(np.delete(position - spec.home, joint)).max() < 2e-3


def test_a_position_servo_follows_a_smooth_reference_with_the_drives_delay_and_lag():
    spec = load_robot("panda")
    arm = PyBulletArm(spec, RATE)
    # A smooth step of 0.3 rad in 1 s: its peak speed is 0.56 rad/s.
    s = np.clip(PERIOD * np.arange(400), 0.0, 1.0)
    reference = spec.home + np.outer(0.3 * s**3 * (10.0 - 15.0 * s + 6.0 * s**2), np.ones(7))
    drive = Drive(spec.drive, PERIOD, 7)
    drive.reset(spec.home)
    worst = 0.0
    for target in reference:
        arm.step(target, "position")
        worst = max(worst, float(np.abs(arm.state()[0] - drive.step(target)).max()))
    assert worst < 0.004
    assert arm.state()[0] == pytest.approx(spec.home + 0.3, abs=1e-3)
    arm.close()


@pytest.mark.parametrize("robot", ["panda", "iiwa", "ur5e"])
def test_all_joints_follow_at_once_so_that_no_link_weighs_what_the_urdf_does_not_tell(robot):
    """PyBullet gives links without <inertial>, as the UR5e has, 1 kg and 1 kg m^2: the wrist could not follow then."""
    spec = load_robot(robot)
    arm = PyBulletArm(spec, RATE)
    command = 0.5 * spec.policy_velocity
    for k in range(60):
        arm.step(command)
        expected = command * (1.0 - math.exp(-max(0.0, PERIOD * (k + 1) - 0.02) / 0.04))
        assert arm.state()[1] == pytest.approx(expected, abs=0.05)
    arm.close()


def outputs(spec, commands, kind="velocity", period=0.01, periods=None):
    drive = Drive(spec, period, 1, kind)
    lengths = [None] * len(commands) if periods is None else periods
    return np.array([drive.step(np.array([u]), h)[0] for u, h in zip(commands, lengths, strict=True)])


@pytest.mark.parametrize("delay_ms", [0.0, 1.0, 4.0, 10.0, 13.0, 27.5])
def test_a_fractional_delay_is_exact(delay_ms):
    """The answer to a step at 0 is 1 - exp(-(t - d) / T) for any d; without a lag it comes with the next period."""
    lag, times = 0.02, 0.01 * np.arange(1, 31)
    answer = outputs(ActuatorSpec(delay=delay_ms * 1e-3, time_constant=lag), [1.0] * 30)
    expected = np.where(times > delay_ms * 1e-3, 1.0 - np.exp(-(times - delay_ms * 1e-3) / lag), 0.0)
    assert answer == pytest.approx(expected, abs=1e-12)
    bare = outputs(ActuatorSpec(delay=delay_ms * 1e-3, time_constant=0.0), [1.0] * 30)
    assert bare.tolist() == [float(10 * (k + 1) > delay_ms) for k in range(30)]


def test_a_delay_counts_time_and_not_periods_where_they_vary():
    periods = [8_000_000, 13_000_000, 11_000_000, 9_000_000, 10_000_000, 10_000_000]
    answer = outputs(ActuatorSpec(delay=0.025, time_constant=0.02), [1.0] * 6, periods=periods)
    times = np.cumsum(periods) * 1e-9
    assert answer == pytest.approx(np.where(times > 0.025, 1 - np.exp(-(times - 0.025) / 0.02), 0.0), abs=1e-12)


def test_commands_queue_up_in_a_delay_and_come_out_as_they_went_in():
    commands = np.random.default_rng(0).normal(size=50)
    for periods in (0, 1, 3, 7):
        bare = outputs(ActuatorSpec(delay=0.01 * periods, time_constant=0.0), commands)
        assert np.array_equal(bare[periods:], commands[:50 - periods]) and not bare[:periods].any()


@pytest.mark.parametrize("damping", [0.3, 1.0, 2.0])
def test_a_servo_of_second_order_by_small_steps_of_its_equation(damping):
    lag, fine = 0.03, 2000
    commands = np.repeat([1.0, -0.5, 0.2], 8)
    answer = outputs(ActuatorSpec(0.004, lag, damping), commands)
    y = rate = 0.0
    expected = []
    for k in range(len(commands)):
        for i in range(fine):  # Heun's method at 5 us
            t, h = 0.01 * k + 0.01 * (i + 0.5) / fine, 0.01 / fine
            u = commands[int((t - 0.004) / 0.01)] if t > 0.004 else 0.0
            a = (u - y) / lag**2 - 2 * damping / lag * rate
            y1, rate1 = y + h * rate, rate + h * a
            b = (u - y1) / lag**2 - 2 * damping / lag * rate1
            y, rate = y + 0.5 * h * (rate + rate1), rate + 0.5 * h * (a + b)
        expected.append(y)
    assert answer == pytest.approx(np.array(expected), abs=1e-5)
    assert (answer.max() > 1.05) == (damping < 1.0)


def test_gain_friction_and_saturation_of_the_servo_by_hand():
    # Torque 50 (u - v) meets 2 + 10 v: v = (u - 0.04) / 1.2 above 0.04, 0 below.
    sticky = ActuatorSpec(0.0, 0.0, coulomb=2.0, viscous=10.0, stiffness=50.0)
    assert outputs(sticky, [0.64, -0.64, 0.04, -0.03, 0.0]) == pytest.approx([0.5, -0.5, 0.0, 0.0, 0.0])
    assert outputs(ActuatorSpec(0.0, 0.0, gain=0.8, top_speed=0.5), [0.5, 1.0, -2.0]) == pytest.approx([0.4, 0.5, -0.5])
    drive = Drive(ActuatorSpec(coulomb=2.0, viscous=10.0), 0.01, 3, "effort")
    assert drive.friction_torque(np.array([1.0, -1.0, 0.0])) == pytest.approx([12.0, -12.0, 0.0])


def test_backlash_lets_the_joint_stand_while_the_motor_turns_through_the_play():
    # Play 0.02 rad, 0.1 rad/s: the joint starts when the motor has made 0.01 rad, and turns back after 0.02 rad.
    spec = ActuatorSpec(0.0, 0.0, backlash=0.02)
    answer = outputs(spec, [0.1] * 20 + [-0.1] * 40)
    joint = 0.01 * np.cumsum(answer)
    assert joint[9] == pytest.approx(0.0, abs=1e-12) and joint[19] == pytest.approx(0.01)
    assert joint[39] == pytest.approx(0.01) and joint[59] == pytest.approx(-0.01)
    position = outputs(spec, [0.05, 0.045, 0.035, 0.0], "position")
    assert position == pytest.approx([0.04, 0.04, 0.04, 0.01])


def test_efforts_are_delayed_and_nothing_else():
    spec = ActuatorSpec(0.02, 0.04, coulomb=1.0, gain=0.5, backlash=0.1, top_speed=0.1)
    assert outputs(spec, [3.0, 4.0, 5.0, 6.0], "effort").tolist() == [0.0, 0.0, 3.0, 4.0]


@pytest.mark.parametrize(("changes", "words"), [
    ({"delay": -0.1}, "delay -0.1 must not be negative"), ({"gain": 0.0}, "gain 0.0 must be positive"),
    ({"backlash": -1.0}, "backlash"), ({"top_speed": 0.0}, "top_speed"),
])
def test_an_impossible_actuator_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        ActuatorSpec(**changes)


def drawn_actuator(random, kind):
    return ActuatorSpec(
        delay=random.choice([0.0, 0.003, 0.02, 0.0333]), time_constant=random.choice([0.0, 0.04]),
        damping_ratio=random.choice([0.0, 0.4, 1.0, 1.0001, 3.0]), gain=random.choice([1.0, 0.8]),
        coulomb=random.choice([0.0, 2.0]), viscous=random.choice([0.0, 5.0]), backlash=random.choice([0.0, 0.01]),
        top_speed=random.choice([math.inf, 0.7]))


@pytest.mark.parametrize("kind", ["velocity", "position", "effort"])
@pytest.mark.parametrize("seed", range(6))
def test_the_kernel_is_the_python_that_it_was_written_in_and_periods_may_come_one_by_one(kind, seed, monkeypatch):
    random = np.random.default_rng(seed)
    spec = drawn_actuator(random, kind)
    at_once, singly, python = (Drive(spec, PERIOD, 3, kind) for _ in range(3))
    for _ in range(25):
        command, steps = random.normal(size=3), int(random.integers(1, 5))
        period = None if random.random() < 0.5 else int(random.integers(500_000, 9_000_000))
        answers = at_once.run(command, steps, period)
        assert np.array_equal(answers, np.stack([singly.step(command, period) for _ in range(steps)]))
        with monkeypatch.context() as patch:
            patch.setattr(drive_kernel, "run_drive", drive_kernel.run_drive.py_func)
            assert np.array_equal(answers, python.run(command, steps, period))


def test_any_number_of_commands_fit_into_a_delay():
    """Periods of 10 us in a delay of 20 ms: 2000 wait at once, where four were expected."""
    drive, commands = Drive(ActuatorSpec(0.02, 0.0), PERIOD, 1), np.random.default_rng(0).normal(size=5000)
    answers = np.array([drive.step(np.array([u]), 10_000)[0] for u in commands])
    assert np.array_equal(answers[2000:], commands[:3000]) and not answers[:2000].any()


@pytest.mark.parametrize("damping", [0.01, 0.5, 0.999, 1.0 - 1e-9, 1.0, 1.0 + 1e-7, 1.0001, 1.001, 4.0, 100.0])
def test_the_second_order_step_is_the_matrix_exponential(damping):
    for lag, period in ((0.04, 0.005), (0.01, 0.005), (0.001, 0.05), (0.2, 0.0001)):
        drive = Drive(ActuatorSpec(0.0, lag, damping), period, 1)
        transition = scipy.linalg.expm(np.array([[0.0, 1.0], [-1.0 / lag**2, -2.0 * damping / lag]]) * period)
        state = np.zeros(2)
        for u in (1.0, 1.0, -0.5):
            state = transition @ (state - [u, 0.0]) + [u, 0.0]
            assert drive.step(np.array([u]))[0] == pytest.approx(state[0], rel=1e-11, abs=1e-12)


def test_a_command_for_other_joints_is_refused():
    drive = Drive(ActuatorSpec(), PERIOD, 3)
    for wrong in (np.zeros(2), np.zeros((3, 1)), np.zeros(4)):
        with pytest.raises(ValueError, match=r"command has shape .*, expected \(3,\)"):
            drive.step(wrong)


def test_a_drive_that_was_made_has_its_kernel_at_hand():
    """Loading it takes longer than many a control period, on a busy machine a second."""
    code = ("from qgf_sim.drive import ActuatorSpec, Drive; from qgf_sim.drive_kernel import run_drive; "
            "assert not run_drive.overloads; Drive(ActuatorSpec(), 0.005, 7); assert len(run_drive.overloads) == 1")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)

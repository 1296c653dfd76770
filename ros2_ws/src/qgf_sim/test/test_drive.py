# SPDX-License-Identifier: Apache-2.0
"""The drive: by hand, and as the joints of the simulated arm follow it."""

import math

import numpy as np
import pytest

from qgf_core.robot import DriveSpec, load_robot
from qgf_sim.arm import PyBulletArm
from qgf_sim.drive import Drive

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

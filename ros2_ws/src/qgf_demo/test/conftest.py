# SPDX-License-Identifier: Apache-2.0
"""Made-up live runs whose every sample is known."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from qgf_core.robot import load_robot
from qgf_demo.recording import Commands, JointSamples, Recording
from qgf_sim.reach import load_reach

EPOCH = 1_700_000_000_000_000_000
"""A stamp of today's size [ns]."""


class TipAtFirstJoints:
    """Kinematics of a made-up arm: its tool stands at (q1, q2, q3) [m]."""

    def tool_position(self, position):
        return position[:3]


@pytest.fixture(scope="session")
def kinematics():
    return TipAtFirstJoints()


@pytest.fixture(scope="session")
def robot():
    """Three joints of the Panda; the driver counts the second one the other way round."""
    panda = load_robot("panda")
    joints = panda.joints[:3]
    return dataclasses.replace(panda, joints=(joints[0], dataclasses.replace(joints[1], sign=-1), joints[2]))


@pytest.fixture
def task():
    """The reach task with episodes of 12 periods."""
    return dataclasses.replace(load_reach(), episode_steps=12)


def _make_recording(robot, goals, steps, actions, path, rate=50.0, gap=2):
    """A run without jitter: each goal has `steps` commands, and `gap` more until the next goal is taken up.

    :param actions: (G, steps, n) raw actions; the commands are half of them [rad/s].
    :param path: seconds (M,) since the first command -> true positions (M, n) [rad], in the URDF's sign.
    """
    n, period = len(robot.joints), round(1e9 / rate)
    goal_stamps = EPOCH + np.arange(len(goals)) * (steps + gap) * period - 1_000_000
    count = len(goals) * (steps + gap)
    stamp = EPOCH + np.arange(count) * period
    action = np.zeros((count, n))
    for number, episode in enumerate(actions):
        action[number * (steps + gap) : number * (steps + gap) + steps] = episode
    truth = EPOCH + np.arange(-10, count * 4 + 20) * 5_000_000
    seconds = 1e-9 * (truth - EPOCH)
    velocity = (path(seconds + 1e-6) - path(seconds - 1e-6)) / 2e-6
    empty = JointSamples(np.zeros(0, np.int64), np.zeros((0, n)), np.zeros((0, n)))
    return Recording(
        joint_names=np.array(robot.joint_names),
        period=1.0 / rate,
        goal=np.array(goals, dtype=np.float64),
        goal_stamp=goal_stamps,
        commands=Commands(
            stamp=stamp,
            state_stamp=stamp - 3_000_000,
            goal_stamp=goal_stamps[np.searchsorted(goal_stamps, stamp, side="right") - 1],
            sequence=np.arange(count),
            raw_action=action,
            command=0.5 * action * robot.signs,
            observation=np.zeros((count, 4), np.float32),
            fault=np.full(count, "", dtype=np.str_),
        ),
        truth=JointSamples(truth, path(seconds) * robot.signs, velocity * robot.signs),
        measured=empty,
        reports={},
        status={"late10": np.array(0.0)},
    )


@pytest.fixture(scope="session", name="make_recording")
def fixture_make_recording():
    return _make_recording


FAKES = ("controller_manager/spawner", "ros_gz_sim/create", "ros_gz_bridge/parameter_bridge",
         "robot_state_publisher/robot_state_publisher")
FAKE = """#!/usr/bin/env python3
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
name = sys.argv[0].rsplit("/", 1)[1]
print(name, "was asked for", *sys.argv[1:], flush=True)
if name in ("spawner", "create"):
    sys.exit("forward_position_controller" in sys.argv)
signal.sigwait([signal.SIGINT])
"""
FAKE_GAZEBO = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo
from launch.substitutions import LaunchConfiguration
def generate_launch_description():
    words = LogInfo(msg=["gz gets ", LaunchConfiguration("gz_args")])
    return LaunchDescription([DeclareLaunchArgument("gz_args"), words])
"""


@pytest.fixture
def faked(tmp_path):
    """The environment with stand-ins for others' programs, which tell what they are asked for; the controller manager
    takes no positions."""
    prefix = tmp_path / "faked"
    for package, name in (fake.split("/") for fake in FAKES):
        marker = prefix / "share/ament_index/resource_index/packages" / package
        program = prefix / "lib" / package / name
        for path, text in ((marker, ""), (program, FAKE)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        program.chmod(0o755)
    gazebo = prefix / "share/ros_gz_sim/launch/gz_sim.launch.py"
    gazebo.parent.mkdir(parents=True)
    gazebo.write_text(FAKE_GAZEBO)
    for package in ("controller_manager", "ros_gz_bridge", "robot_state_publisher"):
        (prefix / "share" / package).mkdir()
    return {"AMENT_PREFIX_PATH": f"{prefix}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}"}

# SPDX-License-Identifier: Apache-2.0
"""Made-up live runs whose every sample is known."""

from __future__ import annotations

import dataclasses

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

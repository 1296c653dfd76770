# SPDX-License-Identifier: Apache-2.0
"""A 100 Hz stream of one-point trajectories on the simulated arm moves without stops, and naive ones do not.

The controller's command is sampled with the physics, 1000 times a second, while every joint is to move at CRUISE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from qgf_core.limiter import Limiter
from qgf_core.robot import load_robot
from qgf_policy.trajectory_stream import TrajectoryStream
from qgf_sim.reach import load_reach
from qgf_sim.robot_double import DoubleSettings, RobotDouble, default_settings
from qgf_sim.trajectory import TrajectoryPoint

PANDA = load_robot("panda")
MS = 1_000_000
PERIOD = 10 * MS
CRUISE = 0.5
"""[rad/s]"""
LATE = 4 * MS
"""Messages arrive up to this much late."""


@dataclasses.dataclass
class Ride:
    """What came of a stream: velocities (k, 7) [rad/s] every millisecond while cruising."""

    command: np.ndarray
    joints: np.ndarray
    short: np.ndarray
    """Way left from the arm to the last command at the end (7,) [rad]."""

    def rms(self, velocity: np.ndarray) -> float:
        """Distance from CRUISE, as a share of it."""
        return float(np.sqrt(np.mean((velocity / CRUISE - 1.0) ** 2)))


@pytest.fixture
def arm() -> Iterator[object]:
    """Makes simulated arms without noise, sampled at 1000 Hz."""
    made: list[RobotDouble] = []

    def make(from_desired: bool = True) -> RobotDouble:
        changes = {"command_interface": "joint_trajectory", "physics_rate": 1000.0, "state_rate": 1000.0,
                   "position_noise": 0.0, "velocity_noise": 0.0, "interpolate_from_desired_state": from_desired}
        made.append(RobotDouble(PANDA, DoubleSettings(**{**default_settings(PANDA, load_reach()), **changes})))
        return made[-1]

    yield make
    for double in made:
        double.close()


def stream_points():
    """As the policy node sends them."""
    stream = TrajectoryStream(PANDA, PERIOD)
    return lambda position: TrajectoryPoint(stream.horizon, stream.point(position))


def due_at_once(position):
    """Due in one period, positions alone."""
    return TrajectoryPoint(PERIOD, position)


def ending_at_rest(position):
    """Due in one period, with the velocity zero that the controller demands of a last point."""
    return TrajectoryPoint(PERIOD, position, np.zeros(7))


def ride(double, point, lost=(), ends=1600, late=LATE):
    """Accelerate, cruise to 1000 ms, halt; messages whose number is in `lost` do not arrive."""
    limiter, generator = Limiter(PANDA, 1e-9 * PERIOD), np.random.default_rng(1)
    limiter.reset(PANDA.home)
    arrivals = {k * 10 + round(generator.uniform(0.0, late) / MS): k for k in range(160)}
    command, joints = [], []
    for millisecond in range(ends):
        k = arrivals.get(millisecond)
        if k is not None:
            position = limiter.step(np.full(7, CRUISE if k < 100 else 0.0)).position
            sent = point(position)
            if k not in lost:
                assert double.accept_trajectory(PANDA.joint_names, [sent], millisecond * MS) == ""
        double.step(millisecond * MS)
        command.append(double._follower.sample(millisecond * MS)[1])
        joints.append(double.read()[1].velocity[:7])
    cruising = slice(500, 1000)
    return Ride(np.array(command)[cruising], np.array(joints)[cruising], position - double.read()[1].position[:7])


def test_the_stream_moves_without_stops_and_arrives(arm):
    got = ride(arm(), stream_points())
    print(f"stream: command {got.command.min():.3f} .. {got.command.max():.3f} rad/s, joints {got.joints.min():.3f} .. "
          f"{got.joints.max():.3f}, rms {got.rms(got.command):.3f}, {got.rms(got.joints):.3f}")
    assert got.command.min() > 0.8 * CRUISE and got.rms(got.command) < 0.1
    assert got.joints.min() > 0.95 * CRUISE and got.rms(got.joints) < 0.015
    assert np.abs(got.short).max() < 1e-3


def test_a_lost_message_and_one_nearly_a_period_late_change_little(arm):
    got = ride(arm(), stream_points(), lost=range(50, 100, 5), late=9 * MS)
    assert got.command.min() > 0.5 * CRUISE and got.joints.min() > 0.9 * CRUISE and got.rms(got.joints) < 0.03


@pytest.mark.parametrize(("naive", "standing"), [(due_at_once, 0.05), (ending_at_rest, 0.1)])
def test_what_is_due_at_once_or_ends_at_rest_stops_and_restarts(arm, naive, standing):
    """The share of the time in which the command stands still, and the joints' unrest beside the stream's."""
    got, streamed = ride(arm(), naive), ride(arm(), stream_points())
    share = float(np.mean(np.abs(got.command) < 0.1 * CRUISE))
    print(f"{naive.__name__}: standing {share:.3f} of the time, rms {got.rms(got.command):.3f}, "
          f"{got.rms(got.joints):.3f}")
    assert share > standing and got.command.max() > 1.2 * CRUISE
    assert got.rms(got.command) > 5 * streamed.rms(streamed.command)
    assert got.rms(got.joints) > 2 * streamed.rms(streamed.joints)


def test_a_controller_that_begins_at_the_measured_state_shakes_the_arm(arm):
    """Its own default. The drive lags behind its command, and every message takes the command back to where the arm is:
    no stream of single points cures that, so that the parameter has to be set on the controller."""
    for point in (stream_points(), due_at_once, ending_at_rest):
        got = ride(arm(from_desired=False), point)
        assert got.joints.min() < 0.1 * CRUISE and got.rms(got.joints) > 0.3


def test_the_arm_ends_where_the_last_point_is_if_no_more_come(arm):
    """Node killed at full motion: at most the horizon further on than the last command, and at rest within it."""
    double = arm()
    ride(double, stream_points(), lost=range(80, 200), ends=800)
    stream = TrajectoryStream(PANDA, PERIOD)
    at_the_last = 790 * MS
    assert np.abs(double._follower.sample(at_the_last + stream.horizon + LATE)[1]).max() == 0.0
    way = double._follower.sample(at_the_last + 10**9)[0] - double._follower.sample(at_the_last + LATE)[0]
    assert np.all(way >= 0.0) and np.abs(way).max() <= 1e-9 * stream.horizon * CRUISE

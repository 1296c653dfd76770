# SPDX-License-Identifier: Apache-2.0
"""The points of a trajectory stream, by hand; what a controller makes of them is tested on the simulated arm."""

import dataclasses

import numpy as np
import pytest

from qgf_core.limiter import Limiter
from qgf_core.robot import load_robot
from qgf_policy.trajectory_stream import TrajectoryStream

MS = 1_000_000
PANDA = load_robot("panda")


@pytest.mark.parametrize(("period", "horizon"), [(20 * MS, 60 * MS), (10 * MS, 30 * MS), (2 * MS, 15 * MS)])
def test_a_point_is_due_in_three_periods_but_not_at_once(period, horizon):
    assert TrajectoryStream(PANDA, period).horizon == horizon


def test_a_point_lies_on_the_line_of_the_last_two_commands():
    """Accelerated by 0.05 rad/s a period of 10 ms, to a steady 0.1 rad/s: two periods further on than the command."""
    stream = TrajectoryStream(PANDA, 10 * MS)
    for way, ahead in ((0.0, 0.0), (0.0005, 0.0015), (0.0015, 0.0035), (0.0025, 0.0045), (0.0035, 0.0055)):
        np.testing.assert_allclose(stream.point(PANDA.home + way) - PANDA.home, ahead, atol=1e-12)


def test_standing_still_is_the_command_itself():
    stream = TrajectoryStream(PANDA, 10 * MS)
    for _ in range(3):
        np.testing.assert_array_equal(stream.point(PANDA.home), PANDA.home)


def test_an_arm_moved_between_two_activations_is_no_motion():
    stream = TrajectoryStream(PANDA, 10 * MS)
    stream.point(PANDA.home)
    for position in (PANDA.home, PANDA.home + 0.02, PANDA.home + 0.02, PANDA.home + 0.02):
        np.testing.assert_allclose(stream.point(position), position, atol=1e-12)


def test_every_motion_the_limiter_allows_is_prolonged_and_stays_within_the_limits():
    """Full speed, reversals, limits: the speed that the point tells is the limiter's."""
    limiter, stream = Limiter(PANDA, 0.01), TrajectoryStream(PANDA, 10 * MS)
    limiter.reset(PANDA.home)
    stream.point(PANDA.home)
    generator = np.random.default_rng(0)
    for k in range(2000):
        if k % 50 == 0:
            wish = generator.uniform(-1.0, 1.0, 7) * 2.0 * PANDA.velocity_limit
        command = limiter.step(wish)
        point = stream.point(command.position)
        ahead = np.clip(command.position + 0.02 * command.velocity, PANDA.position_lower, PANDA.position_upper)
        np.testing.assert_allclose(point, ahead, atol=1e-9)


def test_signs_turn_the_limits_too():
    joints = tuple(dataclasses.replace(joint, sign=-1) for joint in PANDA.joints)
    straight, turned = TrajectoryStream(PANDA, 10 * MS), TrajectoryStream(dataclasses.replace(PANDA, joints=joints),
                                                                          10 * MS)
    for position in (PANDA.home, PANDA.home + 0.0005, PANDA.position_upper + 0.1, PANDA.position_upper + 0.1005):
        np.testing.assert_allclose(turned.point(-position), -straight.point(position), atol=1e-12)
        assert np.all(straight.point(position) <= PANDA.position_upper + 1e-12)

# SPDX-License-Identifier: Apache-2.0
"""Trajectories as joint_trajectory_controller follows them: by hand, by numeric derivative, against scipy's splines."""

import re

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

from qgf_sim.trajectory import TrajectoryFollower, TrajectoryPoint

S = 10**9
ONES = np.ones(2)


def point(time, positions, velocities=()):
    return TrajectoryPoint(round(time * S), positions, velocities)


def follower(position=(0.0, 0.0)):
    made = TrajectoryFollower(("a", "b"))
    made.reset(np.array(position))
    return made


def accept(made, *points, now=0, start=None, names=("a", "b")):
    return made.accept(names, points, now, start, ONES)


def test_positions_alone_are_joined_by_straight_lines():
    arm = follower()
    assert accept(arm, point(1.0, (1.0, -2.0)), point(3.0, (2.0, 0.0))) == ""
    for time, position, velocity in ((0.0, (0.0, 0.0), (1.0, -2.0)), (0.25, (0.25, -0.5), (1.0, -2.0)),
                                     (1.0, (1.0, -2.0), (0.5, 1.0)), (2.0, (1.5, -1.0), (0.5, 1.0)),
                                     (3.0, (2.0, 0.0), (0.0, 0.0)), (99.0, (2.0, 0.0), (0.0, 0.0))):
        got = arm.sample(round(time * S))
        assert got[0] == pytest.approx(position) and got[1] == pytest.approx(velocity)


def test_with_velocities_it_is_the_cubic_that_scipy_gives_too():
    arm = follower((0.2, -0.1))
    times, positions = [0.0, 0.5, 1.3], [(0.2, -0.1), (1.0, -2.0), (0.4, 0.3)]
    velocities = [(0.0, 0.0), (0.8, -0.6), (0.0, 0.0)]
    points = [point(*knot) for knot in zip(times[1:], positions[1:], velocities[1:], strict=True)]
    assert accept(arm, *points) == ""
    spline = CubicHermiteSpline(times, positions, velocities)
    for time in np.linspace(0.0, 1.29, 40):
        position, velocity = arm.sample(round(time * S))
        assert position == pytest.approx(spline(time), abs=1e-8) and velocity == pytest.approx(
            spline.derivative()(time), abs=1e-7)
    # By hand: from rest at 0 to rest at 1 in 1 s, half the way in half the time, at 1.5 times the mean speed.
    arm = follower()
    accept(arm, point(1.0, (1.0, 0.0), (0.0, 0.0)))
    assert [v[0] for v in arm.sample(S // 2)] == pytest.approx([0.5, 1.5])


def test_one_point_without_velocities_makes_its_two_segments_straight():
    arm = follower()
    accept(arm, point(1.0, (1.0, 1.0)), point(2.0, (3.0, 3.0), (0.0, 0.0)))
    assert arm.sample(S // 4)[0][0] == pytest.approx(0.25) and arm.sample(3 * S // 2)[0][0] == pytest.approx(2.0)


def test_a_new_message_goes_on_from_the_command_in_force_without_a_jump():
    arm = follower()
    accept(arm, point(1.0, (1.0, -1.0), (0.0, 0.0)))
    before = arm.sample(S // 2)
    assert accept(arm, point(1.0, (0.0, 0.0), (0.0, 0.0)), now=S // 2) == ""
    after = arm.sample(S // 2)
    assert after[0] == pytest.approx(before[0], abs=1e-12) and after[1] == pytest.approx(before[1], abs=1e-12)
    # A millisecond on, position and speed have moved by a millisecond's worth, and the old end is forgotten.
    near = arm.sample(S // 2 + S // 1000)
    assert near[0] == pytest.approx(before[0] + 1e-3 * before[1], abs=1e-4)
    assert arm.sample(10 * S)[0] == pytest.approx([0.0, 0.0])


def test_the_velocity_is_the_derivative_of_the_position():
    arm = follower((0.3, 0.1))
    accept(arm, point(0.4, (1.0, -1.0), (2.0, 0.5)), point(0.9, (0.0, 1.0)), point(1.5, (0.2, 0.2), (0.0, 0.0)))
    step = 1000  # [ns]
    for now in np.linspace(0.05, 1.45, 29) * S:
        now = round(now)
        slope = (arm.sample(now + step)[0] - arm.sample(now - step)[0]) / (2e-9 * step)
        if min(abs(now - knot * S) for knot in (0.4, 0.9, 1.5)) > step:
            assert slope == pytest.approx(arm.sample(now)[1], abs=1e-4)


def test_joints_are_matched_by_name_and_turned_by_sign():
    arm = follower()
    assert arm.accept(("b", "a"), [point(1.0, (5.0, 7.0))], 0, None, np.array([1.0, -1.0])) == ""
    assert arm.sample(S)[0].tolist() == [7.0, -5.0]


def test_a_start_in_the_future_is_waited_for_and_one_in_the_past_is_joined():
    late = follower()
    accept(late, point(1.0, (1.0, 0.0)), now=0, start=S)  # the first point is due at 2 s: the way there begins at once
    assert late.sample(S)[0][0] == pytest.approx(0.5) and late.sample(2 * S)[0][0] == pytest.approx(1.0)
    early = follower()
    accept(early, point(1.0, (1.0, 0.0)), point(2.0, (4.0, 0.0)), now=0, start=-3 * S // 2)
    assert early.sample(S // 4)[0][0] == pytest.approx(2.0)  # from 0 straight to 4, due in half a second


@pytest.mark.parametrize(("points", "names", "start", "words"), [
    ([point(1.0, (1.0, 1.0))], ("a",), None, r"joints missing \['b'\], unknown \[\], 1 named for 2"),
    ([point(1.0, (1.0, 1.0, 1.0))], ("a", "b", "c"), None, r"unknown \['c'\]"),
    ([point(1.0, (1.0, 1.0))], ("a", "a"), None, r"joints missing \['b'\]"),
    ([], ("a", "b"), None, "no points"),
    ([point(1.0, (1.0,))], ("a", "b"), None, "point 0 has 1 positions for 2 joints"),
    ([point(1.0, ())], ("a", "b"), None, "point 0 has 0 positions for 2 joints"),
    ([point(1.0, (1.0, 1.0), (0.0,))], ("a", "b"), None, "point 0 has 1 velocities for 2 joints"),
    ([point(1.0, (1.0, float("nan")))], ("a", "b"), None, "point 0: positions not finite"),
    ([point(1.0, (1.0, 1.0), (0.0, float("inf")))], ("a", "b"), None, "point 0: velocities not finite"),
    ([point(1.0, (1.0, 1.0)), point(1.0, (2.0, 2.0))], ("a", "b"), None, "point 1: time_from_start 1 s is not after"),
    ([point(-1.0, (1.0, 1.0))], ("a", "b"), None, "point 0: time_from_start -1 s"),
    ([point(1.0, (1.0, 1.0), (0.0, 0.1))], ("a", "b"), None, "the last point's velocities are not zero"),
    ([point(1.0, (1.0, 1.0))], ("a", "b"), -3 * S, "it ended 2 s ago"),
])
def test_what_is_partial_or_malformed_is_refused_and_the_old_one_goes_on(points, names, start, words):
    arm = follower()
    accept(arm, point(1.0, (1.0, -1.0)))
    assert re.search(words, accept(arm, *points, names=names, start=start))
    assert arm.sample(S // 2)[0] == pytest.approx([0.5, -0.5])

# SPDX-License-Identifier: Apache-2.0
"""Joint references: the curve by hand and by a second implementation, its extremes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline

from qgf_core.reference import JointReference, constant_reference
from qgf_core.robot import load_robot

PANDA = load_robot("panda")


def reference(times, positions, velocities=None) -> JointReference:
    column = None if velocities is None else np.array(velocities, dtype=float)[:, None]
    return JointReference(np.array(times, dtype=float), np.array(positions, dtype=float)[:, None], column)


def sampled(curve: JointReference, n: int = 301) -> tuple[np.ndarray, np.ndarray]:
    pairs = [curve.at(t) for t in np.linspace(curve.times[0], curve.end, n)]
    return np.array([p for p, _ in pairs]), np.array([v for _, v in pairs])


def test_from_rest_to_rest_by_hand():
    """q = 3 s^2 - 2 s^3 over 2 s: half way in the middle, at 1.5 times the mean speed of 0.5 rad/s."""
    curve = reference([0, 2], [0, 1])
    assert [curve.at(t)[0][0] for t in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([0.0, 0.15625, 0.5, 1.0])
    assert [curve.at(t)[1][0] for t in (0.0, 1.0, 2.0)] == pytest.approx([0.0, 0.75, 0.0])
    assert curve.extremes() == (pytest.approx(0.0), pytest.approx(1.0), pytest.approx(0.75))


def test_before_and_behind_its_points_it_rests():
    curve = reference([1, 2], [0.3, 0.5], [0.1, 0.4])
    assert curve.at(0.9)[0] == pytest.approx(0.3) and curve.at(0.9)[1] == pytest.approx(0.0)
    assert curve.at(2.1)[0] == pytest.approx(0.5) and curve.at(2.1)[1] == pytest.approx(0.0)
    assert curve.at(1.0)[1] == pytest.approx(0.1) and curve.at(2.0)[1] == pytest.approx(0.4)
    still = constant_reference(PANDA.home)
    np.testing.assert_array_equal(still.at(7.0)[0], PANDA.home)
    np.testing.assert_array_equal(still.extremes()[2], np.zeros(7))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(2, 6))
def test_with_velocities_it_is_scipys_hermite_curve_and_its_extremes_those_of_dense_samples(seed, k):
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.uniform(0.1, 1.0, k))
    curve = JointReference(times, generator.normal(size=(k, 3)), generator.normal(size=(k, 3)))
    other = CubicHermiteSpline(times, curve.positions, curve.velocities)
    position, velocity = sampled(curve)
    grid = np.linspace(times[0], times[-1], 301)
    np.testing.assert_allclose(position, other(grid), atol=1e-9)
    np.testing.assert_allclose(velocity, other.derivative()(grid), atol=1e-7)
    lower, upper, speed = curve.extremes()
    for exact, found, sign in ((lower, position.min(0), -1), (upper, position.max(0), 1),
                               (speed, np.abs(velocity).max(0), 1)):
        assert (sign * (exact - found) > -1e-9).all()  # no sample lies beyond
        np.testing.assert_allclose(exact, found, atol=2e-2 * max(1.0, float(np.abs(found).max())))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(2, 7))
def test_without_velocities_it_never_leaves_the_range_of_neighbouring_points_and_rests_at_both_ends(seed, k):
    generator = np.random.default_rng(seed)
    times, positions = np.cumsum(generator.uniform(0.05, 1.0, k)), generator.normal(size=(k, 2))
    curve = JointReference(times, positions)
    for i in range(k - 1):
        between = np.array([curve.at(t)[0] for t in np.linspace(times[i], times[i + 1], 20)])
        assert (between >= positions[i:i + 2].min(0) - 1e-9).all()
        assert (between <= positions[i:i + 2].max(0) + 1e-9).all()
        np.testing.assert_allclose(between[[0, -1]], positions[i:i + 2], atol=1e-9)
    assert curve.at(times[0])[1] == pytest.approx(0.0) and curve.at(times[-1])[1] == pytest.approx(0.0)
    for t in times[1:-1]:  # no jump
        np.testing.assert_allclose(curve.at(t - 1e-9)[1], curve.at(t + 1e-9)[1], atol=1e-4)


@pytest.mark.parametrize(("times", "positions", "velocities", "words"), [
    ([0, 1, 1], [0, 1, 2], None, r"time 1 s of point 2 is not after"),
    ([0, 2, 1], [0, 1, 2], None, r"time 1 s of point 2 is not after"),
    ([0, np.nan], [0, 1], None, "times that are not finite"),
    ([0, 1], [0, np.inf], None, "positions that are not finite"),
    ([0, 1], [0, 1], [0, np.nan], "velocities that are not finite"),
    ([], [], None, "must be"), ([0, 1], [0], None, "must be"), ([0, 1], [0, 1], [0], "velocities"),
])
def test_what_is_no_reference_is_refused(times, positions, velocities, words):
    with pytest.raises(ValueError, match=words):
        reference(times, positions, velocities)


def checked(times, positions, velocities=None, speed=None):
    JointReference(np.array(times), np.array(positions), velocities).check(
        PANDA, PANDA.policy_velocity if speed is None else speed)


def test_limits_count_between_the_points_too():
    home, there = PANDA.home, PANDA.home + 0.5
    checked([0.0, 1.0], [home, there])
    with pytest.raises(ValueError, match=r"moves joint 'panda_joint1' at up to 1\.500 rad/s, allowed are 1\.200"):
        checked([0.0, 0.5], [home, there])  # 1.5 times 1 rad/s
    high = home.copy()
    high[3] = -0.0698 - 0.05  # on the margin, and through it on the way, with velocities that carry on
    v = np.zeros((2, 7))
    v[0, 3] = 0.4
    checked([0.0, 1.0], [high, home], speed=np.full(7, 9.0))
    with pytest.raises(ValueError, match=r"takes joint 'panda_joint4' to -2\.200 \.\. -0\.114 rad, allowed are"):
        checked([0.0, 1.0], [high, home], v, speed=np.full(7, 9.0))
    with pytest.raises(ValueError, match="has 6 joints, the arm 7"):
        checked([0.0, 1.0], [home[:6], home[:6]])

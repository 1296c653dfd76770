# SPDX-License-Identifier: Apache-2.0
"""The limiter against its promises: exact limits for any request, no overshoot, no needless interference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core import limiter_kernel
from qgf_core.limiter import LimitedCommand, Limiter, stop_distance
from qgf_core.robot import JointSpec, RobotSpec, ToolSpec

PERIODS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
TOLERANCE = 1e-9
checked = settings(max_examples=60, deadline=None, derandomize=True)


def robot(velocity=2.0, acceleration=10.0, jerk=1000.0, lower=-1.0, upper=1.0, margin=0.0) -> RobotSpec:
    """An arm with one joint for each entry of the limits (numbers or arrays (n,))."""
    limits = np.broadcast_arrays(*np.atleast_1d(velocity, acceleration, jerk, lower, upper))
    joints = tuple(
        JointSpec(name=f"j{i}", position=(float(low), float(high)), velocity=float(v), acceleration=float(a),
                  jerk=float(j), effort=1.0, home=float(0.5 * (low + high)), policy_velocity=float(v))
        for i, (v, a, j, low, high) in enumerate(zip(*limits, strict=True)))
    return RobotSpec(name="test", urdf="", base_frame="base", tool=ToolSpec("tip"), joints=joints,
                     position_margin=margin)


class Watch:
    """Steps a limiter and demands that each command keeps the limits and follows from the one before it."""

    def __init__(self, spec: RobotSpec, limiter: Limiter, position, velocity=0.0, positions_too: bool = True) -> None:
        self.spec, self.limiter, self.positions_too = spec, limiter, positions_too
        n = len(spec.joints)
        self.p = np.broadcast_to(np.asarray(position, dtype=float), n).copy()
        self.v = np.broadcast_to(np.asarray(velocity, dtype=float), n).copy()
        self.a = np.zeros(n)
        limiter.reset(self.p, self.v)

    def step(self, desired, measured=None) -> LimitedCommand:
        n, h = len(self.spec.joints), self.limiter.period
        command = self.limiter.step(np.broadcast_to(np.asarray(desired, dtype=float), n), measured)
        p, v, a = command.position, command.velocity, command.acceleration
        before = self.p if measured is None else measured
        assert np.abs(v - (self.v + a * h)).max() <= 1e-12
        assert np.abs(p - (before + v * h)).max() <= 1e-12
        assert np.all(np.abs(v) <= self.spec.velocity_limit + TOLERANCE)
        assert np.all(np.abs(a) <= self.spec.acceleration_limit + TOLERANCE)
        assert np.all(np.abs(a - self.a) <= self.spec.jerk_limit * h + TOLERANCE)
        if self.positions_too:
            assert np.all(p <= self.spec.position_upper - self.spec.position_margin + TOLERANCE)
            assert np.all(p >= self.spec.position_lower + self.spec.position_margin - TOLERANCE)
        self.p, self.v, self.a = p, v, a
        return command


def stop_by_formula(v: float, a_limit: float, jerk: float) -> float:
    """Distance of a jerk-limited stop from zero acceleration, by the area under its velocity."""
    if v * jerk >= a_limit**2:
        duration = v / a_limit + a_limit / jerk
    else:
        duration = 2.0 * np.sqrt(v / jerk)
    return 0.5 * v * duration  # the velocity is point-symmetric about its half


def random_arm(rng: np.random.Generator, n: int) -> RobotSpec:
    """Joints from jerk-dominated (A^2 / J > V) to acceleration-dominated, wide and narrow."""
    velocity = 10.0 ** rng.uniform(-0.7, 0.8, n)
    acceleration = 10.0 ** rng.uniform(-0.3, 1.5, n)
    jerk = 10.0 ** rng.uniform(0.5, 4.3, n)
    half = 10.0 ** rng.uniform(-1.0, 0.9, n)
    return robot(velocity, acceleration, jerk, -half, half)


def admissible_velocity(rng: np.random.Generator, spec: RobotSpec, p: np.ndarray) -> np.ndarray:
    """Random velocities (n,) from which a stop still fits; a third of them only just."""
    v = rng.uniform(-1.0, 1.0, len(p)) * spec.velocity_limit
    room = np.where(v > 0, spec.position_upper - p, p - spec.position_lower)
    for i in range(len(p)):
        low, high = 0.0, abs(v[i])
        if stop_by_formula(high, spec.acceleration_limit[i], spec.jerk_limit[i]) > room[i]:
            for _ in range(60):
                middle = 0.5 * (low + high)
                fits = stop_by_formula(middle, spec.acceleration_limit[i], spec.jerk_limit[i]) <= room[i]
                low, high = (middle, high) if fits else (low, middle)
            v[i] = np.sign(v[i]) * low
    return v


@pytest.mark.parametrize("period", PERIODS)
def test_limits_hold_for_any_request_and_any_admissible_start(period):
    rng = np.random.default_rng(int(1e6 * period))
    spec = random_arm(rng, 300)
    for trial in range(4):
        p = rng.uniform(spec.position_lower, spec.position_upper)
        watch = Watch(spec, Limiter(spec, period), p, admissible_velocity(rng, spec, p))
        desired = np.zeros(len(p))
        for k in range(200):
            if trial == 0:  # noise, each joint anew at times of its own
                change = rng.random(len(p)) < 0.1
                desired = np.where(change, rng.normal(0, 2, len(p)) * spec.velocity_limit, desired)
            elif trial == 1:  # full speed one way, then the other
                desired = np.where((k * period) % 1.0 < 0.6, 1e6, -1e6) * np.ones(len(p))
            elif trial == 2:  # a request that knows where the limit is and flees it a little
                desired = 5 * (0.97 * spec.position_upper - watch.p) / period * np.sign(rng.normal(0.5, 1, len(p)))
            else:  # chatter at the highest rate there is
                desired = spec.velocity_limit * (1 if k % 2 else -1) * rng.uniform(0, 1, len(p))
            watch.step(desired)


@checked
@given(st.sampled_from(PERIODS), st.floats(0.2, 5.0), st.floats(0.5, 30.0), st.floats(3.0, 2e4), st.floats(0.1, 3.0),
       st.floats(-1.0, 1.0), st.floats(-1.0, 1.0),
       st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 60)), min_size=1, max_size=8))
def test_limits_hold_for_hypotheses(period, velocity, acceleration, jerk, half, place, speed, requests):
    spec = robot(velocity, acceleration, jerk, -half, half)
    p = place * half
    v = speed * velocity
    while stop_by_formula(abs(v), acceleration, jerk) > (half - p if v > 0 else half + p):
        v *= 0.9
        if abs(v) < 1e-9:
            v = 0.0
    watch = Watch(spec, Limiter(spec, period), p, v)
    for desired, repetitions in requests:
        for _ in range(repetitions):
            watch.step(desired)


@pytest.mark.parametrize("period", PERIODS)
def test_a_request_into_the_limit_ends_on_it(period):
    spec = robot(velocity=[2.0, 2.0, 0.5], acceleration=[10.0, 5.0, 20.0], jerk=[5000.0, 60.0, 200.0], margin=0.05)
    for direction, limit in ((1.0, 0.95), (-1.0, -0.95)):
        watch = Watch(spec, Limiter(spec, period), 0.5 * limit)
        for _ in range(int(2.5 / period)):
            command = watch.step(100.0 * direction)
        np.testing.assert_allclose(command.position, limit, atol=1e-4)
        assert command.limited and np.all(np.abs(command.velocity) < 1e-3)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize(("acceleration", "jerk"), [(10.0, 5000.0), (10.0, 50.0), (2.0, 2.0), (15.0, 400.0)])
@pytest.mark.parametrize("wanted", [1.5, -0.3, 1e-4])
def test_reaches_a_velocity_in_time_and_without_overshoot(period, acceleration, jerk, wanted):
    spec = robot(2.0, acceleration, jerk, -12.0, 12.0)
    watch = Watch(spec, Limiter(spec, period), 0.0)
    size = abs(wanted)
    ramp = size / acceleration + acceleration / jerk if size * jerk >= acceleration**2 else 2 * np.sqrt(size / jerk)
    for _ in range(int(np.ceil(ramp / period)) + 3):
        command = watch.step(wanted)
        assert np.abs(command.velocity[0]) <= size + 1e-12
    assert command.velocity[0] == pytest.approx(wanted, abs=1e-12)
    assert not watch.step(wanted).limited
    for _ in range(int(np.ceil(ramp / period)) + 3):  # and a halt ends at exactly nothing
        command = watch.step(0.0)
        assert command.velocity[0] * np.sign(wanted) >= -1e-12
    assert watch.limiter.at_rest and command.velocity[0] == pytest.approx(0.0, abs=1e-12)


def test_the_fade_by_hand():
    """J h = 1 rad/s^2 a period of 0.1 s: to 0.3 rad/s by 1, 1.5 (fading by 0.5, so that 0.15 + 0.05 remain), 0.5, 0."""
    spec = robot(2.0, 10.0, 10.0, -9.0, 9.0)
    watch = Watch(spec, Limiter(spec, 0.1), 0.0)
    commands = [watch.step(0.3) for _ in range(5)]
    np.testing.assert_allclose([c.acceleration[0] for c in commands], [1.0, 1.5, 0.5, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose([c.velocity[0] for c in commands], [0.1, 0.25, 0.3, 0.3, 0.3], atol=1e-12)
    np.testing.assert_allclose([c.position[0] for c in commands], [0.01, 0.035, 0.065, 0.095, 0.125], atol=1e-12)
    assert [c.limited for c in commands] == [True, True, False, False, False]


def test_transparent_where_the_request_is_admissible():
    """At 50 Hz any acceleration of the Panda can fade within one period, so that all it may do passes unchanged."""
    rng = np.random.default_rng(1)
    spec = robot(2.175, 7.5, 3750.0, -8.0, 8.0)
    watch = Watch(spec, Limiter(spec, 0.02, response_time=0.06), 0.0)
    wanted = 0.0
    for _ in range(400):
        wanted = float(np.clip(wanted + rng.uniform(-1, 1) * 7.5 * 0.02, -2.175, 2.175))
        if abs(watch.p[0]) > 6.0:
            break
        command = watch.step(wanted)
        assert command.velocity[0] == pytest.approx(wanted, abs=1e-12) and not command.limited


def test_a_smooth_request_passes_at_a_high_rate_within_the_fade():
    """At 1 kHz the fade of a' costs at most a'^2 / (2 J) + a' h / 2 of velocity."""
    h, amplitude, omega = 0.001, 0.5, 8.0
    spec = robot(2.175, 7.5, 3750.0)
    watch = Watch(spec, Limiter(spec, h), 0.0)
    steepest = amplitude * omega
    for k in range(1, 2000):
        wanted = amplitude * np.sin(omega * k * h)
        command = watch.step(wanted)
        assert abs(command.velocity[0] - wanted) <= steepest**2 / (2 * 3750.0) + steepest * h / 2


@pytest.mark.parametrize("field", ["velocity", "acceleration", "jerk", "position"])
def test_every_limit_has_an_effect(field):
    """Loose limits let the request through; tightening one alone is reached and binds."""
    loose = {"velocity": 3.0, "acceleration": 40.0, "jerk": 1e4, "upper": 10.0, "lower": -10.0}
    tight = {"velocity": {"velocity": 0.5}, "acceleration": {"acceleration": 2.0}, "jerk": {"jerk": 20.0},
             "position": {"upper": 0.1}}[field]
    request = [1.0] * 30
    traces = []
    for limits in (loose, {**loose, **tight}):
        spec = robot(**limits)
        watch = Watch(spec, Limiter(spec, 0.02), 0.0 if field != "position" else -0.2)
        traces.append([watch.step(v) for v in request])
    free, bound = traces
    assert free[5].velocity[0] == pytest.approx(1.0) and not free[5].limited
    assert any(c.limited for c in bound[5:])
    accelerations = np.array([0.0] + [c.acceleration[0] for c in bound])
    reached = {"velocity": max(c.velocity[0] for c in bound), "acceleration": accelerations.max(),
               "jerk": np.diff(accelerations).max() / 0.02, "position": max(c.position[0] for c in bound)}[field]
    bound_value = {"velocity": 0.5, "acceleration": 2.0, "jerk": 20.0, "position": 0.1}[field]
    assert reached == pytest.approx(bound_value, rel=1e-3)


@pytest.mark.parametrize("period", PERIODS)
def test_a_start_outside_comes_back_within_the_other_limits(period):
    spec = robot([2.0, 1.0], [10.0, 3.0], [2000.0, 30.0], margin=0.05)
    for side in (1.0, -1.0):
        watch = Watch(spec, Limiter(spec, period), side * 1.2, positions_too=False)
        for _ in range(int(0.5 / period)):  # no request to leave: it stays
            assert np.all(watch.step(0.0).velocity == 0.0)
        for _ in range(int(0.5 / period)):  # a request further out is not followed
            assert np.all(side * watch.step(side * 2.0).position <= 1.2)
        for _ in range(int(4.0 / period)):
            before = watch.p
            command = watch.step(-side * 0.5)
            assert np.all(side * command.position <= side * before + 1e-12)
            if np.all(side * command.position < 0.5):
                break
        assert np.all(side * command.position < 0.95)


@pytest.mark.parametrize("period", PERIODS)
def test_a_start_too_fast_to_stop_overshoots_no_more_than_it_must(period):
    acceleration, jerk = 10.0, 500.0
    spec = robot(2.0, acceleration, jerk)
    watch = Watch(spec, Limiter(spec, period), 0.9, 1.9, positions_too=False)
    furthest = max(watch.step(2.0).position[0] for _ in range(int(1.0 / period)))
    unavoidable = 0.9 + stop_by_formula(1.9, acceleration, jerk)
    assert 1.0 < furthest <= unavoidable + 1e-9


def test_a_start_faster_than_allowed_is_taken_as_the_limit():
    spec = robot(velocity=1.0)
    limiter = Limiter(spec, 0.01)
    limiter.reset(np.zeros(1), np.array([1.3]))
    assert abs(limiter.step(np.array([1.3])).velocity[0]) <= 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused_and_changes_nothing(bad):
    spec = robot(velocity=[2.0, 2.0])
    limiter, twin = Limiter(spec, 0.01), Limiter(spec, 0.01)
    good = np.array([0.3, -0.8])
    for each in (limiter, twin):
        each.reset(np.array([0.1, 0.9]))
        each.step(good)
    with pytest.raises(ValueError, match=r"desired velocity .* must be finite"):
        limiter.step(np.array([0.1, bad]))
    with pytest.raises(ValueError, match=r"measured position .* must be finite"):
        limiter.step(good, np.array([bad, 0.0]))
    with pytest.raises(ValueError, match=r"position .* must be finite"):
        limiter.reset(np.array([bad, 0.0]))
    with pytest.raises(ValueError, match=r"velocity .* must be finite"):
        limiter.reset(np.zeros(2), np.array([bad, 0.0]))
    ours, theirs = limiter.step(good), twin.step(good)
    np.testing.assert_array_equal(ours.position, theirs.position)
    np.testing.assert_array_equal(ours.acceleration, theirs.acceleration)


def test_other_shapes_and_periods_are_refused():
    limiter = Limiter(robot(velocity=[2.0, 2.0]), 0.01)
    for wrong in (np.zeros(1), np.zeros(3), np.zeros((1, 2)), np.array(0.0)):
        with pytest.raises(ValueError, match="has shape"):
            limiter.step(wrong)
        with pytest.raises(ValueError, match="has shape"):
            limiter.step(np.zeros(2), wrong)
        with pytest.raises(ValueError, match="has shape"):
            limiter.reset(wrong)
    for period, response in ((0.0, 0.0), (-0.01, 0.0), (np.nan, 0.0), (np.inf, 0.0), (0.01, -1.0), (0.01, np.nan)):
        with pytest.raises(ValueError, match="must be positive"):
            Limiter(robot(), period, response)


def test_the_caller_may_change_what_it_got_and_gave():
    limiter = Limiter(robot(), 0.01)
    start = np.array([0.2])
    limiter.reset(start)
    start += 5.0
    command = limiter.step(np.array([0.1]))
    for given_away in (command.position, command.velocity, command.acceleration):
        given_away += 5.0
    after = limiter.step(np.array([0.1]))
    assert after.position[0] == pytest.approx(0.2, abs=0.01) and after.velocity[0] <= 0.1


class LaggingArm:
    """A velocity-controlled arm: latency, then a first-order lag, in small steps, so that nothing is idealised away."""

    def __init__(self, position: np.ndarray, latency: float, lag: float, period: float) -> None:
        self.substeps = max(1, round(period / 0.001))
        self.dt = period / self.substeps
        self.pipeline = [np.zeros_like(position)] * round(latency / self.dt)
        self.share = 1.0 - np.exp(-self.dt / lag) if lag > 0 else 1.0
        self.p, self.v = position.copy(), np.zeros_like(position)

    def follow(self, command: np.ndarray) -> float:
        """Plays one period; returns the largest |position| on the way."""
        furthest = 0.0
        for _ in range(self.substeps):
            self.pipeline.append(command)
            self.v = self.v + self.share * (self.pipeline.pop(0) - self.v)
            self.p = self.p + self.v * self.dt
            furthest = max(furthest, float(np.abs(self.p).max()))
        return furthest


@pytest.mark.parametrize("period", [0.001, 0.005, 0.02, 0.05])
@pytest.mark.parametrize(("latency", "lag"), [(0.02, 0.04), (0.06, 0.0), (0.0, 0.06), (0.04, 0.08)])
def test_a_lagging_arm_stays_within_its_hard_limits(period, latency, lag):
    rng = np.random.default_rng(3)
    n = 8
    spec = robot(np.full(n, 2.6), acceleration=[20, 20, 15, 15, 10, 7.5, 15, 5],
                 jerk=[1e4, 1e4, 7500, 7500, 5000, 3750, 200, 60], margin=0.05)
    for trial in range(3):
        start = rng.uniform(-0.9, 0.9, n)
        arm = LaggingArm(start, latency, lag, period)
        watch = Watch(spec, Limiter(spec, period, response_time=latency + lag), start, positions_too=False)
        beat = rng.uniform(0.1, 0.6, n)
        for k in range(int(1.0 / period)):
            if trial == 0:
                desired = np.full(n, 100.0)
            elif trial == 1:
                desired = 100.0 * np.sign(np.sin(np.pi * k * period / beat) + 0.3)
            else:
                swinging = k * period < 0.6
                desired = 100.0 * (np.sign(np.sin(2 * np.pi * k * period / beat)) if swinging else -np.ones(n))
            command = watch.step(desired, arm.p + 0.002 * rng.standard_normal(n))
            assert arm.follow(command.velocity) <= 1.0


def test_the_response_time_is_what_keeps_the_lagging_arm_inside():
    spec = robot(2.6, 20.0, 1e4, margin=0.05)
    furthest = {}
    for response in (0.0, 0.12):
        arm = LaggingArm(np.zeros(1), 0.04, 0.08, 0.005)
        limiter = Limiter(spec, 0.005, response)
        limiter.reset(np.zeros(1))
        furthest[response] = max(arm.follow(limiter.step(np.array([9.0]), arm.p).velocity) for _ in range(400))
    assert furthest[0.12] <= 1.0 < furthest[0.0]


def integrated_stop(v: np.ndarray, a: np.ndarray, a_limit: np.ndarray, jerk: np.ndarray) -> np.ndarray:
    """Peak distance of the fastest stop by plain integration: brake at full jerk until releasing ends the motion."""
    longest = np.abs(a) / jerk + np.abs(v + a * np.abs(a) / (2 * jerk)) / a_limit + 4 * a_limit / jerk
    dt = (longest + 4 * np.sqrt(np.abs(v) / jerk)) / 40000
    p, peak, done = np.zeros_like(v), np.zeros_like(v), np.zeros(v.shape, dtype=bool)
    for _ in range(40000):
        release = (a < 0) & (v <= a * a / (2 * jerk))
        a_next = np.where(release, np.minimum(a + jerk * dt, 0.0), np.maximum(a - jerk * dt, -a_limit))
        v_next = v + 0.5 * (a + a_next) * dt
        p = np.where(done, p, p + 0.5 * (v + v_next) * dt)
        peak = np.maximum(peak, p)
        done |= (v_next <= 0) & (a_next <= 0)
        a, v = a_next, v_next
    return peak


def test_stop_distance_against_integration():
    rng = np.random.default_rng(5)
    n = 600
    a_limit, jerk = 10.0 ** rng.uniform(-0.3, 1.5, n), 10.0 ** rng.uniform(0.5, 4.0, n)
    v, a = rng.uniform(-3, 3, n), rng.uniform(-1, 1, n) * a_limit * rng.choice([1.0, 0.1, 0.0], n)
    v[:100] = rng.uniform(0, 1.2, 100) * a[:100] ** 2 / (2 * jerk[:100])  # round the border of braking too hard already
    a[:100] = -np.abs(a[:100])
    truth = integrated_stop(v, a, a_limit, jerk)
    ours = stop_distance(v, a, a_limit, jerk)
    scale = np.abs(v) * (np.abs(v) / a_limit + a_limit / jerk) + a_limit**3 / jerk**2
    assert np.max(np.abs(ours - truth) / scale) < 1e-3
    assert np.all(ours[(v <= 0) & (a <= 0)] == 0.0)


def test_stop_distance_by_hand():
    def distance(*arguments):
        return float(stop_distance(*(np.array([x], dtype=float) for x in arguments))[0])
    assert distance(2.0, 0.0, 4.0, 1e12) == pytest.approx(0.5, rel=1e-6)  # v^2 / (2 A)
    assert distance(1.0, 0.0, 100.0, 4.0) == pytest.approx(0.5)  # v sqrt(v / J): half a second down, half a second up
    assert distance(3.0, 0.0, 2.0, 4.0) == pytest.approx(3.0)  # v0 / 2 (v0 / A + A / J) = 1.5 (1.5 + 0.5)
    assert distance(0.5, -2.0, 2.0, 4.0) == pytest.approx(8.0 / (6 * 16))  # just releasing: |a|^3 / (6 J^2)
    assert distance(-1.0, 1.0, 2.0, 4.0) == 0.0


@pytest.mark.parametrize("period", PERIODS)
def test_one_period_of_braking_uses_up_no_more_than_its_share(period):
    """D(v', a') + v' h <= D(v, a): the inequality that makes the position limit exact, searched for an exception."""
    rng = np.random.default_rng(7)
    spec = random_arm(rng, 800)
    a_limit, jerk = spec.acceleration_limit, spec.jerk_limit
    wall = spec.position_upper
    for _ in range(20):
        limiter = Limiter(spec, period)
        limiter.reset(np.zeros(800))
        for desired in rng.normal(0, 3, (rng.integers(1, 15), 800)) * spec.velocity_limit:
            last = limiter.step(desired, np.zeros(800))  # a random state, reached far from the wall
        before = stop_distance(last.velocity, last.acceleration, a_limit, jerk)
        braked = limiter.step(np.full(800, 100.0), wall - before)  # the wall stands where the stop would end
        after = stop_distance(braked.velocity, braked.acceleration, a_limit, jerk)
        assert np.max(braked.velocity * period + after - before) <= 1e-12


def test_the_order_of_joints_does_not_matter():
    rng = np.random.default_rng(9)
    spec = random_arm(rng, 5)
    order = [3, 0, 4, 1, 2]
    shuffled = robot(spec.velocity_limit[order], spec.acceleration_limit[order], spec.jerk_limit[order],
                     spec.position_lower[order], spec.position_upper[order])
    one, other = Limiter(spec, 0.01), Limiter(shuffled, 0.01)
    for desired, _ in itertools.product(rng.normal(0, 3, (20, 5)), range(5)):
        np.testing.assert_array_equal(one.step(desired).position[order], other.step(desired[order]).position)


@pytest.mark.parametrize("closed", [False, True])
def test_the_machine_code_is_the_python_that_it_was_written_in(closed, monkeypatch):
    """To the last bit, near the limits and far from them."""
    spec = random_arm(np.random.default_rng(3), 4)
    ours, plain = Limiter(spec, 0.004, 0.03), Limiter(spec, 0.004, 0.03)
    rng = np.random.default_rng(4)
    machine = {name: getattr(limiter_kernel, name) for name in ("limit_step", "_towards", "_keep_from", "_fits",
                                                                "stop_distance_of")}
    for _ in range(60):
        start = rng.uniform(spec.position_lower, spec.position_upper)
        ours.reset(start), plain.reset(start)
        for desired in rng.normal(0, 1, (12, 4)) * spec.velocity_limit:
            place = ours.position + rng.normal(0, 1e-3, 4) if closed else None
            one = ours.step(desired, place)
            with monkeypatch.context() as patch:
                for name, function in machine.items():
                    patch.setattr(limiter_kernel, name, function.py_func)
                other = plain.step(desired, place)
            assert one.limited == other.limited
            for field in ("position", "velocity", "acceleration"):
                np.testing.assert_array_equal(getattr(one, field), getattr(other, field))

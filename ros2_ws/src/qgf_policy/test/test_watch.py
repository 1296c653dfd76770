# SPDX-License-Identifier: Apache-2.0
"""What is known of an arm before it is commanded: rate, signs, distance from home."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qgf_core.errors import StateError
from qgf_policy.joint_state import JointState
from qgf_policy.watch import StateWatch, fits, velocity_ratio

MS = 1_000_000
ARM = SimpleNamespace(joint_names=("a", "b"), velocity_limit=np.array([2.0, 2.0]))
"""What the watch needs of a robot."""


def state(position, velocity, at: int) -> JointState:
    q, dq = np.asarray(position, dtype=np.float64), np.asarray(velocity, dtype=np.float64)
    return JointState(q, dq, np.full(len(q), at, dtype=np.int64), at)


def moved(watch: StateWatch, sign: float = 1.0, until: int = 1000, silence: range = range(0)) -> int:
    """Joint a stands, joint b goes round a sine of 0.1 rad; states every 5 ms but in the silence [ms]."""
    for ms in range(0, until, 5):
        if ms not in silence:
            t = 1e-3 * ms
            q, dq = 0.1 * np.sin(6.0 * t), 0.6 * np.cos(6.0 * t)
            last = state([0.0, q], [0.0, sign * dq], 1 + ms * MS)
        watch.add(last, 1 + ms * MS)
    return until * MS


def test_an_arm_that_is_well_is_not_refused_and_may_move() -> None:
    watch = StateWatch(ARM, 30 * MS, 0.3)
    assert watch.judge(moved(watch)) is None


def test_nothing_can_be_said_before_the_watch_time() -> None:
    watch = StateWatch(ARM, 30 * MS, 0.3)
    assert "watched for less than 0.3 s" in str(watch.judge(5))
    end = moved(watch, until=200)
    assert "watched for less than 0.3 s" in str(watch.judge(end))
    assert StateWatch(ARM, 30 * MS, 0.0).judge(5) is None


def test_a_silence_longer_than_the_limit_is_remembered_for_three_seconds() -> None:
    watch = StateWatch(ARM, 30 * MS, 0.3)
    end = moved(watch, silence=range(500, 540))  # from the state of 495 to that of 540: 45 ms
    fault = watch.judge(end)
    assert isinstance(fault, StateError) and fault.kind == "state_rate"
    assert "up to 45.0 ms, allowed are 30.0 ms" in str(fault)
    assert watch.judge(540 * MS + 3001 * MS) is None


def test_a_silence_within_the_limit_is_not_told() -> None:
    watch = StateWatch(ARM, 30 * MS, 0.3)
    assert watch.judge(moved(watch, silence=range(500, 525))) is None


@pytest.mark.parametrize(("sign", "ratio"), [(-1.0, "-1.00"), (57.3, "+57.")])
def test_a_swapped_sign_and_degrees_are_told(sign: float, ratio: str) -> None:
    watch = StateWatch(ARM, 30 * MS, 0.3)
    fault = watch.judge(moved(watch, sign))
    assert fault is not None and fault.kind == "velocity_sign"
    assert "joint 'b'" in str(fault) and f"ratio {ratio}" in str(fault)


def test_an_arm_put_elsewhere_is_watched_anew_and_no_sign_is_wrong() -> None:
    """As when a simulation is reset: the position jumps, the velocity knows nothing of it."""
    watch = StateWatch(ARM, 30 * MS, 0.3)
    for ms in range(0, 1000, 5):
        watch.add(state([0.0, 0.3 if ms < 500 else 0.0], [0.0, 0.0], 1 + ms * MS), 1 + ms * MS)
        if ms in (500, 780):
            assert "watched for less than 0.3 s" in str(watch.judge(1 + ms * MS))
        if ms in (495, 805):
            assert watch.judge(1 + ms * MS) is None


def test_a_fast_arm_is_not_taken_for_one_put_elsewhere() -> None:
    """At its velocity limit, told every 25 ms, and with the sign swapped: told as such, not forgotten."""
    watch = StateWatch(ARM, 30 * MS, 0.3)
    for ms in range(0, 500, 25):
        watch.add(state([0.0, 2e-3 * ms], [0.0, -2.0], 1 + ms * MS), 1 + ms * MS)
    fault = watch.judge(500 * MS)
    assert fault is not None and fault.kind == "velocity_sign"


def test_noise_of_an_arm_that_stands_shows_no_sign() -> None:
    watch = StateWatch(ARM, 30 * MS, 0.3)
    noise = np.random.default_rng(0).normal(0.0, 4e-3, (600, 2))
    for k, position in enumerate(noise):
        watch.add(state(position, [0.0, 0.0], 1 + 5 * k * MS), 1 + 5 * k * MS)
    assert np.ptp(noise[:, 0]) > 0.02 and watch.judge(3000 * MS) is None


def test_time_that_goes_back_begins_anew() -> None:
    watch = StateWatch(ARM, 30 * MS, 0.3)
    moved(watch, until=1000)
    assert watch.judge(moved(watch, until=500)) is None


@given(st.floats(0.03, 3.0), st.floats(0.5, 20.0), st.sampled_from([1.0, -1.0, 57.3]))
def test_the_ratio_is_that_of_the_derivative(size: float, frequency: float, factor: float) -> None:
    t = np.linspace(0.0, 6.0 / frequency, 400)
    q, dq = size * np.sin(frequency * t), factor * size * frequency * np.cos(frequency * t)
    ratio = velocity_ratio(t, q, dq)
    assert ratio == pytest.approx(factor, rel=1e-3)
    assert fits(ratio) == (factor == 1.0)


def test_a_joint_that_stood_still_shows_nothing() -> None:
    t = np.linspace(0.0, 1.0, 100)
    assert velocity_ratio(t, 0.009 * np.sin(6.0 * t), -0.054 * np.cos(6.0 * t)) is None


def test_a_runner_refuses_an_arm_far_from_home(rig) -> None:
    r = rig(home_limit=0.5)
    assert r.runner.judge_activation(r.state(), r.clock.now()) is None
    r.position[1] += 0.6
    refused = r.runner.judge_activation(r.state(), r.clock.now())
    assert refused is not None and refused.kind == "far_from_home" and "0.60 rad from home" in str(refused)
    with pytest.raises(StateError, match="from home"):
        r.activate()


def test_a_runner_refuses_an_arm_that_was_jogged_and_told_a_swapped_sign(rig) -> None:
    r = rig(watch_time=0.3)
    for k in range(100):
        r.position = r.robot.home + 0.1 * np.sin(0.06 * k)
        r.velocity = np.where(np.arange(len(r.position)) == 3, -1.0, 1.0) * 0.6 * np.cos(0.06 * k)
        r.step()
    with pytest.raises(StateError, match=f"joint '{r.robot.joint_names[3]}' moved, and its velocity"):
        r.activate()


def test_after_an_activation_the_watch_begins_anew(rig) -> None:
    r = rig(watch_time=0.3)
    for _ in range(40):
        r.step()
    r.activate()
    r.runner.deactivate()
    while r.step()[0] is not None:
        pass
    with pytest.raises(StateError, match=r"watched for less than 0\.3 s"):
        r.activate()
    for _ in range(40):
        r.step()
    r.activate()

# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qgf_core.robot import JointSpec, RobotSpec, ToolSpec
from qgf_policy.joint_state import JointStateMerger

MS = 1_000_000


def arm(*signs: int) -> RobotSpec:
    signs = signs or (1, 1, 1)
    joints = tuple(JointSpec(f"j{i}", (-2.0, 2.0), 2.0, 10.0, 100.0, 10.0, sign=s) for i, s in enumerate(signs))
    return RobotSpec("arm", "arm.urdf", "base", ToolSpec("tool"), joints)


@pytest.fixture
def merger():
    return JointStateMerger(arm(), restart_after=30 * MS)


def kinds(state):
    return [refusal.kind for refusal in state.refusals]


def test_other_order_and_extra_joints_are_sorted_by_name(merger):
    merger.add(["finger", "j2", "j0", "j1"], [9.0, 0.2, 0.0, 0.1], [9.0, 2.0, 0.5, 1.0], stamp=100, now=5)
    state = merger.snapshot()
    assert state.position.tolist() == [0.0, 0.1, 0.2]
    assert state.velocity.tolist() == [0.5, 1.0, 2.0]
    assert state.sampled.tolist() == [5, 5, 5]
    assert state.missing == () and state.refusals == () and state.stamp == 100


@given(st.permutations(["j0", "j1", "j2", "a", "b"]))
def test_no_order_of_names_changes_the_result(names):
    merger = JointStateMerger(arm(), 30 * MS)
    values = {"j0": 0.1, "j1": 0.2, "j2": 0.3, "a": np.nan, "b": 7.0}
    merger.add(names, [values[n] for n in names], [10 * values[n] for n in names], stamp=1, now=1)
    state = merger.snapshot()
    np.testing.assert_array_equal(state.position, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(state.velocity, [1.0, 2.0, 3.0])
    assert state.refusals == ()


def test_one_arm_in_two_messages_has_an_age_per_joint_and_the_oldest_stamp(merger):
    merger.add(["j0", "j1"], [0.1, 0.2], [0.0, 0.0], stamp=100, now=10 * MS)
    assert merger.snapshot().missing == ("j2",)
    merger.add(["j2"], [0.3], [0.0], stamp=104, now=14 * MS, age=1 * MS)
    state = merger.snapshot()
    assert state.missing == ()
    assert state.sampled.tolist() == [10 * MS, 10 * MS, 13 * MS]
    assert state.stamp == 100
    merger.add(["j1", "j0"], [0.5, 0.4], [0.0, 0.0], stamp=120, now=20 * MS)
    state = merger.snapshot()
    assert state.position.tolist() == [0.4, 0.5, 0.3]
    assert state.stamp == 104


def test_signs_turn_position_and_velocity(merger):
    merger = JointStateMerger(arm(1, -1, -1), 30 * MS)
    merger.add(["j0", "j1", "j2"], [0.1, 0.2, -0.3], [1.0, 2.0, -3.0], stamp=1, now=1)
    state = merger.snapshot()
    assert state.position.tolist() == [0.1, -0.2, 0.3]
    assert state.velocity.tolist() == [1.0, -2.0, 3.0]


@pytest.mark.parametrize(
    ("names", "position", "velocity", "efforts", "kind", "words"),
    [
        (["j0", "j1", "j0"], [0.0] * 3, [0.0] * 3, 0, "malformed_state", "names joint 'j0' twice"),
        (["j0", "a", "a"], [0.0] * 3, [0.0] * 3, 0, "malformed_state", "names joint 'a' twice"),
        (
            ["j0", "j1"],
            [0.0],
            [0.0] * 2,
            0,
            "malformed_state",
            "2 names, 1 positions, 2 velocities and 0 efforts",
        ),
        (["j0", "j1"], [0.0] * 2, [], 0, "malformed_state", "2 names, 2 positions, 0 velocities"),
        (["j0", "j1"], [0.0] * 2, [0.0] * 2, 1, "malformed_state", "1 efforts"),
        (["j0", "j1"], [0.0, np.nan], [0.0] * 2, 0, "non_finite_state", "joint 'j1'"),
        (["j1", "j0"], [0.0] * 2, [np.inf, 0.0], 0, "non_finite_state", "joint 'j1'"),
    ],
)
def test_a_bad_message_is_refused_named_and_changes_nothing(
    merger, names, position, velocity, efforts, kind, words
):
    merger.add(["j0", "j1", "j2"], [0.1, 0.2, 0.3], [0.0] * 3, stamp=1, now=1)
    merger.add(names, position, velocity, stamp=2, now=2, effort_length=efforts)
    state = merger.snapshot()
    assert kinds(state) == [kind] and words in str(state.refusals[0])
    assert state.position.tolist() == [0.1, 0.2, 0.3] and state.sampled.tolist() == [1, 1, 1]
    assert merger.snapshot().refusals == (), "a refusal is told once"


def test_another_devices_message_is_ignored_whatever_it_holds(merger):
    merger.add(["finger", "finger"], [np.nan], [], stamp=1, now=1)
    merger.add([], [], [], stamp=1, now=1)
    state = merger.snapshot()
    assert state.refusals == () and state.missing == ("j0", "j1", "j2")


def test_extra_joints_may_be_nan(merger):
    merger.add(["j0", "finger", "j1", "j2"], [0.1, np.nan, 0.2, 0.3], [0.0, np.nan, 0.0, 0.0], stamp=1, now=1)
    assert merger.snapshot().position.tolist() == [0.1, 0.2, 0.3]


def test_duplicates_and_older_stamps_do_not_refresh(merger):
    names, rest = ["j0", "j1", "j2"], [0.0] * 3
    merger.add(names, [0.1, 0.2, 0.3], rest, stamp=100, now=10 * MS)
    merger.add(names, [0.7, 0.7, 0.7], rest, stamp=100, now=12 * MS)
    merger.add(names, [0.8, 0.8, 0.8], rest, stamp=99, now=13 * MS)
    state = merger.snapshot()
    assert state.position.tolist() == [0.1, 0.2, 0.3] and state.sampled.tolist() == [10 * MS] * 3
    assert merger.out_of_order == 2
    # A frozen driver that repeats its last stamp stays old for ever.
    merger.add(names, [0.7, 0.7, 0.7], rest, stamp=100, now=500 * MS)
    assert merger.snapshot().sampled.tolist() == [10 * MS] * 3


def test_a_driver_started_anew_with_an_older_clock_is_accepted_once_its_joints_are_old(merger):
    names, rest = ["j0", "j1", "j2"], [0.0] * 3
    merger.add(names, [0.1, 0.2, 0.3], rest, stamp=1000 * MS, now=10 * MS)
    merger.add(names, [0.4] * 3, rest, stamp=2 * MS, now=40 * MS)  # exactly restart_after: not yet
    assert merger.snapshot().position.tolist() == [0.1, 0.2, 0.3]
    merger.add(names, [0.5] * 3, rest, stamp=3 * MS, now=40 * MS + 1)
    merger.add(names, [0.6] * 3, rest, stamp=4 * MS, now=41 * MS)
    assert merger.snapshot().position.tolist() == [0.6] * 3


def test_a_message_without_stamp_counts_by_its_arrival(merger):
    for now in (1 * MS, 2 * MS):
        merger.add(["j0", "j1", "j2"], [0.1] * 3, [0.0] * 3, stamp=0, now=now)
    state = merger.snapshot()
    assert state.sampled.tolist() == [2 * MS] * 3 and state.stamp == 0 and merger.out_of_order == 0


def test_a_snapshot_is_not_changed_by_later_messages(merger):
    merger.add(["j0", "j1", "j2"], [0.1] * 3, [0.0] * 3, stamp=1, now=1)
    before = merger.snapshot()
    merger.add(["j0", "j1", "j2"], [0.9] * 3, [1.0] * 3, stamp=2, now=2)
    assert before.position.tolist() == [0.1] * 3 and before.velocity.tolist() == [0.0] * 3
    assert before.sampled.tolist() == [1] * 3
    assert dataclasses.is_dataclass(before)


def test_memory_stays_bounded_under_ever_new_layouts_and_refusals(merger):
    for i in range(200):
        merger.add(["j0", f"extra{i}"], [np.nan, 0.0], [0.0, 0.0], stamp=i + 1, now=i)
    assert len(merger._layouts) <= 32
    assert len(merger.snapshot().refusals) <= 16


MESSAGES = st.lists(st.tuples(
    st.permutations(["j0", "j1", "j2", "x"]),
    st.integers(1, 4),
    st.lists(st.sampled_from([0.0, -1.5, 1e200, np.nan, np.inf, -np.inf]), min_size=4, max_size=4),
    st.integers(0, 6),
    st.integers(0, 40),
), max_size=12)


@given(MESSAGES)
def test_the_quick_way_does_what_the_thorough_one_does(messages):
    quick, thorough = JointStateMerger(arm(1, -1, 1), 30), JointStateMerger(arm(1, -1, 1), 30)
    now = 0
    for order, length, values, stamp, later in messages:
        now += later
        names = order[:length]  # the quick way is that of messages with all joints, in any order
        numbers = np.array(values[:len(names)])
        quick.add(tuple(names), numbers, -numbers, stamp, now)
        thorough._newest = 2**62  # no stamp is newer: the quick way is never gone
        thorough.add(tuple(names), numbers, -numbers, stamp, now)
        a, b = quick.snapshot(), thorough.snapshot()
        for field in ("position", "velocity", "sampled"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        assert (a.stamp, a.missing, kinds(a)) == (b.stamp, b.missing, kinds(b))
        assert quick.out_of_order == thorough.out_of_order


def test_a_message_that_cannot_be_read_is_refused(merger):
    merger.refuse("cut short")
    assert kinds(merger.snapshot()) == ["malformed_state"]
    assert kinds(merger.snapshot()) == []

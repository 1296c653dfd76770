# SPDX-License-Identifier: Apache-2.0
"""When the next goal is due, what counts towards an episode, and what is kept."""

import numpy as np
import pytest

from qgf_core.errors import QgfError
from qgf_demo.session import Plan, Session, read_plan

PERIOD = 20_000_000


@pytest.fixture
def plan(tmp_path):
    return Plan(
        ("a", "b"), "base", "joint_states", ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), 3, 0.02, str(tmp_path / "r.npz")
    )


def command(session, number, goal_stamp, action=(0.1, 0.2)):
    session.command(number * PERIOD, number * PERIOD - 5, goal_stamp, number, action, (0.0, 0.0), (1.0,) * 4, "")


def test_plan_survives_its_file(plan, tmp_path):
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    assert plan.commands == 6
    (tmp_path / "plan.json").write_text('{"joint_names": ["a"], "unknown": 1}')
    with pytest.raises(QgfError, match="unknown"):
        read_plan(tmp_path / "plan.json")


def test_next_goal_is_due_when_all_commands_of_the_last_have_arrived(plan):
    session = Session(plan)
    assert session.goal_is_due and not session.finished
    session.goal_sent(1000)
    command(session, 0, 0)  # still without a goal
    assert not session.goal_is_due and session.done == 0
    for number in (1, 2, 3):
        assert not session.goal_is_due
        command(session, number, 1000)
    assert session.goal_is_due and session.done == 3
    session.goal_sent(2000)
    command(session, 4, 1000)  # on its way while the goal was sent
    assert session.done == 3 and not session.goal_is_due
    for number in (5, 6, 7, 8):
        command(session, number, 2000)
    assert session.done == 6 and not session.goal_is_due


def test_finished_only_with_the_ground_truth_of_the_last_period(plan):
    session = Session(plan)
    for goal, numbers in ((1000, (0, 1, 2)), (2000, (3, 4, 5))):
        session.goal_sent(goal)
        for number in numbers:
            command(session, number, goal)
    for stamp in range(0, 6 * PERIOD + 1, 5_000_000):
        session.joint_state("truth", stamp, ["a", "b"], [0.0, 0.0], [0.0, 0.0])
    assert not session.finished  # the last command's period ends with the last of these
    for number, stamp in enumerate(range(6 * PERIOD + 5_000_000, 7 * PERIOD, 5_000_000)):
        command(session, 6 + number, 2000)  # later commands change nothing
        session.joint_state("truth", stamp, ["a", "b"], [0.0, 0.0], [0.0, 0.0])
    assert session.finished


def test_joints_are_matched_by_name_and_foreign_states_left_out(plan):
    session = Session(plan)
    session.joint_state("measured", 1, ["finger"], [9.0], [9.0])
    assert not session.has("measured")
    session.joint_state("measured", 2, ["finger", "b", "a"], [9.0, 2.0, 1.0], [9.0, 4.0, 3.0])
    recording = session.recording()
    np.testing.assert_array_equal(recording.measured.position, [[1.0, 2.0]])
    np.testing.assert_array_equal(recording.measured.velocity, [[3.0, 4.0]])
    assert recording.truth.position.shape == (0, 2)


def test_recording_keeps_holds_as_nan_and_reports_by_field(plan):
    session = Session(plan)
    session.goal_sent(1000)
    command(session, 0, 1000)
    session.command(PERIOD, 5, 1000, 1, (), (0.3, 0.4), (), "stale state")
    for source, level in (("raw_action", 0), ("command", 1)):
        session.report(
            {"source": source, "level": level, "joint_names": ["a", "b"], "band_rms": [0.1, 0.2], "stamp": 7}
        )
    session.report({"source": "none", "level": 3, "joint_names": [], "band_rms": [], "stamp": 8})
    session.status = {"late10": 0.25, "stage_mean": [1.0, 2.0]}
    recording = session.recording()
    np.testing.assert_array_equal(recording.commands.raw_action, [[0.1, 0.2], [np.nan, np.nan]])
    np.testing.assert_array_equal(recording.commands.observation, [[1.0] * 4, [np.nan] * 4])
    assert recording.commands.fault.tolist() == ["", "stale state"]
    np.testing.assert_array_equal(recording.goal, [[1.0, 2.0, 3.0]])  # the other one was never sent
    assert recording.reports["level"].tolist() == [0, 1, 3] and "joint_names" not in recording.reports
    np.testing.assert_array_equal(recording.reports["band_rms"], [[0.1, 0.2], [0.1, 0.2], [np.nan, np.nan]])
    assert recording.status["late10"] == 0.25

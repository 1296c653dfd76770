# SPDX-License-Identifier: Apache-2.0
"""The right numbers in the right places, by hand; stale, missing and strange messages."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from rqt_qgf.arms import Arm, find_arms
from rqt_qgf.export import to_csv
from rqt_qgf.model import TRACE_SAMPLES, ArmModel, Level


def test_nothing_is_known_at_first():
    view = ArmModel().view("command", "", 0.0)
    assert (view.level, view.rows, view.joint, view.headline) == (Level.STALE, (), "", "no policy, not measured")
    assert view.histograms == () and len(view.trace.command) == 0 and len(view.spectrum.frequency) == 0


def test_rows_hold_each_joints_own_figures(messages):
    model = ArmModel()
    model.take_report(messages.report(), 10.0)
    rows = model.view("command", "", 10.5).rows
    assert [row.joint for row in rows] == ["shoulder", "elbow", "wrist"]
    assert [row.level for row in rows] == [Level.OK, Level.ERROR, Level.WARN]
    assert (rows[1].value, rows[1].baseline, rows[1].ratio) == (0.25, 0.05, 5.0)
    assert math.isnan(rows[2].value) and math.isnan(rows[2].ratio) and rows[2].baseline == 0.02


def test_reports_without_baseline_or_joint_levels(messages):
    model = ArmModel()
    model.take_report(messages.report(baseline=[], baseline_ratio=[], joint_level=[], level=1), 0.0)
    for row in model.view("command", "", 0.0).rows:
        assert math.isnan(row.baseline) and math.isnan(row.ratio) and row.level == Level.WARN


def test_a_captured_baseline_replaces_the_bundles(messages):
    model = ArmModel()
    model.take_report(messages.report(), 0.0)
    model.capture_baseline()
    model.take_report(messages.report(band_rms=[0.022, 0.5, 0.1]), 0.1)
    view = model.view("command", "", 0.1)
    assert view.captured and [row.baseline for row in view.rows[:2]] == [0.011, 0.25]
    assert [row.ratio for row in view.rows[:2]] == pytest.approx([2.0, 2.0]) and math.isnan(view.rows[2].ratio)
    model.forget_baseline()
    assert model.view("command", "", 0.1).rows[1].baseline == 0.05


def test_stale_when_the_monitor_vanishes_and_when_it_says_so(messages):
    model = ArmModel()
    model.take_status(messages.status(), 10.0)
    model.take_report(messages.report(), 10.0)
    assert model.view("command", "", 10.9).level == Level.ERROR
    model.take_status(messages.status(), 11.0)
    view = model.view("command", "", 11.1)
    assert view.level == Level.STALE and {row.level for row in view.rows} == {Level.STALE}
    assert view.headline == "ACTIVE, not measured" and "no report for 1 s" in view.summary
    model.take_report(messages.report(level=3, joint_level=[3, 3, 3]), 11.1)
    assert model.view("command", "", 11.1).level == Level.STALE


def test_a_policy_that_vanishes_is_no_longer_active(messages):
    model = ArmModel()
    model.take_status(messages.status(), 10.0)
    model.take_lifecycle("active", 10.0)
    model.take_report(messages.report(level=0), 13.5)
    assert model.view("command", "", 10.5).policy.mode == "ACTIVE"
    gone = model.view("command", "", 13.5)
    assert gone.policy.mode == "no policy" and gone.policy.lifecycle == "no answer" and gone.level == Level.STALE
    assert "last status 4 s ago: ACTIVE" in gone.policy.fault
    assert model.view("command", "", 12.9).policy.lifecycle == "active"


@pytest.mark.parametrize(("mode", "fault", "level"), [
    (1, "", Level.OK), (3, "", Level.OK), (3, "something", Level.WARN), (4, "held", Level.WARN), (5, "", Level.WARN),
    (6, "", Level.ERROR), (200, "", Level.OK)])
def test_the_worst_of_policy_and_smoothness_decides(messages, mode, fault, level):
    model = ArmModel()
    model.take_report(messages.report(level=0), 0.0)
    model.take_status(messages.status(mode=mode, fault=fault), 0.0)
    assert model.view("command", "", 0.0).level == level


def test_facts_of_the_policy_node(messages):
    model = ArmModel()
    model.take_status(messages.status(), 0.0)
    facts = dict(model.view("command", "", 0.0).policy.facts)
    assert facts == {"late by > 10 %": "1.23 %", "jitter p99 / max": "0.15 / 2.10 ms", "overruns / left out": "5 / 6",
                     "command": "policy", "limited": "7", "e-stops": "1", "periods": "1234 at 100 Hz",
                     "bundle": "mine.pt 01234567"}


def test_what_the_governor_does(messages):
    model = ArmModel()
    told = [("smooth", 0.5, math.nan, "smooth, 50 % smoothed, lag unknown"),
            ("smooth", 1.0, 0.0604, "smooth, 100 % smoothed, 60 ms"), ("hold", 0.0, 0.0, "hold")]
    for mode, share, lag, text in told:
        model.take_status(messages.status(command_mode=mode, smoothed_share=share, smoothing_lag=lag), 0.0)
        assert dict(model.view("command", "", 0.0).policy.facts)["command"] == text


def test_late_messages_are_no_roughness(messages):
    model = ArmModel()
    model.take_status(messages.status(), 0.0)
    model.take_report(messages.report(level=1, joint_level=[0, 0, 0], summary="lost: 3%"), 0.0)
    view = model.view("command", "", 0.0)
    assert (view.headline, view.level, view.summary) == ("ACTIVE, smooth", Level.WARN, "lost: 3%")


@pytest.mark.parametrize(("levels", "headline"), [
    ([0, 0, 0], "ACTIVE, no rougher than in simulation"), ([0, 1, 0], "ACTIVE, getting rough")])
def test_a_policy_that_was_rough_in_simulation_is_not_called_smooth(messages, levels, headline):
    model = ArmModel()
    model.take_status(messages.status(), 0.0)
    model.take_report(messages.report(joint_level=levels, rough_in_simulation=True), 0.0)
    assert model.view("command", "", 0.0).headline == headline


def test_histograms_of_periods_and_of_stages(messages):
    model = ArmModel()
    model.take_status(messages.status(), 0.0)
    model.take_report(messages.report(), 0.0)
    periods, wait, take = model.view("command", "", 0.0).histograms
    assert periods.counts.tolist() == [3, 190, 7] and periods.edges.tolist() == [-0.002, -0.001, 0.001, 0.002]
    assert wait.title == "lateness of the control loop" and wait.counts.tolist() == [10, 20, 30]
    assert take.counts.tolist() == [40, 50, 60] and take.edges.tolist() == [0.0, 1e-5, 1e-3, math.inf]
    model.take_status(messages.status(stage_histogram=[1, 2]), 0.0)  # cut short
    assert len(model.view("command", "", 0.0).histograms) == 1


def test_the_spectrum_of_the_chosen_joint_is_the_root_of_its_power(messages):
    model = ArmModel()
    model.take_report(messages.report(), 0.0)
    model.take_spectrum(messages.spectrum(), 0.0)
    spectrum = model.view("command", "elbow", 0.0).spectrum
    assert spectrum.density == pytest.approx(np.sqrt([40.0, 90.0, 160.0, 250.0]))
    assert spectrum.peak_frequency[:2].tolist() == [20.0, 30.0] and math.isnan(spectrum.peak_frequency[2])
    assert spectrum.peak_density[:2] == pytest.approx(np.sqrt([160.0, 250.0]))
    assert spectrum.baseline[0] == 1.0 and math.isnan(spectrum.baseline[2]) and spectrum.cutoff == 20.0
    assert not spectrum.stale and model.view("command", "elbow", 1.5).spectrum.stale
    model.take_spectrum(messages.spectrum(baseline=[], power=[1.0, -1.0]), 2.0)  # cut short, and impossible
    shown = model.view("command", "shoulder", 2.0).spectrum
    assert len(shown.baseline) == 0 and shown.density[0] == 1.0 and math.isnan(shown.density[1])


def state(**changes):
    values = {"name": ["gripper", "wrist", "elbow", "shoulder"], "position": [9.0, 3.0, 2.0, 1.0],
                  "velocity": [9.0, 0.3, 0.2, 0.1]}
    return JointState(**(values | changes))


def test_traces_match_joints_by_name_and_the_response_to_the_interface(messages):
    model = ArmModel()
    for i in range(3):
        model.take_command(messages.command([i, 10.0 * i, 100.0 * i]), 20.0 + i)
        model.take_joint_state(state(), 20.5 + i)
    model.take_joint_state(JointState(name=["finger"], position=[5.0]), 22.6)  # another publisher's
    trace = model.view("command", "elbow", 23.0).trace
    assert trace.unit == "rad/s" and trace.command.tolist() == [0.0, 10.0, 20.0]
    assert trace.command_time.tolist() == [-3.0, -2.0, -1.0] and trace.response_time.tolist() == [-2.5, -1.5, -0.5]
    assert trace.response.tolist() == [0.2, 0.2, 0.2]
    model.take_command(messages.command([7.0, 8.0, 9.0], command_interface="position"), 23.0)
    trace = model.view("command", "elbow", 23.0).trace
    assert trace.unit == "rad" and trace.command.tolist() == [8.0] and trace.response.tolist() == [2.0, 2.0, 2.0]
    assert model.view("command", "elbow", 33.1).trace.command.tolist() == []  # older than ten seconds


def test_malformed_and_endless_messages_do_no_harm(messages):
    model = ArmModel()
    model.take_command(messages.command([1.0]), 0.0)  # one value for three joints
    assert len(model.view("command", "elbow", 0.0).trace.command) == 0
    model.take_joint_state(state(velocity=[]), 0.0)
    model.take_joint_state(JointState(), 0.0)
    for i in range(TRACE_SAMPLES + 50):
        model.take_command(messages.command([math.nan, i, math.inf]), 1e-4 * i)
    trace = model.view("command", "elbow", 1.2).trace
    assert len(trace.command) == TRACE_SAMPLES and trace.command[-1] == TRACE_SAMPLES + 49
    assert np.isnan(model.view("command", "shoulder", 1.2).trace.command).all()
    to_csv(model.view("command", "wrist", 1.2))


def test_of_several_windows_the_shortest_is_shown(messages):
    model = ArmModel()
    model.take_report(messages.report(nominal_window=2.0, summary="short"), 0.0)
    model.take_report(messages.report(nominal_window=10.0, summary="long"), 0.01)
    assert model.view("command", "", 0.1).summary == "short"
    model.take_report(messages.report(nominal_window=10.0, summary="long"), 2.0)  # the short one has ended
    assert model.view("command", "", 2.0).summary == "long"


def test_csv_holds_what_is_shown(messages):
    model = ArmModel()
    model.take_report(messages.report(), 0.0)
    model.take_spectrum(messages.spectrum(), 0.0)
    model.take_command(messages.command([0.1, 0.2, 0.3]), 0.0)
    rows = list(csv.DictReader(io.StringIO(to_csv(model.view("command", "elbow", 1.0 / 3.0)))))
    figures = {(row["quantity"], row["joint"], row["x"]): row for row in rows}
    assert figures["command.band_rms", "elbow", ""]["value"] == "0.25"
    assert figures["command.band_rms", "elbow", ""]["unit"] == "rad/s"
    assert figures["command.band_rms", "elbow", ""]["level"] == "ERROR"
    assert figures["command.baseline_ratio", "wrist", ""]["value"] == ""  # unknown, not "nan"
    assert float(figures["command.spectrum", "elbow", "30.0"]["value"]) == pytest.approx(math.sqrt(250.0))
    assert [float(row["value"]) for row in rows if row["quantity"] == "command"] == [0.2]
    assert [row["value"] for row in rows if row["quantity"].startswith("histogram")] == ["3.0", "190.0", "7.0"]


def test_arms_by_their_topics():
    status, report = "qgf_msgs/msg/PolicyStatus", "qgf_msgs/msg/SmoothnessReport"
    topics = [("/left/policy_node/status", [status]), ("/left/monitor_node/report", [report]),
              ("/right/policy_node/status", [status]), ("/other/watch/report", [report]),
              ("/policy_node/status", [status]), ("/a/b/pilot/status", [status]), ("/x/status", ["std_msgs/msg/Bool"])]
    arms = find_arms(topics)
    assert arms == [Arm("/", "/policy_node", ""), Arm("/a/b", "/a/b/pilot", ""),
                    Arm("/left", "/left/policy_node", "/left/monitor_node"), Arm("/other", "", "/other/watch"),
                    Arm("/right", "/right/policy_node", "")]
    assert [arm.joint_states for arm in arms[:2]] == ["/joint_states", "/a/b/joint_states"]
    assert arms[2].title == "/left (policy_node)" and arms[3].title == "/other (watch)"
    assert find_arms([]) == []

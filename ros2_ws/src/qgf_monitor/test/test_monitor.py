# SPDX-License-Identifier: Apache-2.0
"""Recorder, reports and monitor without ROS: known signals in, known figures and levels out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core import smoothness as metrics
from qgf_monitor.config import SOURCES, load_config
from qgf_monitor.health import Level
from qgf_monitor.monitor import Monitor
from qgf_monitor.recorder import MOST_JOINTS, Recorder
from qgf_monitor.reports import last_movement

CONFIG = load_config()
JOINTS = ("a", "b", "c")
START = 1_700_000_000_000_000_000
RATE = 50.0
SENT = set(SOURCES) - {"joint_effort"}


def command(monitor: Monitor, k: int, raw_action, sent, names=JOINTS, **changes: object) -> None:
    """The k-th policy command of a run at 50 Hz, received as it is sent."""
    fields: dict[str, object] = {
        "joint_names": list(names), "raw_action": raw_action, "command": sent, "command_interface": "velocity",
        "sequence": k, "period": 1 / RATE, "fault": "", "stamp": START + k * 20_000_000, "arrival": k / RATE}
    monitor.recorder.policy_command(**{**fields, **changes})


def state(monitor: Monitor, k: int, position, velocity, names=JOINTS, **changes: object) -> None:
    """The k-th joint state of a run at 50 Hz."""
    fields: dict[str, object] = {"names": list(names), "position": position, "velocity": velocity,
                                 "stamp": START + k * 20_000_000, "arrival": k / RATE}
    monitor.recorder.joint_state(**{**fields, **changes})


def chatter(k: int, joint: int = 1, amplitude: float = 0.5, frequency: float = 17.0) -> np.ndarray:
    """(3,): a slow movement on all, chatter on one."""
    values = np.full(3, 0.4 * math.sin(2 * math.pi * 1.5 * k / RATE))
    values[joint] += amplitude * math.sin(2 * math.pi * frequency * k / RATE)
    return values


def run(monitor: Monitor, samples: int, first: int = 0, amplitude: float = 0.5) -> None:
    for k in range(first, first + samples):
        values = chatter(k, amplitude=amplitude)
        command(monitor, k, values, 2.0 * values)
        # The joints stand in another order, with a finger between them.
        order = [2, 0, 1]
        state(monitor, k, [0.1, *values[order]], [0.0, *(0.1 * values[order])], ["finger", "c", "a", "b"])
        if k % 5 == 4:
            monitor.judge(k / RATE)


def by_source(monitor: Monitor, now: float) -> dict:
    return {judgement.report.source: judgement for judgement in monitor.judge(now)}


def test_reports_hold_the_batch_figures_of_every_source():
    monitor = Monitor(CONFIG)
    run(monitor, 300)
    judgements = by_source(monitor, 299 / RATE)
    assert set(judgements) == set(SENT)
    newest = np.array([chatter(k) for k in range(200, 300)])
    for source, scale in (("raw_action", 1.0), ("command", 2.0), ("joint_position", 1.0), ("joint_velocity", 0.1)):
        report = judgements[source].report
        batch = metrics.measure(scale * newest, RATE, 10.0, CONFIG.sources[source].deadband)
        for name, figure in vars(batch).items():
            assert getattr(report, name) == pytest.approx(figure, rel=1e-6, abs=1e-12), (source, name)
        assert report.joint_names == JOINTS
        assert (report.samples, report.overruns, report.dropped) == (100, 0, 0)
        assert report.window == pytest.approx(2.0)
        assert report.sample_rate == pytest.approx(RATE)
        assert report.rate == pytest.approx(RATE)
        assert report.high_frequency_cutoff == pytest.approx(10.0)
        assert report.period_jitter_max < 1e-8
        assert report.band_rms[1] == pytest.approx(scale * 0.5 / math.sqrt(2), rel=0.02)
        assert judgements[source].message_age == pytest.approx(0.0)
        assert len(report.jerk_rms) == (3 if source == "joint_position" else 0)
    levels = {source: judgement.verdict.level for source, judgement in judgements.items()}
    # 0.05 / sqrt(2) rad/s is below the bound for velocities, the others are far above theirs
    assert levels == {"raw_action": Level.ERROR, "command": Level.ERROR, "joint_position": Level.ERROR,
                      "joint_velocity": Level.OK}


def test_a_smooth_run_is_ok_everywhere():
    monitor = Monitor(CONFIG)
    run(monitor, 300, amplitude=0.0)
    assert {j.verdict.level for j in by_source(monitor, 299 / RATE).values()} == {Level.OK}


def test_a_vanished_publisher_is_stale_and_keeps_its_last_figures():
    monitor = Monitor(CONFIG)
    run(monitor, 200)
    last = by_source(monitor, 199 / RATE)["command"].report
    for now in (4.2, 4.4, 4.6):
        judgement = by_source(monitor, now)["command"]
    assert judgement.verdict.level == Level.STALE
    assert judgement.verdict.summary == "no message for 0.6 s"
    assert judgement.report.band_rms == pytest.approx(last.band_rms)
    assert judgement.message_age == pytest.approx(4.6 - 199 / RATE)
    assert {d.name: d.verdict.level for d in monitor.diagnose(4.7)}["command"] == Level.STALE
    run(monitor, 200, first=300)  # back again, after a gap that is not bridged
    judgement = by_source(monitor, 499 / RATE)["command"]
    assert judgement.verdict.level == Level.ERROR
    assert judgement.report.samples == 100


def test_a_publisher_that_repeats_one_stamp_for_ever_is_stale():
    monitor = Monitor(CONFIG, JOINTS)
    for k in range(100):
        state(monitor, k, np.zeros(3), np.zeros(3))
    assert by_source(monitor, 99 / RATE)["joint_velocity"].verdict.level == Level.OK
    for k in range(100, 200):
        state(monitor, k, np.zeros(3), np.zeros(3), stamp=START + 99 * 20_000_000)
    assert by_source(monitor, 199 / RATE)["joint_velocity"].verdict.level == Level.STALE


def test_raw_action_says_why_it_is_silent():
    monitor = Monitor(CONFIG)
    run(monitor, 100)
    for k in range(100, 150):
        command(monitor, k, [], np.zeros(3), fault="stale joint state")
    judgements = by_source(monitor, 149 / RATE)
    assert judgements["raw_action"].verdict.level == Level.STALE
    assert judgements["raw_action"].verdict.summary == "no message for 1.0 s: stale joint state"
    assert judgements["command"].verdict.level != Level.STALE


def test_unusable_messages_are_counted_and_change_nothing():
    monitor = Monitor(CONFIG)
    run(monitor, 150)
    before = {name: len(source.window) for name, source in monitor.recorder.sources.items()}
    nan, inf = math.nan, math.inf
    state(monitor, 151, [], [])
    state(monitor, 151, [], [], names=[])
    assert monitor.recorder.counts == type(monitor.recorder.counts)()
    state(monitor, 151, [nan, 0, 0], [0, 0, inf])
    command(monitor, 151, [nan, 0, 0], [0, inf, 0])
    assert monitor.recorder.counts.non_finite == 4
    state(monitor, 151, [0.0], [0.0, 0.0, 0.0])
    state(monitor, 151, [0, 0, 0], [0, 0, 0], names=["a", "b", "b"])
    command(monitor, 151, [0, 0, 0], [0, 0])
    command(monitor, 151, [], [], names=[])
    command(monitor, 151, [0, 0, 0], [0, 0, 0], names=["a", "b", "b"])
    command(monitor, 151, [0] * 3, [0] * (MOST_JOINTS + 1), names=[f"j{i}" for i in range(MOST_JOINTS + 1)])
    assert monitor.recorder.counts.malformed == 6
    state(monitor, 151, [0, 0], [0, 0], names=["a", "b"])
    assert monitor.recorder.counts.incomplete == 1
    state(monitor, 151, [0], [0], names=["another device"])
    assert {name: len(source.window) for name, source in monitor.recorder.sources.items()} == before
    assert monitor.recorder.joints == JOINTS
    assert monitor.recorder.sources["command"].arrival == pytest.approx(149 / RATE)
    run(monitor, 100, first=152)
    assert by_source(monitor, 251 / RATE)["command"].verdict.level == Level.ERROR
    inputs = {d.name: d for d in monitor.diagnose(5.0)}["inputs"]
    assert inputs.values == {"malformed": 6, "non_finite": 4, "incomplete": 1, "unstamped": 0}
    assert inputs.verdict.summary == "messages since the start: 6 malformed, 4 non_finite, 1 incomplete"


def test_nan_of_a_joint_that_does_not_matter_does_not_matter():
    monitor = Monitor(CONFIG, ("b", "a"))
    for k in range(50):
        state(monitor, k, [k * 0.1, math.nan, 0.0], [0.0, math.nan, 0.0], names=["a", "finger", "b"])
    assert monitor.recorder.counts.non_finite == 0
    assert by_source(monitor, 1.0)["joint_position"].report.mean_absolute_delta == pytest.approx([0.0, 0.1])


def test_given_joints_stand_against_the_policys():
    monitor = Monitor(CONFIG, ("b",))
    run(monitor, 60)
    judgements = by_source(monitor, 59 / RATE)
    assert judgements["joint_velocity"].report.joint_names == ("b",)
    assert judgements["command"].report.joint_names == JOINTS


def test_joint_states_wait_for_the_names():
    monitor = Monitor(CONFIG)
    state(monitor, 0, [0.0] * 3, [0.0] * 3)
    assert not monitor.recorder.sources
    assert {d.name: d.verdict for d in monitor.diagnose(0.0)}["inputs"].level == Level.WARN
    command(monitor, 1, [0.0] * 3, [0.0] * 3)
    state(monitor, 1, [0.0] * 3, [0.0] * 3)
    assert set(monitor.recorder.sources) == set(SENT)


def test_other_joints_start_other_windows():
    monitor = Monitor(CONFIG)
    run(monitor, 100)
    for k in range(100, 150):
        command(monitor, k, [0.1, 0.2], [0.1, 0.2], names=["x", "y"])
    report = by_source(monitor, 149 / RATE)["command"].report
    assert report.joint_names == ("x", "y")
    assert report.samples == 50


def test_gaps_in_the_sequence_are_counted_and_an_activation_is_no_gap():
    monitor = Monitor(CONFIG)
    for k, sequence in enumerate([0, 1, 5, 6, 0, 1, 2, 4, *range(5, 40)]):
        command(monitor, k, [0.0] * 3, [0.0] * 3, sequence=sequence)
    assert by_source(monitor, 1.0)["command"].report.dropped == 4


def test_unstamped_messages_take_their_time_of_arrival():
    monitor = Monitor(CONFIG, JOINTS)
    for k in range(100):
        state(monitor, k, chatter(k), chatter(k), stamp=0)
    assert monitor.recorder.counts.unstamped == 100
    assert by_source(monitor, 2.0)["joint_position"].report.sample_rate == pytest.approx(RATE, rel=1e-6)


def test_the_cutoff_follows_the_control_rate_and_too_slow_a_signal_is_said_so():
    monitor = Monitor(CONFIG)
    for k in range(400):  # joint states at 200 Hz, control at 50
        if k % 4 == 0:
            command(monitor, k // 4, [0.0] * 3, [0.0] * 3)
        state(monitor, k, [0.0] * 3, [0.0] * 3, stamp=START + k * 5_000_000, arrival=k / 200.0)
    assert by_source(monitor, 2.0)["joint_velocity"].report.high_frequency_cutoff == pytest.approx(10.0)
    slow = Monitor(CONFIG)
    for k in range(100):
        command(slow, k, [0.0] * 3, [0.0] * 3)
        if k % 4 == 0:
            state(slow, k, [0.0] * 3, [0.0] * 3)
    assert "joint_velocity" not in by_source(slow, 2.0)
    entry = {d.name: d.verdict for d in slow.diagnose(2.0)}["joint_velocity"]
    assert entry.level == Level.WARN
    assert "sampled at 12.5 Hz, too slowly for the cutoff of 10 Hz" in entry.summary


def test_jerk_is_given_for_commanded_positions_too():
    monitor = Monitor(CONFIG)
    for k in range(100):
        t = k / RATE
        command(monitor, k, [t**3] * 3, [t**3] * 3, command_interface="position")
    report = by_source(monitor, 2.0)["command"].report
    assert report.jerk_rms == pytest.approx([6.0] * 3, rel=1e-3)


def test_sparc_and_ldlj_only_for_a_last_movement():
    speed = np.concatenate([np.zeros(20), np.sin(np.linspace(0, np.pi, 50)), np.zeros(20)])
    assert last_movement(speed, 0.05) == slice(20, 70)
    assert last_movement(speed[30:], 0.05) is None
    assert last_movement(speed[:60], 0.05) is None
    assert last_movement(np.zeros(50), 0.05) is None
    monitor = Monitor(CONFIG, JOINTS)
    for k, v in enumerate(np.concatenate([speed, np.zeros(60)])):
        state(monitor, k, [0.0] * 3, [v, 0.0, 0.0])
        if k == len(speed) - 1:
            report = by_source(monitor, k / RATE)["joint_velocity"].report
            assert report.sparc == pytest.approx(metrics.sparc(speed[20:70], RATE, cutoff=CONFIG.sparc_cutoff))
            assert report.ldlj == pytest.approx(metrics.ldlj(speed[20:70], RATE))
    report = by_source(monitor, 2.0)["joint_velocity"].report
    assert report.sparc == pytest.approx(metrics.sparc(speed[20:70], RATE, cutoff=CONFIG.sparc_cutoff))
    for k in range(200, 800):
        state(monitor, k, [0.0] * 3, [0.0] * 3)
    report = by_source(monitor, 800 / RATE)["joint_velocity"].report
    assert math.isnan(report.sparc)
    assert math.isnan(report.ldlj)


def test_spectra_peak_at_the_chatter():
    monitor = Monitor(CONFIG)
    run(monitor, 200)
    figures = by_source(monitor, 199 / RATE)["joint_velocity"].figures
    assert figures.stamp == START + 199 * 20_000_000
    frequency, power = figures.spectra.frequency, figures.spectra.power
    assert power.shape == (len(frequency), 3)
    upper = frequency > 5.0
    assert frequency[upper][np.argmax(power[upper, 1])] == pytest.approx(17.0, abs=0.5)
    assert figures.report.peak_frequency.reshape(3, 3)[1, 0] == pytest.approx(17.0, abs=0.5)
    assert figures.report.peak_amplitude.reshape(3, 3)[1, :2] == pytest.approx([0.05, 0.04], rel=0.05)
    assert figures.report.peak_frequency.reshape(3, 3)[0, 0] == pytest.approx(1.5, abs=0.5)


def test_diagnoses_before_and_after_the_first_messages():
    monitor = Monitor(CONFIG)
    entries = {d.name: d.verdict for d in monitor.diagnose(0.0)}
    assert set(entries) == {*SENT, "policy", "inputs"}
    assert {entries[name].level for name in (*SENT, "policy")} == {Level.STALE}
    monitor.policy_status("ACTIVE", "", 0.0, {"overruns": 0}, 0.0)
    run(monitor, 4)
    entries = {d.name: d.verdict for d in monitor.diagnose(0.1)}
    assert entries["policy"].level == Level.OK
    assert entries["command"].summary == "window filling"
    assert {d.name: d.verdict.level for d in monitor.diagnose(20.0)}["policy"] == Level.STALE
    assert {d.name: d.verdict.level for d in monitor.diagnose(20.0)}["command"] == Level.STALE


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(st.sampled_from("abcd"), max_size=4), st.lists(NUMBERS, max_size=4),
                          st.lists(NUMBERS, max_size=4), st.integers(0, 2**62), st.integers(0, 2**64 - 1), NUMBERS),
                max_size=25))
def test_no_message_raises(messages):
    monitor = Monitor(dataclasses.replace(CONFIG, capacity=32))
    for k, (names, first, second, stamp, sequence, period) in enumerate(messages):
        command(monitor, k, first, second, names=names, stamp=stamp, sequence=sequence, period=period)
        state(monitor, k, first, second, names=names, stamp=stamp)
        monitor.judge(0.1 * k)
        monitor.diagnose(0.1 * k)


def test_windows_at_one_kilohertz_are_views_without_a_copy():
    recorder = Recorder(CONFIG, tuple(f"j{i}" for i in range(7)))
    names = [f"j{i}" for i in range(9)]
    values = np.zeros(9)
    for k in range(6000):
        recorder.joint_state(names, values, values, START + k * 1_000_000, k * 1e-3)
    window = recorder.sources["joint_velocity"].window.window(2.0)
    assert len(window.values) == 2000
    assert np.shares_memory(window.values, recorder.sources["joint_velocity"].window._values)

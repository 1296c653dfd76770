# SPDX-License-Identifier: Apache-2.0
"""monitor_node as a process of its own, over DDS, with a publisher that is another process."""

from __future__ import annotations

import math
import signal
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from geometry_msgs.msg import PoseStamped

from qgf_monitor.monitor_node import MonitorNode
from qgf_msgs.msg import SmoothnessReport

pytestmark = pytest.mark.ros

NAMESPACE = "/left"
ARM = Path(__file__).with_name("synthetic_arm.py")
RATE = 100.0
SOURCES = {"raw_action": 1.0, "command": 2.0, "joint_velocity": 0.5, "joint_position": 1.0}
"""And what multiplies the synthetic signal in each."""


@pytest.fixture
def listener(harness, domain):
    listener = harness.Listener(domain, NAMESPACE)
    yield listener
    listener.close()


@pytest.fixture
def all_reports(listener):
    """Whether the newest report of every source meets a condition."""
    return lambda condition: all(listener.reports[s] and condition(listener.latest(s)) for s in SOURCES)


MONITOR = ["-m", "qgf_monitor.monitor_node", "--ros-args", "-r", f"__ns:={NAMESPACE}"]


def arm(kind: str) -> list[str]:
    return [str(ARM), NAMESPACE, str(RATE), kind]


def check_figures(listener, report: SmoothnessReport, scale: float) -> None:
    """Against the sines that synthetic_arm.py makes."""
    chattering = list(report.joint_names).index("elbow")
    assert sorted(report.joint_names) == ["elbow", "shoulder", "wrist"]
    bin_width = 1.0 / report.window
    power, slow_power = 0.1**2, 0.3**2
    for joint in range(3):
        rough = joint == chattering
        assert report.high_frequency_ratio[joint] == pytest.approx(power / (power + slow_power) if rough else 0.0,
                                                                   abs=0.01)
        assert report.band_rms[joint] == pytest.approx(scale * 0.1 / math.sqrt(2) if rough else 0.0,
                                                       rel=0.05, abs=1e-3)
        centroid = (31.0 * power + 2.0 * slow_power) / (power + slow_power) if rough else 2.0
        assert report.spectral_centroid[joint] == pytest.approx(centroid, abs=bin_width)
    assert report.high_frequency_cutoff == pytest.approx(20.0)
    assert report.sample_rate == pytest.approx(RATE, rel=0.01)
    assert report.window == pytest.approx(2.0, abs=0.021)
    spectrum = listener.spectra[report.source]
    number = len(spectrum.frequency)
    row = spectrum.power[chattering * number:(chattering + 1) * number]
    upper = [i for i in range(number) if spectrum.frequency[i] > 5.0]
    assert spectrum.frequency[max(upper, key=lambda i: row[i])] == pytest.approx(31.0, abs=bin_width)


def test_reports_of_known_signals_among_unusable_messages_until_the_publisher_dies(listener, all_reports, start):
    monitor = start(MONITOR)
    publisher = start(arm("bad"))
    listener.until(lambda: all_reports(lambda r: r.window >= 1.98), "full windows of all four sources")
    listener.until(lambda: set(listener.spectra) == set(SOURCES), "spectra of all four sources")
    for source, scale in SOURCES.items():
        check_figures(listener, listener.latest(source), scale)

    # 0.07 RMS on the raw action is below its bound, twice that on the command is beyond its warning's.
    assert listener.latest("raw_action").level == SmoothnessReport.OK
    listener.until(lambda: listener.latest("command").level == SmoothnessReport.WARN, "a warning on the command")
    assert "chatter: 0.14" in listener.latest("command").summary
    assert "elbow" in listener.latest("command").summary

    # Ten reports a second of each source; a stretch of three seconds decides.
    first = len(listener.reports["command"])
    listener.until(lambda: len(listener.reports["command"]) >= first + 30, "thirty more reports")
    stamps = [r.header.stamp.sec + 1e-9 * r.header.stamp.nanosec for r in listener.reports["command"][-31:]]
    assert (stamps[-1] - stamps[0]) / 30 == pytest.approx(0.1, rel=0.2)

    ages = [r.message_age for r in listener.reports["command"][-31:]]
    assert 0.0 < sum(ages) / len(ages) < 0.5

    # All kinds of unusable messages were seen and counted, and the monitor lives.
    listener.until(lambda: listener.diagnostics and "malformed" in listener.diagnostics[-1]["inputs"][1]
                   and "non_finite" in listener.diagnostics[-1]["inputs"][1], "counts of unusable messages")
    assert listener.diagnostics[-1]["policy"][0] == 0
    assert monitor.popen.poll() is None

    told = listener.explain()
    assert {row["cause"] for row in told["causes"]} == {"policy", "observation_noise", "loop_timing", "actuator"}
    assert told["text"]

    assert listener.plain["command/band_rms"] == pytest.approx(0.2 / math.sqrt(2), rel=0.05)
    assert listener.latest("command").joint_level[1] == SmoothnessReport.WARN
    assert list(listener.latest("command").baseline_ratio) == []

    assert math.isnan(listener.latest("joint_position").goal_age)
    goals = listener.node.create_publisher(PoseStamped, f"{NAMESPACE}/policy_node/goal", 1)
    listener.until(goals.get_subscription_count, "the monitor's subscription to goals")
    goal = PoseStamped()
    goal.pose.position.x, goal.header.frame_id = 0.4, "base"
    goals.publish(goal)
    listener.until(lambda: listener.latest("joint_position").goal_age >= 0.0, "the goal's age")
    assert listener.latest("joint_position").goal_age < 5.0
    assert math.isnan(listener.latest("joint_position").goal_distance)  # no bundle tells which arm this is
    listener.until(lambda: "goal" in listener.diagnostics[-1], "the goal's diagnosis")

    publisher.kill()
    listener.until(lambda: all_reports(lambda r: r.level == SmoothnessReport.STALE), "all sources stale")
    assert listener.latest("command").band_rms[1] == pytest.approx(0.2 / math.sqrt(2), rel=0.05)
    assert listener.latest("command").message_age > 0.5
    listener.until(lambda: all(listener.diagnostics[-1][name][0] == 3 for name in (*SOURCES, "policy")),
                   "diagnostics stale")

    start(arm("good"))
    listener.until(lambda: all_reports(lambda r: r.level != SmoothnessReport.STALE and r.window >= 1.98),
                   "reports of the publisher that came back")
    for source, scale in SOURCES.items():
        check_figures(listener, listener.latest(source), scale)


def test_commands_within_half_a_period_of_each_other_neither_end_the_node_nor_are_lost(listener, all_reports, start):
    monitor = start(MONITOR)
    start(arm("bunched"))
    listener.until(lambda: all_reports(lambda r: r.window >= 1.9), "full windows of all four sources")
    first = len(listener.reports["command"])
    listener.until(lambda: len(listener.reports["command"]) >= first + 10, "ten more reports")
    assert monitor.popen.poll() is None
    assert "monitor" not in listener.diagnostics[-1]
    assert listener.latest("command").lost == 0


FAILING = """
import sys
from qgf_monitor import monitor_node
judge, calls = monitor_node.Monitor.judge, []
def sometimes(self, now):
    calls.append(now)
    if 20 <= len(calls) < 25:
        raise ZeroDivisionError("made by the test")
    return judge(self, now)
monitor_node.Monitor.judge = sometimes
sys.exit(monitor_node.main())
"""


def test_an_error_nobody_foresaw_is_told_and_the_reports_go_on(listener, all_reports, start):
    monitor = start(["-c", FAILING, *MONITOR[2:]])
    start(arm("good"))
    told = "a report failed: ZeroDivisionError: made by the test"
    listener.until(lambda: listener.diagnostics and listener.diagnostics[-1].get("monitor") == (2, told), "the error")
    first = len(listener.reports["command"])
    listener.until(lambda: len(listener.reports["command"]) >= first + 10, "reports after it")
    listener.until(lambda: all_reports(lambda r: r.window >= 1.98), "full windows of all four sources")
    listener.until(lambda: listener.diagnostics[-1]["monitor"] == (1, told), "a warning when it is long ago")
    assert monitor.popen.poll() is None
    assert "Traceback" in monitor.error_text()
    assert "please report" in monitor.error_text()


def test_a_critic_that_failed_is_asked_anew():
    failed: Future = Future()
    failed.set_exception(ValueError("made by the test"))
    told = []
    monitor = SimpleNamespace(visited=lambda now: ("states", "actions"), critic=SimpleNamespace(field_figures=None),
                              take_field=lambda figures, now: told.append(figures))
    node = SimpleNamespace(_field=failed, monitor=monitor, _aside=SimpleNamespace(submit=lambda *asked: asked))
    with pytest.raises(ValueError, match="made by the test"):
        MonitorNode._look_at_field(node)
    assert node._field is None
    MonitorNode._look_at_field(node)
    assert told == [None] and node._field == (None, "states", "actions")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_cleanly(listener, start, number):
    monitor = start(MONITOR)
    listener.until(lambda: listener.diagnostics, "first diagnostics")
    assert {level for name, (level, _) in listener.diagnostics[-1].items() if name != "inputs"} == {3}
    monitor.popen.send_signal(number)
    assert monitor.popen.wait(5.0) == 0
    assert all(line.startswith("[INFO]") for line in monitor.error_text().splitlines())


@pytest.mark.parametrize("parameter", ["config:=/does/not/exist.yaml", "joints:=3", "policy:='no name!'"])
def test_a_bad_parameter_is_one_line_and_exit_code_2(start, parameter):
    monitor = start([*MONITOR, "-p", parameter])
    assert monitor.popen.wait(20.0) == 2
    lines = monitor.error_text().strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("qgf: error: ")

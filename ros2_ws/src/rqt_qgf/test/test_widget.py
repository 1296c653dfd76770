# SPDX-License-Identifier: Apache-2.0
"""The widget without a display: what stands in its cells, what its buttons ask, what freezing keeps."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from rqt_qgf.arms import Arm
from rqt_qgf.model import ArmModel

LEFT, RIGHT = Arm("/left", "/left/policy_node", "/left/monitor_node"), Arm("/right", "/right/policy_node", "")


class Recording:
    """A link to arms that are not there: messages are put into its models by the test, requests are kept."""

    def __init__(self):
        self.there, self.models, self.watched, self.asked, self.lines = [LEFT], {}, None, [], []
        self.closed = False

    def arms(self):
        return self.there

    def watch(self, arm):
        self.watched = arm
        return self.models.setdefault(arm, ArmModel())

    def drain(self):
        pass

    def request(self, arm, what):
        self.asked.append((arm.policy, what))

    def news(self):
        lines, self.lines = self.lines, []
        return lines

    def close(self):
        self.closed = True


@pytest.fixture
def bench(application, messages):
    """A widget, its link, and a time that stands still."""
    from rqt_qgf.widget import Dashboard

    class Bench:
        link, now = Recording(), 100.0

        def fill(self, arm=LEFT):
            model = self.link.models[arm]
            model.take_report(messages.report(), self.now)
            model.take_report(messages.report(source="raw_action"), self.now)
            model.take_spectrum(messages.spectrum(), self.now)
            model.take_status(messages.status(), self.now)
            model.take_lifecycle("active", self.now)
            model.take_command(messages.command([0.1, 0.2, 0.3]), self.now)
            model.take_joint_state(JointState(name=["elbow"], velocity=[0.25]), self.now)
            self.widget.refresh()
            return model

        def cells(self, row):
            table = self.widget.table
            last = table.columnCount() - 1
            return [table.item(row, column).text() for column in range(last)] + [table.cellWidget(row, last).text()]

        def enabled(self):
            return {name for name, button in self.widget.buttons.items() if button.isEnabled()}

    bench = Bench()
    bench.widget = Dashboard(bench.link, "light", lambda: bench.now)
    bench.widget.resize(1280, 800)
    yield bench
    bench.widget.close_link()
    assert bench.link.closed


def test_the_right_numbers_stand_in_the_right_cells(bench):
    bench.fill()
    assert bench.cells(0) == ["shoulder", "0.011", "0.01", "1.10 ×", "● ok"]
    assert bench.cells(1) == ["elbow", "0.25", "0.05", "5.00 ×", "■ ERROR"]
    assert bench.cells(2) == ["wrist", "–", "0.02", "–", "▲ warn"]  # NaN is a dash
    assert bench.widget.table.horizontalHeaderItem(1).text() == "live [rad/s]"
    assert bench.widget.headline.text() == "■ ACTIVE, ROUGH"
    assert bench.widget.detail.text() == "chatter on elbow"
    assert bench.widget.facts["overruns / left out"].text() == "5 / 6"
    assert bench.widget.facts["lifecycle"].text() == "active"


def test_choosing_a_row_shows_its_joint(bench):
    bench.fill()
    bench.widget.table.selectRow(1)
    trace = bench.widget.traces
    assert [list(curve.yData) for curve in (trace._command, trace._response)] == [[0.2], [0.25]]
    spectrum = bench.widget.spectrum
    assert list(spectrum._live.getOriginalDataset()[1]) == pytest.approx([math.sqrt(p) for p in (90, 160, 250)])
    assert list(spectrum._peaks.getOriginalDataset()[0]) == [20.0, 30.0]
    assert [text.toPlainText() for text in spectrum._texts if text.isVisible()] == ["20 Hz", "30 Hz"]
    assert spectrum._cutoff.value() == 20.0
    bench.widget.refresh()
    assert bench.widget.table.currentRow() == 1  # the choice stays


def test_of_peaks_close_to_each_other_the_highest_is_told_by_number():
    from rqt_qgf.plots import apart

    frequency, density = np.array([3.6, 5.5, 12.0, 14.0, 20.0]), np.array([1.0, 0.8, 0.2, 0.3, 0.1])
    assert apart(frequency, density, 4.0) == {0, 3, 4}
    assert apart(frequency, density, 1.0) == {0, 1, 2, 3, 4} and apart(frequency, density, 100.0) == {0}


def test_numbers_of_a_logarithmic_axis_do_not_lie_over_each_other():
    from rqt_qgf.plots import numbered_exponents

    assert numbered_exponents(-2.0, 0.0, 140) == pytest.approx([-2, -1.69897, -1.30103, -1, -0.69897, -0.30103, 0])
    assert numbered_exponents(-4.3, 0.5, 140) == [-4, -3, -2, -1, 0]
    assert numbered_exponents(-9.5, 3.0, 80) == [-9, -6, -3, 0, 3]
    assert numbered_exponents(-0.52, -0.48, 140) == pytest.approx([-0.5133, -0.5, -0.4867], abs=1e-4)
    assert numbered_exponents(0.4, 0.6, 20) == [0.5]
    assert numbered_exponents(0.4, 0.4, 20) == numbered_exponents(0.4, 0.6, 0) == [0.4]  # a plot without any room yet
    for low in np.linspace(-6.0, 2.0, 37):
        for span in (0.01, 0.3, 0.7, 1.0, 1.7, 3.1, 8.0):
            for size in (5, 40, 90, 140, 600):
                found = numbered_exponents(low, low + span, size)
                assert found and all(low - 1e-3 <= x <= low + span + 1e-3 for x in found)
                pixels = np.diff(found) * size / span
                assert len(found) == 1 or pixels.min() >= 11.0  # what the text of 11 px takes


def test_numbers_below_a_histogram_do_not_lie_over_each_other(bench):
    from rqt_qgf.plots import numbered_edges

    edges = [-math.inf, *np.linspace(-0.005, 0.005, 21), math.inf]
    for width in (30, 120, 300, 2000):
        found = numbered_edges(edges, width)
        assert found and 11 in found and all(math.isfinite(edges[i]) for i in found)
        assert len(found) == 1 or np.diff(found).min() * width / (len(edges) - 1) >= 60
    assert len(numbered_edges(edges, 2000)) == 21
    assert numbered_edges([-math.inf, math.inf], 100) == ()


def test_stale_when_publishers_vanish(bench):
    bench.fill()
    bench.now += 5.0
    bench.widget.refresh()
    assert [bench.cells(row)[4] for row in range(3)] == ["○ stale"] * 3
    assert bench.widget.headline.text() == "○ no policy, not measured"
    assert bench.widget.facts["lifecycle"].text() == "no answer"
    assert bench.enabled() == {"estop"}


@pytest.mark.parametrize(("lifecycle", "mode", "enabled"), [
    ("unconfigured", 0, {"configure"}), ("inactive", 1, {"activate"}), ("active", 3, {"deactivate"}),
    ("active", 6, {"deactivate", "reset_estop"}), ("inactive", 6, {"reset_estop"}), ("finalized", 0, set())])
def test_buttons_follow_the_state_and_the_emergency_stop_is_always_enabled(bench, messages, lifecycle, mode, enabled):
    model = bench.fill()
    model.take_lifecycle(lifecycle, bench.now)
    model.take_status(messages.status(mode=mode), bench.now)
    bench.widget.refresh()
    assert bench.enabled() == {"estop"} | enabled


def test_buttons_ask_for_what_they_say(bench):
    bench.widget.buttons["estop"].click()  # before anything was heard of the policy
    bench.fill()
    bench.widget.buttons["deactivate"].click()
    bench.widget.freeze.setChecked(True)
    bench.widget.buttons["estop"].click()
    assert bench.link.asked == [("/left/policy_node", what) for what in ("estop", "deactivate", "estop")]
    bench.link.lines = ["estop: done"]
    bench.widget.refresh()
    assert bench.widget.message.text() == "estop: done"


def test_without_a_policy_the_emergency_stop_says_that_it_cannot(bench):
    bench.link.there = [Arm("/left", "", "/left/monitor_node")]
    bench.widget.choose_arm(bench.link.there[0])
    bench.widget.buttons["estop"].click()
    assert bench.link.asked == [] and "hardware's emergency stop" in bench.widget.message.text()


def test_frozen_pictures_stay_and_other_joints_can_be_looked_at(bench, messages):
    model = bench.fill()
    bench.widget.freeze.setChecked(True)
    model.take_report(messages.report(band_rms=[7.0, 8.0, 9.0]), bench.now)
    bench.now += 5.0
    bench.widget.refresh()
    assert bench.cells(1) == ["elbow", "0.25", "0.05", "5.00 ×", "■ ERROR"]
    assert bench.enabled() == {"estop"}  # the buttons belong to what is now: the policy has gone meanwhile
    bench.widget.table.selectRow(1)
    assert list(bench.widget.traces._command.yData) == [0.2]
    assert bench.cells(1)[1] == "0.25" and bench.cells(1)[4] == "■ ERROR"
    bench.widget.freeze.setChecked(False)
    bench.widget.refresh()
    assert bench.cells(1)[1] == "8"


def test_several_arms_and_one_that_goes(bench):
    bench.fill()
    assert not bench.widget.arm_choice.isVisibleTo(bench.widget)
    bench.link.there = [LEFT, RIGHT]
    bench.widget.look_round()
    choice = bench.widget.arm_choice
    assert choice.isVisibleTo(bench.widget) and bench.link.watched == LEFT
    assert [choice.itemText(i) for i in range(choice.count())] == ["/left (policy_node)", "/right (policy_node)"]
    bench.widget.choose_arm(RIGHT)
    assert bench.widget.table.rowCount() == 0  # nothing of the other arm is left
    bench.fill(RIGHT)
    bench.widget.buttons["estop"].click()
    assert bench.link.asked == [("/right/policy_node", "estop")]
    bench.link.there = [LEFT]
    bench.widget.look_round()
    assert bench.link.watched == RIGHT  # never silently another arm under the same buttons
    assert choice.currentText() == "/right (policy_node)"


def test_other_sources_and_the_captured_baseline(bench):
    bench.fill()
    assert [bench.widget.source_choice.itemData(i) for i in range(2)] == ["raw_action", "command"]
    bench.widget.choose_source("raw_action")
    assert bench.widget.table.horizontalHeaderItem(1).text() == "live [1]"
    bench.widget.capture.click()
    assert bench.cells(1)[:4] == ["elbow", "0.25", "0.25", "1.00 ×"]
    assert bench.widget.table.horizontalHeaderItem(2).text() == "captured"
    bench.widget.capture.click()
    assert bench.cells(1)[2] == "0.05"


def test_export(bench, tmp_path):
    bench.fill()
    bench.widget.save_png(str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    bench.widget.save_csv(str(tmp_path / "a.csv"))
    with (tmp_path / "a.csv").open() as file:
        assert any(row["joint"] == "elbow" and row["value"] == "5.0" for row in csv.DictReader(file))
    with pytest.raises(OSError):
        bench.widget.save_png(str(tmp_path / "no" / "a.png"))


def luminance(colour):
    """Relative luminance of #rrggbb by WCAG 2."""
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_both_themes_are_readable_and_levels_differ_without_colour():
    from rqt_qgf.model import Level
    from rqt_qgf.theme import SIGNS, THEMES, WORDS
    assert len(set(SIGNS.values())) == len(set(WORDS.values())) == len(Level)
    for theme in THEMES.values():
        pairs = [(theme.ink, theme.card), (theme.muted, theme.card), (theme.on_estop, theme.estop)]
        pairs += [(theme.level(level), theme.tint(level)) for level in Level]
        for front, back in pairs:
            light, dark = sorted((luminance(front), luminance(back)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (theme.name, front, back)

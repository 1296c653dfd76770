# SPDX-License-Identifier: Apache-2.0
"""The dashboard's widget. It draws views and hands what is asked of the arm to a link; it knows no ROS.

Qt comes through pyqtgraph, which takes the binding that is already loaded: rqt's own in rqt, else the installed one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pyqtgraph.Qt import QtCore, QtGui, QtWidgets

from rqt_qgf.arms import Arm
from rqt_qgf.export import to_csv
from rqt_qgf.model import ArmModel, View
from rqt_qgf.parts import JointTable, card, choice, label, titled
from rqt_qgf.plots import HistogramPlot, Plot, SpectrumPlot, TracePlot, draw_all
from rqt_qgf.theme import DARK, LIGHT, SIGNS, THEMES, Theme

REFRESH = 100
"""Time between two pictures [ms]."""
LOOK_ROUND = 1000
"""Time between two looks for arms [ms]."""
SOURCE_TITLES = {"raw_action": "raw action of the policy", "command": "command", "joint_velocity": "joint velocity",
                 "joint_position": "joint position", "joint_effort": "joint effort"}


class Link(Protocol):
    """What the widget needs of the connection to the robots."""

    def arms(self) -> list[Arm]:
        """The arms that are there now."""

    def watch(self, arm: Arm | None) -> ArmModel:
        """Listen to this arm from now on; returns its model, which `drain` fills."""

    def drain(self) -> None:
        """Take in what has arrived."""

    def request(self, arm: Arm, what: str) -> None:
        """Ask the arm's policy: configure, activate, deactivate, reset_estop, estop. The answer comes by `news`."""

    def news(self) -> list[str]:
        """Answers and refusals since the last call."""

    def close(self) -> None:
        """Let go of everything."""


class Dashboard(QtWidgets.QWidget):
    """The whole window.

    :param link: connection to the robots.
    :param theme: "light", "dark", or "" for that of the desktop.
    :param clock: steady, [s].
    """

    def __init__(self, link: Link, theme: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.setObjectName("dashboard")
        self.setAttribute(QtCore.Qt.WidgetAttribute.WA_StyledBackground, True)  # inside rqt too
        self.setWindowTitle("QGF dashboard")
        self._link, self._clock = link, clock
        self._arm: Arm | None = None
        self._arms: list[Arm] = []
        self._model = link.watch(None)
        self._source = self._joint = self._source_wanted = self._preferred = ""
        self._view: View | None = None
        self._frozen: tuple[ArmModel, float] | None = None
        self._build()
        dark = self.palette().color(QtGui.QPalette.ColorRole.Window).lightness() < 128
        self.set_theme(THEMES.get(theme) or (DARK if dark else LIGHT))
        self._timers = [self._every(REFRESH, self.refresh), self._every(LOOK_ROUND, self.look_round)]
        self.look_round()
        self.refresh()
        self.table.setFocus()  # not on a button that a space bar presses

    def _every(self, period: int, job: Callable[[], None]) -> Any:
        timer = QtCore.QTimer(self)
        timer.timeout.connect(job)
        timer.start(period)
        return timer

    # ------------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 12, 10)
        layout.setSpacing(10)
        layout.addWidget(self._build_banner())
        across = QtWidgets.QSplitter(QtCore.Qt.Orientation.Horizontal)
        across.setChildrenCollapsible(False)
        across.setHandleWidth(10)
        across.addWidget(self._build_left())
        across.addWidget(self._build_right())
        across.setStretchFactor(0, 0)
        across.setStretchFactor(1, 1)
        across.setSizes([430, 800])
        layout.addWidget(across, 1)
        layout.addLayout(self._build_bottom())

    def _build_banner(self) -> Any:
        self._banner = card()
        row = QtWidgets.QHBoxLayout(self._banner)
        row.setContentsMargins(14, 10, 12, 10)
        words = QtWidgets.QVBoxLayout()
        words.setSpacing(2)
        self.headline, self.detail = label("headline"), label("")
        self.detail.setWordWrap(True)
        self.detail.setMinimumHeight(34)
        self.detail.setAlignment(QtCore.Qt.AlignmentFlag.AlignTop)
        words.addWidget(self.headline)
        words.addWidget(self.detail)
        row.addLayout(words, 1)
        self.arm_choice = choice()
        self.arm_choice.setToolTip("The arm to watch and to command, by its namespace and policy node")
        self.arm_choice.activated.connect(lambda index: self.choose_arm(self._arms[index]))
        row.addWidget(self.arm_choice)
        self.buttons = {}
        for what, text, tip in (
                ("configure", "Configure", "Load the bundle and check it; nothing is commanded"),
                ("activate", "Activate", "Begin to command, from where the arm is"),
                ("deactivate", "Deactivate", "Bring the arm to rest within its limits, then stop commanding"),
                ("reset_estop", "Reset e-stop", "Unlatch the emergency stop; then activate"),
                ("estop", "■ E-STOP", "Bring the arm to rest now and latch (Esc). Always enabled")):
            button = QtWidgets.QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, what=what: self.ask(what))
            row.addWidget(button)
            self.buttons[what] = button
        self.buttons["estop"].setObjectName("estop")
        shortcut = getattr(QtGui, "QShortcut", None) or QtWidgets.QShortcut  # Qt 6 has moved it
        shortcut(QtGui.QKeySequence("Esc"), self, activated=lambda: self.ask("estop"))
        return self._banner

    def _build_left(self) -> Any:
        left = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(10)
        frame, inner, head = titled("ROUGHNESS OF")
        self.source_choice = choice()
        self.source_choice.setToolTip("The signal that is judged")
        self.source_choice.activated.connect(lambda index: self.choose_source(self.source_choice.itemData(index)))
        head.addWidget(self.source_choice)
        self.table = JointTable()
        self.table.itemSelectionChanged.connect(self._row_chosen)
        inner.addWidget(self.table, 1)
        self.capture = QtWidgets.QPushButton("Take present values as baseline")
        self.capture.setCheckable(True)
        self.capture.setToolTip("Compare with this moment, in place of the baseline that the bundle carries")
        self.capture.toggled.connect(self._capture)
        inner.addWidget(self.capture)
        column.addWidget(frame, 3)
        frame, inner, _ = titled("POLICY NODE")
        area, inside = QtWidgets.QScrollArea(), QtWidgets.QWidget()
        self._facts = QtWidgets.QGridLayout(inside)
        self._facts.setContentsMargins(0, 0, 0, 0)
        self._facts.setVerticalSpacing(3)
        self._facts.setColumnStretch(1, 1)
        self._facts.setRowStretch(99, 1)  # the rows stand at the top
        self.facts: dict[str, Any] = {}
        area.setWidgetResizable(True)
        area.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        area.setWidget(inside)
        inner.addWidget(area)
        column.addWidget(frame, 2)
        left.setMinimumWidth(410)
        return left

    def _build_right(self) -> Any:
        self.traces, self.spectrum, self.histogram = TracePlot(), SpectrumPlot(), HistogramPlot()
        self.plots: tuple[Plot, ...] = (self.traces, self.spectrum, self.histogram)
        down = QtWidgets.QSplitter(QtCore.Qt.Orientation.Vertical)
        below = QtWidgets.QSplitter(QtCore.Qt.Orientation.Horizontal)
        self._plot_titles = []
        for splitter, plot in ((down, self.traces), (below, self.spectrum), (below, self.histogram)):
            frame, inner, head = titled("")
            inner.addWidget(plot)
            splitter.addWidget(frame)
            self._plot_titles.append(frame.findChild(QtWidgets.QLabel, "title"))
            if plot is self.histogram:
                self.histogram_choice = choice()
                head.addWidget(self.histogram_choice)
        down.addWidget(below)
        for splitter in (down, below):
            splitter.setChildrenCollapsible(False)
            splitter.setHandleWidth(10)
        return down

    def _build_bottom(self) -> Any:
        row = QtWidgets.QHBoxLayout()
        self.freeze = QtWidgets.QPushButton("Freeze")
        self.freeze.setCheckable(True)
        self.freeze.toggled.connect(self._freeze)
        self.freeze.setToolTip("Keep this picture, to look at it; the arm and the recording go on")
        row.addWidget(self.freeze)
        self._tools = {}
        for text, tip, job in (
                ("Reset zoom", "Show everything again (zoom: wheel or drag with the right button; pan: drag)",
                 self.reset_zoom),
                ("Save PNG…", "Save this picture", lambda: self._save("png", self.save_png)),
                ("Save CSV…", "Save the numbers behind this picture", lambda: self._save("csv", self.save_csv)),
                ("Dark / light", "The other theme",
                 lambda: self.set_theme(LIGHT if self.theme.name == "dark" else DARK))):
            button = QtWidgets.QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, job=job: job())
            row.addWidget(button)
            self._tools[text] = button
        self.message = label("muted")
        row.addWidget(self.message, 1)
        return row

    # --------------------------------------------------------------------------------------------- what one does

    def set_theme(self, theme: Theme) -> None:
        """Take other colours."""
        self.theme = theme
        self.setStyleSheet(theme.style_sheet())
        for plot in self.plots:
            plot.apply(theme)
        self.draw()

    def choose_arm(self, arm: Arm | None) -> None:
        """Watch another arm."""
        if arm == self._arm:
            return
        self._arm = arm
        self._model, self._view = self._link.watch(arm), None
        self.freeze.setChecked(False)
        self.capture.setChecked(False)
        self.refresh()

    def prefer(self, namespace: str = "", source: str = "", joint: str = "") -> None:
        """Show these first, once they are there."""
        self._preferred, self._source_wanted = namespace, source
        self._joint = joint

    def choose_source(self, source: str) -> None:
        """Show another signal."""
        self._source = self._source_wanted = source
        self.refresh()

    def choose_joint(self, joint: str) -> None:
        """Show another joint."""
        self._joint = joint
        self.refresh()

    def ask(self, what: str) -> None:
        """Ask something of the arm."""
        if self._arm is None or not self._arm.policy:
            self.say("there is no policy node to ask" if what != "estop" else
                     "NO POLICY NODE IS THERE TO STOP: use the hardware's emergency stop")
            return
        self._link.request(self._arm, what)

    def reset_zoom(self) -> None:
        """Show everything in every plot, and follow."""
        for plot in self.plots:
            plot.reset_zoom()

    def say(self, text: str) -> None:
        """Show a line at the bottom."""
        self.message.setText(text)

    def save_png(self, path: str) -> None:
        """Save the window as it is. :raises OSError: it cannot be written."""
        if not self.grab().save(path, "PNG"):
            raise OSError(f"{path} cannot be written")

    def save_csv(self, path: str) -> None:
        """Save what is shown as numbers. :raises OSError: it cannot be written."""
        if self._view is not None:
            Path(path).write_text(to_csv(self._view), encoding="utf-8")

    def _save(self, kind: str, job: Callable[[str], None]) -> None:
        name = f"qgf-{self._joint or 'dashboard'}.{kind}"
        path, _ = QtWidgets.QFileDialog.getSaveFileName(self, f"Save as {kind.upper()}", name, f"*.{kind}")
        if not path:
            return
        try:
            job(path)
            self.say(f"saved {path}")
        except OSError as error:
            self.say(f"not saved: {error}")

    def _freeze(self, on: bool) -> None:
        self._frozen = (self._model.snapshot(), self._clock()) if on else None
        self.refresh()

    def _capture(self, on: bool) -> None:
        for model in {self._model, self._frozen[0] if self._frozen else self._model}:
            if on:
                model.capture_baseline()
            else:
                model.forget_baseline()
        self.capture.setText("Back to the bundle's baseline" if on else "Take present values as baseline")
        self.refresh()

    def _row_chosen(self) -> None:
        row = self.table.currentRow()
        if self._view is not None and 0 <= row < len(self._view.rows):
            joint = self._view.rows[row].joint
            if joint != self._joint:
                self.choose_joint(joint)

    # --------------------------------------------------------------------------------------------------- drawing

    def look_round(self) -> None:
        """See which arms there are; the one that is watched stays, even if it has gone."""
        arms = self._link.arms()
        same = [arm for arm in arms if self._arm and arm.same(self._arm)]
        watched = same[0] if same else self._arm
        if watched is not None and watched not in arms:
            arms = sorted([*arms, watched])
        if arms != self._arms:
            self._arms = arms
            self.arm_choice.clear()
            self.arm_choice.addItems([arm.title for arm in arms])
        self.arm_choice.setVisible(len(arms) > 1)
        if watched is None and arms:
            watched = next((arm for arm in arms if arm.namespace == self._preferred), arms[0])
        if watched is not None:
            self.arm_choice.setCurrentIndex(arms.index(watched))
            if self._arm is not None and same and watched != self._arm:  # a monitor came or went beside it
                self._arm, self._model = watched, self._link.watch(watched)
            else:
                self.choose_arm(watched)

    def refresh(self) -> None:
        """Take in what has arrived and draw it; what arrives while the picture is frozen is kept too, up to a bound."""
        self._link.drain()
        for text in self._link.news():
            self.say(text)
        model, now = self._frozen or (self._model, self._clock())
        sources = model.sources()
        wanted = (self._source_wanted, "command", *sources)
        self._source = next((name for name in wanted if name in sources), "command")
        if [self.source_choice.itemData(i) for i in range(self.source_choice.count())] != list(sources):
            self.source_choice.clear()
            for name in sources:
                self.source_choice.addItem(SOURCE_TITLES[name], name)
        self.source_choice.setCurrentIndex(self.source_choice.findData(self._source))
        self._view = model.view(self._source, self._joint, now)
        self._joint = self._view.joint
        self.draw()

    def draw(self) -> None:
        """Draw the present view again."""
        view = self._view
        if view is None:
            return
        self.freeze.setText("Frozen" if self._frozen else "Freeze")
        colour = self.theme.level(view.level)
        back = self.theme.tint(view.level)
        self._banner.setStyleSheet(f"QFrame#card {{ background: {back}; border: 2px solid {colour}; }}")
        self.headline.setText(f"{SIGNS[view.level]} {view.headline}")
        self.headline.setStyleSheet(f"color: {colour};")
        self.detail.setText("\n".join(text for text in (view.policy.fault, view.summary) if text))
        self.table.draw(view, self.theme)
        self._draw_facts(view)
        self._plot_titles[0].setText(f"{view.joint or 'TRACES'} &nbsp; &nbsp; {self.traces.key(self.theme)}")
        self._plot_titles[1].setText(f"SPECTRUM &nbsp; &nbsp; {self.spectrum.key(self.theme)}")
        self._plot_titles[2].setText("TIMING")
        titles = [histogram.title for histogram in view.histograms]
        if [self.histogram_choice.itemText(i) for i in range(self.histogram_choice.count())] != titles:
            chosen = self.histogram_choice.currentText()
            self.histogram_choice.clear()
            self.histogram_choice.addItems(titles)
            self.histogram_choice.setCurrentIndex(max(0, self.histogram_choice.findText(chosen)))
        draw_all(view, self.traces, self.spectrum, self.histogram, self.histogram_choice.currentText())
        policy = self._model.policy(self._clock())  # the buttons act now, on what is now
        self.buttons["configure"].setEnabled(policy.lifecycle == "unconfigured")
        self.buttons["activate"].setEnabled(policy.lifecycle == "inactive" and policy.mode != "ESTOPPED")
        self.buttons["deactivate"].setEnabled(policy.lifecycle == "active")
        self.buttons["reset_estop"].setEnabled(policy.mode == "ESTOPPED")

    def _draw_facts(self, view: View) -> None:
        for name, value in (("lifecycle", view.policy.lifecycle), ("mode", view.policy.mode), *view.policy.facts):
            if name not in self.facts:
                line = len(self.facts)
                self.facts[name] = label("")
                self._facts.addWidget(label("muted", name), line, 0)
                self._facts.addWidget(self.facts[name], line, 1)
            self.facts[name].setText(value)

    def close_link(self) -> None:
        """Stop everything; to be called once, before the widget goes."""
        for timer in self._timers:
            timer.stop()
        self._link.close()

# SPDX-License-Identifier: Apache-2.0
"""What the dashboard shows, without Qt and without ROS: messages and a time go in, a picture to draw comes out.

Messages are taken as they are, by the field names of qgf_msgs. Times are seconds on one steady clock of the caller;
samples of traces are placed by their arrival, because the clocks of a policy and of a driver may disagree.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SOURCES = ("raw_action", "command", "joint_velocity", "joint_position", "joint_effort")
"""Signals that may be judged, by the names in qgf_msgs/SmoothnessReport."""
UNITS = {"raw_action": "1", "command": "SI", "joint_velocity": "rad/s", "joint_position": "rad", "joint_effort": "N m"}
INTERFACE_UNITS = {"velocity": "rad/s", "position": "rad", "joint_trajectory": "rad", "effort": "N m"}
RESPONSES = {"velocity": "velocity", "position": "position", "joint_trajectory": "position", "effort": "effort"}
"""What a joint state tells in answer to a command of each interface."""
MODES = ("UNCONFIGURED", "INACTIVE", "RAMPING", "ACTIVE", "HOLDING", "HALTING", "ESTOPPED")
"""Names of the constants of qgf_msgs/PolicyStatus, by their value."""
TRACE_TIME = 10.0
"""Traces go back this far [s]."""
TRACE_SAMPLES = 12_000
"""And hold at most this many samples: 10 s at 1 kHz."""
REPORT_STALE = 1.0
"""Reports come ten times a second: without one for this long they are stale [s]."""
STATUS_STALE = 1.5
"""The same for the policy's status [s]."""
LIFECYCLE_STALE = 3.0
"""The lifecycle state is asked for every second; without an answer for this long the node counts as gone [s]."""


class Level(IntEnum):
    """As in qgf_msgs/SmoothnessReport."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


SEVERITY = (Level.OK, Level.STALE, Level.WARN, Level.ERROR)
"""Levels by how urgently a person should look."""


def level_of(value: int) -> Level:
    """A level told by a message; an unknown one is an error."""
    return Level(value) if 0 <= value <= Level.STALE else Level.ERROR


@dataclass(frozen=True)
class Row:
    """One joint in the table. Values in the unit of the source, NaN where unknown."""

    joint: str
    value: float
    """RMS above the cutoff."""
    baseline: float
    ratio: float
    level: Level


@dataclass(frozen=True)
class Trace:
    """Command and response of one joint. Times (T,) [s] count back from now, so they are at most 0."""

    unit: str = ""
    command_time: Array = field(default_factory=lambda: np.zeros(0))
    command: Array = field(default_factory=lambda: np.zeros(0))
    response_time: Array = field(default_factory=lambda: np.zeros(0))
    response: Array = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class SpectrumView:
    """Amplitude spectral density of one joint (F,) [unit / sqrt(Hz)] over frequency (F,) [Hz]."""

    frequency: Array = field(default_factory=lambda: np.zeros(0))
    density: Array = field(default_factory=lambda: np.zeros(0))
    baseline: Array = field(default_factory=lambda: np.zeros(0))
    """(F,), NaN where unknown; (0,) without a baseline."""
    peak_frequency: Array = field(default_factory=lambda: np.zeros(0))
    peak_density: Array = field(default_factory=lambda: np.zeros(0))
    cutoff: float = math.nan
    """[Hz]"""
    stale: bool = True


@dataclass(frozen=True)
class Histogram:
    """Counts (b,) between edges (b + 1,) [s]; the first and the last bin also hold what is beyond."""

    title: str = ""
    edges: Array = field(default_factory=lambda: np.zeros(0))
    counts: Array = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class PolicyView:
    """State of the policy node in words."""

    mode: str = "no policy"
    level: Level = Level.STALE
    fault: str = ""
    lifecycle: str = "unknown"
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value of what is worth a line each."""


@dataclass(frozen=True)
class View:
    """Everything to draw, at one moment."""

    source: str
    unit: str
    joint: str
    headline: str
    level: Level
    summary: str
    """The monitor's own words on the source."""
    captured: bool
    """Whether the baseline is the one captured here, not the bundle's."""
    rows: tuple[Row, ...]
    trace: Trace
    spectrum: SpectrumView
    histograms: tuple[Histogram, ...]
    policy: PolicyView


class _Samples:
    """The newest samples of a signal, with the names of its joints; bounded."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.interface = ""
        self._samples: deque[tuple[float, Array]] = deque(maxlen=TRACE_SAMPLES)

    def add(self, names: Sequence[str], values: Any, arrival: float, interface: str = "") -> None:
        """Take a sample (n,). One whose length is not that of its names is left out."""
        row = np.array(values, dtype=np.float64)
        if row.shape != (len(names),):
            return
        if tuple(names) != self.names or interface != self.interface:
            self.names, self.interface = tuple(names), interface
            self._samples.clear()
        self._samples.append((arrival, row))

    def copy(self) -> _Samples:
        """One of its own; the samples themselves never change."""
        same = copy.copy(self)
        same._samples = self._samples.copy()
        return same

    def of(self, joint: str, now: float) -> tuple[Array, Array]:
        """Times (T,) [s] before `now` and values (T,) of a joint, those of the last TRACE_TIME."""
        if joint not in self.names or not self._samples:
            return np.zeros(0), np.zeros(0)
        index = self.names.index(joint)
        time = np.array([arrival for arrival, _ in self._samples]) - now
        values = np.array([row[index] for _, row in self._samples])
        recent = time >= -TRACE_TIME
        return time[recent], values[recent]


def at(values: Any, index: int) -> float:
    """Element `index` of a sequence, NaN where there is none."""
    return float(values[index]) if index < len(values) else math.nan


class ArmModel:
    """What is known of one arm: its policy, its monitor and its joints."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, Any]] = {}
        self._spectra: dict[str, tuple[float, Any]] = {}
        self._status: tuple[float, Any] | None = None
        self._lifecycle: tuple[float, str] | None = None
        self._captured: dict[str, dict[str, float]] = {}
        self._command, self._sent = _Samples(), ""
        self._state = {"position": _Samples(), "velocity": _Samples(), "effort": _Samples()}

    # ------------------------------------------------------------------------------------------------------ in

    def take_report(self, message: Any, arrival: float) -> None:
        """A qgf_msgs/SmoothnessReport; of several windows the shortest is shown."""
        known = self._reports.get(message.source)
        if known is not None and arrival - known[0] < REPORT_STALE \
                and message.nominal_window > known[1].nominal_window:
            return
        self._reports[message.source] = arrival, message

    def take_spectrum(self, message: Any, arrival: float) -> None:
        """A qgf_msgs/Spectrum."""
        self._spectra[message.source] = arrival, message

    def take_status(self, message: Any, arrival: float) -> None:
        """A qgf_msgs/PolicyStatus."""
        self._status = arrival, message

    def take_lifecycle(self, label: str, arrival: float) -> None:
        """The lifecycle state that the policy node has told."""
        self._lifecycle = arrival, label

    def take_command(self, message: Any, arrival: float) -> None:
        """A qgf_msgs/PolicyCommand."""
        self._sent = message.command_interface
        self._command.add(message.joint_names, message.command, arrival, message.command_interface)

    def take_joint_state(self, message: Any, arrival: float) -> None:
        """A sensor_msgs/JointState; messages of grippers beside the arm's do not disturb it."""
        wanted = set(self._command.names)
        if wanted and not wanted & set(message.name):
            return
        for name, samples in self._state.items():
            samples.add(message.name, getattr(message, name), arrival)

    def capture_baseline(self) -> None:
        """Take the present figures as baseline, where the bundle tells none."""
        self._captured = {source: dict(zip(message.joint_names, message.band_rms, strict=False))
                          for source, (_, message) in self._reports.items()}

    def forget_baseline(self) -> None:
        """Back to the bundle's own baseline."""
        self._captured = {}

    # ----------------------------------------------------------------------------------------------------- out

    def snapshot(self) -> ArmModel:
        """What is known now, to be looked at while this model goes on; messages are shared, they never change."""
        same = copy.copy(self)
        same._reports, same._spectra, same._captured = dict(self._reports), dict(self._spectra), dict(self._captured)
        same._command, same._state = self._command.copy(), {name: kept.copy() for name, kept in self._state.items()}
        return same

    def sources(self) -> tuple[str, ...]:
        """Sources that were reported so far, in the order of SOURCES."""
        return tuple(name for name in SOURCES if name in self._reports)

    def view(self, source: str, joint: str, now: float) -> View:
        """What there is to see of a source and a joint.

        :param source: one of SOURCES. :param joint: its name; one that is not there shows the first.
        """
        arrival, report = self._reports.get(source, (-math.inf, None))
        stale = report is None or now - arrival > REPORT_STALE
        level = Level.STALE if stale else level_of(report.level)
        rows = self._rows(source, report, level == Level.STALE)
        names = [row.joint for row in rows] or list(self._command.names) or list(self._state["position"].names)
        if joint not in names:
            joint = names[0] if names else ""
        policy = self.policy(now)
        rough = max((row.level for row in rows), key=SEVERITY.index, default=Level.STALE)
        smooth = {Level.OK: "smooth", Level.WARN: "getting rough", Level.ERROR: "ROUGH", Level.STALE: "not measured"}
        word = smooth[rough]
        if rough == Level.OK and report is not None and report.rough_in_simulation:
            word = "no rougher than in simulation"
        summary = "no report" if report is None else report.summary
        if report is not None and stale:
            summary = f"no report for {now - arrival:.0f} s: is the monitor running?"
        unit = INTERFACE_UNITS.get(self._sent, "SI") if source == "command" else UNITS[source]
        worst = max(level, policy.level, key=SEVERITY.index)
        return View(source, unit, joint, f"{policy.mode}, {word}", worst, summary, source in self._captured,
                    rows, self._trace(joint, now), self._spectrum(source, joint, now),
                    self._histograms(report, source), policy)

    def _rows(self, source: str, report: Any, stale: bool) -> tuple[Row, ...]:
        if report is None:
            return ()
        captured = self._captured.get(source)
        rows = []
        for i, joint in enumerate(report.joint_names):
            value, baseline, ratio = (at(report.band_rms, i), at(report.baseline, i), at(report.baseline_ratio, i))
            if captured is not None:
                baseline = captured.get(joint, math.nan)
                ratio = value / baseline if baseline > 0.0 else math.nan
            told = report.joint_level[i] if i < len(report.joint_level) else report.level
            rows.append(Row(joint, value, baseline, ratio, Level.STALE if stale else level_of(told)))
        return tuple(rows)

    def _trace(self, joint: str, now: float) -> Trace:
        response = self._state[RESPONSES.get(self._sent, "position")]
        unit = INTERFACE_UNITS.get(self._sent, "rad")
        return Trace(unit, *self._command.of(joint, now), *response.of(joint, now))

    def _spectrum(self, source: str, joint: str, now: float) -> SpectrumView:
        arrival, message = self._spectra.get(source, (-math.inf, None))
        if message is None or joint not in message.joint_names:
            return SpectrumView()
        row, bins = list(message.joint_names).index(joint), len(message.frequency)

        def density(power: Any, first: int, count: int) -> Array:
            values = np.array(power[first:first + count], dtype=np.float64)
            return np.sqrt(np.where(values >= 0.0, values, np.nan))

        peaks = len(message.peak_frequency) // max(1, len(message.joint_names))
        return SpectrumView(
            np.array(message.frequency, dtype=np.float64), density(message.power, row * bins, bins),
            density(message.baseline, row * bins, bins),
            np.array(message.peak_frequency[row * peaks:(row + 1) * peaks], dtype=np.float64),
            density(message.peak_power, row * peaks, peaks), message.high_frequency_cutoff,
            now - arrival > REPORT_STALE)

    def _histograms(self, report: Any, source: str) -> tuple[Histogram, ...]:
        histograms = []
        if report is not None and len(report.period_histogram):
            histograms.append(Histogram(f"period of {source}, from nominal", np.array(report.period_histogram_edges),
                                        np.array(report.period_histogram, dtype=np.float64)))
        status = self._status[1] if self._status else None
        if status is not None and len(status.histogram_edges):
            edges = np.array([0.0, *status.histogram_edges, math.inf])
            counts = np.array(status.stage_histogram, dtype=np.float64)
            if counts.size == len(status.stage_names) * (len(edges) - 1):
                for name, row in zip(status.stage_names, counts.reshape(len(status.stage_names), -1), strict=True):
                    title = "lateness of the control loop" if name == "wait" else f"time to {name}"
                    histograms.append(Histogram(title, edges, row))
        return tuple(histograms)

    def policy(self, now: float) -> PolicyView:
        """State of the policy node at `now` [s]."""
        lifecycle = "unknown"
        if self._lifecycle is not None:
            lifecycle = self._lifecycle[1] if now - self._lifecycle[0] <= LIFECYCLE_STALE else "no answer"
        if self._status is None:
            return PolicyView(lifecycle=lifecycle)
        arrival, status = self._status
        mode = MODES[status.mode] if status.mode < len(MODES) else f"mode {status.mode}"
        command = status.command_mode or "policy"
        if status.smoothed_share > 0.0:
            lag = f"{1e3 * status.smoothing_lag:.0f} ms" if math.isfinite(status.smoothing_lag) else "lag unknown"
            command += f", {100.0 * status.smoothed_share:.0f} % smoothed, {lag}"
        facts = (
            ("late by > 10 %", f"{100.0 * status.late10:.2f} %"),
            ("jitter p99 / max", f"{1e3 * status.period_jitter_p99:.2f} / {1e3 * status.period_jitter_max:.2f} ms"),
            ("overruns / left out", f"{status.overruns} / {status.skipped_cycles}"),
            ("command", command),
            ("limited", f"{status.limited_commands}"),
            ("e-stops", f"{status.estops}"),
            ("periods", f"{status.cycles} at {status.control_rate:g} Hz"),
            ("bundle", f"{status.bundle.rpartition('/')[2] or 'none'} {status.bundle_sha256[:8]}".strip()),
        )
        age = now - arrival
        if age > STATUS_STALE:
            return PolicyView("no policy", Level.STALE, f"last status {age:.0f} s ago: {mode}", lifecycle, facts)
        level = {"HOLDING": Level.WARN, "HALTING": Level.WARN, "ESTOPPED": Level.ERROR}.get(mode, Level.OK)
        if status.fault:
            level = max(level, Level.WARN)
        return PolicyView(mode, level, status.fault, lifecycle, facts)

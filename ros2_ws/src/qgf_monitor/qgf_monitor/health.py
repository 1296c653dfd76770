# SPDX-License-Identifier: Apache-2.0
"""Health rules: figures against bounds, with hysteresis in value and in time, to a level and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from qgf_monitor.config import Bounds, MonitorConfig
from qgf_monitor.reports import Evidence, Report

STALE_PERIODS = 5.0


class Level(IntEnum):
    """As in qgf_msgs/SmoothnessReport and diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Verdict:
    """A level, and what decided it."""

    level: Level
    summary: str


class Alarm:
    """OK, WARN or ERROR for one figure.

    It rises after the figure has been at or above a bound for `raise_after`, and falls after it has been below
    `hysteresis` times that bound for `clear_after`; in between it stays.

    :param bounds: of the figure.
    :param config: for hysteresis and the two times [s].
    """

    def __init__(self, bounds: Bounds, config: MonitorConfig) -> None:
        self.bounds, self.config = bounds, config
        self.level = Level.OK
        self._since: float | None = None
        self._rising = False

    def _reached(self, value: float, factor: float) -> Level:
        if value >= factor * self.bounds.error:
            return Level.ERROR
        return Level.WARN if value >= factor * self.bounds.warn else Level.OK

    def update(self, value: float, now: float) -> Level:
        """Judge one value. :param now: on a steady clock [s]."""
        up, down = self._reached(value, 1.0), self._reached(value, self.config.hysteresis)
        target = up if up > self.level else min(down, self.level)
        if target == self.level:
            self._since = None
            return self.level
        rising = target > self.level
        if self._since is None or rising != self._rising:
            self._since, self._rising = now, rising
        if now - self._since >= (self.config.raise_after if rising else self.config.clear_after):
            self.level, self._since = target, None
        return self.level


class SourceHealth:
    """Judges one signal, report by report.

    :param source: its name.
    :param config: settings.
    """

    def __init__(self, source: str, config: MonitorConfig) -> None:
        self.config = config
        self._chatter = Alarm(config.sources[source].band_rms, config)
        self._overruns = Alarm(config.overruns, config)
        self._lost = Alarm(config.lost, config)

    def is_stale(self, age: float, period: float) -> bool:
        """Whether a signal of this period [s] has been silent for too long. :param age: of its newest message [s]."""
        return age > max(self.config.stale_after, STALE_PERIODS * period)

    def judge(self, report: Report, evidence: Evidence, now: float) -> Verdict:
        """The level of a signal that is in time; the worst of its alarms decides.

        :param now: on a steady clock [s].
        """
        # While holding still the ratio of mere sensor noise is high, and a fast movement has some power above the
        # cutoff: only a joint with both, much of it and mostly chatter, is rough.
        rough = np.where(evidence.delta_ratio >= self.config.chatter_ratio, report.band_rms, 0.0)
        joint = int(np.argmax(rough))
        late = report.overruns / max(1, report.samples - 1)
        above = f"above {report.high_frequency_cutoff:.3g} Hz"
        judged = [
            (self._chatter, float(rough[joint]),
             f"chatter: {rough[joint]:.3g} RMS {above} on {report.joint_names[joint]}, "
             f"{100 * evidence.delta_ratio[joint]:.0f}% of its differences' power"),
            (self._overruns, late, f"late: {100 * late:.0f}% of the periods longer than 1.5 times nominal"),
            (self._lost, evidence.lost, f"lost: {100 * evidence.lost:.0f}% of the messages did not arrive"),
        ]
        levels = [(alarm.update(value, now), text, alarm.bounds) for alarm, value, text in judged]
        level, text, bounds = max(levels, key=lambda entry: entry[0])
        if level == Level.OK:
            worst = int(np.argmax(report.band_rms))
            figure = f"{report.band_rms[worst]:.3g} RMS {above} on {report.joint_names[worst]}"
            return Verdict(Level.OK, f"smooth: {figure}, {report.rate:.4g} Hz")
        bound = bounds.error if level == Level.ERROR else bounds.warn
        return Verdict(level, f"{text} (bound {bound:g})")


def silent(age: float, reason: str = "") -> Verdict:
    """The verdict on a signal without messages. :param age: of the newest [s]. :param reason: if one is known."""
    return Verdict(Level.STALE, f"no message for {age:.1f} s" + (f": {reason}" if reason else ""))


class PolicyHealth:
    """Judges the policy node by its status.

    :param config: settings.
    """

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config
        self._late = Alarm(config.late10, config)

    def judge(self, mode: str, fault: str, late10: float, now: float) -> Verdict:
        """:param mode: name of a constant of qgf_msgs/PolicyStatus. :param late10: 0..1. :param now: steady [s]."""
        late = self._late.update(late10, now)
        level = {"HOLDING": Level.WARN, "HALTING": Level.ERROR, "ESTOPPED": Level.ERROR}.get(mode, Level.OK)
        if fault:
            return Verdict(max(level, Level.WARN), f"{mode}: {fault}")
        if late > level:
            return Verdict(late, f"{mode}: {100 * late10:.1f}% of the periods late by more than 10%")
        return Verdict(level, mode)

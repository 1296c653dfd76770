# SPDX-License-Identifier: Apache-2.0
"""Health rules: figures against bounds, with hysteresis in value and in time, to a level and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from qgf_core.q_field import FieldFigures
from qgf_monitor.config import Bounds, MonitorConfig
from qgf_monitor.reports import Report

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
    joints: tuple[Level, ...] = ()
    """Of each joint's roughness alone, where joints are judged."""
    rough_in_simulation: bool = False
    """Whether it is no rougher than in simulation, but was rough there."""


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

    @property
    def calm(self) -> bool:
        """Whether it is OK and not about to rise."""
        return self.level == Level.OK and self._since is None

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
        self.config, self._source = config, source
        self._rough: list[Alarm] = []
        self._calm = True
        self._overruns = Alarm(config.overruns, config)
        self._lost = Alarm(config.lost, config)

    def is_stale(self, age: float, period: float) -> bool:
        """Whether a signal of this period [s] has been silent for too long. :param age: of its newest message [s]."""
        return age > max(self.config.stale_after, STALE_PERIODS * period)

    def judge(self, report: Report, now: float) -> Verdict:
        """The level of a signal that is in time; the worst of its alarms decides.

        :param now: on a steady clock [s].
        """
        compared = len(report.baseline_ratio) > 0
        figure = report.baseline_ratio if compared else report.band_rms
        bounds = self.config.baseline_ratio if compared else self.config.sources[self._source].band_rms
        # While holding still the ratio of mere sensor noise is high, and a fast movement has some power above the
        # cutoff: only a joint with both, much of it and mostly chatter, is rough.
        rough = np.where(report.delta_high_frequency_ratio >= self.config.chatter_ratio, figure, 0.0)
        if len(self._rough) != len(rough) or self._rough[0].bounds is not bounds:
            self._rough, self._calm = [Alarm(bounds, self.config) for _ in rough], True
        joint = int(np.argmax(rough))
        if self._calm and rough[joint] < bounds.warn:  # no alarm has anything to say
            joints = (Level.OK,) * len(rough)
        else:
            joints = tuple(alarm.update(float(value), now) for alarm, value in zip(self._rough, rough, strict=True))
            joint = max(range(len(rough)), key=lambda j: (joints[j], rough[j]))
            self._calm = all(alarm.calm for alarm in self._rough)
        late = report.overruns / max(1, report.samples - 1)
        lost = report.lost / (report.samples + report.lost)
        above = f"above {report.high_frequency_cutoff:.3g} Hz"
        times = f", {rough[joint]:.1f} times that in simulation" if compared else ""
        judged = [
            (joints[joint], bounds,
             f"chatter: {report.band_rms[joint]:.3g} RMS {above} on {report.joint_names[joint]}{times}, "
             f"{100 * report.delta_high_frequency_ratio[joint]:.0f}% of its differences' power"),
            (self._overruns.update(late, now), self._overruns.bounds,
             f"late: {100 * late:.0f}% of the periods longer than 1.5 times nominal"),
            (self._lost.update(lost, now), self._lost.bounds,
             f"lost: {100 * lost:.0f}% of the messages did not arrive"),
        ]
        level, bounds, text = max(judged, key=lambda entry: entry[0])
        bound = self.config.sources[self._source].band_rms.warn
        rough_there = compared and max(joints) == Level.OK and bool(np.max(report.baseline) >= bound)
        if level > Level.OK:
            text = f"{text} (bound {bounds.error if level == Level.ERROR else bounds.warn:g})"
        elif report.publishers > 1:
            level, text = Level.WARN, f"{report.publishers} publishers on one topic: the figures mix them"
        else:
            worst = int(np.argmax(report.band_rms))
            figures = f"{report.band_rms[worst]:.3g} RMS {above} on {report.joint_names[worst]}"
            text = f"smooth: {figures}, {report.rate:.4g} Hz"
            if rough_there:
                there = int(np.argmax(report.baseline))
                usual = f"{report.baseline[there]:.3g} RMS on {report.joint_names[there]}, bound {bound:g}"
                text = f"no rougher than in simulation, but rough there ({usual}): {figures}"
        return Verdict(level, text, joints, rough_there)


def silent(age: float, reason: str = "", joints: int = 0) -> Verdict:
    """The verdict on a signal without messages.

    :param age: of the newest [s]. :param reason: if one is known. :param joints: of the signal.
    """
    return Verdict(Level.STALE, f"no message for {age:.1f} s" + (f": {reason}" if reason else ""),
                   (Level.STALE,) * joints)


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


class FieldHealth:
    """Judges the critic's field by its slope over that in simulation: an early warning.

    :param config: settings.
    """

    def __init__(self, config: MonitorConfig) -> None:
        self.usual: float | None = None
        """The slope in simulation, where the bundle tells it."""
        self.verdict = Verdict(Level.STALE, "no inferences yet")
        self._alarm = Alarm(config.critic_slope, config)

    def judge(self, figures: FieldFigures | None, now: float) -> None:
        """:param figures: None where nothing was inferred lately. :param now: on a steady clock [s]."""
        if figures is None:
            self.verdict = Verdict(Level.STALE, "no inferences to look at")
            return
        told = f"M {figures.mixed_sup:.3g}, mu {figures.sharpness_inf:.3g}, slope {figures.slope:.3g}"
        if self.usual is None or not self.usual > 0.0:
            self.verdict = Verdict(Level.OK, f"{told}; the bundle does not tell what is usual")
            return
        ratio = figures.slope / self.usual
        self.verdict = Verdict(self._alarm.update(ratio, now), f"{told}, {ratio:.2g} times that in simulation")

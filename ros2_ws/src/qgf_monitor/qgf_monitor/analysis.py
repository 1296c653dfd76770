# SPDX-License-Identifier: Apache-2.0
"""A bag through the monitor: its figures over time, and what they come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from qgf_core.errors import QgfError
from qgf_core.samples import Array
from qgf_monitor.bags import Bag, Message, describe
from qgf_monitor.config import MonitorConfig
from qgf_monitor.health import Level
from qgf_monitor.inputs import KINDS, Input
from qgf_monitor.monitor import Judgement, Monitor
from qgf_monitor.recorder import Recorder
from qgf_monitor.reports import Report

FIGURES = ("band_rms", "baseline_ratio", "high_frequency_ratio", "delta_high_frequency_ratio", "spectral_centroid",
           "mean_absolute_delta", "total_variation_rate", "sign_flip_index", "jerk_rms", "paper_smoothness",
           "amplitude_smoothness", "sparc", "ldlj", "rate", "period_jitter_rms", "period_jitter_p99",
           "period_jitter_max", "response_lag", "tracking_error", "tracking_error_aligned")
"""Figures that are summed up, by their names in qgf_msgs/SmoothnessReport."""
LONGEST_STEP = 5.0
"""A bag's clock that jumps by more than this counts as this [s]."""


@dataclass(frozen=True)
class Selection:
    """What of a bag is looked at; empty names are chosen: see `choose`."""

    states: str = ""
    """Topic of joint states."""
    command: str = ""
    """Topic of commands."""
    quantity: str = ""
    """Of commands that do not tell: "position", "velocity" or "effort"."""
    joints: tuple[str, ...] = ()


@dataclass
class Series:
    """One signal over the bag: K judgements."""

    joint_names: tuple[str, ...]
    time: list[float] = field(default_factory=list)
    """Since the bag's first message [s]."""
    reports: list[Report] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    worst: tuple[Level, str] = (Level.OK, "")
    """The worst level, and what was first said of it."""
    frequency: Array = field(default_factory=lambda: np.zeros(0))
    power: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Mean density (F, n) over all windows with the frequencies (F,) of the first full one."""
    windows: int = 0

    def figure(self, name: str) -> Array:
        """(K, n), or (K, 1) for a number that is not per joint; NaN where it was not told."""
        rows = [np.ravel(getattr(report, name)).astype(float) for report in self.reports]
        width = max((len(row) for row in rows), default=0)
        filled = [row if len(row) == width else np.full(width, np.nan) for row in rows]
        return np.array(filled).reshape(len(rows), width)


@dataclass(frozen=True)
class Analysis:
    """What a bag says."""

    path: Path
    duration: float
    """[s]"""
    messages: int
    """Of the topics looked at."""
    states: str
    command: str
    series: dict[str, Series]
    notes: tuple[str, ...]
    monitor: Monitor
    """After the last message."""

    @property
    def level(self) -> Level:
        """The worst of all signals."""
        return max((series.worst[0] for series in self.series.values()), default=Level.OK)

    def summary(self) -> dict[str, float]:
        """Flat: SOURCE.FIGURE.median, .p95 and .max over time, of the joint with the largest value at each time."""
        flat: dict[str, float] = {}
        for source, series in self.series.items():
            for name in FIGURES:
                values = series.figure(name)
                values = values[~np.isnan(values).all(axis=1)] if values.size else values
                if not values.size:
                    continue
                worst = np.nanmin(values, axis=1) if name in ("sparc", "ldlj", "rate") else np.nanmax(values, axis=1)
                flat |= {f"{source}.{name}.median": float(np.median(worst)),
                         f"{source}.{name}.p95": float(np.percentile(worst, 95)),
                         f"{source}.{name}.max": float(worst.max())}
            last = series.reports[-1]
            flat |= {f"{source}.{name}": float(getattr(last, name))
                     for name in ("dropped", "gaps", "repeated_stamps", "backward_stamps", "clock_resets")}
            flat[f"{source}.rough_share"] = float(np.mean([level >= Level.WARN for level in series.levels]))
        return flat


def choose(bag: Bag, selection: Selection) -> tuple[str, str]:
    """Topics of joint states and of commands, "" where there is none.

    Those asked for, else a policy's commands before a controller's, names that end as is the custom before others.

    :raises QgfError: one asked for is not there or of no known type; or there is neither.
    """
    for name in filter(None, (selection.states, selection.command)):
        if bag.topics.get(name) not in KINDS.values():
            raise QgfError(f"{bag.path}: no topic {name} of a known type; it holds: {describe(bag.topics)}")
    states = [n for n, kind in sorted(bag.topics.items()) if kind == KINDS["JointState"] and n != selection.command]
    states.sort(key=lambda n: not n.endswith("joint_states"))
    order = [KINDS["PolicyCommand"], KINDS["Float64MultiArray"], KINDS["JointTrajectory"]]
    commands = [name for name, kind in sorted(bag.topics.items()) if kind in order]
    commands.sort(key=lambda n: (order.index(bag.topics[n]), not n.endswith(("command", "commands"))))
    chosen = selection.states or (states[0] if states else ""), selection.command or (commands[0] if commands else "")
    if not any(chosen):
        raise QgfError("; ".join([f"{bag.path}: neither joint states nor commands in it; it holds: "
                                  f"{describe(bag.topics)}", *bag.notes]))
    return chosen


def analyse(path: Path, config: MonitorConfig, selection: Selection = Selection(), bundle: str = "",
            step: float = 0.5) -> Analysis:
    """Feed a bag to a monitor as if it came live, and judge every `step` of its time [s].

    :param bundle: path of the bundle whose baseline is compared with, or "".
    :raises QgfError: no bag, nothing in it that can be judged, or a bad bundle.
    """
    bag = Bag(path)
    states, command = choose(bag, selection)
    monitor = Monitor(config, selection.joints)
    if bundle:
        monitor.load_bundle(bundle)
    series: dict[str, Series] = {}
    messages, now = 0, 0.0
    for now, count in play(bag, monitor.recorder, states, command, selection.quantity, step):
        messages += count
        for judgement in monitor.judge(now):
            _note(series, judgement, now, config)
    if not series:
        counts = ", ".join(f"{v} {k}" for k, v in dataclasses.asdict(monitor.recorder.counts).items() if v)
        why = "; ".join([*bag.notes, *([f"messages refused: {counts}"] if counts else []), *monitor.unjudged])
        topics = " and ".join(filter(None, (states, command)))
        raise QgfError(f"{path}: {messages} messages on {topics}, too few to judge"
                       f"{f' ({why})' if why else ''}; record at least some seconds of them")
    return Analysis(path, now, messages, states, command, series, (*bag.notes, *_oddities(monitor)), monitor)


def play(bag: Bag, recorder: Recorder, states: str, command: str, quantity: str,
         step: float) -> Iterator[tuple[float, int]]:
    """Give a bag's messages to a recorder, `step` of its time [s] in a go; yields that time and how many they were.

    :param states: topic of joint states, or "".
    :param command: topic of commands, or "".
    :param quantity: of commands that do not tell.
    """
    recorder.takes_any_joints = bag.topics.get(command) != KINDS["PolicyCommand"]
    inputs = {name: Input(recorder, bag.topics[name], name == command, quantity if name == command else "")
              for name in (states, command) if name}
    for now, chunk in _steps((m for m in bag.messages() if m.topic in inputs), step):
        for topic, group in groupby(chunk, key=lambda m: m.topic):
            found = list(group)
            inputs[topic].take([m.payload for m in found], np.array([m.received for m in found]), now)
        yield now, len(chunk)


def _steps(messages: Iterator[Message], step: float) -> Iterator[tuple[float, list[Message]]]:
    """Messages in portions of `step` of the bag's time [s], with that time, which never goes back or leaps."""
    chunk: list[Message] = []
    now, end, last = 0.0, step, None
    for message in messages:
        if last is not None:
            now += min(max(0.0, 1e-9 * (message.received - last)), LONGEST_STEP)
        last = message.received
        if now >= end:
            yield now, chunk
            chunk, end = [], now + step
        chunk.append(message)
    if chunk:
        yield now, chunk


def _note(series: dict[str, Series], judgement: Judgement, now: float, config: MonitorConfig) -> None:
    report, verdict = judgement.report, judgement.verdict
    if report.nominal_window != config.windows[0]:
        return
    mine = series.get(report.source)
    if mine is None or mine.joint_names != report.joint_names:
        mine = series[report.source] = Series(report.joint_names)
    mine.time.append(now)
    mine.reports.append(report)
    mine.levels.append(verdict.level)
    if verdict.level > mine.worst[0]:
        mine.worst = verdict.level, f"{verdict.summary} (at {now:.1f} s)"
    spectra = judgement.figures.spectra
    if report.window >= 0.9 * report.nominal_window and verdict.level != Level.STALE:
        if not mine.windows:
            mine.frequency, mine.power = spectra.frequency, np.zeros_like(spectra.power)
        # The stamps of every window give its own rate and so its own bins, shifted by less than one.
        mine.power = mine.power + np.column_stack(
            [np.interp(mine.frequency, spectra.frequency, column) for column in spectra.power.T])
        mine.windows += 1


def _oddities(monitor: Monitor) -> list[str]:
    """What the messages' stamps and contents were like, as far as it was odd."""
    told = []
    for name, source in monitor.recorder.sources.items():
        if name not in monitor.config.sources:
            continue
        window = source.window
        counts = {"stamps repeated": window.repeated, "stamps going back": window.backward,
                  "clock set back": window.restarts, "gaps": window.gaps, "missing by their sequence": source.dropped}
        odd = [f"{count} {what}" for what, count in counts.items() if count]
        if odd:
            told.append(f"{name}: {', '.join(odd)}")
    refused = [f"{count} {what}" for what, count in dataclasses.asdict(monitor.recorder.counts).items() if count]
    return told + ([f"messages refused or without a stamp: {', '.join(refused)}"] if refused else [])


def to_json(analysis: Analysis) -> dict[str, Any]:
    """The summary with what it rests on, ready for JSON."""
    return {"bag": str(analysis.path), "duration_s": analysis.duration, "messages": analysis.messages,
            "states": analysis.states, "command": analysis.command, "level": analysis.level.name,
            "verdicts": {name: {"level": series.worst[0].name, "summary": series.worst[1]}
                         for name, series in analysis.series.items()},
            "notes": list(analysis.notes), **analysis.summary()}

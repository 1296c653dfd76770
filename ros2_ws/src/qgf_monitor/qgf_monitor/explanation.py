# SPDX-License-Identifier: Apache-2.0
"""From what a monitor has recorded to the evidence of `qgf_monitor.attribution`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np

from qgf_core.manifest import Manifest
from qgf_core.robot import DriveSpec
from qgf_core.samples import Array
from qgf_monitor.attribution import CAUSES, Act, Answers, Cause, Inferences, attribute, describe
from qgf_monitor.config import MonitorConfig
from qgf_monitor.recorder import INFERENCE, Recorder
from qgf_monitor.reports import side_by_side


def policy_of(path: str) -> tuple[Manifest, Act]:
    """A bundle's manifest and the policy as a function of many observations. :raises BundleError: a bad bundle."""
    # torch takes seconds and memory to import, and only a replay needs it.
    from qgf_core.bundle import load_bundle
    bundle = load_bundle(path)

    def act(observations: Array) -> Array:
        return np.array([bundle.act(row) for row in observations.astype(np.float32)], dtype=np.float64)

    return bundle.manifest, act


def explain(recorder: Recorder, config: MonitorConfig, manifest: Manifest | None, act: Act | None) -> list[Cause]:
    """The causes by what was recorded in the last `config.kept` seconds, the likeliest first."""
    return attribute(inferences_of(recorder, manifest), answers_of(recorder, config, manifest),
                     manifest.baseline if manifest else {}, act if manifest else None)


def inferences_of(recorder: Recorder, manifest: Manifest | None) -> Inferences | None:
    """The policy's inferences since the last gap; None where there are none.

    Positions and velocities are told where the manifest's observation has them and is as long as that recorded.
    """
    source, action = recorder.sources.get(INFERENCE), recorder.sources.get("raw_action")
    if source is None or action is None or recorder.control_period is None:
        return None
    window = source.window.window()
    if window is None:
        return None
    n_act = len(action.joint_names)
    # As they came, not on the uniform grid: the replay needs real observations, the timing real stamps.
    rows = source.window.newest(len(window.stamps))
    observation, age = rows[:, :-1 - n_act], rows[:, -1]
    position = velocity = np.zeros((len(rows), 0))
    if manifest is not None and manifest.observation_builder().size == observation.shape[1]:
        robot, place = manifest.robot, 0
        for term in manifest.observation:
            width = term.width(len(robot.joints))
            values = observation[:, place:place + width] / term.scale  # the newest of the history comes first
            if term.name == "joint_position":
                position = values + robot.home
            elif term.name == "joint_velocity":
                velocity = values * robot.policy_velocity
            place += width * term.history
        if position.shape != velocity.shape:
            position = velocity = np.zeros((len(rows), 0))
    return Inferences(recorder.control_period, window.stamps, age, observation, rows[:, -1 - n_act:-1], position,
                      velocity)


def answers_of(recorder: Recorder, config: MonitorConfig, manifest: Manifest | None = None) -> Answers | None:
    """Commands and what is measured of their quantity; None where they cannot be compared."""
    command = recorder.sources.get("command")
    measured = recorder.sources.get(f"joint_{command.quantity}") if command is not None else None
    if command is None or measured is None or command.quantity == "effort":
        return None
    aligned, asked = side_by_side(command, measured, config.kept), command.window.window()
    if aligned is None or asked is None:
        return None
    known = manifest is not None and command.quantity == "velocity" \
        and manifest.robot.joint_names == command.joint_names
    return Answers(command.joint_names, aligned[2], aligned[0], aligned[1], config.sources[measured.name].floor,
                   asked.sample_rate, _drive_of(manifest) if manifest is not None and known else None)


def _drive_of(manifest: Manifest) -> DriveSpec:
    """The arm's drives as they answer the policy's actions, behind the lines that are drawn between two of them."""
    drive = manifest.robot.drive
    return dataclasses.replace(drive, latency=drive.latency + manifest.interpolation_lag)


def combine(rankings: Sequence[Sequence[Cause]]) -> list[Cause]:
    """One ranking of several stretches: the median of each cause's score, with the evidence nearest to it."""
    combined = []
    for name in CAUSES:
        found = [cause for ranking in rankings for cause in ranking if cause.name == name]
        told = [cause for cause in found if not math.isnan(cause.score)]
        if told:
            middle = float(np.median([cause.score for cause in told]))
            nearest = min(told, key=lambda cause: abs(cause.score - middle))
            combined.append(Cause(name, middle, nearest.evidence))
        else:
            combined.append(found[-1])
    return sorted(combined, key=lambda cause: -math.inf if math.isnan(cause.score) else cause.score, reverse=True)


def to_json(causes: Sequence[Cause]) -> str:
    """{"causes": [{"cause", "score" (null where unknown), "evidence"}, ...], "likeliest", "text"}."""
    rows = [{"cause": cause.name, "score": None if math.isnan(cause.score) else cause.score,
             "evidence": cause.evidence} for cause in causes]
    likeliest = causes[0].name if causes[0].score >= 1.0 else "none"
    return json.dumps({"causes": rows, "likeliest": likeliest, "text": describe(causes)})

# SPDX-License-Identifier: Apache-2.0
"""A goal of the training action, without ROS: its command line, where it stands, and how it ended."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any, Literal, Protocol

from qgf_core.config import parse_yaml
from qgf_core.errors import QgfError

Reason = Literal["TRAINED", "CANCELLED", "REFUSED", "FAILED", "KILLED", "STOPPED"]
"""Why a training ended, as the action's constants are called."""
_USER_ERROR = 2
"""Exit code of a command for a mistake of the user."""


class Goal(Protocol):
    """The fields of TrainPolicy.Goal that make a command line."""

    robot: str
    task: str
    algorithm: str
    steps: int
    minutes: float
    seed: int
    output_directory: str
    overrides: str
    resume: bool


def folder_of(goal: Goal, root: str) -> Path:
    """The goal's folder, absolute.

    :param root: folder that relative ones are in, and that others must lie in; "" for the present one and no bound.
    :raises QgfError: none is named, or it lies elsewhere.
    """
    if not goal.output_directory:
        raise QgfError("output_directory: empty; name a folder for the run")
    path = (Path(root or ".").expanduser() / Path(goal.output_directory).expanduser()).resolve()
    if root and not path.is_relative_to(Path(root).expanduser().resolve()):
        raise QgfError(f"output_directory {goal.output_directory}: lies outside {root}, the node's output_root")
    return path


def arguments_of(goal: Goal, folder: Path) -> list[str]:
    """The goal as arguments of the command `train`. :raises QgfError: overrides that are not a YAML mapping, or minutes
    that are no time."""
    if not 0.0 <= goal.minutes < math.inf:
        raise QgfError(f"minutes {goal.minutes} must be finite and not negative; 0 means no limit")
    arguments = ["--algo", goal.algorithm, "--seed", str(goal.seed), "--out", str(folder)]
    for option, value in (("--robot", goal.robot), ("--task", goal.task)):
        arguments += [option, value] if value else []
    arguments += ["--steps", str(goal.steps)] if goal.steps else []
    arguments += ["--minutes", repr(goal.minutes)] if goal.minutes else []
    arguments += ["--resume"] if goal.resume else []
    pending = list(parse_yaml(goal.overrides, "overrides").items()) if goal.overrides.strip() else []
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{key}.{inner}", below) for inner, below in value.items()]
        else:
            arguments += ["--override", f"{key}={json.dumps(value)}"]
    return arguments


@dataclasses.dataclass
class Standing:
    """Where a training is; fields as in TrainProgress."""

    phase: str = "starting"
    step: int = 0
    steps_total: int = 0
    episode_return: float = math.nan
    success: float = math.nan
    mean_absolute_delta: float = math.nan
    paper_smoothness: float = math.nan
    steps_per_second: float = 0.0
    updates_per_second: float = 0.0
    eta: float = math.nan
    best_return: float = math.nan
    best_step: int = 0

    def take(self, event: dict[str, Any]) -> None:
        """Take in an event of the training process."""
        if event["event"] == "progress":
            for field in dataclasses.fields(self):
                if field.name in event:
                    setattr(self, field.name, event[field.name])
            self._note_best(self.episode_return, self.step)
        elif event["event"] == "evaluating":
            self.phase, self.eta = "evaluating", math.nan
        elif event["event"] == "interrupted":
            self.step = event["step"]  # what the checkpoint holds

    def remember(self, folder: Path) -> None:
        """Take in what the run that is resumed has written of itself."""
        try:
            with (folder / "progress.csv").open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    self._note_best(float(row["episode_return"]), int(row["step"]))
        except (OSError, KeyError, TypeError, ValueError):
            return  # no run before this one, or one that was killed in the middle of a line

    def _note_best(self, episode_return: float, step: int) -> None:
        if not math.isnan(episode_return) and not episode_return <= self.best_return:
            self.best_return, self.best_step = episode_return, step


class Run:
    """What is told of the training that runs.

    :param about: what is trained, and where to.
    """

    def __init__(self, about: str) -> None:
        self.standing = Standing()
        self._about, self._since = about, time.monotonic()

    def __str__(self) -> str:
        standing = self.standing
        eta = "" if math.isnan(standing.eta) else f", {standing.eta:.0f} s to go"
        return (
            f"{self._about} for {time.monotonic() - self._since:.0f} s ({standing.phase}, step {standing.step} of "
            f"{standing.steps_total}{eta})"
        )


def reason_of(code: int, step: int) -> Reason:
    """Why a process without a result ended.

    :param code: its exit code, negative for a signal. :param step: the last it told of.
    """
    if code < 0:
        return "KILLED"
    if code != _USER_ERROR:
        return "FAILED"
    return "FAILED" if step else "REFUSED"  # it did begin, so that the goal was in order

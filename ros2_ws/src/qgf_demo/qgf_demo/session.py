# SPDX-License-Identifier: Apache-2.0
"""One live run as the demo node sees it: which goal is due, and what has been recorded. No ROS here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qgf_core.config import from_mapping, to_mapping
from qgf_core.errors import QgfError
from qgf_core.files import write_atomic
from qgf_demo.recording import Commands, JointSamples, Recording

TAIL = 3
"""Samples of the ground truth wanted beyond the last period."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the demo node has to do; written by the demo, read by the node."""

    joint_names: tuple[str, ...]
    base_frame: str
    joint_states: str
    """Topic of the measured state."""
    goals: tuple[tuple[float, float, float], ...]
    """[m] in the base frame."""
    episode_steps: int
    """Commands that belong to a goal."""
    period: float
    """Nominal control period [s]."""
    recording: str
    """File to write."""
    start_timeout: float = 60.0
    """For the nodes to be ready [s]."""
    goal_timeout: float = 10.0
    """For the policy to take up a goal [s]."""

    @property
    def commands(self) -> int:
        """Commands to be recorded in all."""
        return len(self.goals) * self.episode_steps

    def write(self, path: Path) -> None:
        """:raises QgfError: it cannot be written."""
        write_atomic(path, json.dumps(to_mapping(self), indent=2).encode())


def read_plan(path: Path) -> Plan:
    """:raises QgfError: it cannot be read or does not fit."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QgfError(f"{path}: cannot be read ({error}); it is written by the demo") from error
    return from_mapping(Plan, data, path)


class Session:
    """Collects messages as plain values, and knows when the next goal is due.

    :param plan: goals, and joints in the arm's order.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sent: list[int] = []
        """Stamps of the goals sent so far [ns]."""
        self._last_counted = 0
        self.in_episode = 0
        """Commands that arrived for the goal sent last."""
        self._commands: list[tuple[Any, ...]] = []
        self._samples: dict[str, list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]] = {
            "truth": [],
            "measured": [],
        }
        self._reports: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}

    @property
    def total_commands(self) -> int:
        """Commands recorded, with or without a goal."""
        return len(self._commands)

    @property
    def done(self) -> int:
        """Commands that count towards the plan's."""
        return max(0, len(self.sent) - 1) * self.plan.episode_steps + min(self.in_episode, self.plan.episode_steps)

    @property
    def goal_is_due(self) -> bool:
        """Whether the next goal is to be sent now."""
        waiting = bool(self.sent) and self.in_episode < self.plan.episode_steps
        return not waiting and len(self.sent) < len(self.plan.goals)

    @property
    def finished(self) -> bool:
        """Whether all commands have arrived, and the ground truth that belongs to them."""
        truth = self._samples["truth"]
        return (
            self.done >= self.plan.commands
            and len(truth) > TAIL
            and truth[-TAIL][0] > self._last_counted + round(1e9 * self.plan.period)
        )

    def goal_sent(self, stamp: int) -> None:
        """The next goal went out, stamped so [ns]."""
        self.sent.append(stamp)
        self.in_episode = 0

    def command(
        self,
        stamp: int,
        state_stamp: int,
        goal_stamp: int,
        sequence: int,
        raw_action: Sequence[float],
        command: Sequence[float],
        observation: Sequence[float],
        fault: str,
    ) -> None:
        """A PolicyCommand; raw_action and observation are empty where the policy was not asked."""
        self._commands.append((stamp, state_stamp, goal_stamp, sequence, raw_action, command, observation, fault))
        if self.sent and goal_stamp == self.sent[-1]:
            self.in_episode += 1
            if self.in_episode <= self.plan.episode_steps:
                self._last_counted = stamp

    def joint_state(
        self, kind: str, stamp: int, names: Sequence[str], position: Iterable[float], velocity: Iterable[float]
    ) -> None:
        """A joint state of `kind` truth or measured; one that lacks a joint, as a gripper's own, is left out."""
        index = {name: i for i, name in enumerate(names)}
        if all(name in index for name in self.plan.joint_names):
            order = [index[name] for name in self.plan.joint_names]
            self._samples[kind].append((stamp, np.array(position)[order], np.array(velocity)[order]))

    def has(self, kind: str) -> bool:
        """Whether a joint state of that kind has arrived."""
        return bool(self._samples[kind])

    def report(self, fields: dict[str, Any]) -> None:
        """A SmoothnessReport as plain values."""
        self._reports.append(fields)

    @property
    def reports(self) -> int:
        """Number of reports."""
        return len(self._reports)

    def recording(self) -> Recording:
        """All of it as arrays."""
        plan, n = self.plan, len(self.plan.joint_names)
        integers = [np.array([c[i] for c in self._commands], dtype=np.int64) for i in range(4)]
        width = max((len(c[6]) for c in self._commands), default=0)
        commands = Commands(
            integers[0],
            integers[1],
            integers[2],
            integers[3],
            _rows([c[4] for c in self._commands], n, np.float64),
            _rows([c[5] for c in self._commands], n, np.float64),
            _rows([c[6] for c in self._commands], width, np.float32),
            np.array([c[7] for c in self._commands], dtype=np.str_),
        )
        samples = {
            kind: JointSamples(
                np.array([s[0] for s in rows], dtype=np.int64),
                np.array([s[1] for s in rows], dtype=np.float64).reshape(-1, n),
                np.array([s[2] for s in rows], dtype=np.float64).reshape(-1, n),
            )
            for kind, rows in self._samples.items()
        }
        return Recording(
            np.array(plan.joint_names, dtype=np.str_),
            plan.period,
            np.array(plan.goals).reshape(-1, 3)[: len(self.sent)],
            np.array(self.sent, dtype=np.int64),
            commands,
            samples["truth"],
            samples["measured"],
            _columns(self._reports, n),
            {name: np.array(value) for name, value in self.status.items()},
        )


def _rows(rows: Sequence[Sequence[float]], width: int, kind: Any) -> NDArray[Any]:
    """(K, width), NaN where a row is empty or of another length."""
    table = np.full((len(rows), width), np.nan, dtype=kind)
    for i, row in enumerate(rows):
        if len(row) == width:
            table[i] = row
    return table


def _columns(reports: Sequence[dict[str, Any]], n: int) -> dict[str, NDArray[Any]]:
    """Reports field by field: (R,), or (R, n) for lists of numbers; lists of names are left out."""
    columns: dict[str, NDArray[Any]] = {}
    for name, first in (reports[0] if reports else {}).items():
        values = [report[name] for report in reports]
        if not isinstance(first, list):
            columns[name] = np.array(values)
        elif name != "joint_names":
            columns[name] = _rows(values, n, np.float64)
    return columns

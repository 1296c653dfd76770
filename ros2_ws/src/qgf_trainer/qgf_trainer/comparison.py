# SPDX-License-Identifier: Apache-2.0
"""A grid of trainings, task x method x seed, in processes side by side, and the tables over it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic
from qgf_trainer.process import TrainingProcess
from qgf_trainer.statistics import Interval, bootstrap

METHODS: dict[str, tuple[str, ...]] = {
    "td3-plain": ("--algo", "td3-plain"),
    "td3": ("--algo", "td3"),
    "td3-paper": ("--algo", "td3", "--form", "paper"),
    "td3-auto": ("--algo", "td3", "--smoothness", "auto"),
    "td3-caps": ("--algo", "td3", "--rival", "caps"),
    "td3-grad-caps": ("--algo", "td3", "--rival", "grad-caps"),
    "td3-asap": ("--algo", "td3", "--rival", "asap"),
    "td3-l2c2": ("--algo", "td3", "--rival", "l2c2"),
    "sac-plain": ("--algo", "sac-plain"),
    "sac": ("--algo", "sac"),
    "sac-paper": ("--algo", "sac", "--form", "paper"),
    "sac-auto": ("--algo", "sac", "--smoothness", "auto"),
    "sac-caps": ("--algo", "sac", "--rival", "caps"),
}
"""Name -> arguments of `train`. A further method is a further line."""

WITH_NUMBER: dict[str, Callable[[float], tuple[str, ...]]] = {
    "td3": lambda dial: ("--smoothness", str(dial)),
    "sac": lambda dial: ("--smoothness", str(dial)),
    "td3-caps": lambda weight: (
        *("--override", f"rival.caps.spatial={weight}"),
        *("--override", f"rival.caps.temporal={0.2 * weight}"),  # as its authors' weights stand to each other
    ),
}
"""Methods that a number may follow, as in td3@0.3: the dial, or the spatial weight of CAPS."""

DEFAULT_METHODS = ("td3-plain", "td3", "td3-paper")


def method_arguments(method: str) -> tuple[str, ...]:
    """Arguments of `train` for NAME[@NUMBER][+KEY=VALUE...]. :raises QgfError: no such method."""
    named, *overrides = method.split("+")
    name, separator, number = named.partition("@")
    try:
        known = name in METHODS and (not separator or (name in WITH_NUMBER and float(number) >= 0))
    except ValueError:
        known = False  # not a number
    if not known or "/" in method or not all("=" in override for override in overrides):
        raise QgfError(
            f"--methods {method}: unknown; choose of {', '.join(METHODS)}; a dial or weight may follow "
            f"({', '.join(f'{one}@0.3' for one in WITH_NUMBER)}) and settings of its own (+KEY=VALUE)"
        )
    arguments = METHODS[name] + (WITH_NUMBER[name](float(number)) if separator else ())
    return arguments + tuple(part for override in overrides for part in ("--override", override))

BASELINE = "td3-plain"
"""What ratios are taken to."""

FIGURES = ("success", "final_distance_mm", "return", "sm", "mean_abs_delta", "hold_rms", "training_time_s")
"""Columns of the tables, of evaluation.json; those that no method has on a task are left out there."""

RATIOS = ("return", "sm", "mean_abs_delta")
"""Figures that every task has; over all tasks together they are compared as shares of the baseline's on the same
task."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of the grid. `task` is TASK, or ROBOT:TASK."""

    task: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.task.replace(':', '-')}-{self.method}-{self.seed}"

    def arguments(self, folder: Path, more: Sequence[str]) -> list[str]:
        """Of `train`."""
        robot, _, task = self.task.rpartition(":")
        chosen = ["--task", task, *(["--robot", robot] if robot else []), *method_arguments(self.method)]
        return [*chosen, "--seed", str(self.seed), "--out", str(folder), "--resume", *more]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The figures of a cell, or why there are none."""

    cell: Cell
    figures: dict[str, float] | None
    failure: str = ""


def claim_folder(root: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings that all cells share, so that cells of different settings never meet in a table.

    :raises QgfError: the folder holds a grid of other settings.
    """
    note = root / "grid.json"
    text = json.dumps(dict(settings), indent=2)
    if note.exists() and note.read_text(encoding="utf-8") != text:
        raise QgfError(f"{note}: the folder holds a comparison with other settings; choose another --out")
    write_atomic(note, text.encode())


def run_cell(
    cell: Cell, root: Path, more: Sequence[str], tell: Callable[[Cell, float], None], stop: threading.Event
) -> Outcome:
    """Train a cell, go on with it, or read what is there. A crash is an outcome.

    :param tell: called with the share that is done, 0 to 1.
    """
    folder, process = root / cell.name, None
    result = folder / "evaluation.json"
    if not result.exists() and not stop.is_set():
        process = TrainingProcess(cell.arguments(folder, more))
        try:
            while not process.ended and not stop.is_set():
                event = process.next_event(timeout=0.5)
                if event is not None and event.get("event") == "progress":
                    tell(cell, event["step"] / event["steps_total"])
        finally:
            process.stop()
    if not result.exists():
        return Outcome(cell, None, process.verdict() if process is not None and not stop.is_set() else "interrupted")
    try:
        figures = json.loads(result.read_text(encoding="utf-8"))
        found = {name: float(figures[name]) for name in FIGURES if name in figures or name in RATIOS}
    except (ValueError, KeyError, TypeError) as error:
        return Outcome(cell, None, f"{result}: cannot be read ({error!r}); delete it and run the comparison again")
    broken = [name for name, value in found.items() if not math.isfinite(value)]
    if broken:
        return Outcome(cell, None, f"{result}: {broken[0]} is {found[broken[0]]}")
    tell(cell, 1.0)
    return Outcome(cell, {name: float(value) for name, value in figures.items()})


def run_grid(
    cells: Sequence[Cell],
    root: Path,
    more: Sequence[str],
    jobs: int,
    tell: Callable[[Cell, float], None] = lambda cell, share: None,
) -> list[Outcome]:
    """All outcomes, in the order of the cells; an interruption stops the running trainings, which save, and leaves."""
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_cell, cell, root, more, tell, stop) for cell in cells]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            raise


def summarise(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], dict[str, Interval]]:
    """(task, method) -> figure -> interquartile mean over the seeds with its 95% interval; a pair without any result
    has no figures. With more than one task, ("all", method) holds RATIOS to the baseline's mean of each task, for the
    methods that have results on every task."""
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for outcome in outcomes:
        found = groups.setdefault((outcome.cell.task, outcome.cell.method), [])
        if outcome.figures is not None:
            found.append(outcome.figures)
    table: dict[tuple[str, str], dict[str, Interval]] = {}
    for key, runs in groups.items():
        told = [name for name in FIGURES if all(name in run for run in runs)]
        table[key] = {name: bootstrap([[run[name] for run in runs]]) for name in told} if runs else {}
    tasks = list(dict.fromkeys(task for task, _ in groups))
    for method in dict.fromkeys(method for _, method in groups):
        if len(tasks) < 2 or not all(table.get((t, m)) for t in tasks for m in (method, BASELINE)):
            continue
        table["all", method] = {
            name: bootstrap(
                [
                    [run[name] / abs(table[task, BASELINE][name].estimate) for run in groups[task, method]]
                    for task in tasks
                ]
            )
            for name in RATIOS
            if all(table[task, BASELINE][name].estimate for task in tasks)
        }
    return table


def write_tables(root: Path, outcomes: Sequence[Outcome]) -> None:
    """comparison.md, comparison.csv (one row a cell) and comparison.json."""
    table = summarise(outcomes)
    failed = [outcome for outcome in outcomes if outcome.figures is None]
    write_atomic(root / "comparison.md", markdown(table, outcomes).encode())
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.figures or ()))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["task", "method", "seed", "failure", *names], lineterminator="\n")
    writer.writeheader()
    for outcome in outcomes:
        writer.writerow({**dataclasses.asdict(outcome.cell), "failure": outcome.failure, **(outcome.figures or {})})
    write_atomic(root / "comparison.csv", stream.getvalue().encode())
    whole = {
        "summary": {
            f"{task}/{method}": {name: interval._asdict() for name, interval in found.items()}
            for (task, method), found in table.items()
        },
        "cells": [
            {**dataclasses.asdict(outcome.cell), "figures": outcome.figures, "failure": outcome.failure}
            for outcome in outcomes
        ],
        "failed": len(failed),
    }
    write_atomic(root / "comparison.json", json.dumps(whole, indent=2).encode())


def markdown(table: Mapping[tuple[str, str], Mapping[str, Interval]], outcomes: Sequence[Outcome]) -> str:
    """The table for people."""
    lines = [
        "Interquartile mean over the seeds, with the 95% interval of a bootstrap stratified by task.",
        "Runs: with a result, of those asked for.",
    ]
    for task in dict.fromkeys(task for task, _ in table):
        columns = [name for name in FIGURES if any(name in found for (of, _), found in table.items() if of == task)]
        title = f"all tasks, as a share of {BASELINE}" if task == "all" else task
        lines += ["", f"## {title}", "", f"| method | runs | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 2) + "|")
        for (of, method), found in table.items():
            if of == task:
                mine = [o for o in outcomes if o.cell.method == method and (task == "all" or o.cell.task == task)]
                done = sum(o.figures is not None for o in mine)
                cells = [
                    f"{found[c].estimate:.4g} [{found[c].low:.4g}, {found[c].high:.4g}]" if c in found else "-"
                    for c in columns
                ]
                lines.append(f"| {method} | {done} of {len(mine)} | {' | '.join(cells)} |")
    failed = [outcome for outcome in outcomes if outcome.figures is None]
    if failed:
        lines += ["", f"## {len(failed)} without a result", ""]
        lines += [f"- {o.cell.task}, {o.cell.method}, seed {o.cell.seed}: {o.failure}" for o in failed]
    return "\n".join(lines) + "\n"

# SPDX-License-Identifier: Apache-2.0
"""Trainings of a grid, each judged from the same 100 starts that nothing else uses."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from qgf_core import smoothness
from qgf_core.bundle import load_bundle
from qgf_core.errors import QgfError
from qgf_core.files import write_atomic
from qgf_core.robot import load_robot
from qgf_sim.env import ArmEnv
from qgf_sim.perturb import Distribution, Perturbation
from qgf_sim.tasks import load_task
from qgf_trainer.comparison import BASELINE, Cell, claim_folder, method_arguments, run_grid
from qgf_trainer.config import is_arm_task
from qgf_trainer.evaluation import Policy, judge, load_evaluation, run_any_episode, run_episode
from qgf_trainer.gymnasium_task import GymnasiumTask
from qgf_trainer.policy_file import load_policy

FIRST_START = 50_000
"""Seed of the first start; trainings use seeds below, the trainer's own evaluation 10,000 and on."""

VARIANTS = ("as trained", "delay", "filter")
"""delay: one control period more than trained on, arms only; filter: the plain policy behind a low-pass
a' = 0.3 a + 0.7 a'."""

_KEEP = 0.7  # of the low-pass


class LowPass:
    """A policy behind an exponential low-pass, which starts at rest."""

    def __init__(self, policy: Policy, keep: float = _KEEP) -> None:
        self._policy, self._keep = policy, keep
        self._last: NDArray[np.float32] | None = None

    def restart(self) -> None:
        """An episode begins."""
        self._last = None

    def __call__(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        action = np.asarray(self._policy(observation), np.float32)
        last = np.zeros_like(action) if self._last is None else self._last
        self._last = self._keep * last + (1 - self._keep) * action
        return self._last


def judged(
    cell: Cell, folder: Path, episodes: int, variant: str = "as trained", first_start: int = FIRST_START
) -> dict[str, float | list[float]]:
    """Figures of a trained cell over `episodes` starts, with `returns`, one an episode; kept beside the run.

    :raises QgfError: the policy cannot be read.
    """
    others = "" if first_start == FIRST_START else f"-from-{first_start}"
    kept = folder / f"judged-{variant.replace(' ', '-')}-{episodes}{others}.json"
    if kept.exists():
        found: dict[str, float | list[float]] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    task = cell.task.rpartition(":")[2]
    judge_one = _judge_arm if is_arm_task(task) else _judge_task
    found = judge_one(folder, range(first_start, first_start + episodes), variant)
    training = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    found |= {k: training[k] for k in ("training_time_s", "smoothness_dial", "smoothness_step") if k in training}
    write_atomic(kept, json.dumps(found).encode())
    return found


def _judge_arm(folder: Path, starts: Sequence[int], variant: str) -> dict[str, float | list[float]]:
    bundle = load_bundle(folder / "bundle.pt")
    task, robot = load_task(bundle.manifest.task), load_robot(bundle.manifest.robot.name)
    late = Perturbation(delay=Distribution(fixed=1.0 / task.control_rate)) if variant == "delay" else None
    env = ArmEnv(robot, task, perturbation=late)
    policy = LowPass(bundle.act) if variant == "filter" else bundle.act
    runs = []
    for start in starts:
        if isinstance(policy, LowPass):
            policy.restart()
        runs.append(run_episode(env, policy, start))
    config = load_evaluation("reach")
    told = judge(runs, task.control_rate, env.task.tolerance, config, env.task.error_figure)
    env.close()
    figures: dict[str, float | list[float]] = dict(told)
    return figures | {"returns": [run.reward for run in runs]}


def _judge_task(folder: Path, starts: Sequence[int], variant: str) -> dict[str, float | list[float]]:
    if variant == "delay":
        raise QgfError("the variant delay is for arms")
    stored = load_policy(folder / "policy.safetensors")
    env = GymnasiumTask(stored.task)
    returns, sm, deltas = [], [], []
    for start in starts:
        policy: Policy = LowPass(stored.policy.act) if variant == "filter" else stored.policy.act
        total, actions = run_any_episode(env, policy, start)
        returns.append(total)
        if len(actions) >= 16:
            sm.append(smoothness.paper_smoothness(env.scaled(actions)))
            deltas.append(float(np.mean(smoothness.mean_absolute_delta(actions))))
    env.close()
    figures = {"episodes": float(len(starts)), "return": float(np.mean(returns))}
    figures["sm"] = float(np.mean(sm)) if sm else -1.0
    return {**figures, "mean_abs_delta": float(np.mean(deltas)) if deltas else -1.0, "returns": returns}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A cell with its figures; None where the training failed, with the reason."""

    cell: Cell
    figures: dict[str, float | list[float]] | None
    failure: str = ""


def add_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Options that every grid has."""
    parser.add_argument("--seeds", type=int, default=3, help="seeds FIRST .. FIRST + N - 1 (default: 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="default: 0")
    parser.add_argument("--steps", type=int, help="control steps of each run (default: that of the task's config)")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="as for ./qgf train")
    parser.add_argument("--episodes", type=int, default=100, help="starts on which each is judged (default: 100)")
    parser.add_argument(
        "--first-start", type=int, default=FIRST_START, help=f"seed of the first start (default: {FIRST_START})"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (default: cores)")
    parser.add_argument("--out", type=Path, default=Path(out), help=f"the runs' folder, gone on with (default: {out})")
    parser.add_argument("--no-training", action="store_true", help="judge what is there and train nothing")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")


def train_and_judge(
    tasks: Sequence[str], methods: Sequence[str], options: argparse.Namespace, variants: Sequence[str] = VARIANTS[:1]
) -> dict[str, list[Trained]]:
    """Every method on every task with every seed; variant -> what came of it. What is there is not done again."""
    for method in methods:
        method_arguments(method)
    more = [*(["--steps", str(options.steps)] if options.steps else [])]
    for override in options.override:
        more += ["--override", override]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cells = [Cell(t, m, s) for s in seeds for t in tasks for m in methods]
    options.out.mkdir(parents=True, exist_ok=True)
    claim_folder(options.out, {"steps": options.steps, "override": options.override})
    if options.no_training:
        cells = [cell for cell in cells if (options.out / cell.name / "evaluation.json").exists()]
    failures = _train(cells, options.out, more, options.jobs)
    found: dict[str, list[Trained]] = {}
    for variant in variants:
        for cell in cells:
            arm = is_arm_task(cell.task.rpartition(":")[2])
            if (variant == "delay" and not arm) or (variant == "filter" and cell.method != BASELINE):
                continue
            failed = failures.get(cell, "")
            folder = options.out / cell.name
            figures = None if failed else judged(cell, folder, options.episodes, variant, options.first_start)
            found.setdefault(variant, []).append(Trained(cell, figures, failed))
    return found


def _train(cells: Sequence[Cell], out: Path, more: Sequence[str], jobs: int) -> dict[Cell, str]:
    """Train what is not there; cell -> why it failed."""
    layout = "{l_bar}{bar}| {n:.2f}/{total} [{elapsed}<{remaining}]"
    pause = 0.5 if sys.stderr.isatty() else 60.0  # a log is not to hold a line a second
    with tqdm(total=len(cells), desc="trainings", bar_format=layout, mininterval=pause) as bar:
        shares: dict[Cell, float] = {}

        def tell(cell: Cell, share: float) -> None:
            bar.update(share - shares.get(cell, 0.0))
            shares[cell] = share

        outcomes = run_grid(cells, out, more, jobs, tell)
    return {outcome.cell: outcome.failure for outcome in outcomes if outcome.figures is None}


def paired_interval(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], repetitions: int = 5000
) -> tuple[float, float, float]:
    """Mean of ours - theirs over seeds and starts, and its 95 % bootstrap interval: seeds are drawn, then starts, the
    same for both. Each argument: one row of returns a seed."""
    difference = np.asarray(ours) - np.asarray(theirs)
    rng = np.random.default_rng(0)
    seeds, starts = difference.shape
    drawn = [
        difference[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, starts, starts))].mean()
        for _ in range(repetitions)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def by_method(found: Sequence[Trained]) -> dict[tuple[str, str], list[dict[str, float | list[float]]]]:
    """(task, method) -> figures of the seeds that there are."""
    grouped: dict[tuple[str, str], list[dict[str, float | list[float]]]] = {}
    for one in found:
        runs = grouped.setdefault((one.cell.task, one.cell.method), [])
        if one.figures is not None:
            runs.append(one.figures)
    return grouped


def middle(runs: Sequence[dict[str, float | list[float]]], name: str) -> tuple[float, float, float]:
    """Median, smallest and largest over the seeds. :raises KeyError: no run has the figure."""
    values = [float(run[name]) for run in runs if name in run]  # type: ignore[arg-type]
    if not values:
        raise KeyError(name)
    return float(np.median(values)), min(values), max(values)


COLUMNS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("return", lambda x: f"{x:.1f}"),
    ("success", lambda x: f"{x:.2f}"),
    ("final_distance_mm", lambda x: f"{x:.1f}"),
    ("sm", lambda x: f"{x:.3g}"),
    ("mean_abs_delta", lambda x: f"{x:.3g}"),
    ("hold_rms", lambda x: f"{x:.3g}"),
    ("delayed", lambda x: f"{x:.3g}"),
    ("training_time_s", lambda x: f"{x:.0f}"),
    ("smoothness_dial", lambda x: f"{x:.3g}"),
)
"""Columns of the tables and how they are written."""


def markdown(found: Sequence[Trained], further: Callable[[str, str], str] | None = None, title: str = "") -> str:
    """A table per task: median (smallest .. largest) over the seeds. :param further: (task, method) -> a last cell."""
    grouped, lines = by_method(found), []
    for task in dict.fromkeys(task for task, _ in grouped):
        mine = {method: runs for (of, method), runs in grouped.items() if of == task}
        columns = [(n, show) for n, show in COLUMNS if any(n in run for runs in mine.values() for run in runs)]
        names = ["method", "seeds", *(name for name, _ in columns), *([title] if further else [])]
        lines += [f"### {task}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        for method, runs in mine.items():
            cells = [method, str(len(runs))]
            for name, show in columns:
                try:
                    a, low, high = (show(x) for x in middle(runs, name))
                    cells.append(a if len(runs) == 1 else f"{a} ({low} .. {high})")
                except KeyError:
                    cells.append("")
            lines.append(f"| {' | '.join([*cells, *([further(task, method)] if further else [])])} |")
        lines.append("")
    failed = [f"- {one.cell.name}: {one.failure}" for one in found if one.failure]
    return "\n".join([*lines, *failed]) + "\n"


def flat(found: Sequence[Trained], prefix: str = "") -> dict[str, float]:
    """Keys TASK.METHOD.FIGURE[.min|.max], medians over the seeds; TASK.METHOD.seeds; failed."""
    told: dict[str, float] = {}
    for (task, method), runs in by_method(found).items():
        told[f"{prefix}{task}.{method}.seeds"] = float(len(runs))
        for name in dict.fromkeys(name for run in runs for name in run if name != "returns"):
            key = f"{prefix}{task}.{method}.{name}"
            told[key], told[f"{key}.min"], told[f"{key}.max"] = middle(runs, name)
    told[f"{prefix}failed"] = float(sum(one.figures is None for one in found))
    return told

def paired_to(found: Sequence[Trained], baseline: str, task: str, method: str) -> tuple[float, float, float] | None:
    """`paired_interval` of a method's returns and the baseline's over the seeds that both have."""
    mine, theirs = (
        {one.cell.seed: one.figures["returns"] for one in found if one.figures and one.cell.task == task
         and one.cell.method == name}
        for name in (method, baseline)
    )  # fmt: skip
    both = sorted(mine.keys() & theirs.keys())
    return paired_interval([mine[s] for s in both], [theirs[s] for s in both]) if both else None  # type: ignore[misc]

# SPDX-License-Identifier: Apache-2.0
"""Command line of a comparison of methods over tasks and seeds."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic
from qgf_core.robot import load_robot
from qgf_trainer.comparison import (
    DEFAULT_METHODS,
    METHODS,
    WITH_NUMBER,
    Cell,
    claim_folder,
    method_arguments,
    run_grid,
    summarise,
    write_tables,
)
from qgf_trainer.config import is_arm_task, load_train_config, settings_of
from qgf_trainer.gymnasium_task import GymnasiumTask, gymnasium_id
from qgf_trainer.ray_grid import LOCAL, run_grid_on_ray


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf compare",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train every method on every task with every seed, side by side, and compare them on the same\n"
        "fixed evaluation: interquartile mean and bootstrap interval over the seeds.\n\n"
        "example:  ./qgf compare --tasks reach iiwa:reach --methods td3-plain td3 --seeds 3 --out runs/grid\n"
        "writes:   comparison.md, comparison.csv, comparison.json, a plot per task, and the runs themselves\n"
        "The same command goes on where it was interrupted; more seeds, tasks or methods may be added. A run that\n"
        "crashed is listed with its reason, and tried again by the next call.",
    )
    parser.add_argument("--tasks", nargs="+", default=["reach"], metavar="[ROBOT:]TASK", help="default: reach")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(DEFAULT_METHODS),
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}; {', '.join(WITH_NUMBER)} may be followed by a dial or weight, as in td3@0.3, "
        "and any by settings of its own, as in td3+field.every=1 "
        f"(default: {' '.join(DEFAULT_METHODS)})",
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds FIRST .. FIRST + N - 1 (default: 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="default: 0")
    parser.add_argument("--steps", type=int, help="control steps of each run (default: that of the task's config)")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="as for ./qgf train")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (default: cores)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="run on a Ray cluster (HOST:PORT, ray://HOST:PORT or auto), whose machines all see --out and have QGF set "
        "up; without an address, on this machine alone",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    return parser


class _Bar:
    """One progress bar over the whole grid, fed by the threads of the runs."""

    def __init__(self, cells: int) -> None:
        layout = "{l_bar}{bar}| {n:.2f}/{total} runs [{elapsed}<{remaining}]"
        # A grid takes hours: its log is not to hold a line a second.
        pause = 0.5 if sys.stderr.isatty() else 60.0
        self._bar = tqdm(total=cells, desc="compare", bar_format=layout, mininterval=pause)
        self._shares: dict[Cell, float] = {}
        self._lock = threading.Lock()

    def tell(self, cell: Cell, share: float) -> None:
        """A cell has come so far, 0 to 1."""
        with self._lock:
            self._bar.update(share - self._shares.get(cell, 0.0))
            self._shares[cell] = share

    def close(self) -> None:
        """Leave the terminal clean."""
        self._bar.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(options: argparse.Namespace) -> int:
    if options.seeds < 1 or options.jobs < 1 or options.first_seed < 0:
        raise QgfError(
            f"--seeds {options.seeds} and --jobs {options.jobs} must be at least 1, "
            f"--first-seed {options.first_seed} not negative"
        )
    more = [*(["--steps", str(options.steps)] if options.steps is not None else [])]
    for override in options.override:
        more += ["--override", override]
    for method in options.methods:
        method_arguments(method)
    for name in options.tasks:  # a mistake must not cost a grid of crashed cells
        robot, _, task = name.rpartition(":")
        if is_arm_task(task):
            settings = {"robot": robot or None, "task": task}
            load_robot(load_train_config(settings_of(task), options.override, **settings, steps=options.steps).robot)
        else:
            task = gymnasium_id(task) or task
            load_train_config(settings_of(task), options.override, task=task, steps=options.steps)
            GymnasiumTask(task).close()
            if robot:
                raise QgfError(f"--tasks {name}: {task} has no arm; leave {robot} out")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    tasks, methods = dict.fromkeys(options.tasks), dict.fromkeys(options.methods)
    cells = [Cell(task, method, seed) for task in tasks for seed in seeds for method in methods]
    claim_folder(options.out, {"steps": options.steps, "override": options.override})
    signal.signal(signal.SIGTERM, _interrupt)
    bar = _Bar(len(cells))
    try:
        if options.ray is None:
            outcomes = run_grid(cells, options.out, more, options.jobs, bar.tell)
        else:
            outcomes = run_grid_on_ray(cells, options.out, more, options.ray, bar.tell, options.jobs)
    except KeyboardInterrupt:
        print(f"qgf: stopped; the same command goes on with {options.out}", file=sys.stderr)
        return 130
    finally:
        bar.close()
    write_tables(options.out, outcomes)
    # Costs a second to import, and a comparison that is interrupted does not need it.
    from qgf_trainer.comparison_plot import draw_task

    table = summarise(outcomes)
    for task in tasks:
        write_atomic(options.out / f"comparison-{task.replace(':', '-')}.png", draw_task(task, table, outcomes))
    print((options.out / "comparison.md").read_text(encoding="utf-8"), end="")
    return 1 if any(outcome.figures is None for outcome in outcomes) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `compare`; the exit code is 1 where a run has no result."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The dial `smoothness` over its range on every task, beside plain TD3 and beside `smoothness: auto`.

    ./qgf bench dial [--tasks Pendulum-v1 reach iiwa:reach InvertedDoublePendulum-v5] [--dials 0.1 0.3 1.2 5 10]
                     [--seeds 3] [--out runs/dial] [--plot docs/images/dial.png] [--json]

Each policy is judged from the same 100 starts. `loss` is the return lost to plain's median, in percent of its size;
the budget of auto is 5 %. With --no-training the table and the plot are made of what the folder holds.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from judged import Trained, add_arguments, by_method, flat, markdown, middle, train_and_judge
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic

TASKS = ("Pendulum-v1", "reach", "iiwa:reach", "InvertedDoublePendulum-v5")
DIALS = (0.1, 0.3, 1.2, 5.0, 10.0)
PANELS = (("return", "return"), ("sm", "Sm, paper form"))


def loss(runs: Sequence[dict[str, float | list[float]]], plain: Sequence[dict[str, float | list[float]]]) -> float:
    """Return lost to plain's median [%], of medians."""
    reference = middle(plain, "return")[0]
    return 100.0 * (reference - middle(runs, "return")[0]) / abs(reference)


def draw(found: Sequence[Trained]) -> bytes:
    """A PNG: a column a task; return and Sm against the dial, plain as a line, auto as stars where it came to rest."""
    grouped = by_method(found)
    tasks = list(dict.fromkeys(task for task, _ in grouped))
    figure = Figure(figsize=(3.6 * len(tasks) + 0.6, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PANELS), len(tasks), squeeze=False, sharex="col")
    for column, task in enumerate(tasks):
        mine = {method: runs for (of, method), runs in grouped.items() if of == task and runs}
        fixed = sorted((float(m.partition("@")[2]), runs) for m, runs in mine.items() if m.startswith("td3@"))
        for row, (name, label) in enumerate(PANELS):
            axis = axes[row][column]
            dials = [dial for dial, _ in fixed]
            for dial, runs in fixed:
                axis.plot([dial] * len(runs), [run[name] for run in runs], "o", color="C0", markersize=4, alpha=0.6)
            axis.plot(dials, [middle(runs, name)[0] for _, runs in fixed], color="C0", label="fixed, median")
            plain = mine.get("td3-plain", [])
            if plain:
                middle_value, low, high = middle(plain, name)
                axis.axhspan(low, high, color="C7", alpha=0.2)
                axis.axhline(middle_value, color="C7", linestyle="--", label="plain")
                if name == "return":
                    limit = middle_value - 0.05 * abs(middle_value)
                    axis.axhline(limit, color="C3", linestyle=":", label="plain less 5 %")
            auto = mine.get("td3-auto", [])
            axis.plot(
                [run["smoothness_dial"] for run in auto], [run[name] for run in auto], "*", color="C1", markersize=13,
                markeredgecolor="black", label="auto",
            )  # fmt: skip
            axis.set_xscale("log")
            axis.set_xlim(0.07, 14.0)
            axis.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
            axis.grid(alpha=0.3)
            axis.set_ylabel(label if column == 0 else "")
            if row == 0:
                axis.set_title(task)
                _show_what_counts(axis, plain, mine)
            else:
                axis.set_ylim(bottom=0.0)
                axis.set_xlabel("smoothness")
    axes[0][0].legend(fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _show_what_counts(axis: object, plain: Sequence[dict[str, float | list[float]]], mine: dict[str, list]) -> None:
    """A policy that failed altogether would press all others into one line: the axis ends 60 % below plain."""
    values = [float(run["return"]) for runs in mine.values() for run in runs]
    if plain and values:
        reference = middle(plain, "return")[0]
        low, high = max(min(values), reference - 0.6 * abs(reference)), max(values)
        room = 0.08 * (high - low) + 1e-6
        axis.set_ylim(low - room, high + room)  # type: ignore[attr-defined]


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="qgf bench dial", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="[ROBOT:]TASK")
    parser.add_argument("--dials", nargs="+", type=float, default=list(DIALS))
    parser.add_argument("--plot", type=Path, help="write the plot here (default: OUT/dial.png)")
    add_arguments(parser, "runs/dial")
    options = parser.parse_args()
    methods = ["td3-plain", *(f"td3@{dial:g}" for dial in options.dials), "td3-auto"]
    try:
        found = train_and_judge(options.tasks, methods, options)["as trained"]
    except (QgfError, KeyError) as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    grouped = by_method(found)

    def lost(task: str, method: str) -> str:
        runs, plain = grouped.get((task, method)), grouped.get((task, "td3-plain"))
        return f"{loss(runs, plain):.1f}" if runs and plain else ""

    write_atomic(options.plot or options.out / "dial.png", draw(found))
    told = flat(found)
    for task, method in grouped:
        if text := lost(task, method):
            told[f"{task}.{method}.loss_percent"] = float(text)
    print(json.dumps(told) if options.json else markdown(found, lost, "loss [%]"))
    return 1 if told["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

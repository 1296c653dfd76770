# SPDX-License-Identifier: Apache-2.0
"""The stabilised critic beside plain TD3, the published form, policy-side rivals, and a low-pass behind the plain
policy.

    ./qgf bench rivals [--tasks reach iiwa:reach Pendulum-v1] [--methods td3-plain td3 td3-caps ...]
                       [--seeds 3] [--first-seed 0] [--out runs/rivals] [--json]

Each policy is judged from the same 100 starts. `return less plain's` is over the same starts, of the same seeds, with
the 95 % bootstrap interval over seeds and starts; arms are judged once more under one control period more delay than
they learned with. Medians, and shares of plain's medians. With --no-training the table is made of what the folder
holds, which may be one of `./qgf compare`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence

from judged import (
    VARIANTS,
    Trained,
    add_arguments,
    by_method,
    flat,
    markdown,
    middle,
    paired_to,
    train_and_judge,
)

from qgf_core.errors import QgfError
from qgf_trainer.comparison import BASELINE

TASKS = ("reach", "iiwa:reach", "Pendulum-v1")
METHODS = ("td3-plain", "td3", "td3-paper", "td3-caps", "td3-grad-caps", "td3-asap", "td3-l2c2")
FILTERED = "td3-plain, low-pass"
SHARES = ("sm", "mean_abs_delta", "hold_rms")

Found = Mapping[str, Sequence[Trained]]
"""Variant of `judged.VARIANTS` -> what was trained, with its figures there."""


def rows(found: Found) -> list[Trained]:
    """All methods as they were trained, the plain policy behind the low-pass, and `delayed` where there is one."""
    late = {one.cell: one.figures for one in found.get("delay", ())}
    told = []
    for one in found["as trained"]:
        figures, delayed = one.figures, late.get(one.cell)
        if figures is not None and delayed is not None:
            figures = {**figures, "delayed": delayed["mean_abs_delta"]}
        told.append(Trained(one.cell, figures, one.failure))
    for one in found.get("filter", ()):
        if one.figures is not None:
            told.append(Trained(dataclasses.replace(one.cell, method=FILTERED), one.figures))
    return told


def shares(table: Sequence[Trained], task: str, method: str) -> dict[str, float]:
    """Medians of the roughness figures by plain's."""
    grouped = by_method(table)
    mine, plain = grouped.get((task, method)), grouped.get((task, BASELINE))
    if not mine or not plain:
        return {}
    found = {}
    for name in (*SHARES, "delayed"):
        if all(name in run for run in (*mine, *plain)):
            ours, theirs = middle(mine, name)[0], middle(plain, name)[0]
            if ours >= 0 and theirs > 0:  # -1: no episode counted
                found[name] = ours / theirs
    return found


def summary(table: Sequence[Trained], task: str, method: str) -> str:
    """The last cell of a row."""
    apart = paired_to(table, BASELINE, task, method)
    if method == BASELINE or apart is None:
        return ""
    names = {"sm": "Sm", "mean_abs_delta": "delta", "hold_rms": "hold", "delayed": "delayed delta"}
    parts = ", ".join(f"{names[name]} {share:.2f}" for name, share in shares(table, task, method).items())
    return f"{apart[0]:+.1f} [{apart[1]:+.1f}, {apart[2]:+.1f}]; {parts}"


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="qgf bench rivals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="[ROBOT:]TASK")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD", help="as for ./qgf compare")
    add_arguments(parser, "runs/rivals")
    options = parser.parse_args()
    try:
        table = rows(train_and_judge(options.tasks, options.methods, options, VARIANTS))
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    told = flat(table)
    for task, method in by_method(table):
        told |= {f"{task}.{method}.share.{name}": share for name, share in shares(table, task, method).items()}
        if apart := paired_to(table, BASELINE, task, method):
            names = ("return_difference", "return_difference.low", "return_difference.high")
            told |= {f"{task}.{method}.{name}": value for name, value in zip(names, apart, strict=True)}
    if options.json:
        print(json.dumps(told))
    else:
        print(markdown(table, lambda task, method: summary(table, task, method), "return less plain's; shares"))
    return 1 if told["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

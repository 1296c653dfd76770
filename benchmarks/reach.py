# SPDX-License-Identifier: Apache-2.0
"""The reach task over several seeds: plain TD3 beside the stabilised critic, trained two at a time, judged on the same
fixed goals.

    ./qgf bench reach [--robot panda] [--seeds 3] [--form scale_free|paper] [--out DIR] [--json]

Prints the median over the seeds of every figure, and its smallest and largest value. The folder keeps the runs, and a
run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from qgf_core.errors import QgfError
from qgf_trainer.process import TrainingProcess

METHODS = {"plain": "td3-plain", "stabilised": "td3"}
RATIOS = ("sm", "mean_abs_delta", "hold_rms", "return")
SHOWN = ("success", "settled", "final_distance_mm", "return", "sm", "mean_abs_delta", "hold_rms", "training_time_s")


def run(method: str, seed: int, folder: Path, options: argparse.Namespace, bar: tqdm) -> dict[str, float]:
    """Train one policy, or read what an earlier call trained; returns its figures. :raises QgfError: the training
    failed."""
    if not (folder / "evaluation.json").exists():
        arguments = [
            "--robot",
            options.robot,
            "--algo",
            METHODS[method],
            "--seed",
            str(seed),
            "--out",
            str(folder),
            "--resume",
        ]
        arguments += ["--form", options.form] + (["--steps", str(options.steps)] if options.steps else [])
        for override in options.override:
            arguments += ["--override", override]
        process, before = TrainingProcess(arguments), 0
        try:
            while not process.ended:
                event = process.next_event(timeout=0.5)
                if event is not None and event["event"] == "progress":
                    bar.total = bar.total or event["steps_total"] * 2 * options.seeds
                    bar.update(event["step"] - before)
                    before = event["step"]
        finally:
            process.stop()
        if not (folder / "evaluation.json").exists():
            raise QgfError(f"{method} with seed {seed}: {process.verdict()}")
    figures: dict[str, float] = json.loads((folder / "evaluation.json").read_text())
    return figures


def summarise(runs: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Flat keys METHOD.FIGURE[.min|.max] with the median, smallest and largest value over the seeds; ratio.FIGURE of
    the medians."""
    flat: dict[str, float] = {}
    for method, seeds in runs.items():
        for name in seeds[0]:
            values = [figures[name] for figures in seeds]
            flat |= {
                f"{method}.{name}": statistics.median(values),
                f"{method}.{name}.min": min(values),
                f"{method}.{name}.max": max(values),
            }
    for name in RATIOS:
        flat[f"ratio.{name}"] = flat[f"stabilised.{name}"] / flat[f"plain.{name}"]
    return flat


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="qgf bench reach", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot", default="panda")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 (default: 3)")
    parser.add_argument("--steps", type=int, help="control steps (default: that of config/train/reach.yaml)")
    parser.add_argument(
        "--form", choices=["scale_free", "paper"], default="scale_free", help="form of the stabilised critic's losses"
    )
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="as for ./qgf train")
    parser.add_argument("--out", type=Path, help="keep the runs here (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds} must be at least 1")
    with tempfile.TemporaryDirectory() as temporary:
        root = options.out or Path(temporary)
        jobs = [(method, seed) for seed in range(options.seeds) for method in METHODS]
        with tqdm(desc="reach", unit="step", total=0) as bar, ThreadPoolExecutor(2) as pool:
            try:
                found = list(pool.map(lambda job: run(*job, root / f"{job[0]}-{job[1]}", options, bar), jobs))
            except QgfError as error:
                print(f"qgf: error: {error}", file=sys.stderr)
                return 2
    runs: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for (method, _), figures in zip(jobs, found, strict=True):
        runs[method].append(figures)
    flat = summarise(runs)
    if options.json:
        print(json.dumps(flat))
        return 0
    print(f"{'':>20} {'plain':>30} {'stabilised':>30}")
    for name in SHOWN:
        cells = [
            f"{flat[f'{m}.{name}']:9.4g} ({flat[f'{m}.{name}.min']:.4g} .. {flat[f'{m}.{name}.max']:.4g})"
            for m in METHODS
        ]
        print(f"{name:>20} {cells[0]:>30} {cells[1]:>30}")
    for name in RATIOS:
        print(f"{'ratio ' + name:>20} {flat[f'ratio.{name}']:30.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

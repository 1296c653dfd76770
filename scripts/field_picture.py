# SPDX-License-Identifier: Apache-2.0
"""Makes docs/images/field.png and the figures beside it in docs/method.md.

Trains a plain and a stabilised policy of the Panda's reach task with one seed and the default settings, and measures
and draws their critics' action-gradient fields.

    python scripts/field_picture.py            # in the environment of ./qgf env; some two minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = (("plain", "td3-plain"), ("stabilised", "td3"))
"""Folder below --runs, and the algorithm's name."""
SHOWN = (
    ("mixed_sup", "M, how fast the field turns at most"),
    ("sharpness_inf", "mu, how sharp the optimum is at least"),
    ("bound", "M / mu, the bound on the policy's slope"),
    ("policy_slope_max", "the policy's slope, at most"),
)


def main() -> int:
    """Trains what is not there yet, then measures and draws."""
    parser = argparse.ArgumentParser(description="Draws docs/images/field.png.")
    parser.add_argument("--steps", type=int, default=24_000, help="control steps of each training (default: 24000)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/field", help="where the two runs are, or will be")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/field.png", help="what to write")
    options = parser.parse_args()
    trainings = []
    for folder, algorithm in RUNS:
        if not (options.runs / folder / "bundle.pt").is_file():
            trainings.append(subprocess.Popen(
                [sys.executable, "-m", "qgf_trainer.cli", "train", "--robot", "panda", "--task", "reach", "--algo",
                 algorithm, "--steps", str(options.steps), "--seed", "0", "--progress", "none", "--overwrite",
                 "--out", str(options.runs / folder)]))
    if sum(training.wait() for training in trainings):  # all are waited for
        return 1
    folders = [str(options.runs / folder) for folder, _ in RUNS]
    measured = subprocess.run([sys.executable, "-m", "qgf_trainer.geometry_cli", *folders, "--episodes", "2", "--plot",
                               options.picture, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(measured.stdout)["runs"]
    print("| over 750 visited points | " + " | ".join(figures) + " |\n|---|---|---|")
    for key, meaning in SHOWN:
        print(f"| {meaning} | " + " | ".join(f"{run[key]:.3g}" for run in figures.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The two policies of the demo: trained side by side, or taken from an earlier run."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from qgf_core.errors import BundleError, QgfError
from qgf_core.manifest import Manifest, read_manifest
from qgf_demo.processes import ENDED, Child, Nursery
from qgf_demo.progress import Progress, duration, say

KEPT = ("bundle.pt", "evaluation.json", "config.json", "progress.csv")
"""Files of a training run that the demo uses; the bundle is the only one that must be there."""
NEEDED = ("success", "final_distance_mm", "return", "sm", "mean_abs_delta", "hold_rms")
"""Figures of the evaluation in simulation without which there is nothing to compare."""


@dataclasses.dataclass(frozen=True)
class Role:
    """One of the two policies that are compared."""

    name: str
    algorithm: str


PLAIN = Role("plain", "td3-plain")
STABILISED = Role("stabilised", "td3")
ROLES = (PLAIN, STABILISED)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A policy with what its bundle says of it."""

    folder: Path
    sha256: str
    manifest: Manifest

    @property
    def bundle(self) -> Path:
        """The file that the policy node runs."""
        return self.folder / "bundle.pt"

    @property
    def figures(self) -> dict[str, float]:
        """Its evaluation in simulation, by the names of `qgf_trainer.evaluation.judge`."""
        return {name: float(value) for name, value in self.manifest.evaluation.items()}

    @property
    def steps(self) -> int:
        """Control steps that it was trained for."""
        return int(self.manifest.training["steps"])

    @property
    def seed(self) -> int:
        """Seed that it was trained with."""
        return int(self.manifest.training["config"]["seed"])

    @property
    def form(self) -> str:
        """Form of the critic's losses; of meaning for the stabilised policy only."""
        return str(self.manifest.training["config"]["field"]["form"])


def read_trained(folder: Path) -> Trained:
    """The policy in a folder. :raises BundleError: damaged, or exported by something else than the trainer."""
    bundle = folder / "bundle.pt"
    manifest = read_manifest(bundle)
    trained = Trained(folder, hashlib.sha256(bundle.read_bytes()).hexdigest(), manifest)
    try:
        missing = [name for name in NEEDED if name not in trained.figures]
        told = (
            ""
            if not missing and trained.steps >= 0 and trained.seed >= 0 and trained.form
            else f"no {', '.join(missing)}"
        )
    except (KeyError, TypeError, ValueError) as error:
        told = repr(error)
    if told:
        raise BundleError(
            f"{bundle}: its manifest does not tell how it was trained and evaluated ({told}); train it with qgf train"
        )
    return trained


def check_bundles(source: Path, robot: str) -> None:
    """Whether both policies of an earlier run can be used. :raises QgfError: missing, damaged or for another robot."""
    for role in ROLES:
        if not (source / role.name / "bundle.pt").is_file():
            raise QgfError(f"--bundles {source}: there is no {role.name}/bundle.pt; give the folder of an earlier demo")
        made_for = read_trained(source / role.name).manifest.robot.name
        if made_for != robot:
            raise QgfError(
                f"--bundles {source}: {role.name}/bundle.pt is for the robot '{made_for}', not '{robot}'; "
                f"give --robot {made_for} or another folder"
            )


def copy_bundles(source: Path, out: Path) -> None:
    """Take both policies over. :raises QgfError: they cannot be written."""
    for role in ROLES:
        target = out / role.name
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name in KEPT:
                (target / name).unlink(missing_ok=True)
                if (source / role.name / name).is_file():
                    shutil.copyfile(source / role.name / name, target / name)
        except OSError as error:
            raise QgfError(
                f"{target}: cannot be written ({error.strerror}); free space or choose another folder"
            ) from error


def train_both(
    nursery: Nursery, out: Path, *, robot: str, steps: int | None, seed: int, form: str, overwrite: bool
) -> None:
    """Train both policies at once, a process each, into out/plain and out/stabilised.

    :raises ChildError: a training failed; the message is its own.
    """
    say(f"training {' and '.join(role.name for role in ROLES)}, side by side, a core each")
    running: list[Child] = []
    for role in ROLES:
        command = [
            sys.executable,
            "-m",
            "qgf_trainer.cli",
            "train",
            "--robot",
            robot,
            "--task",
            "reach",
            "--algo",
            role.algorithm,
            "--seed",
            str(seed),
            "--form",
            form,
            "--out",
            str(out / role.name),
            "--progress",
            "json",
        ]
        command += ["--steps", str(steps)] if steps is not None else []
        command += ["--overwrite"] if overwrite else []
        # The trainer wants its folder for itself, so the log lies beside it.
        running.append(
            nursery.start(role.name, command, out / f"train-{role.name}.log", {**os.environ, "OMP_NUM_THREADS": "1"})
        )
    finished: list[Child] = []
    with Progress({child.name: steps or 1 for child in running}, "step") as progress:
        while running:
            event = nursery.event()
            if event is None or event.child not in running:
                continue
            if event.values.get("event") == ENDED:
                running.remove(event.child)
                if event.child.reap() != 0 or event.child not in finished:
                    raise event.child.failure("training")
            else:
                if event.values.get("event") == "result":
                    finished.append(event.child)
                _show(progress, event.child.name, event.values)


def _show(progress: Progress, name: str, values: dict[str, Any]) -> None:
    if values.get("event") == "progress":
        total = int(values["steps_total"])
        note = values["phase"]
        if values["phase"] == "training":
            note = f"return {values['episode_return']:.0f}, success {values['success']:.2f}"
        progress.update(name, min(int(values["step"]), total), note, total)
    elif values.get("event") == "result":
        figures = values["figures"]
        say(
            f"{name}: trained in {duration(figures['training_time_s'])}; success {figures['success']:.2f}, "
            f"{figures['final_distance_mm']:.1f} mm, mean |Δa| {figures['mean_abs_delta']:.3f}"
        )

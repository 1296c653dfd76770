# SPDX-License-Identifier: Apache-2.0
"""Whether a policy's figures beat another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from qgf_core.errors import QgfError
from qgf_core.manifest import Manifest, read_manifest

RETURN_LOST = 0.05
"""Share of the running policy's return that a smoother one may lose."""


class Verdict(NamedTuple):
    """Whether the new policy is better, and why or why not."""

    better: bool
    why: str


def judge(new: Manifest, running: Manifest) -> Verdict:
    """Success counts first. Where it is equal, to half an episode, the smoother one (less Sm) is better, unless it has
    lost more than RETURN_LOST of the return."""
    for what, ours, theirs in (
        ("robot", new.robot.name, running.robot.name),
        ("task", new.task, running.task),
        ("control rate", new.control_rate, running.control_rate),
    ):
        if ours != theirs:
            return Verdict(False, f"its {what} is {ours}, that of the running policy {theirs}")
    try:
        return _judge_figures(new.evaluation, running.evaluation)
    except KeyError as error:
        return Verdict(False, f"one of the two does not tell its {error.args[0]}")


def _judge_figures(new: dict[str, Any], running: dict[str, Any]) -> Verdict:
    tolerance = 0.5 / max(1, min(new["episodes"], running["episodes"]))
    gain = new["success"] - running["success"]
    if abs(gain) > tolerance:
        return Verdict(gain > 0, f"success {new['success']:.2f} after {running['success']:.2f}")
    least = running["return"] - RETURN_LOST * abs(running["return"])
    if new["return"] < least:
        return Verdict(False, f"return {new['return']:.4g} after {running['return']:.4g}, with equal success")
    return Verdict(
        new["sm"] < running["sm"], f"Sm {new['sm']:.4g} after {running['sm']:.4g}, with equal success"
    )


def beats(new: Path, running: Path) -> Verdict:
    """The same, of two bundles."""
    try:
        return judge(read_manifest(new), read_manifest(running))
    except QgfError as error:
        return Verdict(False, f"they cannot be compared: {error}")

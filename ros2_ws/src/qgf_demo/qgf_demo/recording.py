# SPDX-License-Identifier: Apache-2.0
"""What was seen of one policy on the arm: plain arrays in one file, without pickle."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic

_REPORT = "report."


@dataclasses.dataclass(frozen=True)
class JointSamples:
    """M joint states of n joints, in the arm's order and the driver's sign."""

    stamp: NDArray[np.int64]
    """(M,) [ns]"""
    position: NDArray[np.float64]
    """(M, n) [rad]"""
    velocity: NDArray[np.float64]
    """(M, n) [rad/s]"""


@dataclasses.dataclass(frozen=True)
class Commands:
    """K PolicyCommand messages, in order of arrival."""

    stamp: NDArray[np.int64]
    """(K,) [ns]"""
    state_stamp: NDArray[np.int64]
    """(K,) [ns]"""
    goal_stamp: NDArray[np.int64]
    """(K,) [ns]; 0 without a goal."""
    sequence: NDArray[np.int64]
    """(K,)"""
    raw_action: NDArray[np.float64]
    """(K, n) in [-1, 1]; NaN where the policy was not asked."""
    command: NDArray[np.float64]
    """(K, n) [rad/s], in the driver's sign."""
    observation: NDArray[np.float32]
    """(K, n_obs); NaN where the policy was not asked."""
    fault: NDArray[np.str_]
    """(K,) why it is not the policy's command; empty where it is."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One live run."""

    joint_names: NDArray[np.str_]
    """(n,)"""
    period: float
    """Nominal control period [s]."""
    goal: NDArray[np.float64]
    """(G, 3) goals in the order in which they were sent [m], base frame."""
    goal_stamp: NDArray[np.int64]
    """(G,) [ns]"""
    commands: Commands
    truth: JointSamples
    """Without sensor noise."""
    measured: JointSamples
    reports: dict[str, NDArray[Any]]
    """Fields of R SmoothnessReports: (R,), or (R, n) where a field holds a number per joint."""
    status: dict[str, NDArray[Any]]
    """Fields of the last PolicyStatus."""

    def save(self, path: Path) -> None:
        """Write an .npz file, whole or not at all. :raises QgfError: it cannot be written."""
        arrays: dict[str, Any] = {
            "joint_names": self.joint_names,
            "period": np.array(self.period),
            "goal": self.goal,
            "goal_stamp": self.goal_stamp,
        }
        for prefix, part in (("command.", self.commands), ("truth.", self.truth), ("measured.", self.measured)):
            arrays |= {prefix + field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        arrays |= {_REPORT + name: values for name, values in self.reports.items()}
        arrays |= {"status." + name: values for name, values in self.status.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomic(path, buffer.getvalue())


def load_recording(path: Path) -> Recording:
    """The recording that `save` wrote. :raises QgfError: no such file, or another kind of file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)

        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {name[len(prefix) :]: values for name, values in arrays.items() if name.startswith(prefix)}

        return Recording(
            arrays["joint_names"],
            float(arrays["period"]),
            arrays["goal"],
            arrays["goal_stamp"],
            Commands(**part("command.")),
            JointSamples(**part("truth.")),
            JointSamples(**part("measured.")),
            part(_REPORT),
            part("status."),
        )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise QgfError(f"{path}: no recording of the demo ({error}); run the demo again") from error

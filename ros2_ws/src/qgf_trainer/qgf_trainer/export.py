# SPDX-License-Identifier: Apache-2.0
"""From a trained policy to a bundle that carries its whole contract."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pybullet
import torch

from qgf_core.baseline import RESIDUAL, Baseline, measure_baseline, state_residual
from qgf_core.bundle import save_bundle
from qgf_core.manifest import make_manifest
from qgf_sim.env import ArmEnv
from qgf_trainer.config import TrainConfig, describe
from qgf_trainer.evaluation import Episode
from qgf_trainer.networks import DeployedPolicy

_PROBES = 64


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "pybullet": str(pybullet.getAPIVersion()),
    }


def baselines(episodes: Sequence[Episode], rate: float) -> dict[str, Baseline]:
    """How smooth the episodes were, by the monitor's signals. :param rate: control rate [Hz]."""
    signals = {"raw_action": [e.raw_action for e in episodes], "command": [e.command for e in episodes]}
    measured = [e.measured for e in episodes if e.measured is not None]
    if measured:
        signals |= {"joint_position": [m[:, 0] for m in measured], "joint_velocity": [m[:, 1] for m in measured],
                    RESIDUAL: [state_residual(m[:, 0], m[:, 1], 1.0 / rate) for m in measured]}
    return {name: measure_baseline(pieces, rate, rate / 5, continuous=name == "joint_position")
            for name, pieces in signals.items()}


def export_bundle(
    path: Path,
    policy: DeployedPolicy,
    env: ArmEnv,
    config: TrainConfig,
    steps: int,
    figures: dict[str, float],
    episodes: Sequence[Episode],
) -> str:
    """Write the bundle; golden probes are observations that the policy met in the evaluation.

    :returns: the file's SHA-256. :raises QgfError: see `save_bundle`.
    """
    met = np.concatenate([episode.observation for episode in episodes])
    probes = met[np.linspace(0, len(met) - 1, _PROBES).astype(int)]
    training: dict[str, Any] = {"config": describe(config), "steps": steps, "versions": versions()}
    drive = env.robot.drive
    manifest = make_manifest(
        task=config.task,
        robot=env.robot,
        observation=env.config.observation,
        action=env.action_spec,
        control_rate=env.config.control_rate,
        command_rate=env.config.command_rate,
        delay_range=(drive.latency, drive.latency),
        **env.task.fields()._asdict(),
        training=training,
        evaluation=figures,
        baseline=baselines(episodes, env.config.control_rate),
        urdf=env.urdf,
    )
    return save_bundle(path, policy, manifest, probes)

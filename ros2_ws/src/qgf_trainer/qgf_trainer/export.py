# SPDX-License-Identifier: Apache-2.0
"""From a trained policy to a bundle that carries its whole contract."""

from __future__ import annotations

import dataclasses
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
from qgf_core.critic_file import pack_critic
from qgf_core.manifest import make_manifest
from qgf_core.q_field import Critic
from qgf_sim.env import ArmEnv
from qgf_trainer.config import TrainConfig, describe
from qgf_trainer.evaluation import Episode
from qgf_trainer.native_library import functions
from qgf_trainer.networks import DeployedPolicy, TwinCritic

_PROBES = 64


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "pybullet": str(pybullet.getAPIVersion()),
        "updates": "torch" if functions(torch.float32) is None else "machine code",
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


def deployed_critic(critic: TwinCritic, policy: DeployedPolicy) -> Critic:
    """The first critic, which the actor climbs, with the policy's normaliser."""
    layers = [[tensor[0].detach().double().numpy() for tensor in part] for part in (critic.weights, critic.biases)]
    kept = policy.state_dict()
    return Critic(layers[0], [bias[0] for bias in layers[1]], kept["mean"].numpy(), kept["std"].numpy())


def export_bundle(
    path: Path,
    policy: DeployedPolicy,
    env: ArmEnv,
    config: TrainConfig,
    steps: int,
    figures: dict[str, float],
    episodes: Sequence[Episode],
    critic: TwinCritic | None = None,
) -> str:
    """Write the bundle; golden probes are observations that the policy met in the evaluation.

    :param critic: to carry along; the figures of its field over the evaluation go into the manifest.
    :returns: the file's SHA-256. :raises QgfError: see `save_bundle`.
    """
    met = np.concatenate([episode.observation for episode in episodes])
    probe = np.linspace(0, len(met) - 1, _PROBES).astype(int)
    packed = None
    if critic is not None:
        carried, taken = deployed_critic(critic, policy), np.concatenate([episode.raw_action for episode in episodes])
        packed = pack_critic(carried, met[probe], taken[probe])
        field = dataclasses.asdict(carried.field_figures(met, taken))
        figures = {**figures, **{f"critic_{name}": value for name, value in field.items() if np.isfinite(value)}}
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
    return save_bundle(path, policy, manifest, met[probe], packed)

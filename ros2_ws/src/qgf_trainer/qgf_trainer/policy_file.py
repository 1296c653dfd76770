# SPDX-License-Identifier: Apache-2.0
"""The policy of a Gymnasium task as one safetensors file. It has no robot, so no manifest, so it is no bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from qgf_core.errors import QgfError
from qgf_trainer.checkpoint import load_checkpoint, save_checkpoint
from qgf_trainer.networks import Actor, DeployedPolicy, GaussianActor

_ACTORS: dict[str, type[Actor] | type[GaussianActor]] = {"Actor": Actor, "GaussianActor": GaussianActor}


@dataclasses.dataclass(frozen=True)
class StoredPolicy:
    """A policy and what was written beside it."""

    policy: DeployedPolicy
    task: str
    training: dict[str, Any]
    evaluation: dict[str, float]


def save_policy(
    path: Path,
    policy: DeployedPolicy,
    task: str,
    hidden: tuple[int, ...],
    training: dict[str, Any],
    evaluation: dict[str, float],
) -> None:
    """Write a policy. :param training: how it came to be, as plain values. :raises QgfError: the disk is full."""
    mean = policy.state_dict()["mean"]
    n_act = len(policy.act(mean.numpy()))
    shape = {"actor": type(policy.actor).__name__, "hidden": list(hidden), "n_obs": len(mean)}
    values = {"policy": {**shape, "n_act": n_act}, "task": task, "training": training, "evaluation": evaluation}
    save_checkpoint(path, policy.state_dict(), values)


def load_policy(path: Path) -> StoredPolicy:
    """What `save_policy` wrote. :raises QgfError: missing, damaged or not a policy."""
    tensors, values = load_checkpoint(path, "cannot be read", "give the policy.safetensors that train wrote")
    try:
        made = values["policy"]
        n_obs = int(made["n_obs"])
        actor = _ACTORS[made["actor"]](n_obs, int(made["n_act"]), tuple(made["hidden"]))
        policy = DeployedPolicy(actor, torch.zeros(n_obs), torch.ones(n_obs)).eval()
        policy.load_state_dict(tensors)
        return StoredPolicy(policy, values["task"], values["training"], values["evaluation"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = str(error).splitlines()[0]
        raise QgfError(f"{path}: holds no policy ({what}); give the policy.safetensors that train wrote") from error

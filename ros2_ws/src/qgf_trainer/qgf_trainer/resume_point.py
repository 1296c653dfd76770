# SPDX-License-Identifier: Apache-2.0
"""Where a training can be gone on from: a moment at which all its episodes have ended, so that nothing of the physics
has to be remembered."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qgf_core.errors import QgfError
from qgf_sim.env import ArmEnv
from qgf_trainer.agent import Agent
from qgf_trainer.auto_dial import AutoDial
from qgf_trainer.checkpoint import load_last_checkpoint, save_checkpoint
from qgf_trainer.config import TrainConfig, describe
from qgf_trainer.curriculum import Curriculum
from qgf_trainer.gymnasium_task import GymnasiumTask
from qgf_trainer.replay import ReplayBuffer

_LOG = logging.getLogger("qgf")
Environment = ArmEnv | GymnasiumTask


@dataclasses.dataclass
class Progressed:
    """What the training loop itself carries from episode to episode."""

    step: int
    """Control steps taken."""
    trained: float
    """Time spent on them [s]."""
    observation_std: torch.Tensor
    """(n_obs,) over the replay buffer, as last looked up."""
    reward_std: float
    """Likewise."""
    poses: NDArray[np.float64]
    """(environments, n_act): where each arm's last success ended [rad]; NaN before the first."""


class ResumePoint:
    """All of a running training but its replay buffer, copied: a megabyte or four.

    :param progressed: is copied too.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        noise: np.random.Generator,
        envs: Sequence[Environment],
        curriculum: Curriculum,
        dial: AutoDial | None,
        progressed: Progressed,
    ) -> None:
        tensors, values = agent.state()
        searched, search = ({}, None) if dial is None else dial.state()  # of learners kept, which never change
        self.step = progressed.step
        self._tensors = {name: tensor.clone() for name, tensor in tensors.items()} | searched | {
            "observation_std": progressed.observation_std.clone(),
            "poses": torch.from_numpy(progressed.poses.copy()),
        }
        self._values: dict[str, Any] = {
            "agent": copy.deepcopy(values),
            "auto": copy.deepcopy(search),
            "step": progressed.step,
            "trained": progressed.trained,
            "reward_std": progressed.reward_std,
            "config": describe(config),
            "noise": noise.bit_generator.state,
            "curriculum": copy.deepcopy(curriculum.state()),
            "environments": [env.np_random.bit_generator.state for env in envs],
        }

    def save(self, path: Path, buffer: ReplayBuffer) -> None:
        """Write it as a checkpoint, with the buffer as it was then. :raises QgfError: the disk is full."""
        stored = {f"buffer.{name}": tensor for name, tensor in buffer.state().items()}
        save_checkpoint(path, self._tensors | stored, self._values, keep_previous=True)


def restore(
    path: Path,
    config: TrainConfig,
    agent: Agent,
    buffer: ReplayBuffer,
    noise: np.random.Generator,
    envs: Sequence[Environment],
    curriculum: Curriculum,
    dial: AutoDial | None,
) -> Progressed:
    """Go on from a checkpoint, or where it is damaged from the one before.

    :raises QgfError: both are damaged, it does not fit, or was trained with other settings.
    """
    tensors, values = load_last_checkpoint(path, lambda text: _LOG.warning("qgf: warning: %s", text))
    # A setting that an older version did not know had its default.
    ours, theirs = describe(config), describe(TrainConfig()) | values["config"]
    for key in ours:
        if key not in ("steps", "checkpoint_steps") and json.dumps(ours[key]) != json.dumps(theirs[key]):
            raise QgfError(
                f"{path}: was trained with {key} {theirs[key]}, not {ours[key]}; give the same settings or --overwrite"
            )
    try:
        agent.restore(tensors, values["agent"])
        buffer.restore({k[len("buffer.") :]: v for k, v in tensors.items() if k.startswith("buffer.")})
        noise.bit_generator.state = values["noise"]
        curriculum.restore(values.get("curriculum", curriculum.state()))
        for env, state in zip(envs, values["environments"], strict=True):
            env.np_random.bit_generator.state = state
        if dial is not None:
            dial.restore(tensors, values["auto"])
        return Progressed(
            int(values["step"]),
            float(values["trained"]),
            tensors["observation_std"],
            float(values["reward_std"]),
            tensors["poses"].numpy().copy(),
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise QgfError(f"{path}: does not fit ({error}); train again with --overwrite") from error

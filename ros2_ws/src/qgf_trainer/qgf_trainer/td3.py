# SPDX-License-Identifier: Apache-2.0
"""TD3 (Fujimoto et al. 2018, arXiv:1802.09477), with the stabilised critic by a switch; actor and targets stay
plain."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qgf_trainer.agent import Agent, LearnerConfig, td_loss, td_target
from qgf_trainer.flat import FlatParameters
from qgf_trainer.networks import Actor, DeployedPolicy
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
from qgf_trainer.rivals import PLAIN, RivalConfig

__all__ = ["TD3", "TD3Config", "td_target"]


@dataclasses.dataclass(frozen=True)
class TD3Config(LearnerConfig):
    """Settings of TD3; the defaults suit the reach task."""

    policy_delay: int = 2
    """Critic updates per actor update."""
    target_noise: float = 0.2
    """Standard deviation of the target policy's smoothing noise."""
    target_noise_clip: float = 0.5
    """Largest size of that noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.policy_delay < 1:
            raise ValueError(f"policy_delay {self.policy_delay} must be at least 1")
        if self.target_noise < 0 or self.target_noise_clip < 0:
            raise ValueError(
                f"target_noise {self.target_noise} and target_noise_clip {self.target_noise_clip} must not be negative"
            )


class TD3(Agent[Actor]):
    """Actor, twin critic, their targets and optimisers.

    :param seed: of the weights and of all noise in the updates.
    """

    def __init__(
        self, n_obs: int, n_act: int, config: TD3Config, field: FieldConfig, seed: int, rival: RivalConfig = PLAIN
    ) -> None:
        super().__init__(Actor, n_obs, n_act, config, field, seed, rival)
        self.config = config
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self._actor_target_flat = FlatParameters(self.actor_target.parameters())

    def explore(
        self, observation: NDArray[np.float32], noise: np.random.Generator, scale: float
    ) -> NDArray[np.float32]:
        """The actor's actions with Gaussian noise of standard deviation `scale`, clipped."""
        action = self.act(observation)
        return np.clip(action + scale * noise.standard_normal(action.shape), -1.0, 1.0).astype(np.float32)

    def _update(self, batch: Batch, observation_std: Tensor, reward_std: float) -> None:
        """One critic update and, every `policy_delay`-th time, one of the actor and the targets."""
        config = self.config
        states = self._states(batch)
        observation, following = states.here, states.following
        with torch.no_grad():
            noise = torch.randn(batch.action.shape, generator=self.generator) * config.target_noise
            noise.clamp_(-config.target_noise_clip, config.target_noise_clip)
            next_action = (self.actor_target.actions(following) + noise).clamp_(-1.0, 1.0)
            target = td_target(batch, self.critic_target.values(following, next_action).min(0).values, config.gamma)
        values = self._update_critic(target, 1.0, states, batch.action, observation_std, reward_std)
        if self.updates % config.policy_delay == 0:
            self.actor.climb(self.critic, observation)
            self._update_actor(states)
            self._actor_target_flat.approach(self.actor_optimiser.flat, config.tau)
            self._critic_target_flat.approach(self.critic_optimiser.flat, config.tau)
        if self.updates % self._LATEST_EVERY == 0:
            self.latest = {
                "td_loss": float(td_loss(values, target, 1.0)),
                "q_mean": float(values.mean()),
                **self.stabiliser.latest,
            }

    def deployed(self) -> DeployedPolicy:
        """The policy as it is exported: the target actor, which averages the last updates' weights."""
        return DeployedPolicy(copy.deepcopy(self.actor_target), self.mean, self.std).eval()

    def _modules(self) -> Sequence[tuple[str, nn.Module]]:
        return (*super()._modules(), ("actor_target", self.actor_target))

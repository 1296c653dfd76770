# SPDX-License-Identifier: Apache-2.0
"""TD3 with the stabilised critic in plain PyTorch: separate critics of nn.Linear, torch.autograd.grad with
create_graph, Adam. Nothing is tuned, and nothing is done twice that one would not do twice."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from double_backward.losses import approach, check_published, critics_loss, network
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
from qgf_trainer.td3 import TD3Config


class DoubleBackwardTD3:
    """The update of arXiv:2601.22970 in its published form.

    :param field: weights, noise and margin; `every` and `rows` are the paper's: each update, the whole batch.
    """

    def __init__(self, n_obs: int, n_act: int, config: TD3Config, field: FieldConfig, seed: int) -> None:
        check_published(field)
        torch.manual_seed(seed)
        self.config, self.field = config, field
        hidden = list(config.hidden)
        self.actor = nn.Sequential(*network([n_obs, *hidden, n_act]), nn.Tanh())
        self.critics = nn.ModuleList(network([n_obs + n_act, *hidden, 1]) for _ in range(2))
        self.actor_target, self.critic_targets = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=config.learning_rate)
        self.updates = 0

    def update(self, batch: Batch) -> None:
        """One critic update and, every `policy_delay`-th time, one of the actor and the targets."""
        noise = self.config.target_noise * torch.randn_like(batch.action)
        noise = noise.clamp(-self.config.target_noise_clip, self.config.target_noise_clip)
        loss = self.critic_loss(
            batch, noise, self.field.noise * torch.randn_like(batch.observation), torch.randn_like(batch.action).sign()
        )
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        self.updates += 1
        if self.updates % self.config.policy_delay == 0:
            self._update_actor(batch)

    def critic_loss(self, batch: Batch, target_noise: Tensor, state_noise: Tensor, probe: Tensor) -> Tensor:
        """TD loss and weighted field losses over both critics, a scalar."""
        observation, action, following = batch.observation, batch.action, batch.next_observation
        with torch.no_grad():
            next_action = (self.actor_target(following) + target_noise).clamp(-1.0, 1.0)
            pair = torch.cat([following, next_action], dim=1)
            next_value = torch.min(self.critic_targets[0](pair), self.critic_targets[1](pair)).squeeze(1)
            target = batch.reward + self.config.gamma * (1.0 - batch.terminal) * next_value
        return critics_loss(self.critics, observation, action, following, target, 1.0, self.field, state_noise, probe)

    def _update_actor(self, batch: Batch) -> None:
        loss = -self.critics[0](torch.cat([batch.observation, self.actor(batch.observation)], dim=1)).mean()
        self.actor_optimiser.zero_grad()
        loss.backward()
        self.actor_optimiser.step()
        approach(self.actor_target, self.actor, self.config.tau)
        approach(self.critic_targets, self.critics, self.config.tau)

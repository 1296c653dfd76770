# SPDX-License-Identifier: Apache-2.0
"""TD3 with the stabilised critic in plain PyTorch: separate critics of nn.Linear, torch.autograd.grad with
create_graph, Adam. Nothing is tuned, and nothing is done twice that one would not do twice."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from double_backward.losses import field_losses, network
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
from qgf_trainer.td3 import TD3Config


class DoubleBackwardTD3:
    """The update of arXiv:2601.22970 in its published form.

    :param field: weights, noise and margin; `every` and `rows` are the paper's: each update, the whole batch.
    """

    def __init__(self, n_obs: int, n_act: int, config: TD3Config, field: FieldConfig, seed: int) -> None:
        if field.form == "scale_free" or (field.form == "paper" and (field.every, field.rows) != (1, 0)):
            raise ValueError("the double backward implements the published form: paper, every 1, rows 0")
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
        pair = torch.cat([observation, action], dim=1)
        loss = sum(nn.functional.mse_loss(critic(pair).squeeze(1), target) for critic in self.critics)
        if self.field.form == "paper":
            for critic in self.critics:
                mixed, consistency, curvature = field_losses(
                    critic, observation, action, following, state_noise, probe, self.field.margin
                )
                loss = loss + (
                    self.field.mixed_partial * mixed
                    + self.field.field_consistency * consistency
                    + self.field.curvature * curvature
                )
        return loss

    def _update_actor(self, batch: Batch) -> None:
        loss = -self.critics[0](torch.cat([batch.observation, self.actor(batch.observation)], dim=1)).mean()
        self.actor_optimiser.zero_grad()
        loss.backward()
        self.actor_optimiser.step()
        with torch.no_grad():
            for target, online in ((self.actor_target, self.actor), (self.critic_targets, self.critics)):
                for old, new in zip(target.parameters(), online.parameters(), strict=True):
                    old.mul_(1.0 - self.config.tau).add_(new, alpha=self.config.tau)

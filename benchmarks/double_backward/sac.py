# SPDX-License-Identifier: Apache-2.0
"""SAC with the stabilised critic in plain PyTorch, as `td3` beside it: nothing is tuned, and nothing is done twice that
one would not do twice."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from double_backward.losses import approach, check_published, critics_loss, network
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
from qgf_trainer.sac import SACConfig


class DoubleBackwardSAC:
    """The update of arXiv:2601.22970 in its published form, with automatic temperature.

    :param field: weights, noise and margin; `every` and `rows` are the paper's: each update, the whole batch.
    """

    def __init__(self, n_obs: int, n_act: int, config: SACConfig, field: FieldConfig, seed: int) -> None:
        check_published(field)
        torch.manual_seed(seed)
        self.config, self.field, self.target_entropy = config, field, -float(n_act)
        hidden = list(config.hidden)
        self.actor = network([n_obs, *hidden, 2 * n_act])  # mean and logarithm of the deviation
        self.critics = nn.ModuleList(network([n_obs + n_act, *hidden, 1]) for _ in range(2))
        self.critic_targets = copy.deepcopy(self.critics)
        self.log_temperature = torch.tensor([math.log(config.temperature)], requires_grad=True)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=config.learning_rate)
        self.temperature_optimiser = torch.optim.Adam([self.log_temperature], lr=config.learning_rate)

    def sample(self, observation: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, n_act) from standard normal numbers, and their log-probabilities (B, 1)."""
        mean, log_std = self.actor(observation).chunk(2, dim=1)
        log_std = log_std.clamp(-20.0, 2.0)
        u = mean + log_std.exp() * drawn
        density = -0.5 * drawn.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        slope = 2.0 * (math.log(2.0) - u - nn.functional.softplus(-2.0 * u))
        return torch.tanh(u), (density - slope).sum(dim=1, keepdim=True)

    def update(self, batch: Batch) -> None:
        """One update of the critics, the actor, the temperature and the targets."""
        loss = self.critic_loss(
            batch,
            torch.randn_like(batch.action),
            self.field.noise * torch.randn_like(batch.observation),
            torch.randn_like(batch.action).sign(),
        )
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()

        temperature = self.log_temperature.detach().exp()
        action, log_probability = self.sample(batch.observation, torch.randn_like(batch.action))
        pair = torch.cat([batch.observation, action], dim=1)
        loss = (temperature * log_probability - torch.min(self.critics[0](pair), self.critics[1](pair))).mean()
        self.actor_optimiser.zero_grad()
        loss.backward()
        self.actor_optimiser.step()

        loss = -(self.log_temperature * (log_probability.detach() + self.target_entropy)).mean()
        self.temperature_optimiser.zero_grad()
        loss.backward()
        self.temperature_optimiser.step()
        approach(self.critic_targets, self.critics, self.config.tau)

    def critic_loss(self, batch: Batch, drawn: Tensor, state_noise: Tensor, probe: Tensor) -> Tensor:
        """TD loss and weighted field losses over both critics, a scalar."""
        observation, action, following = batch.observation, batch.action, batch.next_observation
        with torch.no_grad():
            next_action, log_probability = self.sample(following, drawn)
            pair = torch.cat([following, next_action], dim=1)
            next_value = torch.min(self.critic_targets[0](pair), self.critic_targets[1](pair))
            next_value = (next_value - self.log_temperature.exp() * log_probability).squeeze(1)
            target = batch.reward + self.config.gamma * (1.0 - batch.terminal) * next_value
        return critics_loss(self.critics, observation, action, following, target, 0.5, self.field, state_noise, probe)

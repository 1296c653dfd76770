# SPDX-License-Identifier: Apache-2.0
"""The three losses of arXiv:2601.22970 by double backward, for any critic that is a torch module."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qgf_trainer.q_gradient_field import FieldConfig

Critic = Callable[[Tensor], Tensor]
"""(B, n_obs + n_act) -> (B, 1)."""


def network(sizes: list[int]) -> nn.Sequential:
    """Linear layers of these sizes with SiLU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def field_losses(
    critic: Critic,
    observation: Tensor,
    action: Tensor,
    next_observation: Tensor,
    state_noise: Tensor,
    probe: Tensor,
    margin: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixed partial, field consistency and curvature of one critic; the arguments are those of
    `q_gradient_field_losses`."""

    def gradient(states: Tensor, actions: Tensor) -> Tensor:
        value = critic(torch.cat([states, actions], dim=1)).sum()
        return torch.autograd.grad(value, actions, create_graph=True)[0]

    actions = action.detach().clone().requires_grad_(True)
    here = gradient(observation, actions)
    noisy = gradient(observation + state_noise, actions)
    following = gradient(next_observation, actions)
    product = torch.autograd.grad((here * probe).sum(), actions, create_graph=True)[0]
    curvature = (product * probe).sum(dim=1)
    return (
        (noisy - here).square().mean(),
        (following - here).square().mean(),
        torch.relu(curvature + margin).mean(),
    )


def check_published(field: FieldConfig) -> None:
    """:raises ValueError: not the published form and not plain either, which is all that is implemented here."""
    if field.form == "scale_free" or (field.form == "paper" and (field.every, field.rows) != (1, 0)):
        raise ValueError("the double backward implements the published form: paper, every 1, rows 0")


def critics_loss(
    critics: nn.ModuleList,
    observation: Tensor,
    action: Tensor,
    next_observation: Tensor,
    target: Tensor,
    td_weight: float,
    field: FieldConfig,
    state_noise: Tensor,
    probe: Tensor,
) -> Tensor:
    """Weighted TD loss towards the target (B,) and weighted field losses over both critics, a scalar."""
    pair = torch.cat([observation, action], dim=1)
    loss = td_weight * sum(nn.functional.mse_loss(critic(pair).squeeze(1), target) for critic in critics)
    if field.form == "paper":
        for critic in critics:
            mixed, consistency, curvature = field_losses(
                critic, observation, action, next_observation, state_noise, probe, field.margin
            )
            loss = loss + (
                field.mixed_partial * mixed + field.field_consistency * consistency + field.curvature * curvature
            )
    return loss


def approach(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target += tau (online - target)."""
    with torch.no_grad():
        for old, new in zip(target.parameters(), online.parameters(), strict=True):
            old.mul_(1.0 - tau).add_(new, alpha=tau)

# SPDX-License-Identifier: Apache-2.0
"""The three losses of arXiv:2601.22970 by double backward, for any critic that is a torch module."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

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

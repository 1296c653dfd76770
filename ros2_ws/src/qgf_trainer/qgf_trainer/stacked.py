# SPDX-License-Identifier: Apache-2.0
"""Critics of other libraries, two nn.Sequential of Linear and SiLU, as the losses want them: stacked weights."""

from __future__ import annotations

import typing
from collections.abc import Sequence

import torch
from torch import nn

from qgf_core.errors import QgfError
from qgf_trainer.networks import TwinCritic


class _Stacked:
    """What the losses look at in a `TwinCritic`; the weights lead back to the networks' own."""

    def __init__(self, layers: list[list[nn.Linear]], n_obs: int, n_act: int) -> None:
        self.n_obs, self.n_act = n_obs, n_act
        pairs = list(zip(*layers, strict=True))
        self.weights = [torch.stack([linear.weight.T for linear in pair]) for pair in pairs]
        self.biases = [torch.stack([linear.bias[None] for linear in pair]) for pair in pairs]


def stack(networks: Sequence[nn.Module], n_act: int) -> TwinCritic:
    """Two critics on cat(observation, action) as one for `q_gradient_field_losses` and `FieldStabiliser`.

    To be made anew for every update, as the graph is: gradients flow to the networks' own parameters.

    :raises QgfError: not two networks of one shape, or not Linear layers with SiLU between them.
    """
    if len(networks) != 2:
        raise QgfError(f"{len(networks)} critics: the losses are written for two; set n_critics to 2")
    layers = []
    for network in networks:
        modules = list(network.children())
        fits = (
            len(modules) >= 3
            and len(modules) % 2 == 1
            and all(isinstance(module, nn.Linear) and module.bias is not None for module in modules[::2])
            and all(isinstance(module, nn.SiLU) for module in modules[1::2])
        )
        if not fits:
            kinds = ", ".join(type(module).__name__ for module in modules)
            raise QgfError(
                f"critic of {kinds}: the curvature needs Linear layers (with bias) and SiLU in turn; "
                "set activation_fn to torch.nn.SiLU"
            )
        layers.append(typing.cast("list[nn.Linear]", modules[::2]))
    if [x.weight.shape for x in layers[0]] != [x.weight.shape for x in layers[1]]:
        raise QgfError("the two critics differ in shape; give them the same layers")
    return typing.cast(TwinCritic, _Stacked(layers, layers[0][0].in_features - n_act, n_act))

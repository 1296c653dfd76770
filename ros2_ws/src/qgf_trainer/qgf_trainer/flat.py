# SPDX-License-Identifier: Apache-2.0
"""The parameters of a network as parts of one vector: an optimiser's step and a moving average are one call each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from qgf_trainer import native

_ALIGNED = 16  # numbers: each part starts where a tensor of its own could, or a product would depend on its place


class FlatParameters:
    """Parameters, whose memory this takes over, and their gradients, each part of one vector.

    To be made after the networks are copied: a copy has memory of its own.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        lengths = [-(-parameter.numel() // _ALIGNED) * _ALIGNED for parameter in self.parameters]
        self._starts = list(itertools.accumulate(lengths, initial=0))
        self.vector = self.join([parameter.detach() for parameter in self.parameters])
        self.gradient = torch.zeros_like(self.vector)
        parts = zip(self.parameters, self.split(self.vector), self.split(self.gradient), strict=True)
        for parameter, data, gradient in parts:
            parameter.data = data
            if parameter.requires_grad:
                parameter.grad = gradient

    def split(self, vector: Tensor) -> list[Tensor]:
        """The parts of a vector like this one's, shaped as the parameters; they share its memory."""
        return [
            vector[start : start + parameter.numel()].view(parameter.shape)
            for start, parameter in zip(self._starts, self.parameters, strict=False)
        ]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The vector of such parts. :raises ValueError: they are not shaped as the parameters."""
        shapes, expected = [tuple(part.shape) for part in parts], [tuple(p.shape) for p in self.parameters]
        if shapes != expected:
            raise ValueError(f"tensors of shapes {shapes} do not fit parameters of shapes {expected}")
        vector = parts[0].new_zeros(self._starts[-1])
        for part, whole in zip(self.split(vector), parts, strict=True):
            part.copy_(whole)
        return vector

    def approach(self, online: FlatParameters, tau: float) -> None:
        """Each parameter += tau (its own of `online` - it); `online` may have further ones behind them."""
        self.vector.lerp_(online.vector[: len(self.vector)], tau)


class FlatAdam:
    """torch's Adam on parameters that are made parts of one vector."""

    _MOMENTS = ("exp_avg", "exp_avg_sq")

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float) -> None:
        self.flat = FlatParameters(parameters)
        self.flat.vector.grad = self.flat.gradient
        self._adam = torch.optim.Adam([self.flat.vector], lr=learning_rate, fused=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        """From now on."""
        self._adam.param_groups[0]["lr"] = learning_rate

    def add(self, loss: Tensor) -> None:
        """Add the derivatives of the loss by these parameters alone to their `grad`."""
        loss.backward(inputs=self.flat.parameters)

    def step(self) -> None:
        """One step down what stands in the parameters' `grad`."""
        entry = self._adam.state.get(self.flat.vector)
        if entry:
            group, step = self._adam.param_groups[0], float(entry["step"]) + 1.0
            mean, square = (entry[key] for key in self._MOMENTS)
            vectors = native.AdamVectors(self.flat.vector, self.flat.gradient, mean, square)
            if native.adam(vectors, step, group["lr"], group["betas"], group["eps"]):
                entry["step"].fill_(step)
                return
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """`I.KEY` of parameter I, as Adam has them on parameters of their own; empty before the first step."""
        entry = self._adam.state.get(self.flat.vector)
        if not entry:
            return {}
        tensors = {f"{index}.step": entry["step"].clone() for index in range(len(self.flat.parameters))}
        for key in self._MOMENTS:
            tensors.update({f"{index}.{key}": part for index, part in enumerate(self.flat.split(entry[key]))})
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`. :raises KeyError, ValueError: it does not fit."""
        self._adam.state.clear()
        if tensors:
            indices = range(len(self.flat.parameters))
            moments = {key: self.flat.join([tensors[f"{i}.{key}"] for i in indices]) for key in self._MOMENTS}
            self._adam.state[self.flat.vector] = {"step": tensors["0.step"].clone(), **moments}

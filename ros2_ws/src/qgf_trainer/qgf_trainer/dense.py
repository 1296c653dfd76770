# SPDX-License-Identifier: Apache-2.0
"""Dense layers for the learners' updates: products by oneDNN where it is there, and a perceptron on them.

torch's own products go to MKL, which leaves half of the vector unit unused on processors other than Intel's: measured
on an AMD EPYC (Zen 5) 108 GFLOP/s against oneDNN's 240, single precision, one thread. The choice depends on the build
and the type alone, never on a measurement, so that a seed repeats bit for bit on its machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch lets us call oneDNN's product."""


_THIN = 64


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b (M, N) of x (M, K), W (N, K) and b (N,), of any strides. Not differentiable: for written-out passes."""
    rows, width = x.shape
    thin = rows < _THIN or width < _THIN or len(weight) == 1  # oneDNN takes longer to begin than torch for all of it
    if ONEDNN and not thin and x.dtype == torch.float32 and x.is_cpu:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


def product_into(out: Tensor, x: Tensor, y: Tensor) -> None:
    """x^T y of x (B, M) and y (B, N), written into `out` (M, N), which or whose transpose is contiguous."""
    if not out.is_contiguous():
        out, x, y = out.T, y, x
    out.copy_(affine(x.T, y.T))


class _Kept(NamedTuple):
    """Of a forward pass: what enters each layer (B, in), and what each but the last makes of it (B, out)."""

    inputs: list[Tensor]
    before: list[Tensor]


def _climb(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, _Kept]:
    """z_L of inputs x."""
    kept = _Kept([x], [])
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        kept.before.append(affine(kept.inputs[-1], weight, bias))
        kept.inputs.append(nn.functional.silu(kept.before[-1]))
    return affine(kept.inputs[-1], weights[-1], biases[-1]), kept


def _descend(
    d_z: Tensor,
    weights: Sequence[Tensor],
    kept: _Kept,
    into: Sequence[tuple[Tensor, Tensor]] | None,
    by_input: bool,
) -> Tensor | None:
    """What the derivative by z_L makes of those by the inputs and, written `into` them, the weights and biases."""
    for layer in range(len(weights) - 1, -1, -1):
        if into is not None:
            d_weight, d_bias = into[layer]
            product_into(d_weight, d_z, kept.inputs[layer])
            torch.sum(d_z, 0, out=d_bias)
        if layer > 0:
            d_z = torch.ops.aten.silu_backward(affine(d_z, weights[layer].T), kept.before[layer - 1])
    return affine(d_z, weights[0].T) if by_input else None


def _of(parameters: Sequence[Tensor], index: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (out, in) and biases (out,) of one of the stacked perceptrons."""
    depth = len(parameters) // 2
    return [w[index].T for w in parameters[:depth]], [b[index, 0] for b in parameters[depth:]]


def twins(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Outputs (2, B) of two perceptrons of one shape and one output, of inputs (B, in), weights (2, in, out) and biases
    (2, 1, out). Not differentiable, as all here."""
    parameters = [*weights, *biases]
    return torch.cat([_climb(x, *_of(parameters, index))[0] for index in range(2)], 1).T


def regress_twins(
    x: Tensor,
    target: Tensor,
    weight: float,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    into: Sequence[Tensor],
) -> Tensor:
    """Outputs (2, B) as of `twins`, one perceptron after the other while its layers are in the cache, and the
    derivatives of weight * sum over both of mean (output - target)^2, target (B,).

    :param into: where they are written, like the weights, then like the biases.
    """
    values = x.new_empty((2, len(x)))
    for index, value in enumerate(values):
        own, offsets = _of([*weights, *biases], index)
        z, kept = _climb(x, own, offsets)
        value.copy_(z.squeeze(1))
        d_value = (value - target).mul_(2.0 * weight / len(x))
        _descend(d_value.unsqueeze(1), own, kept, list(zip(*_of(into, index), strict=True)), False)
    return values


def climb_values(
    observation: Tensor,
    actor: tuple[Sequence[Tensor], Sequence[Tensor]],
    critic: tuple[Sequence[Tensor], Sequence[Tensor]],
    into: Sequence[tuple[Tensor, Tensor]],
) -> None:
    """The derivatives of -mean Q(s, tanh pi(s)) by the actor's weights and biases, written `into` them.

    :param observation: s (B, n_obs). :param actor, critic: weights (out, in) and biases (out,) of pi and Q.
    """
    z, kept = _climb(observation, *actor)
    action = torch.tanh(z)
    _, above = _climb(torch.cat((observation, action), dim=-1), *critic)
    d_value = observation.new_full((len(observation), 1), -1.0 / len(observation))
    d_input = _descend(d_value, critic[0], above, None, True)
    assert d_input is not None
    d_z = torch.ops.aten.tanh_backward(d_input[:, observation.shape[1] :], action)
    _descend(d_z, actor[0], kept, into, False)


def perceptron(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Output (B, out) of dense layers with SiLU between them, of inputs (B, in), weights (out, in), biases (out,)."""
    return _climb(x, weights, biases)[0]


def parameters_of(layers: Iterable[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (out, in) and biases (out,) of the nn.Linear among these modules."""
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return [layer.weight for layer in linear], [layer.bias for layer in linear]

# SPDX-License-Identifier: Apache-2.0
"""Dense layers for the learners' updates: products by oneDNN where it is there, and a perceptron on them.

torch's own products go to MKL, which leaves half of the vector unit unused on processors other than Intel's: measured
on an AMD EPYC (Zen 5) 108 GFLOP/s against oneDNN's 240, single precision, one thread. The choice depends on the build
and the type alone, never on a measurement, so that a seed repeats bit for bit on its machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch lets us call oneDNN's product."""


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b (M, N) of x (M, K), W (N, K) and b (N,), of any strides. Not differentiable: for written-out passes."""
    if ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu":
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


class _Perceptron(torch.autograd.Function):
    """(x, L weights (out, in), L biases (out,)) -> z_L: SiLU after every layer but the last. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        inputs, before = [x], []
        for weight, bias in zip(parameters[: depth - 1], parameters[depth:-1], strict=True):
            before.append(affine(inputs[-1], weight, bias))
            inputs.append(nn.functional.silu(before[-1]))
        ctx.save_for_backward(*parameters[:depth], *inputs, *before)
        return affine(inputs[-1], parameters[depth - 1], parameters[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_z: Tensor) -> tuple[Tensor | None, ...]:
        depth = (len(ctx.saved_tensors) + 1) // 3
        weights, rest = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        inputs, before = rest[:depth], rest[depth:]
        wanted = ctx.needs_input_grad
        d_weights: list[Tensor | None] = [None] * depth
        d_biases: list[Tensor | None] = [None] * depth
        d_x = None
        for layer in range(depth - 1, -1, -1):
            if wanted[1 + layer]:
                d_weights[layer] = affine(d_z.T, inputs[layer].T)
                d_biases[layer] = d_z.sum(0)
            if layer > 0:
                d_z = torch.ops.aten.silu_backward(affine(d_z, weights[layer].T), before[layer - 1])
            elif wanted[0]:
                d_x = affine(d_z, weights[0].T)
        return (d_x, *d_weights, *d_biases)


def perceptron(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Output (B, out) of dense layers with SiLU between them, of inputs (B, in), weights (out, in), biases (out,).

    Differentiable once, by the inputs and by those layers that require it.
    """
    return _Perceptron.apply(x, *weights, *biases)


def perceptron_of(x: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    """The same, of the nn.Linear among these modules."""
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return perceptron(x, [layer.weight for layer in linear], [layer.bias for layer in linear])

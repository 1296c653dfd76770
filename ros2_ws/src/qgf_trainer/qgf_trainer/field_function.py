# SPDX-License-Identifier: Apache-2.0
"""Values of a twin critic, its field g = grad_a Q and the curvature v^T H_aa v as one differentiable function.

Both passes are written out, with fewer passes over memory than autograd makes of the same expressions. Notation as in
`q_gradient_field`: layers z_l = h_{l-1} W_l + b_l, h_l = f(z_l), f = SiLU; the states s + eps, s' and s are rows of one
batch; only the rows of s carry the tangents t_l along v. x^ is the loss's derivative by x.
    forward    p_l = f'(z_l) t_l,  t_{l+1} = p_l W_{l+1};   d_l = u_l f'(z_l),  u_{l-1} = d_l W_l^T,  g = d_1 W_1a^T
    backward   u_l^ = d_l^ f'(z_l) + c^ f''(z_l) t_l^2,          d_{l+1}^ = u_l^ W_{l+1}
               z_l^ = d_l^ u_l f''(z_l) + c^ u_l f'''(z_l) t_l^2 + h_l^ f'(z_l) + p_l^ t_l f''(z_l)
               t_l^ = 2 c^ u_l f''(z_l) t_l + p_l^ f'(z_l),      (h_l^, p_l^) = (z_{l+1}^, t_{l+1}^) W_{l+1}^T
with c = v^T H_aa v = sum_l sum u_l f''(z_l) t_l^2. The two critics are taken one after the other: the blocks of one
stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qgf_trainer import field_passes as passes
from qgf_trainer import native
from qgf_trainer.dense import affine


class _Critic:
    """One critic's forward pass, kept for the backward pass."""

    def __init__(
        self, rows: Tensor, probe: Tensor, n_obs: int, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> None:
        self.rows, self.probe, self.n_obs, self.weights = rows, probe, n_obs, weights
        n = len(probe)
        self.here, self.field = slice(2 * n, 3 * n), slice(3 * n)  # rows of s, rows with a field
        self.depth = len(weights) - 1
        self.z: list[Tensor] = []
        self.gate: list[Tensor] = []  # q = sigmoid(z)
        self.h: list[Tensor] = []  # f(z) = z q
        self.slope: list[Tensor] = []  # f'(z) = q + h (1 - q)
        self.bend: list[Tensor] = []  # f''(z) = (f' + q - h q) (1 - q), in the rows with a field
        self.tangent: list[Tensor] = []
        self.p: list[Tensor] = []
        h, p = rows, probe
        for layer in range(self.depth):
            weight = weights[layer].T
            z = affine(h, weight, biases[layer])
            tangent = affine(p, weight[:, n_obs:] if layer == 0 else weight)
            gate, h, slope, bend, p = passes.forward(z, tangent)
            for kept, x in zip(
                (self.z, self.tangent, self.gate, self.h, self.slope, self.bend, self.p),
                (z, tangent, gate, h, slope, bend, p),
                strict=True,
            ):
                kept.append(x)

    def outputs(self, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q (B,), g (3 n, n_act) and v^T H_aa v (n,)."""
        value = torch.addmv(bias, self.h[-1][self.here.start :], self.weights[-1].squeeze(1))
        u = self.weights[-1].T  # one row for all
        self.u, self.delta = [u] * self.depth, [u] * self.depth
        second = value.new_zeros(len(self.probe))
        for layer in range(self.depth - 1, -1, -1):
            self.u[layer] = u
            self.delta[layer] = passes.deltas(u, self.slope[layer], self.bend[layer], self.tangent[layer], second)
            if layer > 0:
                u = affine(self.delta[layer], self.weights[layer])
        return value, affine(self.delta[0], self.weights[0][self.n_obs :]), second

    def backward(self, d_value: Tensor, d_gradient: Tensor, d_second: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Derivatives by the weights and by the biases."""
        depth = self.depth
        d_z: list[Tensor] = []
        d_tangent: list[Tensor] = []
        d_weights = [affine(d_gradient.T, self.delta[0].T)]  # of the action's rows as yet
        d_delta = affine(d_gradient, self.weights[0][self.n_obs :].T)
        for layer in range(depth):
            kept = (x[layer] for x in (self.z, self.gate, self.slope, self.bend))
            d_u, by_z, by_t = passes.bend_backward(d_second, self.tangent[layer], self.u[layer], d_delta, *kept)
            d_z.append(by_z)
            d_tangent.append(by_t)
            if layer + 1 < depth:
                d_weights.append(affine(d_u.T, self.delta[layer + 1].T))
                d_delta = affine(d_u, self.weights[layer + 1].T)
            else:
                d_weights.append(d_u.sum(0).unsqueeze(1))
        d_weights[depth][:, 0].addmv_(self.h[-1][self.here.start :].T, d_value)
        d_biases = [d_value.sum(0, keepdim=True)]
        passes.value_backward(d_value, self.weights[depth].squeeze(1), self.slope[-1], d_z[-1])
        for layer in range(depth - 1, 0, -1):
            low = layer - 1
            d_biases.append(d_z[layer].sum(0))
            d_weights[layer] += affine(self.h[low].T, d_z[layer].T)
            d_weights[layer] += affine(self.p[low].T, d_tangent[layer].T)
            d_h = affine(d_z[layer], self.weights[layer])
            d_p = affine(d_tangent[layer], self.weights[layer])
            below = (self.slope[low], self.bend[low], self.tangent[low])
            passes.layer_backward(d_h, d_p, *below, d_z[low], d_tangent[low])
        d_biases.append(d_z[0].sum(0))
        first = affine(self.rows.T, d_z[0].T)
        first[self.n_obs :] += d_weights[0]
        first[self.n_obs :] += affine(self.probe.T, d_tangent[0].T)
        d_weights[0] = first
        return d_weights, d_biases[::-1]


class FieldPass:
    """The forward pass of both critics, and the backward pass that follows it; see `FieldFunction` for the arguments.

    :param weights: (2, in, out) of each layer. :param biases: (2, 1, out).
    :param into: where the derivatives by the weights, then by the biases, are written by the backward pass.
    :param pair: both critics in machine code, whose derivatives have the same place; None: the passes run in torch.
    """

    def __init__(
        self,
        rows: Tensor,
        probe: Tensor,
        n_obs: int,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        into: Sequence[Tensor],
        pair: Sequence[native.NativeNetwork] | None,
    ) -> None:
        n, n_act = probe.shape
        self._rows, self._probe, self._into, self._pair = rows, probe, into, pair
        self._critics: list[_Critic] = []
        self._memory: list[Tensor] = []
        if pair:
            self.value = rows.new_empty((2, len(rows) - 2 * n))
            self.gradient, self.second = rows.new_empty((2, 3 * n, n_act)), rows.new_empty((2, n))
            for network, *places in zip(pair, self.value, self.gradient, self.second, strict=True):
                self._memory.append(network.field_forward(rows, probe, *places))
            return
        outputs = []
        for index in range(2):
            critic = _Critic(rows, probe, n_obs, [w[index] for w in weights], [b[index, 0] for b in biases])
            outputs.append(critic.outputs(biases[-1][index, 0]))
            self._critics.append(critic)
        self.value, self.gradient, self.second = (torch.stack(parts) for parts in zip(*outputs, strict=True))

    def backward(self, d_value: Tensor, d_gradient: Tensor, d_second: Tensor) -> None:
        """Writes what the derivatives by the three make of those by the weights and biases."""
        if self._pair:
            given = (x.contiguous() for x in (d_value, d_gradient, d_second))
            for network, memory, *by in zip(self._pair, self._memory, *given, strict=True):
                network.field_backward(self._rows, self._probe, *by, memory)
            return
        half = len(self._into) // 2
        for index, critic in enumerate(self._critics):
            d_weights, d_biases = critic.backward(d_value[index], d_gradient[index], d_second[index])
            for place, found in zip(self._into[:half], d_weights, strict=True):
                place[index].copy_(found)
            for place, found in zip(self._into[half:], d_biases, strict=True):
                place[index, 0].copy_(found)


class FieldFunction(torch.autograd.Function):
    """(rows, probe, n_obs, weights, biases) -> Q (2, B), g (2, 3 n, n_act), v^T H_aa v (2, n).

    rows (2 n + B, n_obs + n_act): states and actions at n of s + eps, the n s' and all s, of which the first n belong
    to them. probe v (n, n_act). Weights (2, in, out), then biases (2, 1, out). Differentiable once, by weights and
    biases alone.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, probe: Tensor, n_obs: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        half = len(parameters) // 2
        weights, biases = parameters[:half], parameters[half:]
        ctx.gradients = [torch.empty_like(parameter) for parameter in parameters]
        pair = native.twins(weights, biases, ctx.gradients[:half], ctx.gradients[half:])
        ctx.made = FieldPass(rows, probe, n_obs, weights, biases, ctx.gradients, pair)
        return ctx.made.value, ctx.made.gradient, ctx.made.second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_value: Tensor, d_gradient: Tensor, d_second: Tensor) -> tuple[Tensor | None, ...]:
        ctx.made.backward(d_value, d_gradient, d_second)
        return (None, None, None, *ctx.gradients)

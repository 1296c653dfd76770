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
        self.rest: list[Tensor] = []  # 1 - q
        self.h: list[Tensor] = []  # f(z) = z q
        self.slope: list[Tensor] = []  # f'(z) = q + h (1 - q)
        self.bend: list[Tensor] = []  # f''(z) = (f' + q - h q) (1 - q), in the rows with a field
        self.tangent: list[Tensor] = []
        self.p: list[Tensor] = []
        h, p = rows, probe
        for layer in range(self.depth):
            weight = weights[layer].T
            z = affine(h, weight, biases[layer])
            self.tangent.append(affine(p, weight[:, n_obs:] if layer == 0 else weight))
            gate = torch.sigmoid(z)
            rest, h = 1.0 - gate, z * gate
            slope = torch.addcmul(gate, h, rest)
            gate_f, h_f = gate[self.field], h[self.field]
            bend = torch.addcmul(gate_f, gate_f, h_f, value=-1.0).add_(slope[self.field]).mul_(rest[self.field])
            p = slope[self.here] * self.tangent[layer]
            for kept, x in zip(
                (self.z, self.gate, self.rest, self.h, self.slope, self.bend, self.p),
                (z, gate, rest, h, slope, bend, p),
                strict=True,
            ):
                kept.append(x)

    def outputs(self, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q (B,), g (3 n, n_act) and v^T H_aa v (n,)."""
        value = torch.addmv(bias, self.h[-1][self.here.start :], self.weights[-1].squeeze(1))
        u = self.weights[-1].T.expand(self.field.stop, -1)
        self.u, self.delta = [u] * self.depth, [u] * self.depth
        second = value.new_zeros(len(self.probe))
        for layer in range(self.depth - 1, -1, -1):
            self.u[layer] = u
            tangent = self.tangent[layer]
            second += (self.bend[layer][self.here] * tangent).mul_(tangent).mul_(u[self.here]).sum(1)
            self.delta[layer] = u * self.slope[layer][self.field]
            if layer > 0:
                u = affine(self.delta[layer], self.weights[layer])
        return value, affine(self.delta[0], self.weights[0][self.n_obs :]), second

    def backward(self, d_value: Tensor, d_gradient: Tensor, d_second: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Derivatives by the weights and by the biases."""
        here, field, depth = self.here, self.field, self.depth
        c = d_second.unsqueeze(1)
        d_z: list[Tensor] = []
        d_tangent: list[Tensor] = []
        d_weights = [affine(d_gradient.T, self.delta[0].T)]  # of the action's rows as yet
        d_delta = affine(d_gradient, self.weights[0][self.n_obs :].T)
        for layer in range(depth):
            z, gate, rest, tangent, u = (x[layer] for x in (self.z, self.gate, self.rest, self.tangent, self.u))
            bend, u_here = self.bend[layer], u[here]
            weighted = c * tangent
            along = weighted * bend[here]  # c f'' t
            d_u = d_delta * self.slope[layer][field]
            d_u[here].addcmul_(along, tangent)
            full = torch.empty_like(z)
            full[field.stop :].zero_()
            torch.mul(bend, d_delta, out=full[field]).mul_(u)
            z, gate, rest = z[here], gate[here], rest[here]
            r, k = gate * rest, rest - gate  # f''' = r (k (3 + z k) - 2 z r)
            third = (z * k).add_(3.0).mul_(k).addcmul_(z, r, value=-2.0).mul_(r)
            full[here].addcmul_(weighted.mul_(tangent).mul_(third), u_here)
            d_z.append(full)
            d_tangent.append(along.mul_(2.0).mul_(u_here))
            if layer + 1 < depth:
                d_weights.append(affine(d_u.T, self.delta[layer + 1].T))
                d_delta = affine(d_u, self.weights[layer + 1].T)
            else:
                d_weights.append(d_u.sum(0).unsqueeze(1))
        valued = slice(here.start, None)
        d_weights[depth][:, 0].addmv_(self.h[-1][valued].T, d_value)
        d_biases = [d_value.sum(0, keepdim=True)]
        d_h = torch.outer(d_value, self.weights[depth].squeeze(1))
        d_z[-1][valued].addcmul_(d_h, self.slope[-1][valued])
        for layer in range(depth - 1, 0, -1):
            low = layer - 1
            d_biases.append(d_z[layer].sum(0))
            d_weights[layer] += affine(self.h[low].T, d_z[layer].T)
            d_weights[layer] += affine(self.p[low].T, d_tangent[layer].T)
            d_z[low].addcmul_(affine(d_z[layer], self.weights[layer]), self.slope[low])
            d_p = affine(d_tangent[layer], self.weights[layer])
            d_tangent[low].addcmul_(d_p, self.slope[low][here])
            d_z[low][here].addcmul_(d_p.mul_(self.tangent[low]), self.bend[low][here])
        d_biases.append(d_z[0].sum(0))
        first = affine(self.rows.T, d_z[0].T)
        first[self.n_obs :] += d_weights[0]
        first[self.n_obs :] += affine(self.probe.T, d_tangent[0].T)
        d_weights[0] = first
        return d_weights, d_biases[::-1]


class FieldFunction(torch.autograd.Function):
    """(rows, probe, n_obs, weights, biases) -> Q (2, B), g (2, 3 n, n_act), v^T H_aa v (2, n).

    rows (2 n + B, n_obs + n_act): states and actions at n of s + eps, the n s' and all s, of which the first n belong
    to them. probe v (n, n_act). Weights (2, in, out), then biases (2, 1, out). Differentiable once, by weights and
    biases alone.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, probe: Tensor, n_obs: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        half = len(parameters) // 2
        ctx.critics, outputs = [], []
        for index in range(2):
            weights, biases = [w[index] for w in parameters[:half]], [b[index, 0] for b in parameters[half:]]
            critic = _Critic(rows, probe, n_obs, weights, biases)
            outputs.append(critic.outputs(biases[-1]))
            ctx.critics.append(critic)
        return tuple(torch.stack(pair) for pair in zip(*outputs, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_value: Tensor, d_gradient: Tensor, d_second: Tensor) -> tuple[Tensor | None, ...]:
        pairs = [ctx.critics[i].backward(d_value[i], d_gradient[i], d_second[i]) for i in range(2)]
        d_weights = [torch.stack(pair) for pair in zip(pairs[0][0], pairs[1][0], strict=True)]
        d_biases = [torch.stack(pair).unsqueeze(1) for pair in zip(pairs[0][1], pairs[1][1], strict=True)]
        return (None, None, None, *d_weights, *d_biases)

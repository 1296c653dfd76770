# SPDX-License-Identifier: Apache-2.0
"""The field g = grad_a Q and the curvature v^T H_aa v of a twin critic as one differentiable function.

Its backward pass is written out, with fewer passes over memory than autograd makes of the same expressions. Notation as
in `q_gradient_field`: layers z_l = h_{l-1} W_l + b_l, h_l = f(z_l), f = SiLU; the states s, s + eps and s' are rows of
one batch; only the rows of s carry the tangents t_l along v. x^ is the loss's derivative by x.
    forward    p_l = f'(z_l) t_l,  t_{l+1} = p_l W_{l+1};   d_l = u_l f'(z_l),  u_{l-1} = d_l W_l^T,  g = d_1 W_1a^T
    backward   u_l^ = d_l^ f'(z_l) + c^ f''(z_l) t_l^2,          d_{l+1}^ = u_l^ W_{l+1}
               z_l^ = d_l^ u_l f''(z_l) + c^ u_l f'''(z_l) t_l^2 + h_l^ f'(z_l) + p_l^ t_l f''(z_l)
               t_l^ = 2 c^ u_l f''(z_l) t_l + p_l^ f'(z_l),      (h_l^, p_l^) = (z_{l+1}^, t_{l+1}^) W_{l+1}^T
with c = v^T H_aa v = sum_l sum u_l f''(z_l) t_l^2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_silu_backward = torch.ops.aten.silu_backward  # u, z -> u f'(z) in one pass


def _second(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f''(z) = r (2 + z k), with r = q (1 - q), k = 1 - 2 q, q = sigmoid(z). Returns f'', r, k."""
    q = torch.sigmoid(z)
    k = 1.0 - 2.0 * q
    r = torch.addcmul(q, q, q, value=-1.0)
    return (z * k).add_(2.0).mul_(r), r, k


def _third(z: Tensor, r: Tensor, k: Tensor) -> Tensor:
    """f'''(z) = r (k (3 + z k) - 2 z r)."""
    return (z * k).add_(3.0).mul_(k).addcmul_(z, r, value=-2.0).mul_(r)


class FieldFunction(torch.autograd.Function):
    """(rows, probe, n_obs, weights, biases) -> g (2, 3 B, n_act), v^T H_aa v (2, B).

    rows (3 B, n_obs + n_act): states and actions at s, s + eps, s'. probe v (B, n_act). Weights (2, in, out) of the
    hidden layers and of the output, then the biases (2, 1, out) of the hidden layers. Differentiable once, by weights
    and biases alone.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, probe: Tensor, n_obs: int, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        depth = len(parameters) // 2
        weights, biases = parameters[: depth + 1], parameters[depth + 1 :]
        batch, stacked = len(probe), len(rows)
        z = torch.baddbmm(biases[0], rows.expand(2, -1, -1), weights[0])
        tangent = probe @ weights[0][:, n_obs:]
        zs, tangents, inputs = [z], [tangent], []
        for layer in range(1, depth):
            both = z.new_empty(2, stacked + batch, z.shape[2])  # h and p, for one product
            torch.ops.aten.silu.out(z, out=both[:, :stacked])
            _silu_backward.grad_input(tangent, z[:, :batch], grad_input=both[:, stacked:])
            product = both @ weights[layer]
            z, tangent = product[:, :stacked].add_(biases[layer]), product[:, stacked:]
            inputs.append(both)
            zs.append(z)
            tangents.append(tangent)
        u = weights[depth].transpose(1, 2).expand(-1, stacked, -1)
        us, deltas = [u], []
        second = z.new_zeros(2, batch)
        for layer in range(depth - 1, -1, -1):
            bend = _second(zs[layer][:, :batch])[0]
            second += bend.mul_(tangents[layer]).mul_(tangents[layer]).mul_(u[:, :batch]).sum(-1)
            delta = _silu_backward(u, zs[layer])
            deltas.append(delta)
            if layer > 0:
                u = delta @ weights[layer].transpose(1, 2)
                us.append(u)
        gradient = deltas[-1] @ weights[0][:, n_obs:].transpose(1, 2)
        ctx.n_obs, ctx.depth = n_obs, depth
        ctx.save_for_backward(rows, probe, *weights, *zs, *tangents, *inputs, *us[::-1], *deltas[::-1])
        return gradient, second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_gradient: Tensor, d_second: Tensor) -> tuple[Tensor | None, ...]:
        depth, n_obs = ctx.depth, ctx.n_obs
        saved = iter(ctx.saved_tensors)
        rows, probe = next(saved), next(saved)
        weights = [next(saved) for _ in range(depth + 1)]
        zs, tangents = [next(saved) for _ in range(depth)], [next(saved) for _ in range(depth)]
        inputs = [next(saved) for _ in range(depth - 1)]
        us, deltas = [next(saved) for _ in range(depth)], [next(saved) for _ in range(depth)]
        batch, stacked = len(probe), len(rows)
        c = d_second.unsqueeze(-1)
        d_weights: list[Tensor] = [torch.zeros_like(weights[0])]
        both: list[Tensor] = []  # z^ and t^ of every layer, for one product
        bends: list[Tensor] = []  # f'' in the rows of s
        d_weights[0][:, n_obs:] = d_gradient.transpose(1, 2) @ deltas[0]
        d_delta = d_gradient @ weights[0][:, n_obs:]
        for layer in range(depth):
            z, tangent, u = zs[layer], tangents[layer], us[layer]
            here, u_here = z[:, :batch], u[:, :batch]
            bend, r, k = _second(z)
            bend_here = bend[:, :batch].clone()
            d_u = _silu_backward(d_delta, z)
            weighted = c * tangent
            d_tangent = weighted * bend_here  # c f'' t
            d_u[:, :batch].addcmul_(d_tangent, tangent)
            pair = z.new_empty(2, stacked + batch, z.shape[2])
            d_z = torch.mul(bend, d_delta, out=pair[:, :stacked]).mul_(u)
            d_z[:, :batch] += weighted.mul_(tangent).mul_(_third(here, r[:, :batch], k[:, :batch])).mul_(u_here)
            torch.mul(d_tangent.mul_(2.0), u_here, out=pair[:, stacked:])
            both.append(pair)
            bends.append(bend_here)
            if layer + 1 < depth:
                d_weights.append(d_u.transpose(1, 2) @ deltas[layer + 1])
                d_delta = d_u @ weights[layer + 1]
            else:
                d_weights.append(d_u.sum(1).unsqueeze(-1))
        d_biases: list[Tensor] = []
        for layer in range(depth - 1, 0, -1):
            pair = both[layer]
            d_biases.append(pair[:, :stacked].sum(1, keepdim=True))
            d_weights[layer].baddbmm_(inputs[layer - 1].transpose(1, 2), pair)
            down = pair @ weights[layer].transpose(1, 2)
            below, z = both[layer - 1], zs[layer - 1]
            below[:, :stacked] += _silu_backward(down[:, :stacked], z)
            d_p = down[:, stacked:]
            below[:, stacked:] += _silu_backward(d_p, z[:, :batch])
            below[:, :batch] += bends[layer - 1].mul_(tangents[layer - 1]).mul_(d_p)
        d_z, d_tangent = both[0][:, :stacked], both[0][:, stacked:]
        d_biases.append(d_z.sum(1, keepdim=True))
        d_weights[0].baddbmm_(rows.T.expand(2, -1, -1), d_z)
        d_weights[0][:, n_obs:] += probe.T @ d_tangent
        return (None, None, None, *d_weights, *d_biases[::-1])

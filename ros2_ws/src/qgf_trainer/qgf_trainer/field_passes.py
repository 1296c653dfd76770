# SPDX-License-Identifier: Apache-2.0
"""The elementwise passes of `qgf_trainer.field_function` in torch's operations, on every device and kind of number.

Shapes: rows R, of which the first 3 n have a field and those from 2 n to 3 n are "here"; width W.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """From z (R, W) and tangents t (n, W): q = sigmoid(z), h = f(z), f'(z) (R, W), f''(z) (3 n, W) and
    p = f'(z) t (n, W)."""
    field, here = _rows(t)
    gate = torch.sigmoid(z)
    rest, h = 1.0 - gate, z * gate
    slope = torch.addcmul(gate, h, rest)
    gate_f, h_f = gate[field], h[field]
    bend = torch.addcmul(gate_f, gate_f, h_f, value=-1.0).add_(slope[field]).mul_(rest[field])
    return gate, h, slope, bend, slope[here] * t


def deltas(u: Tensor, slope: Tensor, bend: Tensor, t: Tensor, second: Tensor) -> Tensor:
    """d = u f' (3 n, W), of u (3 n or 1, W); the layer's sum of u f'' t^2 is added to `second` (n,)."""
    field, here = _rows(t)
    u = u.expand(len(bend), -1)
    second += (bend[here] * t).mul_(t).mul_(u[here]).sum(1)
    return u * slope[field]


def bend_backward(
    c: Tensor, t: Tensor, u: Tensor, d_delta: Tensor, z: Tensor, gate: Tensor, slope: Tensor, bend: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the derivatives by the curvature c (n,) and by the layer's d (3 n, W) make of it: by u (3 n, W), by z
    (R, W) and by t (n, W)."""
    field, here = _rows(t)
    u = u.expand(len(bend), -1)
    u_here = u[here]
    weighted = c.unsqueeze(1) * t
    along = weighted * bend[here]  # c f'' t
    d_u = d_delta * slope[field]
    d_u[here].addcmul_(along, t)
    d_z = torch.empty_like(z)
    d_z[field.stop :].zero_()
    torch.mul(bend, d_delta, out=d_z[field]).mul_(u)
    z, gate = z[here], gate[here]
    rest = 1.0 - gate
    r, k = gate * rest, rest - gate  # f''' = r (k (3 + z k) - 2 z r)
    third = (z * k).add_(3.0).mul_(k).addcmul_(z, r, value=-2.0).mul_(r)
    d_z[here].addcmul_(weighted.mul_(t).mul_(third), u_here)
    return d_u, d_z, along.mul_(2.0).mul_(u_here)


def value_backward(d_value: Tensor, weight: Tensor, slope: Tensor, d_z: Tensor) -> None:
    """Adds the values' derivative (B,), in the last B rows, times the last weights (W,) times f' to d_z (R, W)."""
    valued = slice(len(d_z) - len(d_value), None)
    d_z[valued].addcmul_(torch.outer(d_value, weight), slope[valued])


def layer_backward(d_h: Tensor, d_p: Tensor, slope: Tensor, bend: Tensor, t: Tensor, d_z: Tensor, d_t: Tensor) -> None:
    """Adds what comes by h (R, W) and by p (n, W) to d_z (R, W) and d_t (n, W)."""
    _, here = _rows(t)
    d_z.addcmul_(d_h, slope)
    d_t.addcmul_(d_p, slope[here])
    d_z[here].addcmul_(d_p * t, bend[here])


def _rows(t: Tensor) -> tuple[slice, slice]:
    """Rows with a field, and those of s among them."""
    n = len(t)
    return slice(3 * n), slice(2 * n, 3 * n)

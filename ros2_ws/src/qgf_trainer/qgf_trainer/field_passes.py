# SPDX-License-Identifier: Apache-2.0
"""The elementwise passes of `qgf_trainer.field_function`, in two ways that give the same numbers.

TorchPasses runs on every device and kind of number. KernelPasses has each pass as one loop (`field_kernel`): on the
processor, where these passes took as long as the products between them, the arrays then go through memory once.
"""

from __future__ import annotations

from typing import Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from qgf_trainer import field_kernel as kernel


class Passes(Protocol):
    """Shapes: rows R, of which the first 3 n have a field and those from 2 n to 3 n are "here"; width W."""

    @staticmethod
    def forward(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """From z (R, W) and tangents t (n, W): q = sigmoid(z), h = f(z), f'(z) (R, W), f''(z) (3 n, W) and
        p = f'(z) t (n, W)."""

    @staticmethod
    def deltas(u: Tensor, slope: Tensor, bend: Tensor, t: Tensor, second: Tensor) -> Tensor:
        """d = u f' (3 n, W), of u (3 n or 1, W); the layer's sum of u f'' t^2 is added to `second` (n,)."""

    @staticmethod
    def bend_backward(
        c: Tensor, t: Tensor, u: Tensor, d_delta: Tensor, z: Tensor, gate: Tensor, slope: Tensor, bend: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the derivatives by the curvature c (n,) and by the layer's d (3 n, W) make of it: by u (3 n, W), by z
        (R, W) and by t (n, W)."""

    @staticmethod
    def value_backward(d_value: Tensor, weight: Tensor, slope: Tensor, d_z: Tensor) -> None:
        """Adds the values' derivative (B,), in the last B rows, times the last weights (W,) times f' to d_z (R, W)."""

    @staticmethod
    def layer_backward(
        d_h: Tensor, d_p: Tensor, slope: Tensor, bend: Tensor, t: Tensor, d_z: Tensor, d_t: Tensor
    ) -> None:
        """Adds what comes by h (R, W) and by p (n, W) to d_z (R, W) and d_t (n, W)."""


class TorchPasses:
    """In torch's operations; see `Passes`."""

    @staticmethod
    def forward(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See `Passes`."""
        field, here = _rows(t)
        gate = torch.sigmoid(z)
        rest, h = 1.0 - gate, z * gate
        slope = torch.addcmul(gate, h, rest)
        gate_f, h_f = gate[field], h[field]
        bend = torch.addcmul(gate_f, gate_f, h_f, value=-1.0).add_(slope[field]).mul_(rest[field])
        return gate, h, slope, bend, slope[here] * t

    @staticmethod
    def deltas(u: Tensor, slope: Tensor, bend: Tensor, t: Tensor, second: Tensor) -> Tensor:
        """See `Passes`."""
        field, here = _rows(t)
        u = u.expand(len(bend), -1)
        second += (bend[here] * t).mul_(t).mul_(u[here]).sum(1)
        return u * slope[field]

    @staticmethod
    def bend_backward(
        c: Tensor, t: Tensor, u: Tensor, d_delta: Tensor, z: Tensor, gate: Tensor, slope: Tensor, bend: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Passes`."""
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

    @staticmethod
    def value_backward(d_value: Tensor, weight: Tensor, slope: Tensor, d_z: Tensor) -> None:
        """See `Passes`."""
        valued = slice(len(d_z) - len(d_value), None)
        d_z[valued].addcmul_(torch.outer(d_value, weight), slope[valued])

    @staticmethod
    def layer_backward(
        d_h: Tensor, d_p: Tensor, slope: Tensor, bend: Tensor, t: Tensor, d_z: Tensor, d_t: Tensor
    ) -> None:
        """See `Passes`."""
        _, here = _rows(t)
        d_z.addcmul_(d_h, slope)
        d_t.addcmul_(d_p, slope[here])
        d_z[here].addcmul_(d_p * t, bend[here])


class KernelPasses:
    """Each pass one loop; see `Passes`. For float32 and float64 on the processor."""

    @staticmethod
    def forward(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See `Passes`."""
        gate, h, slope = torch.sigmoid(z), torch.empty_like(z), torch.empty_like(z)
        bend, p = z.new_empty((3 * len(t), z.shape[1])), torch.empty_like(t)
        kernel.bend_forward(*_arrays(z, gate, t, h, slope, bend, p))
        return gate, h, slope, bend, p

    @staticmethod
    def deltas(u: Tensor, slope: Tensor, bend: Tensor, t: Tensor, second: Tensor) -> Tensor:
        """See `Passes`."""
        delta = torch.empty_like(bend)
        kernel.deltas(*_arrays(u.contiguous(), slope, bend, t, delta, second))
        return delta

    @staticmethod
    def bend_backward(
        c: Tensor, t: Tensor, u: Tensor, d_delta: Tensor, z: Tensor, gate: Tensor, slope: Tensor, bend: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Passes`."""
        d_u, d_z, d_t = torch.empty_like(bend), torch.empty_like(z), torch.empty_like(t)
        kernel.bend_backward(
            *_arrays(c.contiguous(), t, u.contiguous(), d_delta, z, gate, slope, bend, d_u, d_z, d_t)
        )
        return d_u, d_z, d_t

    @staticmethod
    def value_backward(d_value: Tensor, weight: Tensor, slope: Tensor, d_z: Tensor) -> None:
        """See `Passes`."""
        kernel.value_backward(*_arrays(d_value.contiguous(), weight.contiguous(), slope, d_z))

    @staticmethod
    def layer_backward(
        d_h: Tensor, d_p: Tensor, slope: Tensor, bend: Tensor, t: Tensor, d_z: Tensor, d_t: Tensor
    ) -> None:
        """See `Passes`."""
        kernel.layer_backward(*_arrays(d_h, d_p, slope, bend, t, d_z, d_t))


def passes_for(rows: Tensor) -> type[Passes]:
    """The faster of both that can do it."""
    fits = rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64)
    return KernelPasses if fits else TorchPasses


def _rows(t: Tensor) -> tuple[slice, slice]:
    """Rows with a field, and those of s among them."""
    n = len(t)
    return slice(3 * n), slice(2 * n, 3 * n)


def _arrays(*tensors: Tensor) -> list[NDArray]:
    """The tensors' own memory."""
    return [tensor.detach().numpy() for tensor in tensors]

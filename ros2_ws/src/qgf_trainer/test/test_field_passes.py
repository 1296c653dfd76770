# SPDX-License-Identifier: Apache-2.0
"""The elementwise passes as loops against the same in torch's operations."""

import pytest
import torch

from qgf_trainer.field_passes import KernelPasses, TorchPasses, passes_for


@pytest.mark.parametrize(("kind", "allowed"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
@pytest.mark.parametrize(("n", "batch", "width"), [(4, 4, 16), (3, 8, 5), (1, 1, 1), (64, 256, 33)])
@pytest.mark.parametrize("last", [False, True])
def test_both_ways_give_the_same_numbers(kind, allowed, n, batch, width, last):
    torch.manual_seed(n)

    def drawn(*shape):
        return torch.randn(*shape, dtype=kind)

    rows = 2 * n + batch
    z, t, u = 2 * drawn(rows, width), drawn(n, width), drawn(1 if last else 3 * n, width)
    c, d_delta, d_value, weight = drawn(n), drawn(3 * n, width), drawn(batch), drawn(width)
    d_h, d_p = drawn(rows, width), drawn(n, width)
    results = []
    for passes in (TorchPasses, KernelPasses):
        gate, h, slope, bend, p = passes.forward(z, t)
        second = torch.ones(n, dtype=kind)
        delta = passes.deltas(u, slope, bend, t, second)
        d_u, d_z, d_t = passes.bend_backward(c, t, u, d_delta, z, gate, slope, bend)
        passes.value_backward(d_value, weight, slope, d_z)
        passes.layer_backward(d_h, d_p, slope, bend, t, d_z, d_t)
        results.append((gate, h, slope, bend, p, second, delta, d_u, d_z, d_t))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=allowed, atol=allowed)


def test_what_has_no_kernel_is_left_to_torch():
    assert passes_for(torch.zeros(1)) is KernelPasses and passes_for(torch.zeros(1).double()) is KernelPasses
    assert passes_for(torch.zeros(1, dtype=torch.bfloat16)) is TorchPasses
    assert passes_for(torch.zeros(1, device="meta")) is TorchPasses

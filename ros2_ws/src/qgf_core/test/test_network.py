# SPDX-License-Identifier: Apache-2.0
"""The network read from TorchScript, against torch, against float64 written out here, and where it must not be read."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qgf_core.network import agrees, read_network
from qgf_core.network_kernel import run_network

ACTIVATIONS = {
    nn.SiLU: lambda x: x / (1.0 + np.exp(-x)),
    nn.ReLU: lambda x: np.maximum(x, 0.0),
    nn.Tanh: np.tanh,
    nn.Sigmoid: lambda x: 1.0 / (1.0 + np.exp(-x)),
    nn.ELU: lambda x: np.where(x > 0.0, x, np.expm1(x)),
    nn.LeakyReLU: lambda x: np.where(x > 0.0, x, 0.01 * x),
}


class Normalised(nn.Module):
    """As an exported actor is built."""

    def __init__(self, sizes: list[int], activation: type[nn.Module], bias: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out, bias=bias), activation()]
        self.net = nn.Sequential(*layers[:-1])
        self.register_buffer("mean", torch.randn(sizes[0]))
        self.register_buffer("std", torch.rand(sizes[0]) + 0.5)

    def forward(self, observation: Tensor) -> Tensor:
        return torch.tanh(2.0 * self.net((observation - self.mean) / self.std) + 0.1).clamp(-0.9, 0.8)


def frozen(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.freeze(torch.jit.script(module.eval()))


def by_hand(module: Normalised, observation: np.ndarray) -> np.ndarray:
    """In float64, from the formulas."""
    x = (observation.astype(np.float64) - module.mean.numpy()) / module.std.numpy()
    for layer in module.net:
        if isinstance(layer, nn.Linear):
            x = layer.weight.detach().numpy().astype(np.float64) @ x
            if layer.bias is not None:
                x = x + layer.bias.detach().numpy()
        else:
            x = ACTIVATIONS[type(layer)](x)
    return np.clip(np.tanh(2.0 * x + 0.1), -0.9, 0.8)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    activation=st.sampled_from(list(ACTIVATIONS)),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_chain_gives_what_torch_and_the_formulas_give(sizes, activation, bias, seed):
    torch.manual_seed(seed)
    module = Normalised(sizes, activation, bias)
    script = frozen(module)
    network = read_network(script, sizes[0])
    assert network is not None and network.outputs == sizes[-1]
    for row in np.random.default_rng(seed).standard_normal((5, sizes[0])).astype(np.float32):
        with torch.inference_mode():
            expected = script(torch.from_numpy(row[None])).numpy()[0]
        assert np.abs(network.act(row) - expected).max() < 2e-6
        assert np.abs(network.act(row) - by_hand(module, row)).max() < 2e-6


def test_the_kernel_is_the_python_that_it_was_written_in():
    torch.manual_seed(0)
    network = read_network(frozen(Normalised([5, 9, 3], nn.SiLU)), 5)
    row, out = np.linspace(-1.0, 1.0, 5, dtype=np.float32), np.zeros(3, np.float32)
    run_network.py_func(network.programme, network.parameters, row, network.work, out)
    assert np.abs(out - network.act(row)).max() < 1e-6


@pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.Identity])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_passed_on_as_torch_does(activation, bad):
    torch.manual_seed(0)
    script = frozen(Normalised([4, 6, 2], activation))
    row = np.array([0.1, bad, 0.2, 0.3], np.float32)
    with torch.inference_mode():
        expected = script(torch.from_numpy(row[None])).numpy()[0]
    found = read_network(script, 4).act(row)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.allclose(found, expected, atol=1e-6, equal_nan=True)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x + self.layer(x))


class Reversed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.0 - x


class Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * x


class Scaled(nn.Module):
    """A factor of the second operand, which torch's add and sub have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sub(x, self.shift, alpha=3)


@pytest.mark.parametrize("module", [
    Residual(), Reversed(), Gated(), Scaled(), nn.Sequential(nn.LayerNorm(4), nn.Tanh()),
    nn.Sequential(nn.Softplus()), nn.Sequential(nn.Mish()), nn.ELU(alpha=0.5),
])
def test_anything_else_is_left_to_torch_or_gives_its_answer(module):
    script = frozen(module)
    network = read_network(script, 4)
    rows = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    assert network is None or agrees(network, script, rows)
    if not isinstance(module, nn.ELU):
        assert network is None


def test_a_network_that_differs_in_one_weight_is_found_out():
    torch.manual_seed(0)
    script = frozen(Normalised([4, 6, 2], nn.SiLU))
    network = read_network(script, 4)
    rows = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    assert agrees(network, script, rows)
    for place in range(0, len(network.parameters) - 2, 7):  # the last two are clamp's, which few reach
        changed = network.parameters.copy()
        changed[place] += 0.05
        assert not agrees(dataclasses.replace(network, parameters=changed), script, rows)


def test_a_width_that_does_not_fit_is_not_read():
    assert read_network(frozen(Normalised([4, 6, 2], nn.SiLU)), 5) is None

# SPDX-License-Identifier: Apache-2.0
"""Parameters as parts of one vector against torch's own optimiser on parameters of their own."""

import copy

import pytest
import torch
from torch import nn

from qgf_trainer.flat import FlatAdam, FlatParameters


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def loss_of(module, x):
    return module(x).square().mean() + module(2.0 * x).exp().mean()


def pair():
    """The same network with torch's Adam and with ours."""
    ours, theirs = network(), network()
    return ours, FlatAdam(ours.parameters(), 0.01), theirs, torch.optim.Adam(theirs.parameters(), lr=0.01)


def steps(ours, flat, theirs, adam, count):
    for _ in range(count):
        x = torch.randn(9, 5, dtype=torch.float64)
        flat.flat.gradient.zero_()
        flat.add(loss_of(ours, x))
        flat.step()
        adam.zero_grad()
        loss_of(theirs, x).backward()
        adam.step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=1e-12, atol=1e-13)


def test_steps_equal_adam_on_parameters_of_their_own():
    ours, flat, theirs, adam = pair()
    before = [p.detach().clone() for p in ours.parameters()]
    steps(ours, flat, theirs, adam, 5)
    flat.set_learning_rate(0.1)
    adam.param_groups[0]["lr"] = 0.1
    steps(ours, flat, theirs, adam, 5)
    assert all((p - q).abs().max() > 0.01 for p, q in zip(ours.parameters(), before, strict=True))


def test_state_is_that_of_adam_and_either_continues_the_other():
    ours, flat, theirs, adam = pair()
    steps(ours, flat, theirs, adam, 3)
    entries = {f"{i}.{k}": v for i, entry in adam.state_dict()["state"].items() for k, v in entry.items()}
    state = {name: tensor.clone() for name, tensor in flat.state().items()}
    assert state.keys() == entries.keys()
    for name, tensor in entries.items():
        assert state[name].shape == tensor.shape and torch.allclose(state[name].double(), tensor.double(), rtol=1e-12)
    other = copy.deepcopy(theirs)
    resumed = FlatAdam(other.parameters(), 0.01)
    resumed.restore(entries)
    steps(other, resumed, theirs, adam, 3)
    fresh = FlatAdam(network().parameters(), 0.01)
    assert fresh.state() == {}
    resumed.restore({})
    assert resumed.state() == {}


def test_the_vector_is_the_parameters():
    module = network()
    expected = [p.detach().clone() for p in module.parameters()]
    flat = FlatParameters(module.parameters())
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), expected, strict=True))
    assert all(p.data_ptr() % 64 == flat.vector.data_ptr() % 64 for p in module.parameters())
    flat.vector.fill_(0.5)
    assert all((p == 0.5).all() for p in module.parameters())
    module.load_state_dict(network().state_dict())
    assert all(torch.equal(p, q) for p, q in zip(flat.split(flat.vector), expected, strict=True))
    copied = copy.deepcopy(module)
    flat.vector.fill_(0.0)
    assert all(torch.equal(p, q) for p, q in zip(copied.parameters(), expected, strict=True))


def test_a_target_approaches_the_first_of_more_parameters():
    online, head, target = network(), nn.Linear(2, 2).double(), nn.Sequential(*copy.deepcopy(network()))
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.add_(1.0)
    own, all_of_them = FlatParameters(target.parameters()), FlatParameters([*online.parameters(), *head.parameters()])
    own.approach(all_of_them, 0.25)
    for p, q in zip(target.parameters(), online.parameters(), strict=True):
        assert torch.allclose(p, q + 0.75)


def test_tensors_of_other_shapes_are_refused():
    flat = FlatParameters(network().parameters())
    with pytest.raises(ValueError, match="do not fit"):
        flat.join([torch.zeros(7, 5)])
    with pytest.raises(KeyError):
        FlatAdam(network().parameters(), 0.01).restore({"0.step": torch.tensor(1.0)})

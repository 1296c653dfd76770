# SPDX-License-Identifier: Apache-2.0
"""The machine code of the updates against the same in torch's operations, and what happens where it cannot be made."""

import copy
import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qgf_trainer import native, native_library
from qgf_trainer.field_function import FieldPass
from qgf_trainer.networks import Actor, GaussianActor, TwinCritic

KINDS = [(torch.float64, 1e-12), (torch.float32, 3e-5)]


def close(found, expected, allowed):
    return bool((found - expected).abs().max() <= allowed * (1.0 + expected.abs().max()))


def perceptron(sizes, dtype, seed=0):
    torch.manual_seed(seed)
    pairs = itertools.pairwise(sizes[:-1])
    layers = [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.SiLU())]
    module = nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1])).to(dtype)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    return module, [layer for layer in module if isinstance(layer, nn.Linear)]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=3, max_size=5), rows=st.integers(1, 50),
    kind=st.sampled_from(KINDS), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_perceptron_equals_autograd(sizes, rows, kind, seed):
    """Every width and number of rows: blocks, panels and vectors have all their kinds of remainder."""
    dtype, allowed = kind
    module, layers = perceptron(sizes, dtype, seed)
    (network,) = native.perceptron(layers)
    x, by = torch.randn(rows, sizes[0], dtype=dtype), torch.randn(rows, sizes[-1], dtype=dtype)
    known = x.clone().requires_grad_()
    exact = module(known)
    gradients = torch.autograd.grad((exact * by).sum(), [known, *module.parameters()])
    found, kept = network.climb(x, True)
    assert close(found, exact, allowed) and torch.equal(found, network.climb(x, False)[0])
    begin = sizes[0] // 2
    assert close(network.descend(by, kept, True, begin), gradients[0][:, begin:], allowed)
    for parameter, gradient in zip(module.parameters(), gradients[1:], strict=True):
        assert close(parameter.grad, gradient, allowed)


@given(n_obs=st.integers(1, 20), n_act=st.integers(1, 9), hidden=st.lists(st.integers(2, 70), min_size=1, max_size=3),
       n=st.integers(1, 20), more=st.integers(0, 30), kind=st.sampled_from(KINDS))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_field_equals_the_passes_in_torch(n_obs, n_act, hidden, n, more, kind):
    dtype, allowed = kind
    torch.manual_seed(n)
    critic = TwinCritic(n_obs, n_act, hidden).to(dtype)
    rows, probe = torch.randn(3 * n + more, n_obs + n_act, dtype=dtype), torch.randn(n, n_act, dtype=dtype)
    by = [torch.randn(2, *shape, dtype=dtype) for shape in ((n + more,), (3 * n, n_act), (n,))]
    weights, biases = [w.detach() for w in critic.weights], [b.detach() for b in critic.biases]
    results = []
    for in_torch in (True, False):
        into = [torch.full_like(parameter, torch.nan) for parameter in (*weights, *biases)]
        half = len(into) // 2
        pair = None if in_torch else native.twins(weights, biases, into[:half], into[half:])
        assert in_torch or pair
        made = FieldPass(rows, probe, n_obs, weights, biases, into, pair)
        made.backward(*by)
        results.append([made.value, made.gradient, made.second, *into])
    for expected, found in zip(*results, strict=True):
        assert close(found, expected, 10 * allowed)


@pytest.mark.parametrize(("dtype", "allowed"), KINDS)
def test_silu_and_its_derivatives_over_all_their_range(dtype, allowed):
    """One layer of weight 1: z runs from where SiLU is nothing to where it is z."""
    z = torch.cat((torch.linspace(-200, 200, 4001), torch.linspace(-4, 4, 801))).to(dtype)[:, None]
    layer, out = nn.Linear(1, 1).to(dtype), nn.Linear(1, 1).to(dtype)
    with torch.no_grad():
        for part in (layer, out):
            part.weight.fill_(1.0)
            part.bias.zero_()
    known = z.clone().requires_grad_()
    exact = nn.functional.silu(known)
    (slope,) = torch.autograd.grad(exact.sum(), known, create_graph=True)
    (network,) = native.perceptron([layer, out])
    found, kept = network.climb(z, True)
    assert close(found, exact, allowed) and (found - exact).abs().max() <= 4e-7 * 200
    assert close(network.descend(torch.ones_like(z), kept, False, 0), slope, allowed)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(bad):
    module, layers = perceptron([3, 8, 8, 2], torch.float32)
    (network,) = native.perceptron(layers)
    x = torch.zeros(5, 3)
    x[2, 1] = bad
    found, kept = network.climb(x, True)
    expected = module(x).isfinite().all(1)
    assert not expected[2] and torch.equal(found.isfinite().all(1), expected)
    network.descend(torch.ones(5, 2), kept, True)
    assert not module[0].weight.grad.isfinite().all()


def test_parameters_that_moved_are_found():
    torch.manual_seed(0)
    actor, observation = Actor(4, 2, (8,)), torch.randn(6, 4)
    with torch.no_grad():
        before = actor.actions(observation)
        actor.net[0].weight.data = 2.0 * actor.net[0].weight.data
        after = actor.actions(observation)
        assert close(before, actor(observation), 1.0) and not close(before, after, 1e-3)
        assert close(after, actor(observation), 1e-6)
        assert close(copy.deepcopy(actor).double().actions(observation.double()), after.double(), 1e-6)


def test_what_does_not_learn_has_no_derivatives_to_write():
    torch.manual_seed(0)
    target = TwinCritic(3, 1, (8,)).requires_grad_(False)
    first = target.native()[0]
    value, kept = first.climb(torch.randn(4, 4), True)
    with pytest.raises(ValueError, match="no place"):
        first.descend(value, kept, own=True)
    with pytest.raises(ValueError, match="no place"):
        first.regress(torch.randn(4, 4), torch.zeros(4), 1.0, torch.empty(4))
    with pytest.raises(ValueError, match="not contiguous"):
        first.descend(torch.randn(4, 2)[:, :1], kept, own=False, by_input_from=3)


def test_what_does_not_fit_is_refused_before_machine_code_reads_beyond_it():
    torch.manual_seed(0)
    critic, actor = TwinCritic(3, 1, (8,)), Actor(3, 1, (8,))
    for parameter in (*critic.parameters(), *actor.parameters()):
        parameter.grad = torch.zeros_like(parameter)
    s, a, target = torch.randn(6, 3), torch.randn(6, 1), torch.zeros(6)
    for action in (torch.randn(6, 2), a.double()):
        with pytest.raises(ValueError, match="needed"):
            critic.values(s, action)
        with pytest.raises(ValueError, match="needed"):
            critic.regress(s, action, target, 1.0)
    with pytest.raises(ValueError, match="needed"):
        critic.regress(s, a, target[:5], 1.0)
    with pytest.raises(ValueError, match="needed"):
        actor.climb(critic, torch.randn(6, 4))
    with pytest.raises(ValueError, match="does not take"):
        actor.climb(TwinCritic(4, 1, (8,)), s)
    first = critic.native()[0]
    g, second, rows = torch.empty(6, 1), torch.empty(2), torch.randn(10, 4)
    for value, probe, gradient in (
        (torch.empty(5), torch.ones(2, 1), g),
        (torch.empty(6), torch.ones(2, 1).double(), g),
        (torch.empty(6), torch.ones(2, 1), g[:5]),
        (torch.empty(2), torch.ones(4, 1), torch.empty(12, 1)),
    ):
        with pytest.raises(ValueError, match=r"needed|no batch"):
            first.field_forward(rows, probe, value, gradient, second)
    vector = torch.zeros(4)
    with pytest.raises(ValueError, match="differ"):
        native.adam(native.AdamVectors(vector, vector, torch.zeros(3), vector), 1.0, 0.1, (0.9, 0.999), 1e-8)


@pytest.mark.parametrize(("dtype", "allowed"), KINDS)
@pytest.mark.parametrize("n_act", [1, 3])
def test_soft_ascent_equals_autograd(dtype, allowed, n_act):
    """Where the deviation is clamped too: it has no derivative there."""
    torch.manual_seed(2)
    actor, critic = GaussianActor(5, n_act, (16, 12)).to(dtype), TwinCritic(5, n_act, (10, 8)).to(dtype)
    with torch.no_grad():
        actor.log_std.bias.copy_(torch.tensor([2.0, 0.0, -20.0])[:n_act])
        actor.log_std.weight.mul_(3.0)
    observation, drawn = torch.randn(64, 5, dtype=dtype), torch.randn(64, n_act, dtype=dtype)
    exact, gradients = copy.deepcopy(actor), []
    for module, network in ((actor, native.perceptron), (exact, None)):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, torch.nan)
        if network is None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(native, "_functions", lambda dtype: None)
                found = module.climb(critic, observation, drawn, 0.3)
        else:
            found = module.climb(critic, observation, drawn, 0.3)
        gradients.append([found, *(parameter.grad for parameter in module.parameters())])
    clamped = actor.log_std(actor.features(observation))
    assert (clamped[:, 0] > 2).any() and (clamped[:, 0] < 2).any() and (n_act == 1 or (clamped[:, 2] < -20).any())
    for one, other in zip(*gradients, strict=True):
        assert close(one, other, 10 * allowed)


PROGRAM = """
import sys, torch
from qgf_trainer import native, native_library
from qgf_trainer.td3 import TD3, TD3Config
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
agent = TD3(6, 2, TD3Config(hidden=(33, 40)), FieldConfig(every=2, rows=16), 0)
for seed in range(6):
    g = torch.Generator().manual_seed(seed)
    parts = [torch.randn(*n, generator=g) for n in ((32, 6), (32, 2), (32,), (32, 6))]
    agent.update(Batch(*parts, torch.zeros(32)), torch.ones(6), 1.0)
whole = torch.cat([p.detach().flatten() for p in (*agent.actor.parameters(), *agent.critic.parameters())])
made = native_library.functions(torch.float32) is not None
print(made, torch.backends.cpu.get_cpu_capability(), *whole[::97].tolist())
"""


def run(**environment):
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    native_code, capability, *numbers = made.stdout.split()
    assert capability == environment.get("ATEN_CPU_CAPABILITY", capability).upper()
    return native_code == "True", torch.tensor([float(number) for number in numbers]), made.stderr


def test_every_kind_of_processor_and_torch_alone_agree(tmp_path):
    """Updates with the widest instructions here, with narrower ones, and without machine code: rounding apart."""
    made, expected, _ = run()
    assert made
    for capability in ("avx2", "default"):
        narrow, found, _ = run(ATEN_CPU_CAPABILITY=capability)
        assert narrow and (found - expected).abs().max() < 2e-4
    made, found, said = run(QGF_NATIVE="0")
    assert not made and not said and (found - expected).abs().max() < 2e-4


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A library that is not made yet, to be kept in a folder of the test's."""
    monkeypatch.setattr(native_library, "_folders", lambda: (tmp_path / "made", tmp_path / "cache"))
    monkeypatch.setattr(native_library, "_library", native_library._library.__wrapped__)
    return tmp_path


def test_it_is_made_once_and_anew_when_the_sources_change(elsewhere, monkeypatch):
    first = native_library.build()
    made = first.stat().st_mtime_ns
    assert first.parent == elsewhere / "made" and native_library.build().stat().st_mtime_ns == made
    assert native_library.functions(torch.float32) and native_library.functions(torch.bfloat16) is None
    sources = elsewhere / "sources"
    sources.mkdir()
    for source in native_library.SOURCES.iterdir():
        (sources / source.name).write_bytes(source.read_bytes())
    (sources / "silu.h").write_text((sources / "silu.h").read_text() + "// another\n")
    monkeypatch.setattr(native_library, "SOURCES", sources)
    assert native_library.build() != first
    (sources / "silu.h").write_text("not C++\n")
    with pytest.raises(subprocess.CalledProcessError):
        native_library.build()
    assert sorted(path.suffix for path in (elsewhere / "made").iterdir()) == [".so", ".so"], "nothing unfinished"


def test_what_everybody_may_write_is_not_trusted(elsewhere):
    first = native_library.build()
    first.parent.chmod(0o777)
    assert native_library.build().parent == elsewhere / "cache"
    (elsewhere / "cache").chmod(0o777)
    with pytest.raises(PermissionError, match="can be written"):
        native_library.build()
    for folder in (first.parent, elsewhere / "cache"):
        folder.chmod(0o755)
    first.chmod(0o646)
    assert native_library.build().parent == elsewhere / "cache" and first.stat().st_mode & 0o777 == 0o646


@pytest.mark.parametrize("lack", ["compiler", "sources", "place"])
def test_where_it_cannot_be_made_torch_does_it_and_it_is_said(elsewhere, monkeypatch, caplog, lack):
    if lack == "compiler":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr("shutil.which", lambda name: None)
    elif lack == "sources":
        sources = elsewhere / "sources"
        sources.mkdir()
        (sources / "library.cpp").write_text("not C++\n")
        monkeypatch.setattr(native_library, "SOURCES", sources)
    else:
        for name in ("made", "cache"):
            (elsewhere / name).write_text("a file, where the folder should be")
    assert native_library.functions(torch.float32) is None
    said = {"compiler": "apt-get install g++", "sources": "library.cpp", "place": "can be written"}[lack]
    assert said in caplog.text and "torch alone" in caplog.text

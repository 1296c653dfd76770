# SPDX-License-Identifier: Apache-2.0
"""The products by oneDNN, the written-out passes and the machine code against torch's own layers, autograd and a
double backward."""

import copy

import pytest
import torch

from qgf_trainer import dense, native
from qgf_trainer.networks import Actor, GaussianActor, TwinCritic
from qgf_trainer.q_gradient_field import FieldConfig, FieldStabiliser, paper_form, q_gradient_field_losses
from qgf_trainer.replay import Batch
from qgf_trainer.sac import SAC, SACConfig
from qgf_trainer.td3 import TD3, TD3Config

PATHS = {
    "float64": (torch.float64, False, False),
    "float32": (torch.float32, False, False),
    "onednn": (torch.float32, True, False),
    "native float64": (torch.float64, False, True),
    "native": (torch.float32, True, True),
}
"""Type, whether oneDNN may be used (it is for single precision alone), and whether machine code may be."""


def choose(patch, onednn, machine_code):
    """Allow these ways alone, and see that they are there."""
    if (onednn and not dense.ONEDNN) or (machine_code and native._functions(torch.float32) is None):
        pytest.fail("this machine has not every way of updating: the updates are slow here")
    patch.setattr(dense, "ONEDNN", onednn)
    if not machine_code:
        patch.setattr(native, "_functions", lambda dtype: None)


@pytest.fixture(params=PATHS.values(), ids=PATHS.keys())
def path(request, monkeypatch):
    dtype, onednn, machine_code = request.param
    choose(monkeypatch, onednn, machine_code)
    return dtype, 1e-11 if dtype == torch.float64 else 1e-4


def close(ours, exact, tolerance):
    assert exact.abs().max() > 0
    return float((ours.double() - exact).abs().max()) <= tolerance * float(exact.abs().max())


@pytest.mark.parametrize("layout", ["plain", "transposed weight", "transposed input", "part of a larger one"])
def test_product(path, layout):
    dtype, tolerance = path
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=g).to(dtype) for shape in ((48, 31), (20, 31), (20,)))
    if layout == "transposed weight":
        weight = weight.T.contiguous().T
    elif layout == "transposed input":
        x = x.T.contiguous().T
    elif layout == "part of a larger one":
        x, weight = torch.cat((x, x), 1)[8:40, 7:38], torch.cat((weight, weight), 1)[:, 3:34]
    exact = x.double() @ weight.double().T
    assert close(dense.affine(x, weight), exact, tolerance)
    assert close(dense.affine(x, weight, bias), exact + bias.double(), tolerance)


@pytest.mark.parametrize("hidden", [(16,), (32, 24), (8, 12, 16)])
def test_networks_equal_their_own_slow_way(path, hidden):
    """Values of every fast way through a network, against the slow one in float64."""
    dtype, tolerance = path
    torch.manual_seed(0)
    actor, gaussian, critic = Actor(6, 2, hidden), GaussianActor(6, 2, hidden), TwinCritic(6, 2, hidden)
    observation, action = torch.randn(40, 6), torch.rand(40, 2) * 2 - 1
    ways = (
        (actor, lambda m, s, a: m.actions(s), lambda m, s, a: m(s)),
        (gaussian, lambda m, s, a: torch.cat(m.distributions(s)), lambda m, s, a: torch.cat(m.distribution(s))),
        (critic, lambda m, s, a: m.values(s, a), lambda m, s, a: m(s, a)),
        (critic, lambda m, s, a: m.values(s, a)[0], lambda m, s, a: m.first(s, a)),
    )
    for module, fast, slow in ways:
        found = fast(copy.deepcopy(module).to(dtype), observation.to(dtype), action.to(dtype))
        expected = slow(copy.deepcopy(module).double(), observation.double(), action.double())
        assert not found.requires_grad and close(found, expected.detach(), tolerance)


def by_autograd(critic, batch, field, noise, probe):
    """Values, and TD loss (towards the reward) plus weighted terms, by autograd through autograd."""
    value, n = critic(batch.observation, batch.action), len(probe)
    a = batch.action[:n].clone().requires_grad_()
    here, noisy, ahead = (
        [torch.autograd.grad(q.sum(), a, create_graph=True)[0] for q in critic(states, a)]
        for states in (batch.observation[:n], batch.observation[:n] + noise, batch.next_observation[:n])
    )
    bends = [(torch.autograd.grad((g * probe).sum(), a, create_graph=True)[0] * probe).sum(1) for g in here]
    mixed = sum((x - y).square().mean() for x, y in zip(noisy, here, strict=True))
    consistency = sum((x - y).square().mean() for x, y in zip(ahead, here, strict=True))
    if field.form == "paper":
        curvature = sum(torch.relu(bend + field.margin).mean() for bend in bends)
    else:
        scale = min(float(torch.stack(here).detach().square().mean().sqrt()), field.cap)
        curvature = scale * sum(torch.relu(bend / a.shape[1] + field.smoothness * scale).mean() for bend in bends)
    terms = field.mixed_partial * mixed + field.field_consistency * consistency + field.curvature * curvature
    return value, 0.5 * (value - batch.reward).square().mean(1).sum() + field.every * terms


@pytest.mark.parametrize("hidden", [(24,), (32, 16), (16, 12, 8)])
@pytest.mark.parametrize(
    "field",
    [
        paper_form(FieldConfig()),
        FieldConfig(form="paper", mixed_partial=1.0, curvature=2.0, every=4, rows=16),
        FieldConfig(every=1, rows=0),
        FieldConfig(every=4, rows=16),
    ],
    ids=["paper", "paper, lazy", "scale-free", "scale-free, lazy"],
)
def test_whole_critic_loss_equals_a_double_backward(path, hidden, field):
    dtype, tolerance = path
    tolerance = max(tolerance, 1e-11) if dtype == torch.float64 else 1e-3  # the mixed partial is a small difference
    torch.manual_seed(0)
    critic = TwinCritic(6, 2, hidden).to(dtype)
    exact = copy.deepcopy(critic).double()
    parts = torch.randn(40, 6), torch.rand(40, 2) * 2 - 1, torch.randn(40), torch.randn(40, 6), torch.zeros(40)
    made = Batch(*(part.to(dtype) for part in parts))
    stabiliser, ones = FieldStabiliser(field, torch.Generator().manual_seed(3)), torch.ones(6, dtype=dtype)
    arguments = critic, made.observation, made.action, made.next_observation, ones, 1.0
    for parameter in critic.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    value = stabiliser.regress(*arguments, made.reward, 0.5)
    generator, n = torch.Generator().manual_seed(3), field.rows or 40
    noise = field.noise * torch.randn((n, 6), generator=generator, dtype=dtype).double()
    probe = torch.randint(0, 2, (n, 2), generator=generator).double() * 2 - 1
    values, expected = by_autograd(exact, Batch(*(x.double() for x in made[:5])), field, noise, probe)
    expected.backward()
    assert close(value, values.detach(), tolerance)
    for p, q in zip(critic.parameters(), exact.parameters(), strict=True):
        assert close(p.grad, q.grad, tolerance)
    again = FieldStabiliser(field, torch.Generator().manual_seed(3))
    loss = 0.5 * (critic(made.observation, made.action) - made.reward).square().mean(1).sum()
    whole = torch.autograd.grad(loss + again.loss(*arguments), list(critic.parameters()))
    for p, q in zip(critic.parameters(), whole, strict=True):
        assert close(p.grad, q.double(), tolerance)
    assert (again.loss(*arguments) is None) == (field.every > 1)


@pytest.mark.parametrize("hidden", [(16,), (32, 24), (8, 12, 16)])
def test_steps_written_out_equal_autograd(path, hidden):
    """The TD loss's derivatives without a field, and the actor's, against autograd in float64."""
    dtype, tolerance = path
    torch.manual_seed(1)
    actor, critic = Actor(6, 2, hidden).to(dtype), TwinCritic(6, 2, hidden).to(dtype)
    exact_actor, exact_critic = copy.deepcopy(actor).double(), copy.deepcopy(critic).double()
    observation, action, target = torch.randn(40, 6), torch.rand(40, 2) * 2 - 1, torch.randn(40)
    for parameter in (*actor.parameters(), *critic.parameters()):
        parameter.grad = torch.full_like(parameter, torch.nan)
    values = critic.regress(observation.to(dtype), action.to(dtype), target.to(dtype), 0.5)
    exact = exact_critic(observation.double(), action.double())
    assert close(values, exact.detach(), tolerance)
    (0.5 * (exact - target.double()).square().mean(1).sum()).backward()
    actor.climb(critic, observation.to(dtype))
    following = exact_critic(observation.double(), exact_actor(observation.double()))[0]
    gradients = torch.autograd.grad(-following.mean(), list(exact_actor.parameters()))
    for p, q in zip(critic.parameters(), exact_critic.parameters(), strict=True):
        assert close(p.grad, q.grad, tolerance)
    for p, gradient in zip(actor.parameters(), gradients, strict=True):
        assert close(p.grad, gradient, tolerance)


def test_sub_batch_is_the_whole_in_expectation():
    """The mean over disjoint parts of a batch of the terms' gradients is the whole batch's, with the same noise."""
    critic = TwinCritic(6, 2, (16, 16)).double()
    g = torch.Generator().manual_seed(0)
    s, a, following, noise = (torch.randn(32, n, generator=g, dtype=torch.float64) for n in (6, 2, 6, 6))
    probe = torch.randint(0, 2, (32, 2), generator=g).double() * 2 - 1

    def gradient(rows):
        found = q_gradient_field_losses(
            critic, s[rows], a[rows], following[rows], state_noise=noise[rows], probe=probe[rows], curvature_margin=1.0
        )
        gradients = torch.autograd.grad(sum(found), list(critic.parameters()))
        return torch.cat([x.flatten() for x in gradients])

    parts = torch.stack([gradient(slice(8 * i, 8 * i + 8)) for i in range(4)])
    assert close(parts.mean(0), gradient(slice(None)), 1e-12)


@pytest.mark.parametrize("make", [lambda: TD3(6, 2, TD3Config(hidden=(16, 16)), FieldConfig(), 0),
                                  lambda: SAC(6, 2, SACConfig(hidden=(16, 16)), FieldConfig(), 0)])  # fmt: skip
def test_updates_are_the_same_every_way(make):
    """Eight updates, single precision: only the rounding may differ."""
    weights = []
    for _, onednn, machine_code in (PATHS["native"], PATHS["onednn"], PATHS["float32"]):
        with pytest.MonkeyPatch.context() as patch:
            choose(patch, onednn, machine_code)
            agent = make()
            for index in range(8):
                g = torch.Generator().manual_seed(index)
                parts = [torch.randn(*n, generator=g) for n in ((32, 6), (32, 2), (32,), (32, 6))]
                agent.update(Batch(*parts, torch.zeros(32))._replace(action=parts[1].tanh()), torch.ones(6), 1.0)
        weights.append(
            torch.cat([p.detach().flatten() for p in (*agent.actor.parameters(), *agent.critic.parameters())])
        )
    for other in weights[1:]:
        assert 0 < (weights[0] - other).abs().max() < 2e-4 < weights[0].abs().max()

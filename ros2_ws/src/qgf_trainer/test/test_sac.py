# SPDX-License-Identifier: Apache-2.0
"""SAC: log-probabilities against torch.distributions, targets by hand, plain equals zero weights bit for bit, the
temperature seeks its entropy, checkpoints hold everything."""

import math

import numpy as np
import pytest
import torch

from qgf_trainer.networks import squash
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
from qgf_trainer.sac import SAC, SACConfig, soft_value

SMALL = SACConfig(hidden=(16, 16))


def batch(seed=0, size=32, n_obs=5, n_act=2):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(size, n_obs, generator=g),
        torch.rand(size, n_act, generator=g) * 2 - 1,
        torch.randn(size, generator=g),
        torch.randn(size, n_obs, generator=g),
        torch.zeros(size),
    )


def run(field, updates=6, seed=0, config=SMALL):
    agent = SAC(5, 2, config, field, seed)
    for i in range(updates):
        agent.update(batch(i), torch.ones(5), 1.0)
    return agent


def weights(agent):
    modules = (agent.actor, agent.critic, agent.critic_target)
    parts = [p.detach().flatten() for module in modules for p in module.parameters()]
    return torch.cat([*parts, agent.log_temperature.detach()])


def test_log_probability_is_that_of_the_transformed_distribution():
    g = torch.Generator().manual_seed(0)
    mean, log_std, drawn = (torch.randn(200, 3, generator=g, dtype=torch.float64) for _ in range(3))
    action, log_probability = squash(mean, log_std, drawn)
    normal = torch.distributions.Normal(mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform(cache_size=1)])
    drawn_by_torch = torch.tanh(mean + log_std.exp() * drawn)
    inside = drawn_by_torch.abs().max(1).values < 1 - 1e-9  # nearer to 1 the inverse of tanh has lost its digits
    assert inside.sum() > 150
    expected = squashed.log_prob(action).sum(-1)
    assert torch.allclose(log_probability[inside], expected[inside], atol=1e-6)
    assert torch.equal(action, drawn_by_torch)


def test_log_probability_stays_finite_where_tanh_rounds_to_one():
    mean = torch.tensor([[40.0, -40.0]], requires_grad=True)
    action, log_probability = squash(mean, torch.zeros(1, 2), torch.zeros(1, 2))
    assert action.tolist() == [[1.0, -1.0]]
    # -log(2 pi) / 2 each, and -log(1 - tanh(40)^2) = 80 - 2 log 2 each
    assert float(log_probability.detach()) == pytest.approx(2 * (-0.5 * math.log(2 * math.pi) + 80 - 2 * math.log(2)))
    log_probability.sum().backward()
    assert torch.isfinite(mean.grad).all()


def test_soft_value_by_hand():
    value = soft_value(torch.tensor([[3.0, 1.0], [2.0, 5.0]]), torch.tensor([-1.0, 2.0]), 0.5)
    assert value.tolist() == [2.5, 0.0]  # min(3, 2) + 0.5, min(1, 5) - 1


def test_target_of_the_critic_by_hand():
    """One update with learning rate so small that nothing moves: the TD loss it reports is the one written out."""
    agent = SAC(5, 2, SACConfig(hidden=(16, 16), learning_rate=1e-12, gamma=0.9), FieldConfig(form="none"), 0)
    agent._LATEST_EVERY = 1
    made = batch(3)._replace(terminal=torch.tensor([1.0, 0.0] * 16))
    g = torch.Generator()
    g.set_state(agent.generator.get_state())
    with torch.no_grad():
        mean, log_std = agent.actor.distribution(made.next_observation)
        u = mean + log_std.exp() * torch.randn(32, 2, generator=g)
        a = torch.tanh(u)
        density = torch.distributions.Normal(mean, log_std.exp()).log_prob(u) - torch.log(1 - a.square())
        q1, q2 = agent.critic_target(made.next_observation, a)
        target = [
            float(made.reward[i])
            + (0.0 if made.terminal[i] else 0.9 * (min(float(q1[i]), float(q2[i])) - 0.2 * float(density[i].sum())))
            for i in range(32)
        ]
        value = agent.critic(made.observation, made.action)
    by_hand = 0.5 * sum(((q.numpy() - target) ** 2).mean() for q in value)  # 0.5 (mse(q1) + mse(q2))
    agent.update(made, torch.ones(5), 1.0)
    assert agent.latest["td_loss"] == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize("entropy", ["auto", "fixed"])
def test_zero_weights_are_plain_bit_for_bit(entropy):
    config = SACConfig(hidden=(16, 16), entropy=entropy)
    plain = run(FieldConfig(form="none"), config=config)
    zero = run(FieldConfig(mixed_partial=0.0, field_consistency=0.0, curvature=0.0, every=1), config=config)
    assert torch.equal(weights(plain), weights(zero))
    assert not torch.equal(weights(plain), weights(run(FieldConfig(every=1), config=config)))
    assert torch.equal(weights(plain), weights(run(FieldConfig(form="none"), config=config)))


def test_temperature_rises_where_the_entropy_is_too_low_and_falls_where_it_is_too_high():
    for target, sign in ((5.0, 1), (-50.0, -1)):
        agent = run(FieldConfig(form="none"), 5, config=SACConfig(hidden=(16, 16), target_entropy=target))
        assert sign * (agent.temperature - 0.2) > 1e-4
    assert SAC(5, 2, SMALL, FieldConfig(), 0).target_entropy == -2.0
    assert run(FieldConfig(), config=SACConfig(hidden=(16, 16), entropy="fixed")).temperature == pytest.approx(0.2)


def test_state_restores_bit_for_bit():
    agent = run(FieldConfig(), updates=7)
    tensors, values = agent.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    other = SAC(5, 2, SMALL, FieldConfig(), 99)
    other.restore(tensors, values)
    for a in (agent, other):
        for i in range(5):
            a.update(batch(100 + i), torch.ones(5), 1.0)
    assert torch.equal(weights(agent), weights(other))


def test_it_learns_a_known_optimum_and_keeps_its_entropy():
    """One-step task, reward -(a - 0.5)^2 whatever the state: the best action is 0.5, and noise is wanted around it."""
    config = SACConfig(hidden=(32, 32), gamma=0.0, learning_rate=3e-3, entropy="fixed", temperature=0.02)
    agent = SAC(1, 1, config, FieldConfig(form="none"), 0)
    g = torch.Generator().manual_seed(0)
    for _ in range(1200):
        s, a = torch.randn(64, 1, generator=g), torch.rand(64, 1, generator=g) * 2 - 1
        agent.update(Batch(s, a, -(a - 0.5).square().squeeze(1), s, torch.ones(64)), torch.ones(1), 1.0)
    observation = np.full((4000, 1), 0.3, np.float32)
    assert agent.act(observation)[0, 0] == pytest.approx(0.5, abs=0.08)
    # The soft optimum is the density exp(-(a - 0.5)^2 / alpha): a normal one of deviation sqrt(alpha / 2) = 0.1
    tried = agent.explore(observation, np.random.default_rng(0), 0.0)
    assert tried.std() == pytest.approx(0.1, rel=0.35)


def test_the_exported_policy_is_the_squashed_mean():
    agent = run(FieldConfig())
    agent.set_normaliser(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0]))
    raw = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    with torch.inference_mode():
        scripted = torch.jit.script(agent.deployed())(torch.from_numpy(raw)).numpy()
        normalised = torch.from_numpy((raw - [1, 2, 3, 4, 5]).astype(np.float32) / np.float32([2, 2, 2, 2, 1]))
        mean, _ = agent.actor.distribution(normalised)
    assert np.allclose(scripted, torch.tanh(mean).numpy(), atol=1e-6)
    assert np.allclose(agent.act(raw), scripted, atol=1e-6)


@pytest.mark.parametrize("field", [{"temperature": 0.0}, {"gamma": 1.0}, {"hidden": ()}, {"learning_rate": -1.0}])
def test_impossible_settings_are_refused(field):
    with pytest.raises(ValueError):
        SACConfig(**field)

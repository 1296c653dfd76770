# SPDX-License-Identifier: Apache-2.0
"""TD3: targets by hand, plain equals zero weights bit for bit, the actor climbs, checkpoints hold everything."""

import numpy as np
import pytest
import torch

from qgf_trainer.config import TrainConfig, learning_rate_factor
from qgf_trainer.networks import TwinCritic
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch, ReplayBuffer
from qgf_trainer.td3 import TD3, TD3Config, td_target

SMALL = TD3Config(hidden=(16, 16))


def batch(seed=0, size=32, n_obs=5, n_act=2):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(size, n_obs, generator=g),
        torch.rand(size, n_act, generator=g) * 2 - 1,
        torch.randn(size, generator=g),
        torch.randn(size, n_obs, generator=g),
        torch.zeros(size),
    )


def run(field, updates=6, seed=0):
    agent = TD3(5, 2, SMALL, field, seed)
    for i in range(updates):
        agent.update(batch(i), torch.ones(5), 1.0)
    return agent


def weights(agent):
    return torch.cat(
        [
            p.detach().flatten()
            for module in (agent.actor, agent.critic, agent.critic_target)
            for p in module.parameters()
        ]
    )


def test_target_by_hand():
    made = Batch(
        torch.zeros(3, 1),
        torch.zeros(3, 1),
        torch.tensor([1.0, 2.0, 3.0]),
        torch.zeros(3, 1),
        torch.tensor([0.0, 1.0, 0.0]),
    )
    # 1 + 0.9 * 10; a true end takes the reward alone; a time limit (terminal 0) goes on
    assert td_target(made, torch.tensor([10.0, 10.0, -5.0]), 0.9).tolist() == pytest.approx([10.0, 2.0, -1.5])


def test_zero_weights_are_plain_bit_for_bit():
    plain = run(FieldConfig(form="none"))
    zero = run(FieldConfig(mixed_partial=0.0, field_consistency=0.0, curvature=0.0, every=1))
    assert torch.equal(weights(plain), weights(zero))
    assert not torch.equal(weights(plain), weights(run(FieldConfig(every=1))))


def test_seed_repeats_and_matters():
    assert torch.equal(weights(run(FieldConfig(), seed=4)), weights(run(FieldConfig(), seed=4)))
    assert not torch.equal(weights(run(FieldConfig(), seed=4)), weights(run(FieldConfig(), seed=5)))


def test_critics_first_equals_its_row():
    critic = TwinCritic(5, 2, (16, 8))
    made = batch()
    assert torch.allclose(
        critic(made.observation, made.action)[0], critic.first(made.observation, made.action), atol=1e-6
    )
    assert critic(made.observation, made.action).shape == (2, 32)


def test_update_learns_a_known_value_and_the_actor_climbs_it():
    """One-step task, reward -(a - 0.5)^2 whatever the state: the best action is 0.5."""
    agent = TD3(1, 1, TD3Config(hidden=(32, 32), gamma=0.0, learning_rate=3e-3), FieldConfig(form="none"), 0)
    g = torch.Generator().manual_seed(0)
    for _ in range(1500):
        s, a = torch.randn(64, 1, generator=g), torch.rand(64, 1, generator=g) * 2 - 1
        agent.update(Batch(s, a, -(a - 0.5).square().squeeze(1), s, torch.ones(64)), torch.ones(1), 1.0)
    assert agent.act(np.array([[0.3]], np.float32))[0, 0] == pytest.approx(0.5, abs=0.05)


def test_learning_rate_falls_at_the_end():
    config = TrainConfig(steps=1000, decay_from=0.6)
    factors = [learning_rate_factor(config, step) for step in (0, 600, 800, 1000)]
    assert factors == pytest.approx([1.0, 1.0, 0.55, 0.1])
    assert learning_rate_factor(TrainConfig(decay_from=1.0), 60_000) == 1.0
    agent = TD3(5, 2, SMALL, FieldConfig(form="none"), 0)
    agent.set_learning_rate(0.0)
    before = weights(agent).clone()
    agent.update(batch(), torch.ones(5), 1.0)
    assert torch.equal(before, weights(agent))


def test_actor_moves_every_second_update_only():
    agent = TD3(5, 2, SMALL, FieldConfig(form="none"), 0)
    before = [p.clone() for p in agent.actor.parameters()]
    agent.update(batch(), torch.ones(5), 1.0)
    assert all(torch.equal(p, q) for p, q in zip(before, agent.actor.parameters(), strict=True))
    agent.update(batch(), torch.ones(5), 1.0)
    assert not all(torch.equal(p, q) for p, q in zip(before, agent.actor.parameters(), strict=True))


def test_state_restores_bit_for_bit():
    agent = run(FieldConfig(), updates=7)
    tensors, values = agent.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    other = TD3(5, 2, SMALL, FieldConfig(), 99)
    other.restore(tensors, values)
    for a in (agent, other):
        for i in range(5):
            a.update(batch(100 + i), torch.ones(5), 1.0)
    assert torch.equal(weights(agent), weights(other))


def test_normaliser_is_inside_the_deployed_policy():
    agent = run(FieldConfig())
    agent.set_normaliser(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0]))
    raw = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    with torch.inference_mode():
        scripted = torch.jit.script(agent.deployed())(torch.from_numpy(raw)).numpy()
        by_hand = agent.actor_target(
            torch.from_numpy((raw - [1, 2, 3, 4, 5]).astype(np.float32) / np.float32([2, 2, 2, 2, 1]))
        ).numpy()
    assert np.allclose(scripted, by_hand, atol=1e-6)
    assert np.allclose(agent.deployed().act(raw[1]), by_hand[1], atol=1e-6)
    assert not np.allclose(agent.act(raw), by_hand, atol=1e-3), "the actor in training is not the averaged one"


def test_replay_overwrites_the_oldest_and_samples_what_is_there():
    buffer = ReplayBuffer(3, 1, 1)
    with pytest.raises(ValueError, match="empty"):
        buffer.sample(1, torch.Generator())
    for i in range(5):
        buffer.add(np.float32([i]), np.float32([0]), float(i), np.float32([i + 1]), i == 4)
    drawn = buffer.sample(400, torch.Generator().manual_seed(0))
    assert set(drawn.reward.tolist()) == {2.0, 3.0, 4.0}
    assert torch.equal(drawn.next_observation, drawn.observation + 1)
    assert torch.equal(drawn.terminal, (drawn.reward == 4.0).float())
    assert buffer.reward_std() == pytest.approx(np.std([2, 3, 4]))


@pytest.mark.parametrize(
    "field", [{"hidden": ()}, {"gamma": 1.0}, {"tau": 0.0}, {"policy_delay": 0}, {"learning_rate": 0.0}]
)
def test_impossible_settings_are_refused(field):
    with pytest.raises(ValueError):
        TD3Config(**field)

# SPDX-License-Identifier: Apache-2.0
"""Rewards in a unit of their own: what is learned is the same, bit for bit, whatever unit the reward comes in.

Factors are powers of two, by which floating-point numbers are multiplied without rounding.
"""

import dataclasses

import numpy as np
import pytest
import torch

from qgf_core.errors import ConfigError, QgfError
from qgf_trainer.config import load_train_config, with_form
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch, ReplayBuffer
from qgf_trainer.sac import SAC, SACConfig
from qgf_trainer.td3 import TD3, TD3Config
from qgf_trainer.training import train

SMALL = {
    "td3": (TD3, TD3Config(hidden=(16, 16))),
    "sac fixed": (SAC, SACConfig(hidden=(16, 16), entropy="fixed", temperature=0.25)),
}


def batch(seed, factor):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(32, 5, generator=g),
        torch.rand(32, 2, generator=g) * 2 - 1,
        factor * torch.randn(32, generator=g),
        torch.randn(32, 5, generator=g),
        torch.zeros(32),
    )


def learned(kind, factor, unit, updates=8):
    make, config = SMALL[kind]
    agent = make(5, 2, config, FieldConfig(), 0)
    agent.set_reward_unit(unit)
    for i in range(updates):
        agent.update(batch(i, factor), torch.ones(5), factor)
    return agent


def weights(agent):
    return torch.cat([p.detach().flatten() for m in (agent.actor, agent.critic) for p in m.parameters()])


def test_the_unit_by_hand():
    buffer = ReplayBuffer(8, 1, 1)
    nothing = np.zeros(1, np.float32)
    assert buffer.reward_rms() == 1.0
    buffer.add(nothing, nothing, 0.0, nothing, False)
    assert buffer.reward_rms() == 1.0, "a reward that has not been given has no unit yet"
    for reward in (3.0, 0.0, -4.0):
        buffer.add(nothing, nothing, reward, nothing, False)
    assert buffer.reward_rms() == pytest.approx(12.5**0.5)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("factor", [0.125, 16.0])
def test_rewards_in_their_unit_teach_the_same(kind, factor):
    told = weights(learned(kind, factor, factor))
    make, config = SMALL[kind]
    plain = make(5, 2, config, FieldConfig(), 0)
    if kind == "sac fixed":  # the temperature is a reward too: it is told in the unit
        plain.log_temperature -= float(np.log(factor))
    for i in range(8):
        plain.update(batch(i, 1.0), torch.ones(5), 1.0)
    assert torch.equal(told, weights(plain))
    assert not torch.equal(told, weights(learned(kind, factor, 1.0)))


def test_a_tuned_temperature_is_left_to_its_tuning():
    agent = SAC(5, 2, SACConfig(hidden=(16, 16), temperature=0.25), FieldConfig(), 0)
    agent.set_reward_unit(10.0)
    assert agent.temperature == pytest.approx(0.25)


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_a_training_is_the_same_whatever_the_unit(algorithm):
    def final(scale):
        more = ["steps=300", "warmup_steps=100", "batch_size=32", "learner.hidden=[16, 16]", "sac.hidden=[16, 16]"]
        more += ["reward_rms=2.0", f"reward_scale={scale}", "sac.entropy=auto"]
        return train(load_train_config("pendulum", more, algorithm=algorithm)).agent

    one, other = final(1.0), final(16.0)
    assert one.updates == 201 and torch.equal(weights(one), weights(other))
    assert other.reward_unit == 16.0 * one.reward_unit and 1.5 < one.reward_unit < 8.15


@pytest.mark.parametrize(
    "more, form",
    [
        ({"algorithm": "td3-plain"}, None),
        ({"overrides": ["rival.kind=caps"]}, None),
        ({"overrides": ["field.smoothness=0.0"]}, None),
        ({}, "paper"),
    ],
)
def test_weights_that_are_relative_to_the_reward_as_it_is_keep_it(more, form):
    overrides = [*more.pop("overrides", []), "steps=300", "warmup_steps=100", "batch_size=32"]
    config = with_form(load_train_config("pendulum", overrides, **more), form)
    config = dataclasses.replace(
        config, reward_rms=1.0, learner=dataclasses.replace(config.learner, hidden=(16, 16))
    )
    assert train(config).agent.reward_unit == 1.0


def test_a_checkpoint_holds_the_unit():
    agent = learned("td3", 1.0, 4.0)
    tensors, values = agent.state()
    other = TD3(5, 2, SMALL["td3"][1], FieldConfig(), 3)
    other.restore({name: tensor.clone() for name, tensor in tensors.items()}, values)
    assert other.reward_unit == 4.0
    for a in (agent, other):
        a.update(batch(9, 1.0), torch.ones(5), 1.0)
    assert torch.equal(weights(agent), weights(other))


@pytest.mark.parametrize("unit", [0.0, -1.0, float("inf"), float("nan")])
def test_a_unit_that_is_none_is_refused(unit):
    with pytest.raises(ValueError, match="must be positive and finite"):
        TD3(5, 2, SMALL["td3"][1], FieldConfig(), 0).set_reward_unit(unit)


def test_without_a_warm_up_there_is_nothing_to_measure_by():
    with pytest.raises(ConfigError, match="needs a warm-up"):
        load_train_config("pendulum", ["warmup_steps=0"])


def test_rewards_that_are_not_finite_end_the_run_in_one_line():
    more = ["steps=300", "warmup_steps=100", "learner.hidden=[16, 16]", "reward_scale=1.0e+300"]  # beyond float32
    with pytest.raises(QgfError, match="Pendulum-v1: rewards of the warm-up are not finite"):
        train(load_train_config("pendulum", more))

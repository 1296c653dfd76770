# SPDX-License-Identifier: Apache-2.0
"""The scale-free form demands curvature in units of the field's own size G, and curvature makes the field large: the
demand feeds on itself. Near an optimum of curvature h, G = h rms(a - a*), so that h >= kappa G cannot be met once
kappa rms(a - a*) exceeds about 1. Shown here on a task whose field is known, with the cure: G is at most
`cap` deviations of the reward."""

import math

import pytest
import torch

from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
from qgf_trainer.sac import SAC, SACConfig
from qgf_trainer.td3 import TD3, TD3Config

UNCAPPED = 1e9
# Reward -(a - tanh(s) / 2)^2 of one step, s normal, a uniform in [-1, 1]: the field is -2 (a - tanh(s) / 2), and
# G^2 = 4 (1/3 + E[tanh(s)^2] / 4) with E[tanh(s)^2] = 0.394
TRUE_SCALE = math.sqrt(4 * (1 / 3 + 0.394 / 4))
RMS = TRUE_SCALE / 2  # of a - a*


def trained(algorithm, smoothness, cap, updates=300):
    field = FieldConfig(smoothness=smoothness, cap=cap, every=1, rows=0)
    setting = {"hidden": (32, 32), "gamma": 0.0, "learning_rate": 3e-3}
    if algorithm == "sac":
        agent = SAC(1, 1, SACConfig(**setting, entropy="fixed", temperature=0.01), field, 0)
    else:
        agent = TD3(1, 1, TD3Config(**setting), field, 0)
    generator, scales = torch.Generator().manual_seed(0), []
    for _ in range(updates):
        s, a = torch.randn(64, 1, generator=generator), torch.rand(64, 1, generator=generator) * 2 - 1
        reward = -(a - 0.5 * torch.tanh(s)).square().squeeze(1)
        agent.update(Batch(s, a, reward, s, torch.ones(64)), torch.ones(1), float(reward.std()))
        scales.append(agent.stabiliser.scale)
    return agent, scales


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_without_a_cap_a_small_demand_finds_the_true_scale(algorithm):
    assert 0.3 * RMS < 0.25
    agent, scales = trained(algorithm, 0.3, UNCAPPED)
    assert scales[-1] == pytest.approx(TRUE_SCALE, rel=0.12)  # the average lags a little
    assert agent.latest["td_loss"] < 0.01


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_without_a_cap_a_large_demand_feeds_on_itself(algorithm):
    assert 5.0 * RMS > 3
    agent, scales = trained(algorithm, 5.0, UNCAPPED)
    assert scales[-1] > 100 * TRUE_SCALE and scales[-1] > 1.3 * scales[-51], "it grows, and goes on growing"
    assert agent.latest["td_loss"] > 1e3, "the value is lost"


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_the_cap_is_the_cure(algorithm):
    agent, scales = trained(algorithm, 5.0, 0.7)
    assert max(scales) < 0.5, "cap times the reward's deviation, which is about 0.5"
    assert agent.latest["td_loss"] < 0.01
    action = agent.act(torch.tensor([[-1.0], [0.0], [1.0]]).numpy()).ravel()
    assert action.tolist() == pytest.approx([-0.38, 0.0, 0.38], abs=0.1)

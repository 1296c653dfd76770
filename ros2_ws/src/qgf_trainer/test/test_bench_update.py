# SPDX-License-Identifier: Apache-2.0
"""The benchmark of updates compares like with like: its double backward computes the loss and gradients of ours."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qgf_trainer.config import TrainConfig
from qgf_trainer.networks import TwinCritic, squash
from qgf_trainer.q_gradient_field import FieldConfig, paper_form, q_gradient_field_losses
from qgf_trainer.replay import Batch
from qgf_trainer.sac import SACConfig
from qgf_trainer.td3 import TD3Config

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"


@pytest.fixture
def double_backward(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from double_backward.sac import DoubleBackwardSAC
    from double_backward.td3 import DoubleBackwardTD3

    return {"td3": DoubleBackwardTD3, "sac": DoubleBackwardSAC}


@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_its_loss_and_gradients_are_ours(double_backward, learner):
    torch.manual_seed(0)
    field = paper_form(FieldConfig())
    config = {"td3": TD3Config, "sac": SACConfig}[learner](hidden=(24, 16), gamma=0.9)
    agent = double_backward[learner](6, 2, config, field, 0)
    for module in (agent.actor, agent.critics, agent.critic_targets):
        module.double()
    if learner == "td3":
        agent.actor_target.double()
    with torch.no_grad():
        for parameter in agent.critic_targets.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # so that a target mixed up with its critic is seen
    batch = Batch(
        *(
            x.double()
            for x in (
                torch.randn(32, 6),
                torch.rand(32, 2) * 2 - 1,
                torch.randn(32),
                torch.randn(32, 6),
                (torch.rand(32) < 0.3).float(),
            )
        )
    )
    target_noise, noise = 0.1 * torch.randn(32, 2).double(), 0.01 * torch.randn(32, 6).double()
    probe = torch.randn(32, 2).sign().double()
    theirs = agent.critic_loss(batch, target_noise, noise, probe)
    theirs.backward()

    critic, target = TwinCritic(6, 2, (24, 16)).double(), TwinCritic(6, 2, (24, 16)).double()
    for ours, modules in ((critic, agent.critics), (target, agent.critic_targets)):
        layers = [[m for m in module if isinstance(m, torch.nn.Linear)] for module in modules]
        with torch.no_grad():
            for index in range(3):
                ours.weights[index].copy_(torch.stack([pair[index].weight.T for pair in layers]))
                ours.biases[index].copy_(torch.stack([pair[index].bias[None] for pair in layers]))
    with torch.no_grad():
        if learner == "td3":
            next_action = (agent.actor_target(batch.next_observation) + target_noise).clamp(-1, 1)
            entropy = torch.zeros(32)
        else:
            mean, log_std = agent.actor(batch.next_observation).split(2, dim=1)
            next_action, log_probability = squash(mean, log_std, target_noise)
            entropy = -float(agent.log_temperature.exp()) * log_probability
        value = target(batch.next_observation, next_action).min(0).values + entropy
        goal = batch.reward + 0.9 * (1 - batch.terminal) * value
    terms = q_gradient_field_losses(
        critic,
        batch.observation,
        batch.action,
        batch.next_observation,
        state_noise=noise,
        probe=probe,
        curvature_margin=1.0,
    )
    td = (critic(batch.observation, batch.action) - goal).square().mean(1).sum() * (1.0 if learner == "td3" else 0.5)
    loss = td + 2.0 * terms.mixed_partial + 0.005 * terms.field_consistency + 2.0 * terms.curvature
    loss.backward()
    assert float(theirs.detach()) == pytest.approx(float(loss.detach()), rel=1e-12)
    for number, module in enumerate(agent.critics):
        linear = [m for m in module if isinstance(m, torch.nn.Linear)]
        for layer, weight, bias in zip(linear, critic.weights, critic.biases, strict=True):
            assert torch.allclose(layer.weight.grad.T, weight.grad[number], rtol=1e-9, atol=1e-13)
            gradient = torch.zeros_like(bias) if bias.grad is None else bias.grad
            assert torch.allclose(layer.bias.grad, gradient[number, 0], rtol=1e-9, atol=1e-13)


def test_it_refuses_what_it_does_not_implement(double_backward):
    for made, config in ((double_backward["td3"], TD3Config()), (double_backward["sac"], SACConfig())):
        for field in (FieldConfig(), FieldConfig(form="paper", every=4, rows=0)):
            with pytest.raises(ValueError, match="published form"):
                made(6, 2, config, field, 0)


@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_its_update_learns(double_backward, learner):
    """One-step task, reward -(a - 0.5)^2: the critic's loss falls and the actor climbs."""
    config = {"td3": TD3Config, "sac": SACConfig}[learner](hidden=(32, 32), gamma=0.0, learning_rate=3e-3)
    agent = double_backward[learner](1, 1, config, FieldConfig(form="none"), 0)
    g = torch.Generator().manual_seed(0)
    for _ in range(1000):
        s, a = torch.randn(64, 1, generator=g), torch.rand(64, 1, generator=g) * 2 - 1
        agent.update(Batch(s, a, -(a - 0.5).square().squeeze(1), s, torch.ones(64)))
    action = torch.tanh(agent.actor(s)[:, :1]) if learner == "sac" else agent.actor(s)
    assert (action - 0.5).abs().max() < 0.2


def update(*arguments):
    """The benchmark as a command."""
    paths = [str(BENCHMARKS.parent / "ros2_ws/src" / name) for name in ("qgf_core", "qgf_sim", "qgf_trainer")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, str(BENCHMARKS / "update.py"), *arguments], capture_output=True, text=True,
                          timeout=120, env=environment)


@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_flat_json(learner):
    done = update("--only", f"{learner}.pendulum.256", "--json", "--rounds", "2", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    flat = json.loads(done.stdout)
    series = ["reference", "reference_plain", "plain", "same_maths", "default", "sb3_plain"]
    keys = [f"{name}_updates_per_s" for name in series] + ["same_maths_ratio", "default_ratio", "overhead"]
    parts = (f"{learner}.pendulum.256.{key}{end}" for key, end in itertools.product(keys, ("", ".min", ".max")))
    assert set(flat) == set(parts)
    assert all(value > 0 for value in flat.values())
    assert done.stderr.count("every 1, rows 0") == 2 and done.stderr.count("TD loss alone") == 3


def test_a_case_that_is_none_is_refused():
    wrong = update("--only", "td3.arm.25")
    assert wrong.returncode == 2 and "choose one of" in wrong.stderr


def test_a_whole_training_by_the_double_backward_acts_by_what_it_updates(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import wall_clock

    config = TrainConfig(task="Pendulum-v1", robot="", learner=TD3Config(hidden=(8, 8)))
    agent = wall_clock.reference_agent(config, 3, 1)
    assert agent.reference.field == paper_form(FieldConfig(), config.paper.td3)
    torch.manual_seed(0)
    batch = Batch(torch.randn(16, 3), torch.rand(16, 1), torch.randn(16), torch.randn(16, 3), torch.zeros(16))
    seen = torch.randn(4, 3).numpy()
    before, deployed = agent.act(seen), agent.deployed()
    for _ in range(config.learner.policy_delay):
        agent.update(batch, torch.ones(3), 1.0)
    assert (agent.act(seen) != before).all()
    assert torch.equal(torch.from_numpy(agent.act(seen)), agent.reference.actor(torch.from_numpy(seen)).detach())
    assert any(not torch.equal(a, b) for a, b in zip(agent.deployed().parameters(), deployed.parameters(), strict=True))

# SPDX-License-Identifier: Apache-2.0
"""The drop-in classes for Stable-Baselines3, and the page that shows the loop of one's own."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import gymnasium
import pytest
import torch
from stable_baselines3 import SAC, TD3

from qgf_core.errors import QgfError
from qgf_trainer.geometry import Trajectory, measure
from qgf_trainer.networks import TwinCritic
from qgf_trainer.q_gradient_field import FieldConfig, paper_form, q_gradient_field_losses
from qgf_trainer.sb3 import QGradientFieldSAC, QGradientFieldTD3
from qgf_trainer.stacked import stack

PAIRS = [(QGradientFieldTD3, TD3), (QGradientFieldSAC, SAC)]
SETTINGS = {"seed": 3, "learning_starts": 60, "batch_size": 32, "buffer_size": 2000, "device": "cpu"}
NET = {"net_arch": [24, 24]}
ZERO = FieldConfig(mixed_partial=0.0, field_consistency=0.0, curvature=0.0, every=1)


def make(cls, **more):
    torch.set_num_threads(1)
    return cls("MlpPolicy", gymnasium.make("Pendulum-v1"), **{**SETTINGS, "policy_kwargs": NET, **more})


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def networks(seed=0, activation=torch.nn.SiLU, width=12):
    torch.manual_seed(seed)
    return [
        torch.nn.Sequential(
            torch.nn.Linear(5, width), activation(), torch.nn.Linear(width, 8), activation(), torch.nn.Linear(8, 1)
        ).double()
        for _ in range(2)
    ]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_zero_weights_are_plain_bit_for_bit(ours, theirs):
    plain = make(theirs, policy_kwargs={**NET, "activation_fn": torch.nn.SiLU}).learn(200)
    zero = make(ours, field=ZERO).learn(200)
    assert torch.equal(weights(plain), weights(zero))
    assert not torch.equal(weights(plain), weights(make(ours, field=FieldConfig(smoothness=0.3)).learn(200)))


@pytest.mark.parametrize("cls", [QGradientFieldTD3, QGradientFieldSAC])
def test_saved_and_loaded_it_goes_on_as_one_never_saved(cls, tmp_path):
    model = make(cls).learn(120)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = cls.load(tmp_path / "model", env=gymnasium.make("Pendulum-v1"))
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert torch.equal(weights(model), weights(loaded))
    assert loaded.field == model.field and loaded.stabiliser.state() == model.stabiliser.state()
    from stable_baselines3.common.logger import configure

    for one in (model, loaded):
        torch.manual_seed(7)
        import numpy

        numpy.random.seed(7)  # Stable-Baselines3 samples by numpy's global generator
        one.set_logger(configure(None, []))
        one._deviations = None
        one.train(gradient_steps=9, batch_size=32)
    assert torch.equal(weights(model), weights(loaded))


def test_gradient_of_the_step_is_that_of_the_summed_loss():
    """What reaches the optimiser, less the TD loss's own, is the gradient of the published sum by double backward."""
    model = make(QGradientFieldTD3, field=paper_form(FieldConfig()), learning_starts=40)
    model.learn(42)
    seen = []
    model.critic.optimizer.register_step_pre_hook(
        lambda *_: seen.append([p.grad.clone() for p in model.critic.parameters()])
    )
    zero = make(QGradientFieldTD3, field=ZERO)
    zero.critic.optimizer.register_step_pre_hook(
        lambda *_: seen.append([p.grad.clone() for p in zero.critic.parameters()])
    )
    zero.set_parameters(model.get_parameters())
    zero.replay_buffer, zero._logger = model.replay_buffer, model._logger
    generator = torch.Generator()
    generator.set_state(model.stabiliser.generator.get_state())
    drawn = []
    original = model.replay_buffer.sample
    model.replay_buffer.sample = lambda *a, **k: drawn[0] if drawn else drawn.append(original(*a, **k)) or drawn[0]
    before = [[(x.weight.detach().clone(), x.bias.detach().clone()) for x in q if isinstance(x, torch.nn.Linear)]
              for q in model.critic.q_networks]
    for one in (model, zero):
        torch.manual_seed(1)
        one.train(gradient_steps=1, batch_size=32)
    batch = drawn[0]
    noise = 0.01 * torch.randn(batch.observations.shape, generator=generator)
    probe = torch.randint(0, 2, batch.actions.shape, generator=generator).float() * 2 - 1
    expected = []
    for layers in before:
        flat = [t.clone().requires_grad_() for pair in layers for t in pair]

        def q(s, a, flat=flat):
            h = torch.cat((s, a), 1)
            for i in range(0, len(flat), 2):
                h = torch.nn.functional.linear(h, flat[i], flat[i + 1])
                h = torch.nn.functional.silu(h) if i + 2 < len(flat) else h
            return h.sum()

        a = batch.actions.clone().requires_grad_()
        fields = [
            torch.autograd.grad(q(s, a), a, create_graph=True)[0]
            for s in (batch.observations, batch.observations + noise, batch.next_observations)
        ]
        bent = torch.autograd.grad((fields[0] * probe).sum(), a, create_graph=True)[0]
        loss = (
            2.0 * (fields[1] - fields[0]).square().mean()
            + 0.005 * (fields[2] - fields[0]).square().mean()
            + 2.0 * torch.relu((bent * probe).sum(1) + 1.0).mean()
        )
        found = torch.autograd.grad(loss, flat, allow_unused=True)
        expected += [torch.zeros_like(p) if g is None else g for g, p in zip(found, flat, strict=True)]
    assert len(seen) == 2
    for with_terms, without, term in zip(*seen, expected, strict=True):
        assert torch.allclose(with_terms - without, term, rtol=1e-3, atol=1e-5)
    assert max(float(term.abs().max()) for term in expected) > 1e-2


def test_stacked_networks_are_a_twin_critic():
    pair = networks()
    twin = TwinCritic(3, 2, (12, 8)).double()
    with torch.no_grad():
        for index in range(3):
            twin.weights[index].copy_(torch.stack([n[2 * index].weight.T for n in pair]))
            twin.biases[index].copy_(torch.stack([n[2 * index].bias[None] for n in pair]))
    g = torch.Generator().manual_seed(1)
    data = [torch.randn(16, n, generator=g, dtype=torch.float64) for n in (3, 2, 3)]
    more = {"state_noise": 0.1 * data[0].roll(1, 0), "probe": data[1].sign(), "curvature_margin": 1.0}
    for ours, theirs in zip(
        q_gradient_field_losses(stack(pair, 2), *data, **more), q_gradient_field_losses(twin, *data, **more),
        strict=True,
    ):
        assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)


def test_training_pendulum_bends_the_critic_down():
    """After 2000 steps the stabilised critic is concave in the action where the plain one is not."""
    shares = {}
    for cls in (TD3, QGradientFieldTD3):
        more = {"policy_kwargs": {**NET, "activation_fn": torch.nn.SiLU}, "learning_rate": 1e-3, "train_freq": 2}
        model = make(cls, **more).learn(2000)
        drawn = model.replay_buffer.sample(500)
        path = Trajectory(drawn.observations, drawn.actions)
        figures = measure(lambda s, a, model=model: model.critic.q1_forward(s, a).squeeze(1), [path])
        shares[cls] = figures["concave_share"]
    assert shares[QGradientFieldTD3] > 0.8
    assert shares[QGradientFieldTD3] > shares[TD3] + 0.1


def test_what_does_not_fit_is_refused():
    with pytest.raises(QgfError, match="SiLU"):
        make(QGradientFieldTD3, policy_kwargs={**NET, "activation_fn": torch.nn.ReLU})
    with pytest.raises(QgfError, match="n_critics"):
        make(QGradientFieldSAC, policy_kwargs={**NET, "n_critics": 3})
    with pytest.raises(QgfError, match="n_steps"):
        make(QGradientFieldTD3, n_steps=3)
    with pytest.raises(QgfError, match="smoothness 'auto' needs the training loop"):
        make(QGradientFieldTD3, field=FieldConfig(smoothness="auto"))
    with pytest.raises(QgfError, match="differ"):
        stack([networks()[0], networks(width=9)[0]], 2)


def test_without_the_library_one_line_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.delitem(sys.modules, "qgf_trainer.sb3")
    with pytest.raises(QgfError, match="pip install stable-baselines3"):
        importlib.import_module("qgf_trainer.sb3")


def test_the_loop_on_the_page_runs(tmp_path):
    page = (Path(__file__).parents[4] / "docs" / "drop_in.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks).replace("50_000", "150"), encoding="utf-8")
    torch.manual_seed(0)
    names = runpy.run_path(str(script))
    assert names["model"].num_timesteps == 150
    assert names["stabiliser"].updates == 200 and names["stabiliser"].terms == 50
    assert all(torch.isfinite(p).all() for p in names["qf1"].parameters())

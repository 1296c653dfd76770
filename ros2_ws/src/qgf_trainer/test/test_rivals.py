# SPDX-License-Identifier: Apache-2.0
"""Policy-side rivals: each term against arithmetic written out, its effect, zero weights are plain bit for bit."""

import math

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from qgf_trainer.config import load_train_config, with_form
from qgf_trainer.networks import Actor, GaussianActor, TwinCritic
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch, ReplayBuffer
from qgf_trainer.rivals import (
    AsapConfig,
    CapsConfig,
    GradCapsConfig,
    L2C2Config,
    Rival,
    RivalConfig,
    States,
    hellinger,
    l2c2_weight,
    second_difference,
)
from qgf_trainer.sac import SAC, SACConfig
from qgf_trainer.td3 import TD3, TD3Config
from qgf_trainer.training import train

KINDS = ("caps", "grad-caps", "asap", "l2c2")
ZERO = {
    "caps": {"caps": CapsConfig(0.0, 0.0)},
    "grad-caps": {"grad_caps": GradCapsConfig(0.0)},
    "asap": {"asap": AsapConfig(0.0, 0.0, 0.0)},
}


def batch(seed, size=32, n_obs=5, n_act=2):
    g = torch.Generator().manual_seed(seed)
    s, before, after = (torch.randn(size, n_obs, generator=g) for _ in range(3))
    action = torch.rand(size, n_act, generator=g) * 2 - 1
    return Batch(s, action, torch.randn(size, generator=g), after, torch.zeros(size), before)


def agent(algorithm, rival, seed=0):
    if algorithm == "sac":
        return SAC(5, 2, SACConfig(hidden=(16, 16)), FieldConfig(form="none"), seed, rival)
    return TD3(5, 2, TD3Config(hidden=(16, 16)), FieldConfig(form="none"), seed, rival)


def run(algorithm, rival, updates=6):
    made = agent(algorithm, rival)
    for i in range(updates):
        made.update(batch(i), torch.ones(5), 1.0)
    return made


def weights(made):
    return torch.cat([p.detach().flatten() for m in (made.actor, made.critic) for p in m.parameters()])


def rows(states):
    return [x.double().numpy() for x in states]


def numpy_action(actor, states):
    """The actor once more, row by row in numpy."""
    layers = [m for m in actor.modules() if isinstance(m, torch.nn.Linear)]
    if isinstance(actor, GaussianActor):
        layers = layers[:-1]
    h = states
    for layer in layers[:-1]:
        z = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        h = z / (1 + np.exp(-z))
    return np.tanh(h @ layers[-1].weight.detach().double().numpy().T + layers[-1].bias.detach().double().numpy()), h


@pytest.fixture(params=["td3", "sac"])
def actor(request):
    torch.manual_seed(3)
    made = (GaussianActor if request.param == "sac" else Actor)(5, 2, (16, 16))
    for parameter in made.parameters():
        parameter.data *= 3.0
    return made


def states():
    made = batch(1)
    return States(made.previous_observation, made.observation, made.next_observation)


def test_caps_by_hand(actor):
    rival = Rival(RivalConfig("caps", caps=CapsConfig(0.3, 0.7, 0.2)), actor, 16, 2, seed=5)
    noise = torch.randn(32, 5, generator=torch.Generator().manual_seed(5)).double().numpy()
    _, here, after = rows(states())
    a, b, near = (numpy_action(actor, s)[0] for s in (here, after, here + 0.2 * noise))
    expected = 0.3 * 0.5 * ((b - a) ** 2).mean() + 0.7 * 0.5 * ((near - a) ** 2).mean()
    assert float(rival.actor_loss(actor, states()).detach()) == pytest.approx(expected, rel=1e-4)


def test_grad_caps_by_hand(actor):
    # 2 * 0.5 - 0.1 - 0.3 = 0.6 and 0.1 - 0.3 + 1e-4 = -0.1999: tanh(25.03) = 1
    told = second_difference(torch.tensor([[0.3]]), torch.tensor([[0.5]]), torch.tensor([[0.1]]))
    assert float(told) == pytest.approx(0.5 * 0.6**2)
    # A wide swing weighs less: 1.5 - (-0.5) = 2.0001, tanh(1 / 4.0004) = 0.2449
    told = second_difference(torch.tensor([[-0.5]]), torch.tensor([[0.9]]), torch.tensor([[1.5]]))
    assert float(told) == pytest.approx(0.5 * 0.8**2 * math.tanh(1 / 2.0001**2), rel=1e-6)
    rival = Rival(RivalConfig("grad-caps", grad_caps=GradCapsConfig(0.4)), actor, 16, 2, seed=5)
    before, here, after = (numpy_action(actor, s)[0] for s in rows(states()))
    weight = np.tanh(1 / (after - before + 1e-4) ** 2)
    expected = 0.4 * (0.5 * weight * (2 * here - after - before) ** 2).mean()
    assert float(rival.actor_loss(actor, states()).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_weight_of_grad_caps_carries_no_gradient():
    before, here, after = (torch.tensor([[x]], requires_grad=True) for x in (-0.5, 0.9, 1.5))
    second_difference(before, here, after).backward()
    slope = 0.8 * math.tanh(1 / 2.0001**2)
    assert (before.grad.item(), here.grad.item(), after.grad.item()) == pytest.approx(
        (-slope, 2 * slope, -slope), rel=1e-5
    )


def test_asap_by_hand(actor):
    rival = Rival(RivalConfig("asap", asap=AsapConfig(0.2, 0.3, 0.5)), actor, 16, 2, seed=5)
    target, head = rival.modules["predictor_target"], rival.modules["predictor"]
    assert torch.equal(target.weight, head.weight)
    target.weight.data *= -2.0  # tells the two heads apart
    (before, _), (here, hidden), (after, _) = (numpy_action(actor, s) for s in rows(states()))
    weight, bias = head.weight.detach().double().numpy().T, head.bias.detach().double().numpy()
    predicted, averaged = np.tanh(hidden @ weight + bias), np.tanh(-2.0 * hidden @ weight + bias)
    bend = (0.5 * np.tanh(1 / (after - before + 1e-4) ** 2) * (2 * here - after - before) ** 2).mean()
    expected = 0.2 * bend + 0.3 * 0.5 * ((after - averaged) ** 2).mean() + 0.5 * 0.5 * ((predicted - after) ** 2).mean()
    assert float(rival.actor_loss(actor, states()).detach()) == pytest.approx(expected, rel=1e-4)


def test_asap_learns_the_predictor_and_its_average_follows():
    made = run("td3", RivalConfig("asap"), updates=2)  # one update of the actor
    head, target = made.rival.modules["predictor"], made.rival.modules["predictor_target"]
    start = Rival(RivalConfig("asap"), agent("td3", RivalConfig("asap")).actor, 16, 2, 2).modules["predictor"]
    moved = head.weight - start.weight
    assert moved.abs().max() > 1e-4
    assert torch.allclose(target.weight - start.weight, 0.01 * moved, atol=1e-7)
    for setting, temporal, spatial in (("td3", 0.05, 0.3), ("sac", 0.5, 10.0)):
        rival = agent(setting, RivalConfig("asap")).rival
        assert (rival._temporal, rival._spatial) == (temporal, spatial)


def test_hellinger_against_an_integral():
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    p, q = (
        torch.distributions.Normal(*torch.tensor(pair, dtype=torch.float64)).log_prob(x)
        for pair in ((0.3, 0.5), (-0.4, 1.2))
    )
    by_integral = 1 - torch.trapezoid((0.5 * (p + q)).exp(), x)
    told = hellinger(*(torch.tensor([[v]], dtype=torch.float64) for v in (0.3, math.log(0.5), -0.4, math.log(1.2))))
    assert float(told) == pytest.approx(float(by_integral), rel=1e-8)
    same = torch.randn(4, 3)
    assert hellinger(same, same, same, same).abs().max() < 1e-6


def test_l2c2_weight_falls_from_upper_to_lower():
    config = L2C2Config(sigma=1.0, lower=0.1, upper=10.0)
    told = l2c2_weight(torch.tensor([[0.0, 0.0], [0.2, -1.0], [0.5, 0.1]]), config)
    edge = 0.1 / 9.9
    assert told.tolist() == pytest.approx([10.0, 10 * edge / (1 + edge), 10 * edge / (0.5 + edge)], rel=1e-5)
    assert float(told[1]) == pytest.approx(0.1, rel=1e-5)


def test_l2c2_by_hand(actor):
    rival = Rival(RivalConfig("l2c2"), actor, 16, 2, seed=5)
    g = torch.Generator().manual_seed(5)
    shares = [2 * torch.rand(32, 5, generator=g).double().numpy() - 1 for _ in range(2)]
    _, here, after = rows(states())
    near = [here + share * (after - here) for share in shares]
    edge = 0.1 / 9.9
    weight = [10 * edge / (np.abs(share).max(1) + edge) for share in shares]
    if isinstance(actor, GaussianActor):
        with torch.no_grad():
            (m, s), (o, t) = (
                [x.double().numpy() for x in actor.distribution(torch.from_numpy(x).float())] for x in (here, near[0])
            )
        s, t = np.exp(s), np.exp(t)
        overlap = np.sqrt(2 * s * t / (s**2 + t**2)) * np.exp(-((m - o) ** 2) / (4 * (s**2 + t**2)))
        distance = 1 - overlap.prod(1)
    else:
        distance = 0.5 * ((numpy_action(actor, near[0])[0] - numpy_action(actor, here)[0]) ** 2).mean(1)
    expected = (weight[0] * distance).mean()
    assert float(rival.actor_loss(actor, states()).detach()) == pytest.approx(expected, rel=1e-3)
    critic, action = TwinCritic(5, 2, (16, 16)), batch(1).action
    with torch.no_grad():
        change = (
            critic(states().here, action).min(0).values
            - critic(torch.from_numpy(near[1]).float(), action).min(0).values
        )
        told = rival.critic_loss(critic, states(), action)
    assert float(told) == pytest.approx(float((0.1 * weight[1] * 0.5 * change.abs().numpy()).mean()), rel=1e-4)


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_has_an_effect_and_zero_weights_are_plain(algorithm, kind):
    plain = weights(run(algorithm, RivalConfig()))
    assert not torch.equal(plain, weights(run(algorithm, RivalConfig(kind))))
    if kind in ZERO:
        assert torch.equal(plain, weights(run(algorithm, RivalConfig(kind, **ZERO[kind]))))


@pytest.mark.parametrize("kind", KINDS)
def test_each_calms_a_rough_policy(kind):
    """Descending the term alone brings the actions at neighbouring states together, from a strongly rough actor."""
    strong = {
        "caps": {"caps": CapsConfig(1.0, 1.0)},
        "grad-caps": {},
        "asap": {"asap": AsapConfig(1.0, 1.0)},
        "l2c2": {},
    }
    torch.manual_seed(0)
    actor = Actor(5, 2, (16, 16))
    for parameter in actor.parameters():
        parameter.data *= 4.0
    s = torch.randn(256, 5)
    walk = 0.1 * torch.randn(2, 256, 5)
    seen = States(s - walk[0], s, s + walk[1])

    def roughness():
        with torch.no_grad():
            before, here, after = (actor(x) for x in seen)
        change = 2 * here - after - before if kind == "grad-caps" else after - here
        return float(change.square().mean())

    rival = Rival(RivalConfig(kind, **strong[kind]), actor, 16, 2, seed=0)
    optimiser = torch.optim.Adam([*actor.parameters(), *rival.parameters()], lr=1e-3)
    start = roughness()
    for _ in range(100):
        optimiser.zero_grad()
        rival.actor_loss(actor, seen).backward()
        optimiser.step()
        rival.after_actor_update(actor)
    assert roughness() < 0.8 * start


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
@pytest.mark.parametrize("kind", KINDS)
def test_state_restores_bit_for_bit(algorithm, kind):
    made = run(algorithm, RivalConfig(kind), updates=5)
    tensors, values = made.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    other = agent(algorithm, RivalConfig(kind), seed=99)
    other.restore(tensors, values)
    for a in (made, other):
        for i in range(4):
            a.update(batch(50 + i), torch.ones(5), 1.0)
    assert torch.equal(weights(made), weights(other))


def test_replay_keeps_the_state_before():
    buffer = ReplayBuffer(4, 1, 1, keeps_previous=True)
    for i in range(3):
        before = None if i == 0 else np.float32([i - 1])
        buffer.add(np.float32([i]), np.float32([0]), 0.0, np.float32([i + 1]), False, before)
    drawn = buffer.sample(200, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.previous_observation, (drawn.observation - 1).clamp_min(0))
    other = ReplayBuffer(4, 1, 1, keeps_previous=True)
    other.restore(buffer.state())
    assert torch.equal(
        other.sample(9, torch.Generator().manual_seed(0)).previous_observation[:, 0],
        buffer.sample(9, torch.Generator().manual_seed(0)).previous_observation[:, 0],
    )
    assert ReplayBuffer(4, 1, 1).state().keys() == buffer.state().keys() - {"previous_observation"}


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_trains_in_the_loop(tmp_path, algorithm, kind):
    more = ["steps=300", "warmup_steps=100", "batch_size=32", f"rival.kind={kind}", "environments=2"]
    config = load_train_config(
        "pendulum", [*more, "learner.hidden=[16, 16]", "sac.hidden=[16, 16]"], algorithm=algorithm
    )
    assert config.field.form == "none" and with_form(config, "paper").field.form == "none"
    result = train(config, tmp_path)
    assert result.steps == 300 and result.agent.rival.config.kind == kind and result.agent.updates == 202
    stored = load_file(tmp_path / "checkpoint.safetensors")
    if config.rival.needs_previous:
        # Two environments in turn: the state before is the one two rows earlier, and itself in the first two rows.
        previous, observation = stored["buffer.previous_observation"], stored["buffer.observation"]
        assert np.array_equal(previous[2:], observation[:-2]) and np.array_equal(previous[:2], observation[:2])
    else:
        assert "buffer.previous_observation" not in stored


@pytest.mark.parametrize(
    ("config", "setting"),
    [(CapsConfig, {"spatial": -1.0}), (AsapConfig, {"tau": 0.0}), (L2C2Config, {"lower": 20.0})],
)
def test_impossible_settings_are_refused(config, setting):
    with pytest.raises(ValueError):
        config(**setting)

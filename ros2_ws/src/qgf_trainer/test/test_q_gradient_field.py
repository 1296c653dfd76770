# SPDX-License-Identifier: Apache-2.0
"""The Q-gradient field losses against a straightforward double backward, hand-worked numbers and numeric Hessians."""

import math

import pytest
import torch

from qgf_trainer.field_function import FieldFunction
from qgf_trainer.networks import TwinCritic
from qgf_trainer.q_gradient_field import (
    FieldConfig,
    FieldStabiliser,
    noise_mixing,
    paper_form,
    q_gradient_field_losses,
)
from qgf_trainer.replay import Batch
from qgf_trainer.sac import SAC, SACConfig
from qgf_trainer.td3 import TD3, TD3Config

NAMES = ("mixed_partial", "field_consistency", "curvature")


def double_backward(critic, observation, action, following, noise, probe, margin):
    """The same losses as the authors' code would: autograd through autograd."""

    def field(states):
        a = action.clone().requires_grad_()
        values = critic(states, a)
        return [torch.autograd.grad(value.sum(), a, create_graph=True)[0] for value in values], a

    (here, a), (noisy, _), (ahead, _) = field(observation), field(observation + noise), field(following)
    mixed = sum(((x - y) ** 2).mean() for x, y in zip(noisy, here, strict=True))
    consistency = sum(((x - y) ** 2).mean() for x, y in zip(ahead, here, strict=True))
    curvature = 0.0
    for gradient in here:
        product = torch.autograd.grad((gradient * probe).sum(), a, create_graph=True)[0]
        curvature = curvature + torch.relu((product * probe).sum(-1) + margin).mean()
    return mixed, consistency, curvature


def sample(n_obs, n_act, batch, scale, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    observation = normal(batch, n_obs) * scale
    action = torch.rand(batch, n_act, generator=generator, dtype=torch.float64) * 2 - 1
    probe = torch.randint(0, 2, (batch, n_act), generator=generator).double() * 2 - 1
    parts = observation, action, observation + 0.1 * normal(batch, n_obs), 0.01 * normal(batch, n_obs), probe
    return tuple(part.to(dtype) for part in parts)


def losses(critic, observation, action, following, noise, probe, margin):
    return q_gradient_field_losses(
        critic, observation, action, following, state_noise=noise, probe=probe, curvature_margin=margin
    )


def gradients(loss, critic):
    parameters = list(critic.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, parameters, strict=True)]
    )


def make_critic(n_obs, n_act, hidden, seed=1):
    torch.manual_seed(seed)
    return TwinCritic(n_obs, n_act, hidden).double()


@pytest.mark.parametrize("hidden", [(32,), (64, 48), (256, 256), (24, 32, 16)])
@pytest.mark.parametrize("sizes", [(3, 1), (24, 7), (105, 8)])
def test_equals_double_backward_in_float64(hidden, sizes):
    critic = make_critic(*sizes, hidden)
    data = sample(*sizes, 64, 1.0)
    for ours, reference in zip(losses(critic, *data, 1.0), double_backward(critic, *data, 1.0), strict=True):
        assert float(reference.detach()) > 0
        assert abs(float((ours - reference).detach())) <= 1e-9 * abs(float(reference.detach()))
        expected = gradients(reference, critic)
        assert expected.abs().max() > 0
        assert (gradients(ours, critic) - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("hidden", [(5,), (4, 3), (3, 5, 4)])
def test_gradients_equal_numeric_ones(hidden):
    """Of the field and of the curvature each, by every weight: third derivatives of Q, by differences."""
    critic = make_critic(2, 2, hidden)
    observation, action, following, noise, probe = sample(2, 2, 3, 1.0)
    n = 2  # the last row has a value alone
    states = torch.cat((observation[:n] + noise[:n], following[:n], observation))
    rows, probe = torch.cat((states, torch.cat((action[:n], action[:n], action))), -1), probe[:n]
    parameters = [*critic.weights, *critic.biases]
    for parameter in parameters:
        parameter.data *= 2.0
    assert torch.autograd.gradcheck(lambda *p: FieldFunction.apply(rows, probe, 2, *p), parameters, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_float32_is_close_to_float64(seed):
    single = make_critic(24, 7, (256, 256), seed).float()
    double = TwinCritic(24, 7, (256, 256)).double()
    double.load_state_dict({name: value.double() for name, value in single.state_dict().items()})
    data = sample(24, 7, 128, 1.0, torch.float32, seed)
    reference = double_backward(double, *(part.double() for part in data), 1.0)
    for name, ours, exact in zip(NAMES, losses(single, *data, 1.0), reference, strict=True):
        assert abs(float(ours.detach()) - float(exact.detach())) <= 1e-4 * abs(float(exact.detach()))
        expected = gradients(exact, double)
        error = (gradients(ours, single).double() - expected).abs().max() / expected.abs().max()
        assert error <= (1e-3 if name == "mixed_partial" else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_inputs_stay_finite(dtype):
    critic = make_critic(24, 7, (256, 256)).to(dtype)
    data = sample(24, 7, 64, 3000.0, dtype)
    inputs = torch.cat((data[0], data[1]), -1)
    assert (inputs @ critic.weights[0]).abs().max() > 1e3
    for loss in losses(critic, *data, 1.0):
        assert torch.isfinite(loss)
        assert torch.isfinite(gradients(loss, critic)).all()


def test_curvature_equals_a_numeric_second_difference():
    critic = make_critic(2, 3, (16, 16))
    observation, action, following, noise, probe = sample(2, 3, 1, 1.0)
    h = 1e-4
    with torch.no_grad():
        second = (
            critic(observation, action + h * probe)
            - 2 * critic(observation, action)
            + critic(observation, action - h * probe)
        ).squeeze(-1) / h**2
    margin = 10.0  # large enough that relu is in its linear part for both critics
    ours = losses(critic, observation, action, following, noise, probe, margin).curvature
    assert float(ours.detach()) == pytest.approx(float((second + margin).sum()), abs=1e-5)


def quadratic_critic():
    """Two critics of one SiLU unit z = s + 2 a and z = s - a: Q = f(z), so g = w f'(z) and d2Q/da2 = w^2 f''(z)."""
    critic = TwinCritic(1, 1, (1,)).double()
    with torch.no_grad():
        critic.weights[0][:] = torch.tensor([[[1.0], [2.0]], [[1.0], [-1.0]]])
        critic.weights[1][:] = 1.0
        for bias in critic.biases:
            bias[:] = 0.0
    return critic


def test_hand_worked_single_unit():
    def slope(z):
        gate = 1 / (1 + math.exp(-z))
        return gate * (1 + z * (1 - gate))

    def bend(z):
        gate = 1 / (1 + math.exp(-z))
        return gate * (1 - gate) * (2 + z * (1 - 2 * gate))

    s, a, noise, following, margin = 0.3, 0.2, 0.05, 0.7, 0.1
    tensors = [torch.tensor([[x]], dtype=torch.float64) for x in (s, a, following, noise, 1.0)]
    ours = losses(quadratic_critic(), *tensors, margin)
    units = (2.0, -1.0)
    mixed = sum((w * slope(s + noise + w * a) - w * slope(s + w * a)) ** 2 for w in units)
    consistency = sum((w * slope(following + w * a) - w * slope(s + w * a)) ** 2 for w in units)
    curvature = sum(max(w * w * bend(s + w * a) + margin, 0.0) for w in units)
    assert [float(x.detach()) for x in ours] == pytest.approx([mixed, consistency, curvature], rel=1e-12)


def test_wrong_shapes_are_refused():
    critic = make_critic(4, 2, (8,))
    observation, action, following, noise, probe = sample(4, 2, 5, 1.0)
    with pytest.raises(ValueError, match="shapes do not fit"):
        losses(critic, observation, action[:, :1], following, noise, probe[:, :1], 1.0)
    with pytest.raises(ValueError, match="shapes do not fit"):
        losses(critic, observation, action, following[:3], noise, probe, 1.0)


def stabiliser_loss(config, critic, data, reward_std=1.0, updates=1):
    stabiliser = FieldStabiliser(config, torch.Generator().manual_seed(3))
    found = [
        stabiliser.loss(critic, *data[:3], torch.ones(data[0].shape[1], dtype=torch.float64), reward_std)
        for _ in range(updates)
    ]
    return found, stabiliser


def test_lazy_terms_pause_and_weigh_more():
    critic, data = make_critic(6, 2, (16, 16)), sample(6, 2, 32, 1.0)
    config = paper_form(FieldConfig())
    (eager,), _ = stabiliser_loss(config, critic, data)
    lazy, _ = stabiliser_loss(FieldConfig(**{**vars(config), "every": 4}), critic, data, updates=8)
    assert [x is None for x in lazy] == [False, True, True, True] * 2
    assert float(lazy[0].detach()) == pytest.approx(4 * float(eager.detach()), rel=1e-12)


def test_sub_batch_uses_its_head():
    critic, data = make_critic(6, 2, (16, 16)), sample(6, 2, 32, 1.0)
    config = FieldConfig(rows=8, every=1)
    (part,), _ = stabiliser_loss(config, critic, data)
    (head,), _ = stabiliser_loss(FieldConfig(rows=0, every=1), critic, tuple(x[:8] for x in data))
    assert float(part.detach()) == pytest.approx(float(head.detach()), rel=1e-12)


def test_paper_form_is_the_published_sum():
    critic, data = make_critic(6, 2, (16, 16)), sample(6, 2, 32, 1.0)
    (ours,), _ = stabiliser_loss(paper_form(FieldConfig()), critic, data)
    generator = torch.Generator().manual_seed(3)
    noise = 0.01 * torch.randn(32, 6, generator=generator, dtype=torch.float64)
    probe = torch.randint(0, 2, (32, 2), generator=generator).double() * 2 - 1
    mixed, consistency, curvature = double_backward(critic, data[0], data[1], data[2], noise, probe, 1.0)
    assert float(ours.detach()) == pytest.approx(
        float((2.0 * mixed + 0.005 * consistency + 2.0 * curvature).detach()), rel=1e-9
    )


@pytest.mark.parametrize("factor", [0.1, 10.0, 1000.0])
def test_scale_free_form_grows_with_the_square_of_the_reward(factor):
    critic, data = make_critic(6, 2, (16, 16)), sample(6, 2, 32, 1.0)
    scaled = make_critic(6, 2, (16, 16))
    with torch.no_grad():  # a critic of rewards `factor` times as large
        scaled.weights[-1].mul_(factor)
    config = FieldConfig(every=1, rows=0)
    (one,), _ = stabiliser_loss(config, critic, data, reward_std=1.0)
    (other,), _ = stabiliser_loss(config, scaled, data, reward_std=factor)
    assert float(other.detach()) == pytest.approx(factor**2 * float(one.detach()), rel=1e-6)


def test_scale_of_the_field_is_its_rms_and_capped():
    critic, data = make_critic(6, 2, (16, 16)), sample(6, 2, 32, 1.0)
    a = data[1].clone().requires_grad_()
    both = [torch.autograd.grad(value.sum(), a, retain_graph=True)[0] for value in critic(data[0], a)]
    rms = math.sqrt(float(torch.stack(both).square().mean()))
    _, free = stabiliser_loss(FieldConfig(every=1, rows=0, cap=1e9), critic, data)
    assert free.scale == pytest.approx(rms, rel=1e-12)
    _, capped = stabiliser_loss(FieldConfig(every=1, rows=0, cap=0.5), critic, data, reward_std=0.01)
    assert capped.scale == pytest.approx(0.005, rel=1e-12)


@pytest.mark.parametrize("name", ["mixed_partial", "field_consistency", "curvature"])
def test_descending_each_term_lowers_it(name):
    critic, data = make_critic(6, 2, (32, 32)), sample(6, 2, 64, 1.0)
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-3)
    first = float(getattr(losses(critic, *data, 1.0), name).detach())
    for _ in range(200):
        optimiser.zero_grad()
        getattr(losses(critic, *data, 1.0), name).backward()
        optimiser.step()
    assert float(getattr(losses(critic, *data, 1.0), name).detach()) < 0.7 * first


def test_none_adds_nothing():
    critic, data = make_critic(6, 2, (16, 16)), sample(6, 2, 32, 1.0)
    found, _ = stabiliser_loss(FieldConfig(form="none"), critic, data, updates=5)
    assert found == [None] * 5


@pytest.mark.parametrize("field", [{"every": 0}, {"rows": -1}, {"cap": 0.0}, {"curvature": -1.0}])
def test_impossible_settings_are_refused(field):
    with pytest.raises(ValueError):
        FieldConfig(**field)


@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_the_dial_at_zero_is_the_plain_critic_bit_for_bit(learner):
    def trained(field):
        agent = TD3(5, 2, TD3Config(hidden=(16, 16)), field, 0)
        if learner == "sac":
            agent = SAC(5, 2, SACConfig(hidden=(16, 16)), field, 0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            s, following = torch.randn(2, 32, 5, generator=generator).unbind()
            action = torch.rand(32, 2, generator=generator) * 2 - 1
            batch = Batch(s, action, torch.randn(32, generator=generator), following, torch.zeros(32))
            agent.update(batch, torch.ones(5), 1.0)
        networks = (agent.actor, agent.critic)
        return torch.cat([p.detach().reshape(-1) for network in networks for p in network.parameters()])

    plain = trained(FieldConfig(form="none"))
    assert torch.equal(trained(FieldConfig(smoothness=0.0)), plain)
    near, full = ((trained(FieldConfig(smoothness=dial)) - plain).abs().max() for dial in (1e-6, 0.1))
    assert 0 < near < 1e-3 * full, "it approaches the plain critic without a jump"


def test_below_a_tenth_the_weights_fade_with_the_dial():
    critic, data = make_critic(6, 2, (16, 16)), sample(6, 2, 32, 1.0)
    whole, _ = stabiliser_loss(FieldConfig(smoothness=0.1, curvature=0.0), critic, data)
    half, _ = stabiliser_loss(FieldConfig(smoothness=0.05, curvature=0.0), critic, data)
    assert half[0].item() == pytest.approx(0.5 * whole[0].item(), rel=1e-6)


def test_common_noise_by_hand():
    """Two samples of one number, then one without a history: e - mean(e) + mean(e) / 2, and half of it."""
    mixing = noise_mixing([(1, 2), (1, 1)], 0.5)
    assert mixing.tolist() == [[0.75, -0.25, 0.0], [-0.25, 0.75, 0.0], [0.0, 0.0, 0.5]]
    assert torch.equal(noise_mixing([(2, 3), (4, 1)], 1.0), torch.eye(10))


def test_common_noise_meets_the_observations_layout():
    """Of the arm's own observation, with nothing in common."""
    from qgf_sim.env import ArmEnv

    env = ArmEnv("panda", "reach")
    terms = env.observation_terms
    assert sum(width * history for width, history in terms) == env.observation_space.shape[0]
    noise = torch.randn((50, env.observation_space.shape[0]), dtype=torch.float64)
    found = noise @ noise_mixing(terms, 0.0).to(noise)
    begin = 0
    for width, history in terms:
        mine, before = (x[:, begin : begin + width * history].reshape(50, history, width) for x in (found, noise))
        torch.testing.assert_close(mine, before - before.mean(1, keepdim=True))
        begin += width * history
    assert {history for _, history in terms} == {1, 3}
    env.close()


def test_without_a_common_part_the_mixed_partial_leaves_the_mean_of_a_history_alone():
    """A field that follows the mean of three samples costs nothing; one that follows the newest costs as before, less
    a third. g = Q's slope in a for Q = a (w . s), whose noise is that of s."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((200_000, 3), generator=generator, dtype=torch.float64)
    mixed = noise @ noise_mixing([(1, 3)], 0.0).to(noise)
    mean, newest = torch.full((3,), 1.0 / 3.0, dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert float((mixed @ mean).abs().max()) < 1e-6
    assert float((mixed @ newest).square().mean()) == pytest.approx(2.0 / 3.0, rel=0.01)


@pytest.mark.parametrize("common", [1.0, 0.2])
def test_the_stabiliser_mixes_its_noise(common):
    """Against the losses called by hand with the noise that the same generator gives."""
    critic = TwinCritic(3, 1, (8, 8)).double()
    batch = [torch.randn(16, n, dtype=torch.float64) for n in (3, 1, 3)]
    config = FieldConfig(mixed_partial=1.0, field_consistency=0.0, curvature=0.0, every=1, rows=0, common=common)
    stabiliser = FieldStabiliser(config, torch.Generator().manual_seed(5))
    stabiliser.set_terms([(1, 2), (1, 1)])
    found = stabiliser.loss(critic, *batch, torch.ones(3, dtype=torch.float64), 1.0)
    unsaid = FieldStabiliser(config, torch.Generator().manual_seed(5))
    silent = unsaid.loss(critic, *batch, torch.ones(3, dtype=torch.float64), 1.0)
    noise = 0.01 * torch.randn((16, 3), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mixing = noise_mixing([(1, 2), (1, 1)], common).to(noise)
    for loss, moved in ((found, noise @ mixing), (silent, common * noise)):
        mixed, _, _ = double_backward(critic, *batch, moved, torch.ones_like(batch[1]), 0.0)
        assert loss.item() == pytest.approx(mixed.item(), rel=1e-9)


@pytest.mark.parametrize("common", [-0.1, 1.1])
def test_a_common_share_outside_its_range_is_refused(common):
    with pytest.raises(ValueError, match="common"):
        FieldConfig(common=common)

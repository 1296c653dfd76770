# SPDX-License-Identifier: Apache-2.0
"""The critic's field in closed form: by hand, against central differences, and against autograd."""

import itertools

import numpy as np
import pytest
import torch

from qgf_core.errors import MetricError
from qgf_core.q_field import Critic, figures_of, turning_and_sharpness

N_OBS, N_ACT = 3, 2


def made(hidden, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [N_OBS + N_ACT, *hidden, 1]
    weights = [rng.normal(size=shape) / np.sqrt(shape[0]) for shape in itertools.pairwise(sizes)]
    biases = [0.3 * rng.normal(size=size) for size in sizes[1:]]
    return Critic(weights, biases, rng.normal(size=N_OBS), rng.uniform(0.2, 3.0, N_OBS))


def points(number=5, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(number, N_OBS)), rng.uniform(-1, 1, (number, N_ACT))


def test_one_unit_by_hand():
    """Q = 2 f(s / 4 + 3 a) with f(z) = z / (1 + e^-z), at z = 0: f' = 1/2, f'' = 1/2."""
    critic = Critic([[[1.0], [3.0]], [[2.0]]], [[0.0], [5.0]], [0.0], [4.0])
    assert critic.value([[0.0]], [[0.0]]) == pytest.approx([5.0])
    found = critic.derivatives([[0.0]], [[0.0]])
    assert found.gradient == pytest.approx(np.array([[2 * 0.5 * 3]]))
    assert found.curvature == pytest.approx(np.array([[[2 * 0.5 * 9]]]))
    assert found.mixed == pytest.approx(np.array([[[2 * 0.5 * 3 / 4]]]))
    figures = critic.field_figures([[0.0]], [[0.0]])
    assert (figures.mixed_sup, figures.sharpness_inf, figures.slope) == pytest.approx((0.75, 9.0, 1 / 12))


def test_figures_by_hand():
    """Norms 4 and 1 over |-2| and |-8|: the largest eigenvalue is the one nearest to convex."""
    mixed = np.array([[[3.0, 0, 0], [0, 0, 4.0]], [[1.0, 0, 0], [0, 0, 0]]])
    curvature = np.array([np.diag([-2.0, -6.0]), np.diag([-9.0, -8.0])])
    turning, sharpness = turning_and_sharpness(mixed, curvature)
    assert turning == pytest.approx([4.0, 1.0]) and sharpness == pytest.approx([-2.0, -8.0])
    figures = figures_of(turning, sharpness)
    assert (figures.mixed_sup, figures.sharpness_inf, figures.slope) == pytest.approx((4.0, 2.0, (2.0 + 0.125) / 2))
    assert figures_of(np.array([1.0]), np.array([0.0])).slope == np.inf


@pytest.mark.parametrize("hidden", [(7,), (9, 6), (5, 6, 7)])
def test_derivatives_equal_central_differences(hidden):
    critic, (s, a) = made(hidden), points()
    found, h = critic.derivatives(s, a), 1e-4
    x = np.concatenate([s, a], axis=1)

    def q(at):
        return critic.value(at[:, :N_OBS], at[:, N_OBS:])

    unit = h * np.eye(N_OBS + N_ACT)
    for i in range(N_ACT):
        up, down = x + unit[N_OBS + i], x - unit[N_OBS + i]
        assert np.allclose(found.gradient[:, i], (q(up) - q(down)) / (2 * h), atol=1e-8)
        for j in range(N_OBS + N_ACT):
            second = q(up + unit[j]) - q(up - unit[j]) - q(down + unit[j]) + q(down - unit[j])
            exact = found.mixed[:, i, j] if j < N_OBS else found.curvature[:, i, j - N_OBS]
            assert np.allclose(exact, second / (4 * h * h), atol=1e-6)


@pytest.mark.parametrize("hidden", [(8,), (16, 12), (6, 6, 6)])
def test_derivatives_equal_autograd(hidden):
    critic, (s, a) = made(hidden, 2), points(4, 3)
    found = critic.derivatives(s, a)

    def q(x):
        h = torch.cat([(x[:N_OBS] - torch.from_numpy(critic.mean)) / torch.from_numpy(critic.std), x[N_OBS:]])
        for weight, bias in zip(critic.weights[:-1], critic.biases[:-1], strict=True):
            h = torch.nn.functional.silu(h @ torch.from_numpy(weight) + torch.from_numpy(bias))
        return (h @ torch.from_numpy(critic.weights[-1]) + torch.from_numpy(critic.biases[-1]))[0]

    for k in range(len(s)):
        x = torch.from_numpy(np.concatenate([s[k], a[k]]))
        hessian = torch.autograd.functional.hessian(q, x).numpy()[N_OBS:]
        assert np.allclose(found.mixed[k], hessian[:, :N_OBS], atol=1e-12, rtol=1e-10)
        assert np.allclose(found.curvature[k], hessian[:, N_OBS:], atol=1e-12, rtol=1e-10)
        assert critic.value(s[k:k + 1], a[k:k + 1])[0] == pytest.approx(float(q(x)), rel=1e-12)


def test_large_activations_do_not_overflow():
    critic = made((6, 5))
    with np.errstate(all="raise", under="ignore"):
        found = critic.derivatives(1e6 * np.ones((1, N_OBS)), np.ones((1, N_ACT)))
    assert all(np.isfinite(part).all() for part in found)


@pytest.mark.parametrize("change", ["shape", "nan", "std", "layers", "bias"])
def test_what_is_no_critic_is_refused(change):
    good = made((4, 3))
    weights, biases, std = list(good.weights), list(good.biases), good.std.copy()
    if change == "shape":
        weights[1] = weights[1][:-1]
    elif change == "nan":
        weights[0] = np.full_like(weights[0], np.nan)
    elif change == "std":
        std[0] = 0.0
    elif change == "layers":
        weights = weights[:1]
    else:
        biases[0] = biases[0][:-1]
    with pytest.raises(MetricError, match="critic"):
        Critic(weights, biases, good.mean, std)
    with pytest.raises(MetricError, match="give"):
        good.value(np.zeros((2, N_OBS + 1)), np.zeros((2, N_ACT)))

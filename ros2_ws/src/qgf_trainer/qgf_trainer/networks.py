# SPDX-License-Identifier: Apache-2.0
# Buffers are tensors, which torch cannot tell a type checker, and TorchScript takes no ignore comment on a line.
# mypy: disable-error-code="operator"
"""Actor and twin critic. Both use SiLU: the curvature term needs a critic with continuous second derivatives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qgf_trainer import native
from qgf_trainer.dense import climb_values, parameters_of, perceptron, regress_twins, twins

_NATIVE = native.NativeCache()


def gradient_of(parameter: Tensor) -> Tensor:
    """Where its derivatives are written."""
    assert parameter.grad is not None
    return parameter.grad


class TwinCritic(nn.Module):
    """Two critics of one shape, stacked so that one batched product serves both.

    :param n_obs: observation size.
    :param n_act: action size; actions are the last n_act rows of the first weight.
    :param hidden: widths of the hidden layers.
    """

    def __init__(self, n_obs: int, n_act: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.n_obs, self.n_act = n_obs, n_act
        sizes = [n_obs + n_act, *hidden, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = 1.0 / math.sqrt(fan_in)  # as torch.nn.Linear starts
            self.weights.append(nn.Parameter(torch.empty(2, fan_in, fan_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(2, 1, fan_out).uniform_(-bound, bound)))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q values (2, B) of observations (B, n_obs) and actions (B, n_act)."""
        h = torch.cat((observation, action), dim=-1).expand(2, -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < last:
                h = nn.functional.silu(h)
        return h.squeeze(-1)

    def first(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q values (B,) of the first critic alone."""
        h = torch.cat((observation, action), dim=-1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.addmm(bias[0], h, weight[0])
            if layer < last:
                h = nn.functional.silu(h)
        return h.squeeze(-1)

    def values(self, observation: Tensor, action: Tensor) -> Tensor:
        """The same, faster, and not differentiable."""
        with torch.no_grad():
            x = torch.cat((observation, action), dim=-1)
            pair = self.native()
            if not pair:
                return twins(x, list(self.weights), list(self.biases))
            values = x.new_empty((2, len(x)))
            for network, value in zip(pair, values, strict=True):
                network.climb(x, False, value)
            return values

    def native(self) -> list[native.NativeNetwork] | None:
        """Both critics in machine code, where there is such for them."""

        def make() -> list[native.NativeNetwork] | None:
            weights, biases = list(self.weights), list(self.biases)
            if weights[0].grad is None:
                return native.twins(weights, biases, None, None)
            return native.twins(weights, biases, [gradient_of(w) for w in weights], [gradient_of(b) for b in biases])

        return _NATIVE.of(self, self.weights[0], self.biases[-1], make)

    def regress(self, observation: Tensor, action: Tensor, target: Tensor, weight: float) -> Tensor:
        """The same values for a step of regression alone: what weight * sum over the critics of mean (Q - target)^2,
        target (B,), has for derivatives is written to the parameters' `grad`."""
        with torch.inference_mode():
            x = torch.cat((observation, action), dim=-1)
            if pair := self.native():
                values = x.new_empty((2, len(x)))
                for network, value in zip(pair, values, strict=True):
                    network.regress(x, target, weight, value)
                return values
            into = [gradient_of(parameter) for parameter in (*self.weights, *self.biases)]
            return regress_twins(x, target, weight, list(self.weights), list(self.biases), into)


class Actor(nn.Module):
    """Deterministic policy: normalised observation (B, n_obs) -> action (B, n_act) in [-1, 1]."""

    def __init__(self, n_obs: int, n_act: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        sizes = [n_obs, *hidden]
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], n_act), nn.Tanh())

    def forward(self, observation: Tensor) -> Tensor:
        """Action (B, n_act) in [-1, 1]."""
        return self.net(observation)

    @torch.jit.unused
    def actions(self, observation: Tensor) -> Tensor:
        """The same, faster for a batch, and not differentiable."""
        with torch.no_grad():
            if networks := self._native():
                return networks[0].climb(observation, False)[0].tanh_()
            return torch.tanh(perceptron(observation, *parameters_of(self.net)))

    @torch.jit.unused
    def _native(self) -> list[native.NativeNetwork] | None:
        layers = [layer for layer in self.net if isinstance(layer, nn.Linear)]
        return _NATIVE.of(self, layers[0].weight, layers[-1].bias, lambda: native.perceptron(layers))

    @torch.jit.unused
    def climb(self, critic: TwinCritic, observation: Tensor) -> None:
        """The derivatives of -mean Q(s, pi(s)), of the first critic, are written to the parameters' `grad`."""
        networks, pair = self._native(), critic.native()
        if networks and pair:
            networks[0].ascend(pair[0], observation)
            return
        weights, biases = parameters_of(self.net)
        first = [weight[0].T for weight in critic.weights], [bias[0, 0] for bias in critic.biases]
        with torch.inference_mode():
            into = [(gradient_of(w), gradient_of(b)) for w, b in zip(weights, biases, strict=True)]
            climb_values(observation, (weights, biases), first, into)

    @torch.jit.unused
    def features(self, observation: Tensor) -> Tensor:
        """The last hidden layer (B, width)."""
        return self.net[:-2](observation)


class GaussianActor(nn.Module):
    """Squashed Gaussian policy: normalised observation (B, n_obs) -> tanh of the mean (B, n_act), in [-1, 1]."""

    _LOG_STD = (-20.0, 2.0)  # as in the authors' code: beyond, the policy is deterministic or uniform for any purpose

    def __init__(self, n_obs: int, n_act: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise([n_obs, *hidden]):
            layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.mean = nn.Linear(hidden[-1], n_act)
        self.log_std = nn.Linear(hidden[-1], n_act)

    def forward(self, observation: Tensor) -> Tensor:
        """Deterministic action (B, n_act) in [-1, 1]."""
        return torch.tanh(self.mean(self.trunk(observation)))

    @torch.jit.unused
    def features(self, observation: Tensor) -> Tensor:
        """The last hidden layer (B, width)."""
        return self.trunk(observation)

    @torch.jit.unused
    def distribution(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation, each (B, n_act), before squashing."""
        h = self.trunk(observation)
        return self.mean(h), self.log_std(h).clamp(*self._LOG_STD)

    @torch.jit.unused
    def distributions(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """The same, faster for a batch, and not differentiable."""
        networks = self._native()
        with torch.no_grad():
            if not networks:
                return self.distribution(observation)
            mean, log_std = networks[0].climb(observation, False)[0].chunk(2, dim=-1)
            return mean, log_std.clamp(*self._LOG_STD)

    @torch.jit.unused
    def _native(self) -> list[native.NativeNetwork] | None:
        layers = [*(layer for layer in self.trunk if isinstance(layer, nn.Linear)), self.mean, self.log_std]
        return _NATIVE.of(self, layers[0].weight, layers[-1].bias, lambda: native.perceptron(layers, heads=2))

    @torch.jit.unused
    def climb(self, critic: TwinCritic, observation: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """The derivatives of mean (alpha log pi(a | s) - min_i Q_i(s, a)), a = `squash` of what is drawn, are written
        to the parameters' `grad`. Returns log pi(a | s) (B,)."""
        networks, pair = self._native(), critic.native()
        if not (networks and pair):
            action, log_probability = squash(*self.distribution(observation), drawn)
            loss = (temperature * log_probability - critic(observation, action).min(0).values).mean()
            parameters = list(self.parameters())
            for parameter, found in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                gradient_of(parameter).copy_(found)
            return log_probability.detach()
        with torch.inference_mode():
            z, kept = networks[0].climb(observation, True)
            mean, log_std = z.chunk(2, dim=-1)
            inside = (log_std >= self._LOG_STD[0]) & (log_std <= self._LOG_STD[1])
            log_std = log_std.clamp(*self._LOG_STD)
            spread = log_std.exp() * drawn
            action, log_probability = _squashed(mean + spread, log_std, drawn)
            x = torch.cat((observation, action), dim=-1)
            (first, of_first), (second, of_second) = (network.climb(x, True) for network in pair)
            per_row = -1.0 / len(x)
            lower = (first <= second).to(x.dtype).mul_(per_row)
            d_action = pair[0].descend(lower, of_first, own=False, by_input_from=critic.n_obs)
            d_action += pair[1].descend(per_row - lower, of_second, own=False, by_input_from=critic.n_obs)
            # d log pi / du = 2 tanh u
            d_u = torch.ops.aten.tanh_backward(d_action, action).add_(action, alpha=-2.0 * temperature * per_row)
            d_log_std = (d_u * spread).add_(temperature * per_row).mul_(inside)
            networks[0].descend(torch.cat((d_u, d_log_std), dim=-1), kept, own=True)
            return log_probability


def squash(mean: Tensor, log_std: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Actions a = tanh(u) (B, n_act), u = mean + std x, and their log-probabilities (B,), x standard normal (B, n_act).

    log pi(a) = sum_i [-x_i^2 / 2 - log std_i - log(2 pi) / 2 - log(1 - a_i^2)]; the last logarithm as
    2 (log 2 - u - softplus(-2 u)), which keeps its digits where a rounds to 1.
    """
    return _squashed(mean + log_std.exp() * drawn, log_std, drawn)


def _squashed(u: Tensor, log_std: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    gaussian = -0.5 * drawn.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    slope = 2.0 * (math.log(2.0) - u - nn.functional.softplus(-2.0 * u))
    return torch.tanh(u), (gaussian - slope).sum(-1)


class DeployedPolicy(nn.Module):
    """What a bundle holds: the frozen normaliser and the actor's mean, raw observation in, action out."""

    def __init__(self, actor: Actor | GaussianActor, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.actor = actor
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, observation: Tensor) -> Tensor:
        """Action (B, n_act) in [-1, 1] for raw observations (B, n_obs)."""
        return self.actor((observation - self.mean) / self.std)

    @torch.jit.unused
    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Action (n_act,) for one raw observation (n_obs,)."""
        with torch.inference_mode():
            return self(torch.from_numpy(observation[None])).numpy()[0]

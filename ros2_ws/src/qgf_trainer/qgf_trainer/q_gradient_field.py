# SPDX-License-Identifier: Apache-2.0
"""The Q-gradient field g(s, a) = grad_a Q(s, a) and the three losses that calm it.

Method: Lee, Kwak, Kim, Hwang, "Stabilizing the Q-Gradient Field for Policy Smoothness in Actor-Critic Methods", ICML
2026, arXiv:2601.22970. At an interior optimum d a*/ds = -[H_aa]^-1 H_as: a policy is as rough as the field turns with
the state, over how sharp the optimum is. The losses act on the critic; actor and targets stay plain.

The field and its curvature are written in closed form, so that one ordinary backward pass gives the parameter
gradients; `field_function` does both passes. With layers z_l = h_{l-1} W_l + b_l, h_l = f(z_l), Q = h_L w + b and
u_l = dQ/dh_l:
    u_L = w,   u_{l-1} = (u_l f'(z_l)) W_l^T,   g = action rows of u_0;
along a direction v of the action, t_1 = v W_1 (action rows), t_{l+1} = (f'(z_l) t_l) W_{l+1}, and
    v^T H_aa v = sum_l sum u_l f''(z_l) t_l^2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from qgf_trainer.field_function import FieldFunction, FieldPass
from qgf_trainer.networks import TwinCritic, gradient_of


class FieldLosses(NamedTuple):
    """Scalars, each summed over the two critics."""

    mixed_partial: Tensor
    """mean (g(s + eps, a) - g(s, a))^2"""
    field_consistency: Tensor
    """mean (g(s', a) - g(s, a))^2"""
    curvature: Tensor
    """mean relu(v^T H_aa v + margin)"""


class FieldWeights(NamedTuple):
    """What the terms are multiplied by."""

    mixed_partial: float
    field_consistency: float
    curvature: float


class _Field(NamedTuple):
    value: Tensor  # (2, B): Q at s
    gradient: Tensor  # (2, 3, n, n_act) at s + eps, s' and s, in the first n rows
    second_derivative: Tensor  # (2, n): v^T H_aa v at s


def _field(
    critic: TwinCritic,
    observation: Tensor,
    action: Tensor,
    next_observation: Tensor,
    state_noise: Tensor,
    probe: Tensor,
) -> _Field:
    """Values of all B rows; the field in as many of them as there are rows of noise."""
    rows = _rows(observation, action, next_observation, state_noise)
    value, gradient, second = FieldFunction.apply(rows, probe, critic.n_obs, *critic.weights, *critic.biases)
    return _Field(value, gradient.unflatten(1, (3, -1)), second)


def _rows(observation: Tensor, action: Tensor, next_observation: Tensor, state_noise: Tensor) -> Tensor:
    """States and actions as `FieldFunction` wants them."""
    n = len(state_noise)
    states = torch.cat((observation[:n] + state_noise, next_observation[:n], observation))
    return torch.cat((states, torch.cat((action[:n], action[:n], action))), dim=-1)


def _losses(field: _Field, margin: float | Tensor) -> FieldLosses:
    noisy, following, here = field.gradient.unbind(1)
    batch, n_act = here.shape[1:]
    return FieldLosses(
        (noisy - here).square().sum() / (batch * n_act),
        (following - here).square().sum() / (batch * n_act),
        torch.relu(field.second_derivative + margin).sum() / batch,
    )


def _derivatives(field: _Field, weights: FieldWeights, margin: float) -> tuple[Tensor, Tensor]:
    """Of the sum of the weighted losses by the field (2, 3 n, n_act) and by the second derivative (2, n)."""
    noisy, following, here = field.gradient.unbind(1)
    batch, n_act = here.shape[1:]
    d_gradient = torch.empty_like(field.gradient)
    d_noisy, d_following, d_here = d_gradient.unbind(1)
    torch.sub(noisy, here, out=d_noisy).mul_(2.0 * weights.mixed_partial / (batch * n_act))
    torch.sub(following, here, out=d_following).mul_(2.0 * weights.field_consistency / (batch * n_act))
    torch.add(d_noisy, d_following, out=d_here).neg_()
    d_second = (field.second_derivative > -margin).to(d_here.dtype).mul_(weights.curvature / batch)
    return d_gradient.flatten(1, 2), d_second


def q_gradient_field_losses(
    critic: TwinCritic,
    observation: Tensor,
    action: Tensor,
    next_observation: Tensor,
    *,
    state_noise: Tensor,
    probe: Tensor,
    curvature_margin: float | Tensor,
) -> FieldLosses:
    """The three losses of arXiv:2601.22970, each the mean over the batch (and action dimensions), summed over the
    critics.

    :param observation: s (B, n_obs).
    :param action: the replayed a (B, n_act) in [-1, 1].
    :param next_observation: s' (B, n_obs).
    :param state_noise: eps (B, n_obs), the very perturbation.
    :param probe: v (B, n_act) of +-1.
    :param curvature_margin: delta; the curvature v^T H_aa v is wanted at most -delta.
    :returns: scalars, differentiable with respect to `critic.parameters()`; float32 or float64 as the critic is.
    :raises ValueError: shapes that do not fit.
    """
    if not (
        observation.shape == next_observation.shape == state_noise.shape == (len(action), critic.n_obs)
        and action.shape == probe.shape == (len(observation), critic.n_act)
    ):
        raise ValueError(
            f"shapes do not fit a critic of {critic.n_obs} observations and {critic.n_act} actions: "
            f"observation {tuple(observation.shape)}, action {tuple(action.shape)}, next_observation "
            f"{tuple(next_observation.shape)}, state_noise {tuple(state_noise.shape)}, probe {tuple(probe.shape)}"
        )
    return _losses(_field(critic, observation, action, next_observation, state_noise, probe), curvature_margin)


@dataclasses.dataclass(frozen=True)
class FieldConfig:
    """How strongly, how often and in which form the Q-gradient field is stabilised.

    `paper` is the published form: fixed noise and margin, weights searched for every task. `scale_free` has every term
    of degree two in the reward's scale, as the TD error is: with G the RMS of the field's entries,
        L = L_TD + l1 MPR + l2 VFC + l3 G mean relu(v^T H_aa v / n_act + kappa G),
    G at most `cap` times the rewards' standard deviation (it feeds on the curvature that it demands and would diverge
    without), and with noise of `noise` standard deviations of each observation. All three weights are multiplied by
    min(1, kappa / 0.1), so that the dial reaches the plain critic at 0 without a jump.
    """

    form: Literal["paper", "scale_free", "none"] = "scale_free"
    """none: a plain critic."""
    mixed_partial: float = 2.0
    """Weight l1."""
    field_consistency: float = 0.005
    """Weight l2."""
    curvature: float = 0.5
    """Weight l3."""
    smoothness: float | Literal["auto"] = 5.0
    """kappa, the dial of the scale-free form: the curvature demanded, in units of G; 0 is a plain critic, and below 0.1
    all terms fade with it; auto: the training finds the smoothest that the task bears, see auto.*."""
    cap: float = 0.7
    """G is at most this many standard deviations of the reward; scale-free form."""
    margin: float = 1.0
    """delta of the paper's form."""
    noise: float = 0.01
    """Standard deviation of the state noise: of the raw observation (paper) or relative to its own deviation
    (scale-free)."""
    common: float = 1.0
    """Share, 0..1, that is left of the part of the state noise which all samples of an observation term's history have
    in common, and of the noise of terms without a history; scale-free form. Below 1 the mixed partial asks the critic
    to average over samples, and less to be dull."""
    every: int = 4
    """The terms enter every k-th critic update with k times their weight; 1 is the paper's."""
    rows: int = 64
    """Rows of the batch that the terms are computed on; 0 is all, as the paper's."""

    def __post_init__(self) -> None:
        for name in ("mixed_partial", "field_consistency", "curvature", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if self.smoothness == "auto":
            if self.form == "paper":
                raise ValueError("smoothness auto needs the scale-free form; the paper's has no dial")
        elif self.smoothness < 0:
            raise ValueError(f"smoothness {self.smoothness} must not be negative")
        if not 0.0 <= self.common <= 1.0:
            raise ValueError(f"common {self.common} must lie in 0 .. 1")
        if self.every < 1 or self.rows < 0 or self.cap <= 0:
            raise ValueError(
                f"every {self.every} must be at least 1, rows {self.rows} at least 0 and cap {self.cap} positive"
            )


def paper_form(config: FieldConfig, weights: tuple[float, float, float] = (2.0, 0.005, 2.0)) -> FieldConfig:
    """The published form: every update, the whole batch, fixed margin.

    :param weights: l_MPR, l_VFC, l_Curv; by default those that suit the reaching task.
    """
    mixed_partial, field_consistency, curvature = weights
    return dataclasses.replace(
        config,
        form="paper",
        mixed_partial=mixed_partial,
        field_consistency=field_consistency,
        curvature=curvature,
        margin=1.0,
        noise=0.01,
        every=1,
        rows=0,
    )


def noise_mixing(terms: Sequence[tuple[int, int]], common: float) -> Tensor:
    """The matrix P (n_obs, n_obs) that turns independent noise e (B, n_obs) into e P, of which `common` is left where
    the samples of a history agree: of a number's samples x, those become x - mean(x) + common mean(x).

    :param terms: (numbers in a sample, samples) of each part of the observation, in its order.
    """
    blocks = [
        torch.kron(torch.eye(history) - (1.0 - common) / history * torch.ones(history, history), torch.eye(width))
        for width, history in terms
    ]
    return torch.block_diag(*blocks)


class FieldStabiliser:
    """Adds the weighted losses to the critic's, lazily, and keeps the scale G of the field.

    :param generator: source of noise, probes and rows.
    """

    _SCALE_DECAY = 0.99
    _NOISE_FLOOR = 1e-3
    _FULL_WEIGHT = 0.1  # of the dial, from which on the weights stay

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        self.config, self.generator = config, generator
        self.smoothness = 0.0 if config.smoothness == "auto" else config.smoothness
        """The dial as it stands; `smoothness: auto` moves it."""
        self.updates = 0
        self.terms = 0
        self._mean_square = 0.0
        self.scale = 0.0
        self._latest: tuple[_Field, float] | None = None
        self._mixing: Tensor | None = None

    def set_terms(self, terms: Sequence[tuple[int, int]]) -> None:
        """Say of what parts the observation is made, for `common`: see `noise_mixing`; unsaid, it has no history."""
        self._mixing = noise_mixing(terms, self.config.common)

    def _mixed(self, noise: Tensor) -> Tensor:
        if self.config.common == 1.0:
            return noise
        if self._mixing is None:
            return self.config.common * noise
        return noise @ self._mixing.to(noise)

    def loss(
        self,
        critic: TwinCritic,
        observation: Tensor,
        action: Tensor,
        next_observation: Tensor,
        observation_std: Tensor,
        reward_std: float,
    ) -> Tensor | None:
        """The term to add to the TD loss of this update, or None where it pauses.

        :param observation_std: (n_obs,) standard deviations over the replay buffer.
        :param reward_std: of the rewards in the replay buffer.
        """
        if not self._due():
            return None
        noise, probe = self._drawn(critic, observation, action, observation_std)
        return self._weighted(_field(critic, observation, action, next_observation, noise, probe), reward_std)

    def regress(
        self,
        critic: TwinCritic,
        observation: Tensor,
        action: Tensor,
        next_observation: Tensor,
        observation_std: Tensor,
        reward_std: float,
        target: Tensor,
        td_weight: float,
    ) -> Tensor:
        """What `critic.regress` does, with the derivatives of what `loss` returns added, from one pass for both.

        :param target: (B,) for the values of both critics.
        :param td_weight: of the sum over the critics of their mean squared errors.
        :returns: Q(s, a) (2, B).
        """
        if not self._due():
            return critic.regress(observation, action, target, td_weight)
        noise, probe = self._drawn(critic, observation, action, observation_std)
        parameters = [*critic.weights, *critic.biases]
        with torch.no_grad():
            rows = _rows(observation, action, next_observation, noise)
            into = [gradient_of(parameter) for parameter in parameters]
            weights, biases = list(critic.weights), list(critic.biases)
            made = FieldPass(rows, probe, critic.n_obs, weights, biases, into, critic.native())
            d_value = (made.value - target).mul_(2.0 * td_weight / len(target))
            field = _Field(made.value, made.gradient.unflatten(1, (3, -1)), made.second)
            made.backward(d_value, *_derivatives(field, *self._weights(field, reward_std)))
        return made.value

    def _due(self) -> bool:
        """Whether this update has the terms; counts it. Terms of no weight are not computed."""
        config = self.config
        active = config.form != "none" and any((config.mixed_partial, config.field_consistency, config.curvature))
        if config.form == "scale_free" and self.smoothness == 0.0:
            active = False
        self.updates += 1
        return active and (self.updates - 1) % config.every == 0

    def _drawn(
        self, critic: TwinCritic, observation: Tensor, action: Tensor, deviation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """State noise (n, n_obs) and probes (n, n_act)."""
        config = self.config
        n = min(config.rows or len(action), len(action))  # the head of a replayed batch is a random part of it
        noise = torch.randn((n, critic.n_obs), generator=self.generator, dtype=observation.dtype)
        probe = torch.randint(0, 2, (n, critic.n_act), generator=self.generator).to(action.dtype).mul_(2).sub_(1)
        noise, probe = noise.to(observation.device), probe.to(action.device)  # the generator is the processor's
        if config.form == "paper":
            return config.noise * noise, probe
        return self._mixed(noise) * (config.noise * deviation).clamp_min(self._NOISE_FLOOR), probe

    def _weighted(self, field: _Field, reward_std: float) -> Tensor:
        """The sum of the weighted terms."""
        weights, margin = self._weights(field, reward_std)
        return sum(w * loss for w, loss in zip(weights, _losses(field, margin), strict=True))  # type: ignore[return-value]

    def _weights(self, field: _Field, reward_std: float) -> tuple[FieldWeights, float]:
        """What the terms are multiplied by, and the margin; keeps the scale G."""
        config = self.config
        mixed_partial, field_consistency = config.every * config.mixed_partial, config.every * config.field_consistency
        if config.form == "paper":
            weights, margin = (
                FieldWeights(mixed_partial, field_consistency, config.every * config.curvature),
                config.margin,
            )
        else:
            n_act = field.gradient.shape[-1]
            scale = self._track(field, config.cap * reward_std)
            # G mean relu(v'Hv / n + kappa G) = (G / n) mean relu(v'Hv + n kappa G)
            margin, share = n_act * self.smoothness * scale, min(1.0, self.smoothness / self._FULL_WEIGHT)
            curvature = config.every * config.curvature * scale / n_act
            weights = FieldWeights(share * mixed_partial, share * field_consistency, share * curvature)
        self._latest = _Field(*(x.detach() for x in field)), margin
        return weights, margin

    @property
    def latest(self) -> dict[str, float]:
        """The unweighted losses of the last update that had them, and what they were weighted by."""
        if self._latest is None:
            return {}
        losses = _losses(*self._latest)
        return {
            **{name: float(value) for name, value in zip(losses._fields, losses, strict=True)},
            "field_scale": self.scale,
            "smoothness_dial": self.smoothness,
        }

    def _track(self, field: _Field, ceiling: float) -> float:
        """G: root of the bias-corrected moving average of mean g_i^2 at s over both critics, at most `ceiling`."""
        self.terms += 1
        square = float(field.gradient[:, 2].detach().square().mean())
        self._mean_square = self._SCALE_DECAY * self._mean_square + (1 - self._SCALE_DECAY) * square
        self.scale = min(math.sqrt(self._mean_square / (1 - self._SCALE_DECAY**self.terms)), ceiling)
        return self.scale

    def state(self) -> dict[str, float]:
        """Plain numbers for a checkpoint."""
        return {
            "updates": self.updates,
            "terms": self.terms,
            "mean_square": self._mean_square,
            "scale": self.scale,
            "smoothness": self.smoothness,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Continue from `state()`."""
        self.updates, self.terms = int(state["updates"]), int(state["terms"])
        self._mean_square, self.scale = float(state["mean_square"]), float(state["scale"])
        self.smoothness = float(state["smoothness"])

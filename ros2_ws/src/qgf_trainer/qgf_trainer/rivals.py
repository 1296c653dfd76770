# SPDX-License-Identifier: Apache-2.0
"""Policy-side methods for smooth actions, in the same loop for comparison: each adds terms to the actor's loss (L2C2 to
the critic's as well) and leaves the rest of TD3 or SAC plain.

pi is the deterministic action, tanh of the mean for SAC. mean: over the batch and the action dimensions.
    CAPS       l_T mean (pi(s') - pi(s))^2 / 2 + l_S mean (pi(s + n) - pi(s))^2 / 2,  n ~ N(0, sigma^2)
    Grad-CAPS  l mean w (2 pi(s) - pi(s') - pi(s-))^2 / 2,  w = tanh(1 / (pi(s') - pi(s-) + 1e-4)^2) without gradient
    ASAP       l_T Grad-CAPS + l_S mean (pi(s') - p'(s))^2 / 2 + l_P mean (p(s) - pi(s'))^2 / 2
               p, a second head on the actor's hidden layers, predicts the next action; p' is its moving average. Each
               square moves its first part only.
    L2C2       mean over the batch of lambda(u) (D_pi(s, s^) + beta |Q(s, a) - Q(s^, a)| / 2),  s^ = s + u (s' - s),
               lambda(u) = e upper / (max |u_i| + e),  e = sigma lower / (upper - sigma lower),
               so that lambda falls from `upper` at s to `lower` at the edge of the neighbourhood (sigma = 1)
with s- the state before s, where there is none s itself. Weights are meant for rewards of the usual size: like the
paper's form of the field's losses, none of them is free of the reward's scale.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from qgf_trainer.networks import Actor, GaussianActor, TwinCritic

RivalName = Literal["none", "caps", "grad-caps", "asap", "l2c2"]


def _check_weights(config: object) -> None:
    for name, value in vars(config).items():
        if isinstance(value, (int, float)) and value < 0:
            raise ValueError(f"{name} {value} must not be negative")


@dataclasses.dataclass(frozen=True)
class CapsConfig:
    """CAPS (Mysore et al. 2021, arXiv:2012.06644); defaults of the comparison in arXiv:2601.22970 (Pendulum: ten times
    both weights)."""

    temporal: float = 0.1
    """Weight l_T."""
    spatial: float = 0.5
    """Weight l_S."""
    sigma: float = 0.2
    """Standard deviation of the noise on the observation that the networks see."""

    def __post_init__(self) -> None:
        _check_weights(self)


@dataclasses.dataclass(frozen=True)
class GradCapsConfig:
    """Grad-CAPS (Lee et al. 2024); default of the comparison in arXiv:2601.22970."""

    weight: float = 1.0
    """Weight l."""

    def __post_init__(self) -> None:
        _check_weights(self)


@dataclasses.dataclass(frozen=True)
class AsapConfig:
    """ASAP (Kwak, Hwang, AAAI 2026, arXiv:2601.18479); defaults of the authors' code for most tasks."""

    temporal: float | None = None
    """Weight l_T; by default 0.05 for TD3 and 0.5 for SAC."""
    spatial: float | None = None
    """Weight l_S; by default 0.3 for TD3 and 10 for SAC."""
    predictor: float = 2.0
    """Weight l_P."""
    tau: float = 0.01
    """Share of the new weights that the averaged predictor takes over at each update of the actor."""

    def __post_init__(self) -> None:
        _check_weights(self)
        if not 0 < self.tau <= 1:
            raise ValueError(f"tau {self.tau} must lie in (0, 1]")


@dataclasses.dataclass(frozen=True)
class L2C2Config:
    """L2C2 (Kobayashi 2022, arXiv:2202.07152); defaults of the comparison in arXiv:2601.22970.

    D_pi is the squared Hellinger distance of SAC's Gaussians, and mean (pi(s^) - pi(s))^2 / 2 for TD3, which has no
    distribution; Q is the smaller of the two critics.
    """

    sigma: float = 1.0
    """Size of the neighbourhood, as a share of the way to s'."""
    lower: float = 0.1
    """Weight at the edge of the neighbourhood."""
    upper: float = 10.0
    """Weight at s itself."""
    beta: float = 0.1
    """Weight of the value's part relative to the policy's."""

    def __post_init__(self) -> None:
        _check_weights(self)
        if not 0 < self.sigma * self.lower < self.upper:
            raise ValueError(f"upper {self.upper} must exceed sigma {self.sigma} times lower {self.lower}, above 0")


@dataclasses.dataclass(frozen=True)
class RivalConfig:
    """Which policy-side method is trained in place of the field's losses, and its setting."""

    kind: RivalName = "none"
    """none: no rival."""
    caps: CapsConfig = dataclasses.field(default_factory=CapsConfig)
    grad_caps: GradCapsConfig = dataclasses.field(default_factory=GradCapsConfig)
    asap: AsapConfig = dataclasses.field(default_factory=AsapConfig)
    l2c2: L2C2Config = dataclasses.field(default_factory=L2C2Config)

    @property
    def needs_previous(self) -> bool:
        """Whether the replay buffer has to keep s-."""
        return self.kind in ("grad-caps", "asap")


PLAIN = RivalConfig()
"""No rival."""


class States(NamedTuple):
    """Normalised observations (B, n_obs)."""

    previous: Tensor | None  # s-, where the method needs it
    here: Tensor  # s
    following: Tensor  # s'


def half_square(difference: Tensor) -> Tensor:
    """mean x^2 / 2."""
    return 0.5 * difference.square().mean()


def second_difference(previous: Tensor, here: Tensor, following: Tensor) -> Tensor:
    """Grad-CAPS of the actions (B, n_act) at s-, s and s', without its weight."""
    weight = torch.tanh((1.0 / (following - previous + 1e-4)).square()).detach()
    return 0.5 * (weight * (2.0 * here - following - previous).square()).mean()


def hellinger(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """Squared Hellinger distance (B,) of diagonal Gaussians (B, n); squashing both alike does not change it.

    1 - prod_i sqrt(2 s t / (s^2 + t^2)) exp(-(m - o)^2 / (4 (s^2 + t^2))).
    """
    variances = (2.0 * log_std).exp() + (2.0 * other_log_std).exp()
    logarithm = 0.5 * (math.log(2.0) + log_std + other_log_std - variances.log())
    return 1.0 - (logarithm - (mean - other_mean).square() / (4.0 * variances)).sum(-1).exp()


def l2c2_weight(share: Tensor, config: L2C2Config) -> Tensor:
    """lambda(u) (B,) of shares u (B, n_obs) of the way to s'."""
    edge = config.sigma * config.lower / (config.upper - config.sigma * config.lower)
    return edge * config.upper / (share.abs().amax(-1) + edge)


class Rival:
    """A policy-side method with what it has to remember.

    :param actor: the actor in training. :param hidden: width of its last hidden layer. :param seed: of all noise.
    """

    def __init__(self, config: RivalConfig, actor: Actor | GaussianActor, hidden: int, n_act: int, seed: int) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.modules: dict[str, nn.Module] = {}
        if config.kind == "asap":
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                head = nn.Linear(hidden, n_act)
            self.modules["predictor"] = head
            self.modules["predictor_target"] = copy.deepcopy(head).requires_grad_(False)
            self.modules["predictor_actor_target"] = copy.deepcopy(actor).requires_grad_(False)
        asap, stochastic = config.asap, isinstance(actor, GaussianActor)
        self._temporal = (0.5 if stochastic else 0.05) if asap.temporal is None else asap.temporal
        self._spatial = (10.0 if stochastic else 0.3) if asap.spatial is None else asap.spatial

    def parameters(self) -> list[nn.Parameter]:
        """What the actor's optimiser has to learn beside the actor."""
        return list(self.modules["predictor"].parameters()) if "predictor" in self.modules else []

    def actor_loss(self, actor: Actor | GaussianActor, states: States) -> Tensor:
        """The term to add to the actor's loss."""
        kind = self.config.kind
        if kind == "l2c2":
            return self._l2c2_policy(actor, states)
        here, following = actor(states.here), actor(states.following)
        if kind == "caps":
            caps = self.config.caps
            noise = torch.randn(states.here.shape, generator=self.generator, dtype=here.dtype)
            near = actor(states.here + caps.sigma * noise)
            return caps.temporal * half_square(following - here) + caps.spatial * half_square(near - here)
        assert states.previous is not None
        bend = second_difference(actor(states.previous), here, following)
        if kind == "grad-caps":
            return self.config.grad_caps.weight * bend
        predicted = torch.tanh(self.modules["predictor"](actor.features(states.here)))
        with torch.no_grad():
            features = self.modules["predictor_actor_target"].features(states.here)  # type: ignore[operator]
            expected = torch.tanh(self.modules["predictor_target"](features))
        return (
            self._temporal * bend
            + self._spatial * half_square(following - expected)
            + self.config.asap.predictor * half_square(predicted - following.detach())
        )

    def _neighbour(self, states: States) -> tuple[Tensor, Tensor]:
        """s^ (B, n_obs), uniform between s - sigma (s' - s) and s + sigma (s' - s), and lambda(u) (B,)."""
        drawn = torch.rand(states.here.shape, generator=self.generator, dtype=states.here.dtype)
        share = self.config.l2c2.sigma * (2.0 * drawn - 1.0)
        return states.here + share * (states.following - states.here), l2c2_weight(share, self.config.l2c2)

    def _l2c2_policy(self, actor: Actor | GaussianActor, states: States) -> Tensor:
        near, weight = self._neighbour(states)
        if isinstance(actor, GaussianActor):
            distance = hellinger(*actor.distribution(states.here), *actor.distribution(near))
        else:
            distance = 0.5 * (actor(near) - actor(states.here)).square().mean(-1)
        return (weight * distance).mean()

    def critic_loss(self, critic: TwinCritic, states: States, action: Tensor) -> Tensor | None:
        """The term to add to the critic's loss, if the method has one."""
        if self.config.kind != "l2c2":
            return None
        near, weight = self._neighbour(states)
        change = critic(states.here, action).min(0).values - critic(near, action).min(0).values
        return self.config.l2c2.beta * (weight * 0.5 * change.abs()).mean()

    def after_actor_update(self, actor: Actor | GaussianActor) -> None:
        """Let moving averages follow."""
        if self.config.kind == "asap":
            with torch.no_grad():
                for target, online in (
                    (self.modules["predictor_target"], self.modules["predictor"]),
                    (self.modules["predictor_actor_target"], actor),
                ):
                    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), self.config.asap.tau)

# SPDX-License-Identifier: Apache-2.0
"""SAC (Haarnoja et al. 2018, arXiv:1812.05905) with automatic or fixed temperature, and with the stabilised critic by a
switch; actor and targets stay plain."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qgf_trainer.agent import Agent, LearnerConfig, td_loss, td_target
from qgf_trainer.flat import FlatAdam
from qgf_trainer.networks import DeployedPolicy, GaussianActor, gradient_of, squash
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.replay import Batch
from qgf_trainer.rivals import PLAIN, RivalConfig


@dataclasses.dataclass(frozen=True)
class SACConfig(LearnerConfig):
    """Settings of SAC; the defaults suit the reach task."""

    entropy: Literal["auto", "fixed"] = "auto"
    """auto: the temperature is learned so that the entropy meets target_entropy; fixed: it stays."""
    temperature: float = 0.2
    """alpha, the weight of the entropy in the return; with `auto` the value to start from."""
    target_entropy: float | None = None
    """Entropy wanted of the policy with `auto`; by default minus the number of actions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} must be positive")


def soft_value(value: Tensor, log_probability: Tensor, temperature: float | Tensor) -> Tensor:
    """min_i Q_i(s, a) - alpha log pi(a | s) (B,), of values (2, B) and log-probabilities (B,)."""
    return value.min(0).values - temperature * log_probability


class SAC(Agent[GaussianActor]):
    """Squashed Gaussian actor, twin critic, its target, temperature and optimisers.

    :param seed: of the weights and of all noise in the updates.
    """

    def __init__(
        self, n_obs: int, n_act: int, config: SACConfig, field: FieldConfig, seed: int, rival: RivalConfig = PLAIN
    ) -> None:
        super().__init__(GaussianActor, n_obs, n_act, config, field, seed, rival)
        self.config = config
        self.target_entropy = -float(n_act) if config.target_entropy is None else config.target_entropy
        self.log_temperature = torch.tensor([math.log(config.temperature)], requires_grad=config.entropy == "auto")
        self.temperature_optimiser = FlatAdam([self.log_temperature], config.learning_rate)

    @property
    def temperature(self) -> float:
        """alpha now."""
        return float(self.log_temperature.detach().exp())

    def explore(
        self, observation: NDArray[np.float32], noise: np.random.Generator, scale: float
    ) -> NDArray[np.float32]:
        """Actions drawn from the policy; it has a deviation of its own, and `scale` is not used."""
        with torch.inference_mode():
            mean, log_std = self.actor.distribution((torch.from_numpy(observation) - self.mean) / self.std)
            drawn = torch.from_numpy(noise.standard_normal(mean.shape).astype(np.float32))
            return torch.tanh(mean + log_std.exp() * drawn).numpy()

    def _sample(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrised actions (B, n_act) and their log-probabilities (B,)."""
        mean, log_std = self.actor.distributions(observation)
        return squash(mean, log_std, torch.randn(mean.shape, generator=self.generator, dtype=mean.dtype))

    def set_reward_unit(self, unit: float) -> None:
        """Learn values in this unit from now on; a fixed temperature, which is a value too, is told in it."""
        before = self.reward_unit
        super().set_reward_unit(unit)
        if self.config.entropy == "fixed":
            self.log_temperature += math.log(before / unit)

    def _update(self, batch: Batch, observation_std: Tensor, reward_std: float) -> None:
        """One update of the critic, the actor, the temperature and the target."""
        states = self._states(batch)
        observation, following = states.here, states.following
        temperature = self.temperature
        with torch.no_grad():
            next_action, log_probability = self._sample(following)
            next_value = soft_value(self.critic_target.values(following, next_action), log_probability, temperature)
            target = td_target(batch, next_value, self.config.gamma)
        values = self._update_critic(target, 0.5, states, batch.action, observation_std, reward_std)
        drawn = torch.randn(batch.action.shape, generator=self.generator, dtype=observation.dtype)
        log_probability = self.actor.climb(self.critic, observation, drawn, temperature)
        self._update_actor(states)
        if self.config.entropy == "auto":
            self._update_temperature(log_probability)
        self._critic_target_flat.approach(self.critic_optimiser.flat, self.config.tau)
        if self.updates % self._LATEST_EVERY == 0:
            self.latest = {
                "td_loss": float(td_loss(values, target, 0.5)),
                "q_mean": float(values.mean()),
                "temperature": self.temperature,
                **self.stabiliser.latest,
            }

    def _update_temperature(self, log_probability: Tensor) -> None:
        """One step down -log alpha (log pi + target entropy): alpha rises while the entropy is below its target."""
        gradient_of(self.log_temperature).fill_(-(log_probability.mean() + self.target_entropy))
        self.temperature_optimiser.step()

    def deployed(self) -> DeployedPolicy:
        """The policy as it is exported: the actor's squashed mean."""
        return DeployedPolicy(copy.deepcopy(self.actor), self.mean, self.std).eval()

    def _optimisers(self) -> Sequence[tuple[str, FlatAdam]]:
        return (*super()._optimisers(), ("temperature_optimiser", self.temperature_optimiser))

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Tensors and plain values for a checkpoint."""
        tensors, values = super().state()
        return {**tensors, "log_temperature": self.log_temperature.detach()}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Continue from `state()`. :raises KeyError, RuntimeError, ValueError: it does not fit."""
        super().restore(tensors, values)
        with torch.no_grad():
            self.log_temperature.copy_(tensors["log_temperature"])

# SPDX-License-Identifier: Apache-2.0
"""TD3 (Fujimoto et al. 2018, arXiv:1802.09477), with the stabilised critic by a switch; actor and targets stay
plain."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qgf_trainer.networks import Actor, DeployedPolicy, TwinCritic
from qgf_trainer.q_gradient_field import FieldConfig, FieldStabiliser
from qgf_trainer.replay import Batch


@dataclasses.dataclass(frozen=True)
class TD3Config:
    """Settings of the learner; the defaults suit the reach task."""

    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    learning_rate: float = 1e-3
    gamma: float = 0.9
    """Discount per control period."""
    tau: float = 0.02
    """Share of the new weights that the targets take over at each update."""
    policy_delay: int = 2
    """Critic updates per actor update."""
    target_noise: float = 0.2
    """Standard deviation of the target policy's smoothing noise."""
    target_noise_clip: float = 0.5

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden {list(self.hidden)} must name at least one positive width")
        if self.learning_rate <= 0 or self.policy_delay < 1:
            raise ValueError(
                f"learning_rate {self.learning_rate} must be positive and policy_delay {self.policy_delay} at least 1"
            )
        if not (0 <= self.gamma < 1 and 0 < self.tau <= 1):
            raise ValueError(f"gamma {self.gamma} must lie in [0, 1) and tau {self.tau} in (0, 1]")


def td_target(batch: Batch, next_value: Tensor, gamma: float) -> Tensor:
    """r + gamma Q(s', a') (B,), without the second part after a true end; a time limit is not one."""
    return batch.reward + gamma * (1.0 - batch.terminal) * next_value


class TD3:
    """Actor, twin critic, their targets and optimisers.

    :param seed: of the weights and of all noise in the updates.
    """

    def __init__(self, n_obs: int, n_act: int, config: TD3Config, field: FieldConfig, seed: int) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.actor = Actor(n_obs, n_act, config.hidden)
            self.critic = TwinCritic(n_obs, n_act, config.hidden)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self._actor_parameters = list(self.actor.parameters())
        self.actor_optimiser = torch.optim.Adam(self._actor_parameters, lr=config.learning_rate, fused=True)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=config.learning_rate, fused=True)
        self.stabiliser = FieldStabiliser(field, torch.Generator().manual_seed(seed + 1))
        self.mean, self.std = torch.zeros(n_obs), torch.ones(n_obs)
        self.updates = 0
        self.latest: dict[str, float] = {}

    def set_normaliser(self, mean: Tensor, std: Tensor) -> None:
        """Freeze the observations' mean and standard deviation (n_obs,); a constant observation keeps its scale."""
        self.mean, self.std = mean.clone(), torch.where(std > 1e-6, std, torch.ones_like(std))

    def set_learning_rate(self, factor: float) -> None:
        """Learn with `factor` times the configured rate from now on."""
        for optimiser in (self.actor_optimiser, self.critic_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = factor * self.config.learning_rate

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Deterministic actions (B, n_act) of the actor in training, for raw observations (B, n_obs)."""
        with torch.inference_mode():
            return self.actor((torch.from_numpy(observation) - self.mean) / self.std).numpy()

    def update(self, batch: Batch, observation_std: Tensor, reward_std: float) -> None:
        """One critic update and, every `policy_delay`-th time, one of the actor and the targets.

        :param observation_std: (n_obs,) over the replay buffer, raw. :param reward_std: over the replay buffer.
        """
        config = self.config
        observation, following = (
            (batch.observation - self.mean) / self.std,
            (batch.next_observation - self.mean) / self.std,
        )
        with torch.no_grad():
            noise = torch.randn(batch.action.shape, generator=self.generator) * config.target_noise
            noise.clamp_(-config.target_noise_clip, config.target_noise_clip)
            next_action = (self.actor_target(following) + noise).clamp_(-1.0, 1.0)
            target = td_target(batch, self.critic_target(following, next_action).min(0).values, config.gamma)
        value = self.critic(observation, batch.action)
        loss = td_loss = (value - target).square().mean(1).sum()
        extra = self.stabiliser.loss(
            self.critic, observation, batch.action, following, observation_std / self.std, reward_std
        )
        if extra is not None:
            loss = td_loss + extra
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        self.updates += 1
        if self.updates % config.policy_delay == 0:
            self._update_actor(observation)
        if self.updates % 100 == 0:
            self.latest = {
                "td_loss": float(td_loss.detach()),
                "q_mean": float(value.detach().mean()),
                **self.stabiliser.latest,
            }

    def _update_actor(self, observation: Tensor) -> None:
        loss = -self.critic.first(observation, self.actor(observation)).mean()
        # Gradients of the actor alone: those of the critic's weights would be computed for nothing.
        gradients = torch.autograd.grad(loss, self._actor_parameters)
        for parameter, gradient in zip(self._actor_parameters, gradients, strict=True):
            parameter.grad = gradient
        self.actor_optimiser.step()
        with torch.no_grad():
            for target, online in ((self.actor_target, self.actor), (self.critic_target, self.critic)):
                torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), self.config.tau)

    def deployed(self) -> DeployedPolicy:
        """The policy as it is exported: the target actor, which averages the last updates' weights."""
        return DeployedPolicy(copy.deepcopy(self.actor_target), self.mean, self.std).eval()

    def _modules(self) -> Iterable[tuple[str, nn.Module]]:
        return (
            ("actor", self.actor),
            ("critic", self.critic),
            ("actor_target", self.actor_target),
            ("critic_target", self.critic_target),
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Tensors and plain values for a checkpoint."""
        tensors = {
            f"{name}.{key}": value for name, module in self._modules() for key, value in module.state_dict().items()
        }
        for name, optimiser in (("actor_optimiser", self.actor_optimiser), ("critic_optimiser", self.critic_optimiser)):
            for index, entry in optimiser.state_dict()["state"].items():
                tensors.update({f"{name}.{index}.{key}": value for key, value in entry.items()})
        tensors |= {
            "mean": self.mean,
            "std": self.std,
            "generator": self.generator.get_state(),
            "stabiliser_generator": self.stabiliser.generator.get_state(),
        }
        return tensors, {"updates": self.updates, "stabiliser": self.stabiliser.state()}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Continue from `state()`. :raises KeyError, RuntimeError, ValueError: it does not fit."""
        for name, module in self._modules():
            prefix = f"{name}."
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        for name, optimiser in (("actor_optimiser", self.actor_optimiser), ("critic_optimiser", self.critic_optimiser)):
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{name}."):
                    _, index, field = key.split(".")
                    entries.setdefault(int(index), {})[field] = value.clone()
            optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
        self.mean, self.std = tensors["mean"].clone(), tensors["std"].clone()
        self.generator.set_state(tensors["generator"])
        self.stabiliser.generator.set_state(tensors["stabiliser_generator"])
        self.updates = int(values["updates"])  # type: ignore[call-overload]
        self.stabiliser.restore(values["stabiliser"])  # type: ignore[arg-type]

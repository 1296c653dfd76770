# SPDX-License-Identifier: Apache-2.0
"""What TD3 and SAC share: the stabilised twin critic, the normaliser, the learning rate, checkpoints."""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qgf_trainer.flat import FlatAdam, FlatParameters
from qgf_trainer.networks import Actor, DeployedPolicy, GaussianActor, TwinCritic, gradient_of
from qgf_trainer.q_gradient_field import FieldConfig, FieldStabiliser
from qgf_trainer.replay import Batch
from qgf_trainer.rivals import Rival, RivalConfig, States


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Settings that every learner has; the defaults suit the reach task."""

    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    learning_rate: float = 1e-3
    """Of Adam, for actor and critics alike."""
    gamma: float = 0.9
    """Discount per control period."""
    tau: float = 0.02
    """Share of the new weights that the targets take over at each update."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden {list(self.hidden)} must name at least one positive width")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be positive")
        if not (0 <= self.gamma < 1 and 0 < self.tau <= 1):
            raise ValueError(f"gamma {self.gamma} must lie in [0, 1) and tau {self.tau} in (0, 1]")


def td_target(batch: Batch, next_value: Tensor, gamma: float) -> Tensor:
    """r + gamma V(s') (B,), without the second part after a true end; a time limit is not one."""
    return batch.reward + gamma * (1.0 - batch.terminal) * next_value


def td_loss(values: Tensor, target: Tensor, weight: float) -> Tensor:
    """weight times the sum of both critics' mean squared errors; values (2, B), target (B,)."""
    return weight * len(values) * nn.functional.mse_loss(values, target.expand_as(values))


ActorType = TypeVar("ActorType", Actor, GaussianActor)


class Agent(abc.ABC, Generic[ActorType]):
    """An actor, a twin critic with the field's losses or a policy-side rival by a switch, and the critic's target.

    :param actor: made from (n_obs, n_act, hidden).
    :param seed: of the weights and of all noise in the updates.
    """

    _LATEST_EVERY = 100  # updates between readings of losses and values, which cost a little

    def __init__(
        self,
        actor: type[ActorType],
        n_obs: int,
        n_act: int,
        learner: LearnerConfig,
        field: FieldConfig,
        seed: int,
        rival: RivalConfig,
    ) -> None:
        self.learner = learner
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.actor: ActorType = actor(n_obs, n_act, learner.hidden)
            self.critic = TwinCritic(n_obs, n_act, learner.hidden)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.rival: Rival | None = None
        actor_parameters = list(self.actor.parameters())
        if rival.kind != "none":
            self.rival = Rival(rival, self.actor, learner.hidden[-1], n_act, seed + 2)
            actor_parameters += self.rival.parameters()
        self.actor_optimiser = FlatAdam(actor_parameters, learner.learning_rate)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), learner.learning_rate)
        self._critic_target_flat = FlatParameters(self.critic_target.parameters())
        self.stabiliser = FieldStabiliser(field, torch.Generator().manual_seed(seed + 1))
        self.mean, self.std = torch.zeros(n_obs), torch.ones(n_obs)
        self.reward_unit = 1.0
        self.updates = 0
        self.latest: dict[str, float] = {}

    def set_normaliser(self, mean: Tensor, std: Tensor) -> None:
        """Freeze the observations' mean and standard deviation (n_obs,); a constant observation keeps its scale."""
        self.mean, self.std = mean.clone(), torch.where(std > 1e-6, std, torch.ones_like(std))

    def set_reward_unit(self, unit: float) -> None:
        """Learn values in this unit from now on. :raises ValueError: it is not positive and finite."""
        if not 0.0 < unit < math.inf:
            raise ValueError(f"the unit of the reward must be positive and finite, not {unit}")
        self.reward_unit = unit

    def set_learning_rate(self, factor: float) -> None:
        """Learn with `factor` times the configured rate from now on."""
        for _, optimiser in self._optimisers():
            optimiser.set_learning_rate(factor * self.learner.learning_rate)

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Deterministic actions (B, n_act) of the actor in training, for raw observations (B, n_obs)."""
        with torch.inference_mode():
            return self.actor((torch.from_numpy(observation) - self.mean) / self.std).numpy()

    @abc.abstractmethod
    def explore(
        self, observation: NDArray[np.float32], noise: np.random.Generator, scale: float
    ) -> NDArray[np.float32]:
        """Actions (B, n_act) in [-1, 1] to try, for raw observations (B, n_obs).

        :param scale: standard deviation of the noise of a deterministic policy; a stochastic one has its own.
        """

    def update(self, batch: Batch, observation_std: Tensor, reward_std: float) -> None:
        """One gradient update.

        :param observation_std: (n_obs,) over the replay buffer, raw. :param reward_std: over the replay buffer, raw.
        """
        if self.reward_unit != 1.0:
            batch, reward_std = batch._replace(reward=batch.reward / self.reward_unit), reward_std / self.reward_unit
        self._update(batch, observation_std, reward_std)

    @abc.abstractmethod
    def _update(self, batch: Batch, observation_std: Tensor, reward_std: float) -> None:
        """`update`, with rewards and their deviation in the learner's unit."""

    @abc.abstractmethod
    def deployed(self) -> DeployedPolicy:
        """The deterministic policy as it is exported, with the normaliser inside."""

    def _modules(self) -> Sequence[tuple[str, nn.Module]]:
        further: dict[str, nn.Module] = {} if self.rival is None else self.rival.modules
        return (("actor", self.actor), ("critic", self.critic), ("critic_target", self.critic_target), *further.items())

    def _optimisers(self) -> Sequence[tuple[str, FlatAdam]]:
        return (("actor_optimiser", self.actor_optimiser), ("critic_optimiser", self.critic_optimiser))

    def _generators(self) -> Sequence[tuple[str, torch.Generator]]:
        further: list[tuple[str, torch.Generator]] = (
            [] if self.rival is None else [("rival_generator", self.rival.generator)]
        )
        return [("generator", self.generator), ("stabiliser_generator", self.stabiliser.generator), *further]

    def _states(self, batch: Batch) -> States:
        """s-, s and s' (B, n_obs), normalised."""
        previous = batch.previous_observation
        return States(
            None if previous is None else (previous - self.mean) / self.std,
            (batch.observation - self.mean) / self.std,
            (batch.next_observation - self.mean) / self.std,
        )

    def _update_critic(
        self,
        target: Tensor,
        td_weight: float,
        states: States,
        action: Tensor,
        observation_std: Tensor,
        reward_std: float,
    ) -> Tensor:
        """One step down the TD loss, with the field's losses where they are due and a rival's if it has one.

        :param target: (B,) for the values of both critics. :param td_weight: see `td_loss`.
        :returns: the values (2, B).
        """
        self.updates += 1
        arguments = states.here, action, states.following, observation_std / self.std, reward_std
        values = self.stabiliser.regress(self.critic, *arguments, target, td_weight)
        if self.rival is not None:
            extra = self.rival.critic_loss(self.critic, states, action)
            if extra is not None:
                self.critic_optimiser.add(extra)
        self.critic_optimiser.step()
        return values

    def _update_actor(self, states: States) -> None:
        """One step of the actor, by what it has climbed and a rival's term if it has one."""
        if self.rival is not None:
            for parameter in self.rival.parameters():
                gradient_of(parameter).zero_()
            self.actor_optimiser.add(self.rival.actor_loss(self.actor, states))
        self.actor_optimiser.step()
        if self.rival is not None:
            self.rival.after_actor_update(self.actor)

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Tensors and plain values for a checkpoint."""
        tensors = {
            f"{name}.{key}": value for name, module in self._modules() for key, value in module.state_dict().items()
        }
        for name, optimiser in self._optimisers():
            tensors.update({f"{name}.{key}": value for key, value in optimiser.state().items()})
        tensors |= {name: generator.get_state() for name, generator in self._generators()}
        tensors |= {"mean": self.mean, "std": self.std}
        return tensors, {
            "updates": self.updates,
            "reward_unit": self.reward_unit,
            "stabiliser": self.stabiliser.state(),
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Continue from `state()`. :raises KeyError, RuntimeError, ValueError: it does not fit."""
        for name, module in self._modules():
            module.load_state_dict(_under(f"{name}.", tensors))
        for name, optimiser in self._optimisers():
            optimiser.restore(_under(f"{name}.", tensors))
        for name, generator in self._generators():
            generator.set_state(tensors[name])
        self.mean, self.std = tensors["mean"].clone(), tensors["std"].clone()
        self.updates = int(values["updates"])  # type: ignore[call-overload]
        self.reward_unit = float(values.get("reward_unit", 1.0))  # type: ignore[arg-type]
        self.stabiliser.restore(values["stabiliser"])  # type: ignore[arg-type]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names start so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

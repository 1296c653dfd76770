# SPDX-License-Identifier: Apache-2.0
"""`smoothness: auto`, the doing: tries the policy, moves the dial, keeps the best learners, and chooses at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from qgf_core import smoothness
from qgf_sim.env import ArmEnv
from qgf_trainer.agent import Agent
from qgf_trainer.dial_search import AutoConfig, DialSearch, Try, loss, within
from qgf_trainer.evaluation import Policy, run_any_episode
from qgf_trainer.gymnasium_task import GymnasiumTask

_FIRST_SEED = 1_000_000_000
"""Of the tries' episodes; training's and evaluation's lie far below."""

_ALIKE = 1.3
"""Learners are about as smooth as one another within this factor: less is the luck of a try, and return worth more."""

_KEPT = 4
"""Learners whose return holds, kept beside the one of the best return."""
_ROUNDS = 4
"""Of the check at the end, at most: few starts tell little where some of them cost many times the others."""
_SURE = 0.2
"""Of the budget: an error of the loss that is small enough to decide by."""

_KEPT_BEYOND = 3
"""Learners kept that lie within the whole budget only: the best return of many tries is also the luckiest, and further
starts may tell that they hold."""


@dataclasses.dataclass(eq=False)  # each is itself alone
class Candidate:
    """A learner that was tried."""

    step: int
    dial: float
    found: Try
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class AutoDial:
    """Moves an agent's dial during training.

    :param env: the task, for the tries alone, so that training's own environments are not disturbed.
    :param steps: control steps of the run. :param warmup: of these with random actions.
    """

    def __init__(
        self, config: AutoConfig, agent: Agent, env: ArmEnv | GymnasiumTask, steps: int, warmup: int
    ) -> None:
        self.config, self._agent, self._env = config, agent, env
        self.search = DialSearch(config)
        self.candidates: list[Candidate] = []
        self.trace: list[dict[str, Any]] = []
        self.chosen: dict[str, float] = {}
        self._steps, self._interval = steps, steps / config.evaluations
        self._next = max(self._interval, warmup + 0.5 * self._interval)
        agent.stabiliser.smoothness = self.search.dial

    def after_episodes(self, step: int, last: bool = False) -> None:
        """To be called where all episodes have ended: tries the policy if it is time, and chooses at the end.

        :param last: the run ends here, before its steps are over.
        """
        last = last or step >= self._steps
        if step < self._next and not last:
            return
        while self._next <= step:
            self._next += self._interval
        found = self._try(self._agent.deployed().act, _FIRST_SEED, self.config.episodes)
        candidate = Candidate(step, self.search.dial, found, *_copied(self._agent))
        decision = self.search.observe(found, step / self._steps)
        self.trace.append(
            {
                "step": step,
                "dial": candidate.dial,
                "return": found.mean_return,
                "mean_abs_delta": found.roughness,
                "phase": self.search.phase,
                "held": decision.held,
                "went_back": decision.go_back,
            }
        )
        self._keep(candidate)
        if last:
            self._choose()
            return
        if decision.go_back:
            self._return_to(min((c for c in self.candidates if self._holds(c)), key=lambda c: c.found.roughness))
        self._agent.stabiliser.smoothness = decision.dial

    def close(self) -> None:
        """Leave the environment of the tries."""
        self._env.close()

    def _holds(self, candidate: Candidate) -> bool:
        return within(candidate.found.mean_return, self.search.reference, self.config.allowed)

    def _keep(self, candidate: Candidate) -> None:
        """Among the kept and this one: the one of the best return, the latest that is nearly plain, the smoothest whose
        return holds, and the smoothest of the rest within the budget."""
        known = [*self.candidates, candidate]
        best = max(known, key=lambda c: c.found.mean_return)
        # The few starts of a try may not tell what plain does better; those of the check at the end will.
        known.sort(key=lambda c: c.step)
        plain = [c for c in known if c.dial == self.config.start and c is not best][-1:]
        others = (c for c in known if c is not best and c not in plain)
        further = sorted(others, key=lambda c: c.found.roughness)
        holding = [c for c in further if self._holds(c)][:_KEPT]
        near = [
            c
            for c in further
            if not self._holds(c) and within(c.found.mean_return, self.search.reference, self.config.budget)
        ]
        self.candidates = [best, *plain, *holding, *near[:_KEPT_BEYOND]]

    def _choose(self) -> None:
        """Try the kept learners from further starts; of those whose loss of return, with its error, is within the
        budget there, and that are about as smooth as the smoothest of them, go back to the one of the best return."""
        tried: list[tuple[Candidate, Try]] = [(candidate, Try(0.0, 0.0)) for candidate in self.candidates]
        for number in range(_ROUNDS):
            seed = _FIRST_SEED + self.config.episodes + number * self.config.verification
            tried = [(candidate, self._tried_again(candidate, found, seed)) for candidate, found in tried]
            reference = max((found for _, found in tried), key=lambda found: found.mean_return)
            losses = [loss(found, reference) for _, found in tried]
            # The clearly worse are not tried again; the reference, which loses nothing, is always left.
            left = [mean - 2.0 * error <= self.config.budget for mean, error in losses]
            tried = [pair for pair, stays in zip(tried, left, strict=True) if stays]
            losses = [pair for pair, stays in zip(losses, left, strict=True) if stays]
            if max(error for _, error in losses) <= _SURE * self.config.budget:
                break
        within_budget = [
            pair
            for pair, (mean, error) in zip(tried, losses, strict=True)
            if mean + error <= self.config.budget
        ]
        smoothest = min(found.roughness for _, found in within_budget)
        alike = [pair for pair in within_budget if pair[1].roughness <= _ALIKE * smoothest]
        chosen, _ = max(alike, key=lambda pair: pair[1].mean_return)
        self._return_to(chosen)
        self._agent.stabiliser.smoothness = chosen.dial
        self.chosen = {"smoothness_dial": chosen.dial, "smoothness_step": float(chosen.step)}

    def _tried_again(self, candidate: Candidate, before: Try, first_seed: int) -> Try:
        """`before` and as many starts again, in one."""
        self._return_to(candidate)
        found = self._try(self._agent.deployed().act, first_seed, self.config.verification)
        returns = before.returns + found.returns
        share = len(before.returns) / len(returns)
        return Try(
            share * before.mean_return + (1.0 - share) * found.mean_return,
            share * before.roughness + (1.0 - share) * found.roughness,
            returns,
        )

    def _return_to(self, candidate: Candidate) -> None:
        """The learner as it was, but for the generators and the count of updates, which go on."""
        tensors, _ = self._agent.state()
        going_on = {name: tensor for name, tensor in tensors.items() if name.endswith("generator")}
        self._agent.restore({**candidate.tensors, **going_on}, {**candidate.values, "updates": self._agent.updates})

    def _try(self, policy: Policy, first_seed: int, episodes: int) -> Try:
        runs = [run_any_episode(self._env, policy, first_seed + i) for i in range(episodes)]
        rough = [float(np.mean(smoothness.mean_absolute_delta(actions))) for _, actions in runs if len(actions) > 1]
        returns = tuple(float(total) for total, _ in runs)
        return Try(float(np.mean(returns)), float(np.mean(rough)) if rough else 0.0, returns)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values for a checkpoint."""
        tensors = {
            f"auto.{index}.{name}": tensor
            for index, candidate in enumerate(self.candidates)
            for name, tensor in candidate.tensors.items()
        }
        kept = [
            {"step": c.step, "dial": c.dial, "found": list(c.found), "values": c.values} for c in self.candidates
        ]
        values = {"search": self.search.state(), "kept": kept, "trace": list(self.trace), "next": self._next}
        return tensors, {**values, "chosen": self.chosen}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from `state()`, after the agent's own `restore`. :raises KeyError: it does not fit."""
        self.search.restore(values["search"])
        self.trace, self._next, self.chosen = list(values["trace"]), float(values["next"]), dict(values["chosen"])
        self.candidates = []
        for index, kept in enumerate(values["kept"]):
            prefix = f"auto.{index}."
            mine = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            mean_return, roughness, returns = kept["found"]
            found = Try(mean_return, roughness, tuple(returns))
            self.candidates.append(Candidate(kept["step"], kept["dial"], found, mine, kept["values"]))


def _copied(agent: Agent) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, values = agent.state()
    return {name: tensor.clone() for name, tensor in tensors.items()}, dict(values)

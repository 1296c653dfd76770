# SPDX-License-Identifier: Apache-2.0
"""Replay buffer: preallocated tensors, sampled without a Python loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batch(NamedTuple):
    """Transitions, all float32."""

    observation: Tensor  # (B, n_obs)
    action: Tensor  # (B, n_act)
    reward: Tensor  # (B,)
    next_observation: Tensor  # (B, n_obs)
    terminal: Tensor  # (B,): 1 where the episode truly ended; a time limit is 0
    previous_observation: Tensor | None = None  # (B, n_obs): before `observation`, itself at an episode's start


class ReplayBuffer:
    """The last `capacity` transitions.

    :param keeps_previous: whether `previous_observation` is stored too.
    """

    def __init__(self, capacity: int, n_obs: int, n_act: int, keeps_previous: bool = False) -> None:
        self.capacity, self.size, self._next = capacity, 0, 0
        self._data = Batch(
            torch.zeros(capacity, n_obs),
            torch.zeros(capacity, n_act),
            torch.zeros(capacity),
            torch.zeros(capacity, n_obs),
            torch.zeros(capacity),
            torch.zeros(capacity, n_obs) if keeps_previous else None,
        )
        self._rows = {name: field.numpy() for name, field in self._fields().items()}
        self._mark: tuple[int, int] | None = None
        self._overwritten: list[tuple[int, dict[str, Any]]] = []

    def _fields(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        return {name: field for name, field in self._data._asdict().items() if field is not None}

    def add(
        self,
        observation: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: float,
        next_observation: NDArray[np.float32],
        terminal: bool,
        previous_observation: NDArray[np.float32] | None = None,
    ) -> None:
        """Store one transition; the oldest goes when the buffer is full. Without a previous observation its own stands
        for it."""
        i = self._next
        rows = self._rows  # numpy's view of the same memory writes a row in a fraction of the time
        if self._mark is not None and self.size == self.capacity:
            self._overwritten.append((i, {name: row[i].copy() for name, row in rows.items()}))
        rows["observation"][i] = observation
        rows["action"][i] = action
        rows["reward"][i] = reward
        rows["next_observation"][i] = next_observation
        rows["terminal"][i] = terminal
        if "previous_observation" in rows:
            rows["previous_observation"][i] = observation if previous_observation is None else previous_observation
        self._next = (i + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def mark(self) -> None:
        """Remember the present content, so that `go_back` can bring it back: costs only what is overwritten since."""
        self._mark = self._next, self.size
        self._overwritten.clear()

    def go_back(self) -> None:
        """To the content at the last `mark`. :raises ValueError: there was none."""
        if self._mark is None:
            raise ValueError("nothing was marked")
        for i, row in reversed(self._overwritten):
            for name, value in row.items():
                self._rows[name][i] = value
        self._overwritten.clear()
        self._next, self.size = self._mark

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Transitions drawn uniformly with replacement. :raises ValueError: the buffer is empty."""
        if self.size == 0:
            raise ValueError("the replay buffer is empty")
        rows = torch.randint(0, self.size, (batch_size,), generator=generator)
        return Batch(**{name: field.index_select(0, rows) for name, field in self._fields().items()})

    def observation_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n_obs,) of the stored observations."""
        stored = self._data.observation[: self.size]
        return stored.mean(0), stored.std(0, correction=0)

    def reward_std(self) -> float:
        """Standard deviation of the stored rewards."""
        return float(self._data.reward[: self.size].std(correction=0))

    def reward_rms(self) -> float:
        """Root mean square of the stored rewards that are not 0; 1 where there is none. A sparse reward's is what it
        gives when it gives."""
        stored = self._data.reward[: self.size]
        given = stored[stored != 0.0].double()
        return float(given.square().mean().sqrt()) if len(given) else 1.0

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        state = {name: field[: self.size].clone() for name, field in self._fields().items()}
        return {**state, "position": torch.tensor([self._next, self.size])}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()`. :raises ValueError: it does not fit."""
        position, size = (int(x) for x in state["position"])
        if size > self.capacity:
            raise ValueError(f"{size} stored transitions do not fit a buffer of {self.capacity}")
        for name, field in self._fields().items():
            field[:size] = state[name]
        self._next, self.size = position % self.capacity, size

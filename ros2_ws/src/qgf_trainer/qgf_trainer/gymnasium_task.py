# SPDX-License-Identifier: Apache-2.0
"""Any registered Gymnasium environment with Box spaces as a task: actions in [-1, 1], flat float32 observations."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from qgf_core.errors import ConfigError, QgfError

PREFIX = "gymnasium:"
LONGEST_EPISODE = 10_000
"""Steps after which an episode is cut off where the environment knows no limit of its own."""


def gymnasium_id(task: str) -> str | None:
    """The id of a Gymnasium task `ID` or `gymnasium:ID`; None if it is neither registered nor said to be one."""
    if task.startswith(PREFIX):
        return task[len(PREFIX) :]
    return task if task in gymnasium.registry else None


class GymnasiumTask(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """An environment of Gymnasium for the training loop.

    An action in [-1, 1]^n is scaled to the environment's own range. What an episode is follows from the seed that it
    is reset with, be it given or drawn from this environment's generator: the generator is all that a checkpoint has
    to remember between episodes.

    :param name: registered id, with or without the prefix `gymnasium:`.
    :raises QgfError: unknown id, a missing library, spaces that are not finite boxes.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, name: str) -> None:
        self.name = gymnasium_id(name) or name
        try:
            self._env = gymnasium.make(self.name)
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            line = str(error).splitlines()[0].rstrip(".")
            raise QgfError(f"{self.name}: needs a library that is not installed ({line}); install it") from error
        except gymnasium.error.Error as error:
            line = str(error).splitlines()[0].rstrip(".")
            raise ConfigError("--task", self.name, line, "give a registered id, for example Pendulum-v1") from error
        if self._env.spec is None or self._env.spec.max_episode_steps is None:
            self._env = gymnasium.wrappers.TimeLimit(self._env, LONGEST_EPISODE)
        space, seen = self._env.action_space, self._env.observation_space
        for what, box in (("actions", space), ("observations", seen)):
            if not isinstance(box, spaces.Box):
                self._env.close()
                remedy = "a wrapper that makes them a Box helps, registered under an id of its own"
                raise QgfError(f"{self.name}: its {what} are {type(box).__name__}, not Box; {remedy}")
        box = cast(spaces.Box, space)
        if not (np.isfinite(box.low).all() and np.isfinite(box.high).all()):
            self._env.close()
            raise QgfError(f"{self.name}: its actions have no finite range to scale to; wrap it in RescaleAction")
        self._low, self._high = box.low.astype(np.float64), box.high.astype(np.float64)
        self._action_type = box.dtype
        self.observation_space = spaces.Box(-np.inf, np.inf, (int(np.prod(seen.shape or ())),), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (int(np.prod(box.shape)),), np.float32)

    @property
    def rate(self) -> float:
        """Steps per second of the environment's own time [Hz]; 1 where it has none."""
        period = getattr(self._env.unwrapped, "dt", None)
        if isinstance(period, (int, float)) and period > 0:
            return float(1.0 / period)
        return float(self._env.metadata.get("render_fps") or 1.0)

    def scaled(self, action: NDArray[Any]) -> NDArray[np.float64]:
        """Actions (..., n) in [-1, 1] in the environment's own units."""
        low, high = self._low.reshape(-1), self._high.reshape(-1)
        return np.clip(low + 0.5 * (np.asarray(action, np.float64) + 1.0) * (high - low), low, high)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode from `seed`, or from one that this environment's generator draws."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        observation, info = self._env.reset(seed=drawn, options=options)
        return self._flat(observation), info

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One step with an action (n,) in [-1, 1]."""
        scaled = self.scaled(action).reshape(self._low.shape).astype(self._action_type)
        observation, reward, terminated, truncated, info = self._env.step(scaled)
        return self._flat(observation), float(reward), bool(terminated), bool(truncated), info

    @staticmethod
    def _flat(observation: Any) -> NDArray[np.float32]:
        return np.asarray(observation, dtype=np.float32).reshape(-1)

    def close(self) -> None:
        """Leave the environment."""
        self._env.close()

# SPDX-License-Identifier: Apache-2.0
"""A curriculum: begin with a narrow task and widen it while success holds.

The level scales what episodes draw: goal region, start spread, references, pushes, and how far a randomised arm is from
the robot's own. Evaluations are always at level 1.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """When the task is widened. A Gymnasium task knows no level."""

    start: float = 1.0
    """Level at the start, above 0; 1: the whole task from the first episode on, so no curriculum."""
    step: float = 0.1
    """Added to the level each time."""
    widen_at: float = 0.8
    """Share of successes, over `window` episodes at the present level, from which on it is widened."""
    window: int = 20
    """Episodes judged."""

    def __post_init__(self) -> None:
        for name in ("start", "step", "widen_at"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"curriculum: {name} {getattr(self, name)} lies outside 0 .. 1")
        if self.window < 1:
            raise ValueError(f"curriculum: window {self.window} must be at least 1")


class Curriculum:
    """Where a training stands."""

    def __init__(self, config: CurriculumConfig) -> None:
        self.config, self.level = config, config.start
        self._recent: deque[bool] = deque(maxlen=config.window)

    def add(self, success: bool) -> bool:
        """One episode at the present level; returns whether the task was widened."""
        if self.level >= 1.0:
            return False
        self._recent.append(success)
        if len(self._recent) < self.config.window or sum(self._recent) < self.config.widen_at * self.config.window:
            return False
        self.level = min(1.0, self.level + self.config.step)
        self._recent.clear()  # what was learned at one level is to be shown anew at the next
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"level": self.level, "recent": [int(success) for success in self._recent]}

    def restore(self, state: dict[str, Any]) -> None:
        """As `state` told it. :raises KeyError: it did not."""
        self.level = float(state["level"])
        self._recent.clear()
        self._recent.extend(bool(success) for success in state["recent"])

# SPDX-License-Identifier: Apache-2.0
"""What `track` and `hold` share: a joint reference is followed, and the error is the joint furthest from it."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qgf_core.reference import JointReference
from qgf_sim.task import Drawn, ManifestFields, Task, TaskConfig

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class JointReward:
    """Weights of the reward terms, by name."""

    error: float = -4.0
    """Per rad of mean error over the joints."""
    precision: float = 1.0
    """Times the joints' mean of exp(-(error / precision_width)^2)."""
    effort: float = -0.02
    """Times mean(action^2)."""
    change: float = -0.05
    """Times mean(change of the action^2)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointTaskConfig(TaskConfig):
    """Of a task whose aim is a joint reference."""

    tolerance: float = 0.05
    """Success: every joint is this close at the end [rad]."""
    precision_width: float = 0.03
    """[rad]"""
    reward: JointReward = JointReward()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demand("be positive", "tolerance", "precision_width")


class JointTask(Task):
    """Follow a joint reference."""

    error_figure = "final_error_mrad"
    config: JointTaskConfig

    @property
    def tolerance(self) -> float:  # type: ignore[override]
        """[rad]"""
        return self.config.tolerance

    def begin(self, drawn: Drawn, position: Vector) -> float:
        """The largest joint error [rad]."""
        assert drawn.reference is not None
        self._reference: JointReference = drawn.reference
        self._previous_action = np.zeros(len(self.robot.joints))
        return float(np.abs(position - self._reference.at(0.0)[0]).max())

    def measure(self, position: Vector, action: NDArray[np.floating], time: float) -> tuple[float, dict[str, float]]:
        """The largest joint error [rad], and reward terms."""
        error = np.abs(position - self._reference.at(time)[0])
        change, self._previous_action = action - self._previous_action, np.asarray(action, dtype=np.float64)
        weights = self.config.reward
        return float(error.max()), {
            "error": weights.error * float(error.mean()),
            "precision": weights.precision * float(np.exp(-((error / self.config.precision_width) ** 2)).mean()),
            "effort": weights.effort * float(np.mean(np.square(action))),
            "change": weights.change * float(np.mean(np.square(change))),
        }

    def fields(self) -> ManifestFields:
        """There is no goal."""
        return ManifestFields(None)

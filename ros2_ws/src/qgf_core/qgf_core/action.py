# SPDX-License-Identifier: Apache-2.0
"""The one action decoder: from the policy's output in [-1, 1] to SI units, as the manifest declares."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """Meaning of the policy's output."""

    kind: Literal["joint_velocity"]
    scale: tuple[float, ...]
    """Joint velocity of an action of 1 [rad/s], one per joint."""

    def __post_init__(self) -> None:
        if not self.scale or not all(0.0 < scale < math.inf for scale in self.scale):
            raise ValueError(f"action scale {list(self.scale)} must be positive")


class ActionDecoder:
    """Turns an action into the joint velocity that it asks for, before any limit.

    :param spec: kind and scale.
    """

    def __init__(self, spec: ActionSpec) -> None:
        self._scale = np.array(spec.scale, dtype=np.float64)

    def decode(self, action: NDArray[np.floating]) -> Vector:
        """Desired joint velocity (n,) [rad/s] for an action (n,). :raises ValueError: wrong shape."""
        if action.shape != self._scale.shape:
            raise ValueError(f"action has shape {action.shape}, expected {self._scale.shape}")
        return np.asarray(np.clip(action, -1.0, 1.0) * self._scale, dtype=np.float64)

# SPDX-License-Identifier: Apache-2.0
"""What an arm's encoders and their messages make of the true state: late, noisy, biased, quantised, filtered, lost."""

from __future__ import annotations

import dataclasses
import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class SensorSpec:
    """The encoders of an arm. The defaults beyond noise are ideal."""

    position_noise: float = 0.0
    """Standard deviation [rad]."""
    velocity_noise: float = 0.0
    """Standard deviation [rad/s]."""
    position_bias: tuple[float, ...] = ()
    """Constant error per joint [rad]; empty: none."""
    position_quantum: float = 0.0
    """Step of the encoder [rad]; 0: none."""
    velocity_filter: float = 0.0
    """Time constant of the low-pass that the driver puts on velocities [s]; 0: none."""
    delay: float = 0.0
    """Age of a state when it is read [s]."""
    dropout: float = 0.0
    """Share of states that never arrive; the one before is then read again."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and value < 0:
                raise ValueError(f"sensor: {field.name} {value} must not be negative")
        if self.dropout >= 1.0:
            raise ValueError(f"sensor: dropout {self.dropout} must be below 1")


class StateSensor:
    """Measures once in each control period; stepped by its caller with the true state.

    :param spec: what the encoders do.
    """

    def __init__(self, spec: SensorSpec) -> None:
        self.spec = spec
        self._history: deque[tuple[float, Vector, Vector]] = deque()
        self._time = 0.0
        self._filtered: Vector | None = None
        self._last: tuple[Vector, Vector] | None = None

    def reset(self) -> None:
        """The next state begins an episode: before it the arm stood still there."""
        self._history.clear()
        self._time, self._filtered, self._last = 0.0, None, None

    def measure(
        self, position: Vector, velocity: Vector, elapsed: float, generator: np.random.Generator
    ) -> tuple[Vector, Vector]:
        """Measured positions (n,) [rad] and velocities (n,) [rad/s].

        :param position: true ones (n,) [rad] now.
        :param velocity: true ones (n,) [rad/s] now.
        :param elapsed: time since the last measurement [s].
        :param generator: of the noise; a quantity that is switched off draws nothing.
        """
        spec, n = self.spec, position.size
        self._time += elapsed
        if spec.delay > 0.0:
            position, velocity = self._earlier(position, velocity)
        if spec.velocity_filter > 0.0:  # exact step of dy/dt = (v - y) / T with v held since the last measurement
            if self._filtered is None:
                self._filtered = velocity
            blend = 1.0 - math.exp(-elapsed / spec.velocity_filter)
        measured = position + generator.normal(0.0, spec.position_noise, n) if spec.position_noise else position
        speed = velocity + generator.normal(0.0, spec.velocity_noise, n) if spec.velocity_noise else velocity
        if spec.velocity_filter > 0.0 and self._filtered is not None:
            speed = self._filtered = self._filtered + blend * (speed - self._filtered)
        if spec.position_bias:
            measured = measured + np.array(spec.position_bias)
        if spec.position_quantum > 0.0:
            measured = spec.position_quantum * np.round(measured / spec.position_quantum)
        if spec.dropout > 0.0 and generator.random() < spec.dropout and self._last is not None:
            return self._last
        self._last = measured, speed
        return self._last

    def _earlier(self, position: Vector, velocity: Vector) -> tuple[Vector, Vector]:
        """The state `delay` ago, on the line between the measurements on both sides of it."""
        self._history.append((self._time, position, velocity))
        wanted = self._time - self.spec.delay
        while len(self._history) > 2 and self._history[1][0] <= wanted:
            self._history.popleft()
        before, after = self._history[0], self._history[min(1, len(self._history) - 1)]
        if wanted <= before[0]:
            return before[1], np.zeros_like(velocity) if wanted < before[0] else before[2]
        share = (wanted - before[0]) / (after[0] - before[0])
        return before[1] + share * (after[1] - before[1]), before[2] + share * (after[2] - before[2])

# SPDX-License-Identifier: Apache-2.0
"""What an arm's encoders and their messages make of the true state: late, noisy, biased, quantised, filtered, lost."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qgf_sim import sensor_kernel as kernel

Vector = NDArray[np.float64]
_PLACES = 8
"""For states that are kept for a delay, at first."""


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
        self._sensor = np.array(
            [spec.position_noise, spec.velocity_noise, spec.position_quantum, spec.velocity_filter, spec.delay])
        self.reset()

    def reset(self) -> None:
        """The next state begins an episode: before it the arm stood still there."""
        self._last: tuple[Vector, Vector] | None = None

    def _begin(self, joints: int) -> None:
        bias = self.spec.position_bias
        self._bias = np.array(bias, dtype=np.float64) if bias else np.zeros(joints)
        if self._bias.shape != (joints,):
            raise ValueError(f"sensor: position_bias has {len(bias)} entries for {joints} joints")
        self._noise = np.zeros((2, joints))
        rows = slice(0 if self.spec.position_noise else 1, 2 if self.spec.velocity_noise else 1)
        self._drawn = self._noise[rows]
        self._count = np.array([0, 0, 1])
        self._memory = np.zeros((kernel.RING + _PLACES, 1 + 2 * joints))

    def measure(
        self, position: Vector, velocity: Vector, elapsed: float, generator: np.random.Generator
    ) -> tuple[Vector, Vector]:
        """Measured positions (n,) [rad] and velocities (n,) [rad/s].

        :param position: true ones (n,) [rad] now.
        :param velocity: true ones (n,) [rad/s] now.
        :param elapsed: time since the last measurement [s].
        :param generator: of the noise; a quantity that is switched off draws nothing.
        """
        spec = self.spec
        last = self._last
        if last is None:
            self._begin(position.size)
        elif spec.delay > 0.0 and self._count[kernel.KEPT] == len(self._memory) - kernel.RING:
            self._make_room()
        if self._drawn.size:
            generator.standard_normal(out=self._drawn)
        if not position.shape == velocity.shape == self._bias.shape:
            raise ValueError(f"state has shapes {position.shape} and {velocity.shape}, expected {self._bias.shape}")
        measured, speed = np.empty(position.size), np.empty(position.size)
        kernel.measure_state(position, velocity, elapsed, self._noise, self._bias, self._sensor, self._count,
                             self._memory, measured, speed)
        if spec.dropout > 0.0 and generator.random() < spec.dropout and last is not None:
            return last
        self._last = measured, speed
        return self._last

    def _make_room(self) -> None:
        """For a delay of many measurements."""
        rows, first = kernel.RING, self._count[kernel.FIRST]
        kept = np.roll(self._memory[rows:], -first, axis=0)
        self._memory = np.concatenate([self._memory[:rows], kept, np.zeros_like(kept)])
        self._count[kernel.FIRST] = 0

# SPDX-License-Identifier: Apache-2.0
"""The track task: follow a stream of joint references, as a teleoperator or a planner would send them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qgf_core.reference import JointReference
from qgf_sim.joint_task import JointTask, JointTaskConfig
from qgf_sim.task import Drawn, ManifestFields, draw_start

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Shares:
    """How often each kind of reference comes, relative to the others."""

    spline: float = 1.0
    """Waypoints drawn about the start, passed smoothly."""
    chirp: float = 1.0
    """A sine whose frequency rises, of each joint."""
    step: float = 1.0
    """From rest to rest, as fast as the speed allows, with pauses between."""

    def __post_init__(self) -> None:
        values = dataclasses.astuple(self)
        if min(values) < 0 or sum(values) <= 0:
            raise ValueError(f"shares {list(values)} must not be negative, nor all 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackConfig(JointTaskConfig):
    """The track task; every field of config/tasks/track.yaml."""

    amplitude: float = 0.4
    """References stay within this of the start [rad]."""
    speed: float = 0.6
    """Their greatest speed, as a share of policy_velocity."""
    spacing: tuple[float, float] = (0.5, 1.5)
    """Time from one waypoint to the next, drawn between these [s]."""
    frequency: tuple[float, float] = (0.1, 1.0)
    """Of a chirp, from the start to the end of an episode [Hz]."""
    shares: Shares = Shares()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demand("be positive", "amplitude", "speed")
        if self.speed > 1.0:
            raise ValueError(f"speed {self.speed} lies outside 0 .. 1")
        for name in ("spacing", "frequency"):
            least, most = getattr(self, name)
            if not 0.0 < least <= most:
                raise ValueError(f"{name} {[least, most]} must be 0 < smallest <= largest")


class TrackTask(JointTask):
    """Follow a reference that moves."""

    config: TrackConfig

    def draw(self, generator: np.random.Generator, start: Vector | None) -> Drawn:
        """A start, and a reference that begins there at rest."""
        own = draw_start(self.config, self.robot, generator, self.difficulty)
        begin = own if start is None else np.asarray(start, dtype=np.float64)
        makers: dict[str, Callable[[Vector, np.random.Generator], JointReference]] = {
            "spline": self._spline, "chirp": self._chirp, "step": self._step}
        weights = np.array(dataclasses.astuple(self.config.shares))
        kind = str(generator.choice(list(makers), p=weights / weights.sum()))
        reference = self._within(makers[kind](begin, generator))
        return Drawn(begin, np.zeros(0), reference, {"reference_kind": kind})

    def fields(self) -> ManifestFields:
        """How fast references are."""
        return ManifestFields(None, None, self.config.speed)

    @property
    def _duration(self) -> float:
        return self.config.episode_steps / self.config.control_rate

    @property
    def _amplitude(self) -> float:
        return self.difficulty * self.config.amplitude

    @property
    def _speed(self) -> Vector:
        return self.difficulty * self.config.speed * self.robot.policy_velocity

    def _waypoints(self, start: Vector, generator: np.random.Generator) -> tuple[Vector, Vector]:
        """Times (k,) [s] and positions (k, n) [rad], inside the margins; the first is the start."""
        times, positions = [0.0], [start]
        lower = self.robot.position_lower + self.robot.position_margin
        upper = self.robot.position_upper - self.robot.position_margin
        while times[-1] < self._duration:
            times.append(times[-1] + generator.uniform(*self.config.spacing))
            drawn = start + self._amplitude * generator.uniform(-1.0, 1.0, len(start))
            positions.append(np.clip(drawn, np.minimum(lower, start), np.maximum(upper, start)))
        return np.array(times), np.array(positions)

    def _spline(self, start: Vector, generator: np.random.Generator) -> JointReference:
        times, positions = self._waypoints(start, generator)
        return JointReference(times, positions)

    def _step(self, start: Vector, generator: np.random.Generator) -> JointReference:
        times, positions = self._waypoints(start, generator)
        rows, moments = [positions[0]], [0.0]
        for k in range(1, len(times)):
            # The curve from rest to rest is fastest in its middle, at 1.5 times its mean speed.
            way = 1.5 * float((np.abs(positions[k] - positions[k - 1]) / self._speed).max())
            begin = max(times[k - 1], moments[-1] + 1e-3)
            moments += [begin, begin + max(way, 1.0 / self.config.control_rate)]
            rows += [positions[k - 1], positions[k]]
        return JointReference(np.array(moments), np.array(rows), np.zeros((len(rows), len(start))))

    def _chirp(self, start: Vector, generator: np.random.Generator) -> JointReference:
        first, last = self.config.frequency
        n, duration = len(start), self._duration
        share, begin = generator.uniform(0.2, 1.0, n), generator.uniform(0.5, 1.0, n)
        times = np.linspace(0.0, duration, max(2, math.ceil(20.0 * last * duration)) + 1)[:, None]
        # Frequency f(t) = f0 + (f1 - f0) t / T, phase 2 pi (f0 t + (f1 - f0) t^2 / (2 T)); it fades in within a second.
        f0 = first * begin
        phase = 2.0 * np.pi * (f0 * times + (last - f0) * times**2 / (2.0 * duration))
        rate = 2.0 * np.pi * (f0 + (last - f0) * times / duration)
        room = np.minimum(self.robot.position_upper - start, start - self.robot.position_lower)
        room = np.maximum(room - self.robot.position_margin, 0.0)
        size = np.minimum(np.minimum(share * self._amplitude, room), self._speed / (2.0 * np.pi * last + 1.5))
        fade, fading = np.where(times < 1.0, times**2 * (3.0 - 2.0 * times), 1.0), \
            np.where(times < 1.0, 6.0 * times * (1.0 - times), 0.0)
        positions = start + size * fade * np.sin(phase)
        velocities = size * (fade * rate * np.cos(phase) + fading * np.sin(phase))
        return JointReference(times[:, 0], positions, velocities)

    def _within(self, reference: JointReference) -> JointReference:
        """The same reference, slowed as a whole to the speed allowed."""
        factor = float((reference.extremes()[2] / self._speed).max())
        if factor <= 1.0:
            return reference
        assert reference.velocities is not None
        return JointReference(reference.times * factor, reference.positions, reference.velocities / factor)

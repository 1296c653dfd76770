# SPDX-License-Identifier: Apache-2.0
"""A joint reference: where a teleoperator or a planner wants the joints to be over time.

Between two points it is the cubic Hermite curve of their positions and velocities,
    q(s) = h00 q0 + h10 d v0 + h01 q1 + h11 d v1,   s = (t - t0) / d.
Where no velocities are told they are chosen as in a monotone cubic (Fritsch and Carlson 1980, in the three-point form
of PCHIP), and 0 at both ends: smooth, from rest to rest, and never outside the range of neighbouring points, which
neither a natural spline (it overshoots) nor straight lines (their velocity jumps) can say. A reference that takes
another's place in the middle of its motion begins with its velocity instead.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]
_ROUNDING = 1e-6
"""How far beyond a limit a number may lie: one that went through a message and back."""


@dataclasses.dataclass(frozen=True)
class JointReference:
    """Points in the robot's joint order and the URDF's sign.

    :raises ValueError: in words, what is wrong: shapes, a number that is not finite, times that do not increase.
    """

    times: Vector
    """(k,) [s], increasing"""
    positions: Vector
    """(k, n) [rad]"""
    velocities: Vector | None = None
    """(k, n) [rad/s]; None: chosen as described above"""
    start_velocity: Vector | None = None
    """(n,) [rad/s] at the first point, where velocities are chosen; None: at rest"""

    def __post_init__(self) -> None:
        for name in ("times", "positions", "velocities"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.array(value, dtype=np.float64))
        if self.times.ndim != 1 or not len(self.times) or self.positions.shape[:1] != self.times.shape \
                or self.positions.ndim != 2:
            raise ValueError(f"times {self.times.shape} and positions {self.positions.shape} must be (k,) and (k, n)")
        if self.velocities is None:
            object.__setattr__(self, "velocities", self._chosen_velocities())
        assert self.velocities is not None
        if self.velocities.shape != self.positions.shape:
            raise ValueError(f"velocities {self.velocities.shape} for positions {self.positions.shape}")
        for name in ("times", "positions", "velocities"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} that are not finite")
        late = np.flatnonzero(np.diff(self.times) <= 0)
        if len(late):
            raise ValueError(f"time {self.times[late[0] + 1]:g} s of point {late[0] + 1} is not after the one before")

    def _chosen_velocities(self) -> Vector:
        slopes = np.zeros_like(self.positions)
        if len(self.times) > 2 and np.isfinite(self.positions).all() and (np.diff(self.times) > 0).all():
            slopes[1:-1] = PchipInterpolator(self.times, self.positions).derivative()(self.times[1:-1])
        if self.start_velocity is not None and len(self.times) > 1:
            slopes[0] = self.start_velocity
        return slopes

    @property
    def end(self) -> float:
        """Time of the last point [s]."""
        return float(self.times[-1])

    def at(self, time: float) -> tuple[Vector, Vector]:
        """Position (n,) [rad] and velocity (n,) [rad/s] at `time` [s]; at rest on the first point before it and on the
        last one after it."""
        assert self.velocities is not None
        if time < self.times[0] or time > self.times[-1] or len(self.times) == 1:
            point = self.positions[0 if time < self.times[0] else -1]
            return point.copy(), np.zeros_like(point)
        k = min(int(np.searchsorted(self.times, time, side="right")) - 1, len(self.times) - 2)
        d = self.times[k + 1] - self.times[k]
        s = (time - self.times[k]) / d
        q0, q1, v0, v1 = self.positions[k], self.positions[k + 1], self.velocities[k], self.velocities[k + 1]
        position = (q0 * (1.0 + s * s * (2.0 * s - 3.0)) + q1 * (s * s * (3.0 - 2.0 * s))
                    + d * (v0 * (s * (1.0 - s) ** 2) + v1 * (s * s * (s - 1.0))))
        velocity = (6.0 * s * (1.0 - s) / d * (q1 - q0)
                    + v0 * ((1.0 - s) * (1.0 - 3.0 * s)) + v1 * (s * (3.0 * s - 2.0)))
        return np.asarray(position), np.asarray(velocity)

    def extremes(self) -> tuple[Vector, Vector, Vector]:
        """Least and greatest position (n,) [rad] and greatest speed (n,) [rad/s] of the whole curve, between its points
        too: where the derivative of a segment, or the derivative's, is zero."""
        assert self.velocities is not None
        lower, upper = self.positions.min(axis=0), self.positions.max(axis=0)
        speed = np.abs(self.velocities).max(axis=0)
        if len(self.times) == 1:
            return lower, upper, np.zeros_like(speed)
        d = np.diff(self.times)[:, None]
        way, v0, v1 = np.diff(self.positions, axis=0), d * self.velocities[:-1], d * self.velocities[1:]
        # q(s) = q0 + v0 s + b s^2 + a s^3, with velocities per segment.
        a, b = v0 + v1 - 2.0 * way, 3.0 * way - 2.0 * v0 - v1
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(b * b - 3.0 * a * v0)
            turns = [np.where(a != 0.0, (-b + sign * root) / (3.0 * a), -v0 / (2.0 * b)) for sign in (-1.0, 1.0)]
            steepest = -b / (3.0 * a)
        for s in turns:
            s = np.where((s > 0.0) & (s < 1.0), s, 0.0)  # NaN compares as False
            turning = self.positions[:-1] + s * (v0 + s * (b + s * a))
            lower, upper = np.minimum(lower, turning.min(axis=0)), np.maximum(upper, turning.max(axis=0))
        s = np.where((steepest > 0.0) & (steepest < 1.0), steepest, 0.0)
        return lower, upper, np.maximum(speed, (np.abs(v0 + s * (2.0 * b + 3.0 * a * s)) / d).max(axis=0))

    def check(self, robot: RobotSpec, speed: Vector) -> None:
        """Whether the arm can go there.

        :param speed: that may be asked for (n,) [rad/s].
        :raises ValueError: another number of joints, a position beyond the limits less the margin, or too fast.
        """
        if self.positions.shape[1] != len(robot.joints):
            raise ValueError(f"the reference has {self.positions.shape[1]} joints, the arm {len(robot.joints)}")
        least, most, fastest = self.extremes()
        lower = robot.position_lower + robot.position_margin
        upper = robot.position_upper - robot.position_margin
        for i, name in enumerate(robot.joint_names):
            if least[i] < lower[i] - _ROUNDING or most[i] > upper[i] + _ROUNDING:
                raise ValueError(f"the reference takes joint '{name}' to {least[i]:.3f} .. {most[i]:.3f} rad, allowed "
                                 f"are {lower[i]:.3f} .. {upper[i]:.3f}")
            if fastest[i] > speed[i] + _ROUNDING:
                raise ValueError(f"the reference moves joint '{name}' at up to {fastest[i]:.3f} rad/s, allowed are "
                                 f"{speed[i]:.3f}")


def constant_reference(position: Vector) -> JointReference:
    """Stay at `position` (n,) [rad]."""
    return JointReference(np.zeros(1), np.asarray(position)[None])

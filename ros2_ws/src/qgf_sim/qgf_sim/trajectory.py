# SPDX-License-Identifier: Apache-2.0
"""A joint trajectory as ros2_controllers' joint_trajectory_controller executes it (Jazzy's rules)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class TrajectoryPoint:
    """One point of a trajectory_msgs/JointTrajectory."""

    time_from_start: int
    """[ns]"""
    positions: Sequence[float]
    """One per joint named by the message [rad]."""
    velocities: Sequence[float] = ()
    """[rad/s]; empty: the way to this point is a straight line."""


class TrajectoryFollower:
    """The controller's command over time. One trajectory is in force; a new one replaces the rest of it at once.

    Between two points that both have velocities the command is the cubic through positions and velocities, otherwise
    the straight line. Before the first point it runs there from the command that was in force when the message arrived
    (position and velocity), so that nothing jumps, as with interpolate_from_desired_state; or from the measured state,
    which is the controller's own default. After the last point it stays.

    :param joint_names: joints in the order of the vectors.
    """

    def __init__(self, joint_names: Sequence[str]) -> None:
        self._names = tuple(joint_names)
        self.reset(np.zeros(len(self._names)))

    def reset(self, position: Vector) -> None:
        """Stay at `position` (n,) [rad]; the trajectory is forgotten."""
        still = np.array(position, dtype=np.float64)
        # times (k,) [ns], positions (k, n), velocities (k, n), and per point whether it came with velocities
        self._plan = (np.zeros(1, np.int64), still[None], np.zeros_like(still)[None], np.array([True]))

    def accept(
        self, names: Sequence[str], points: Sequence[TrajectoryPoint], now: int, start: int | None, signs: Vector,
        measured: tuple[Vector, Vector] | None = None
    ) -> str:
        """Follow a trajectory that arrived at `now` [ns].

        :param start: when its time_from_start begins [ns of the same clock]; None: now.
        :param signs: +1 or -1 per joint (n,), from the message's values to the command's.
        :param measured: position and velocity (n,) to begin from; None: those of the command in force.
        :return: "" or why it was refused, in words; the one before it then goes on.
        """
        refusal = self._refusal(names, points, now, start)
        if refusal:
            return refusal
        order = [list(names).index(name) for name in self._names]
        begin = now if start is None else start
        position, velocity = measured or self.sample(now)
        times = np.array([now, *(begin + point.time_from_start for point in points)], np.int64)
        positions = np.vstack([position, *(signs * np.asarray(point.positions)[order] for point in points)])
        cubic = np.array([True, *(len(point.velocities) > 0 for point in points)])
        velocities = np.vstack([velocity, *(
            signs * np.asarray(point.velocities)[order] if len(point.velocities) else np.zeros(len(order))
            for point in points)])
        # Of a trajectory that began in the past only what is ahead is followed.
        ahead = np.concatenate([[True], times[1:] >= now])
        self._plan = (times[ahead], positions[ahead], velocities[ahead], cubic[ahead])
        return ""

    def _refusal(
        self, names: Sequence[str], points: Sequence[TrajectoryPoint], now: int, start: int | None
    ) -> str:
        n = len(self._names)
        if sorted(names) != sorted(self._names):
            missing = [name for name in self._names if name not in names]
            unknown = [name for name in names if name not in self._names]
            return f"joints missing {missing}, unknown {unknown}, {len(names)} named for {n}"
        if not points:
            return "no points"
        before = -1
        for i, point in enumerate(points):
            for what, values in (("positions", point.positions), ("velocities", point.velocities)):
                if len(values) != n and (what == "positions" or len(values)):
                    return f"point {i} has {len(values)} {what} for {n} joints"
                if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
                    return f"point {i}: {what} not finite: {list(values)}"
            if point.time_from_start <= before:
                return f"point {i}: time_from_start {point.time_from_start * 1e-9:g} s is not after the one before it"
            before = point.time_from_start
        if any(points[-1].velocities):
            return f"the last point's velocities are not zero: {list(points[-1].velocities)}"
        if start is not None and start + points[-1].time_from_start < now:
            return f"it ended {(now - start - points[-1].time_from_start) * 1e-9:g} s ago"
        return ""

    def sample(self, now: int) -> tuple[Vector, Vector]:
        """Commanded position (n,) [rad] and velocity (n,) [rad/s] at `now` [ns]."""
        times, positions, velocities, cubic = self._plan
        after = int(np.searchsorted(times, now, side="right"))
        if after >= len(times):
            return positions[-1].copy(), np.zeros(positions.shape[1])
        if after == 0:
            return positions[0].copy(), velocities[0].copy()
        i, j = after - 1, after
        span = float(times[j] - times[i]) * 1e-9
        s = float(now - times[i]) * 1e-9 / span
        step = positions[j] - positions[i]
        if not (cubic[i] and cubic[j]):
            return positions[i] + s * step, step / span
        # Cubic Hermite on s in [0, 1] with end slopes v_i span and v_j span.
        u, w = velocities[i] * span, velocities[j] * span
        position = positions[i] + s * (u + s * (3.0 * step - 2.0 * u - w + s * (u + w - 2.0 * step)))
        slope = u + s * (2.0 * (3.0 * step - 2.0 * u - w) + s * 3.0 * (u + w - 2.0 * step))
        return position, slope / span

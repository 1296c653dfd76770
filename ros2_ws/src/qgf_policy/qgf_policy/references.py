# SPDX-License-Identifier: Apache-2.0
"""A trajectory_msgs/JointTrajectory as timed points in the robot's joint order, or why it is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]

MOST_POINTS = 1000
"""More would keep the control loop busy reading them."""


class ReferenceMessage(NamedTuple):
    """A trajectory as it arrived, in the driver's signs."""

    names: Sequence[str]
    times: Sequence[int]
    """time_from_start of each point [ns]"""
    positions: Sequence[Sequence[float]]
    """Of each point, one per name [rad]"""
    velocities: Sequence[Sequence[float]]
    """Of each point, one per name [rad/s]; empty where it has none"""
    begins: int
    """When its time is 0, counted from its arrival [ns]; negative for a stamp in the past"""
    stamp: int
    """[ns]"""


class ReferencePoints(NamedTuple):
    """What is to be interpolated, in the robot's order and the URDF's sign."""

    times: Vector
    """(k,) [s] since the arrival, increasing"""
    positions: Vector
    """(k, n) [rad]"""
    velocities: Vector | None
    """(k, n) [rad/s]; None: the interpolation chooses them"""


def read_reference(message: ReferenceMessage, robot: RobotSpec, position: Vector, velocity: Vector) -> ReferencePoints:
    """The points. Where the first one is not due yet, the way there begins at the arm's present state, as in
    joint_trajectory_controller.

    :param position: of the arm (n,) [rad].
    :param velocity: of the arm (n,) [rad/s].
    :raises ValueError: what is wrong, in words; limits are not judged here.
    """
    n = len(robot.joints)
    if sorted(message.names) != sorted(robot.joint_names):
        missing = [name for name in robot.joint_names if name not in message.names]
        unknown = [name for name in message.names if name not in robot.joint_names]
        raise ValueError(f"joints missing {missing}, unknown {unknown}, {len(message.names)} named for {n}")
    if not message.times:
        raise ValueError("the reference has no points")
    if len(message.times) > MOST_POINTS:
        raise ValueError(f"the reference has {len(message.times)} points, at most {MOST_POINTS} are read; send parts")
    told = [len(values) > 0 for values in message.velocities]
    if any(told) and not all(told):
        raise ValueError("some points of the reference have velocities and some have none")
    kinds = {"positions": message.positions} | ({"velocities": message.velocities} if all(told) else {})
    columns = [list(message.names).index(name) for name in robot.joint_names]
    arrays: dict[str, Vector] = {}
    for kind, points in kinds.items():
        for k, values in enumerate(points):
            if len(values) != n:
                raise ValueError(f"point {k} of the reference has {len(values)} {kind} for {n} joints")
        arrays[kind] = np.array([list(values) for values in points], dtype=np.float64)[:, columns] * robot.signs
        if not np.isfinite(arrays[kind]).all():
            k = int(np.argmin(np.isfinite(arrays[kind]).all(axis=1)))
            raise ValueError(f"point {k} of the reference: {kind} that are not finite")
    times = 1e-9 * np.array([time + message.begins for time in message.times], dtype=np.float64)
    late = np.flatnonzero(np.diff(message.times) <= 0)
    if len(late) or message.times[0] < 0:
        k = int(late[0]) + 1 if len(late) else 0
        raise ValueError(f"time_from_start {1e-9 * message.times[k]:g} s of point {k} is not after what is before it")
    if times[-1] < 0.0:
        raise ValueError(f"the reference ended {-times[-1]:.2f} s ago")
    positions, velocities = arrays["positions"], arrays.get("velocities")
    if times[0] > 0.0:
        times = np.concatenate([[0.0], times])
        positions = np.vstack([position, positions])
        velocities = None if velocities is None else np.vstack([velocity, velocities])
    return ReferencePoints(times, positions, velocities)

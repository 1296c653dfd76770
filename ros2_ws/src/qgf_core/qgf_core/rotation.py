# SPDX-License-Identifier: Apache-2.0
"""Orientations as quaternions (4,), x y z w as in ROS, and as rotation vectors (3,) [rad], by scipy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Vector = NDArray[np.float64]


def unit_quaternion(quaternion: ArrayLike) -> Vector:
    """The quaternion (4,) at length 1. :raises ValueError: not four finite numbers, or far from length 1."""
    q = np.asarray(quaternion, dtype=np.float64)
    if q.shape != (4,) or not np.isfinite(q).all() or abs(np.linalg.norm(q) - 1.0) > 0.01:
        raise ValueError(f"orientation {q.tolist()} is not a quaternion of length 1")
    return np.asarray(q / np.linalg.norm(q))


def quaternion_of(matrix: ArrayLike) -> Vector:
    """Of a rotation matrix (3, 3)."""
    return np.asarray(Rotation.from_matrix(np.asarray(matrix)).as_quat())


def turned(quaternion: ArrayLike, vector: ArrayLike) -> Vector:
    """The orientation (4,), turned in the base frame by a rotation vector (3,) [rad]."""
    return np.asarray((Rotation.from_rotvec(np.asarray(vector)) * Rotation.from_quat(np.asarray(quaternion))).as_quat())


def composed(outer: ArrayLike, inner: ArrayLike) -> Vector:
    """In the parent, the orientation (4,) that is `inner` in a frame turned by `outer`.

    :raises ValueError: one is of no length.
    """
    return np.asarray((Rotation.from_quat(np.asarray(outer)) * Rotation.from_quat(np.asarray(inner))).as_quat())


def rotation_between(matrix: ArrayLike, quaternion: ArrayLike) -> Vector:
    """The rotation vector (3,) [rad] in the base frame, at most pi long, that turns `quaternion` (4,) to `matrix`
    (3, 3)."""
    there = Rotation.from_quat(np.asarray(quaternion))
    return np.asarray((Rotation.from_matrix(np.asarray(matrix)) * there.inv()).as_rotvec())


def angle_between(first: ArrayLike, second: ArrayLike) -> float:
    """Angle of the rotation from one quaternion (4,) to another [rad]."""
    return float((Rotation.from_quat(np.asarray(first)) * Rotation.from_quat(np.asarray(second)).inv()).magnitude())

# SPDX-License-Identifier: Apache-2.0
"""A goal region that suits an arm: where its tool gets to from home, with every corner tried by inverse kinematics."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from qgf_core.kinematics import Kinematics
from qgf_core.robot import Box, RobotSpec, read_urdf, strip_meshes

Vector = NDArray[np.float64]
_SPREAD = 0.8
"""Of the joints round home [rad]: a reaching motion of a second or two."""
_SHARE = (15.0, 85.0)
"""Percentiles of the places so found, axis by axis."""
_LOWEST = 0.05
"""Height above the base below which no goal is proposed where the tool is above it at home [m]."""
_REACHED = 0.005
"""[m]"""


def likely_goal_region(robot: RobotSpec, samples: int = 2000) -> Box | None:
    """A box in the base frame whose corners the tool reaches from home within the limits; rounded to centimetres.

    :returns: None where there is no room for one.
    """
    kinematics = Kinematics(strip_meshes(read_urdf(robot)), robot.joint_names, robot.tool)
    lower, upper = robot.position_lower + robot.position_margin, robot.position_upper - robot.position_margin
    spread = np.random.default_rng(0).uniform(-_SPREAD, _SPREAD, (samples, len(robot.joints)))
    places = np.array([kinematics.tool_position(q) for q in np.clip(robot.home + spread, lower, upper)])
    low, high = np.percentile(places, _SHARE, axis=0)
    if kinematics.tool_position(robot.home)[2] > _LOWEST:
        low[2] = max(low[2], _LOWEST)
    for _ in range(20):
        box_low, box_high = np.ceil(low * 100) / 100, np.floor(high * 100) / 100
        if (box_high - box_low < 0.02).any():
            return None
        corners = itertools.product(*zip(box_low, box_high, strict=True))
        if all(distance_left(kinematics, np.array(corner), robot.home, lower, upper) < _REACHED for corner in corners):
            return Box(tuple(map(float, box_low)), tuple(map(float, box_high)))  # type: ignore[arg-type]
        low, high = low + 0.05 * (high - low), high - 0.05 * (high - low)
    return None


def distance_left(kinematics: Kinematics, goal: Vector, home: Vector, lower: Vector, upper: Vector) -> float:
    """How near [m] the tool comes to `goal` (3,) from `home` (n,) [rad] by joints within `lower` and `upper` (n,)."""
    found = least_squares(lambda q: kinematics.tool_position(q) - goal, home, bounds=(lower, upper), xtol=1e-6)
    return float(np.linalg.norm(kinematics.tool_position(found.x) - goal))

# SPDX-License-Identifier: Apache-2.0
"""Where an arm's tool is, what a policy is told of the arm, and what its action asks for; see qgf_core.kinematics,
qgf_core.observation and qgf_core.action."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import compiled

REVOLUTE, PRISMATIC = 0, 1
"""Kinds of joints in `joints`: about, and along, the z axis of its frame."""
POSITION, VELOCITY, ACTION, TOOL, GIVEN = 0, 1, 2, 3, 4
"""Sources in `terms`: the joint position from home; the velocity by its scale; the last action; tool minus goal; what
the caller worked out."""


@compiled
def place_tool(
    position: NDArray[np.float64],
    joints: NDArray[np.int64],
    fixed: NDArray[np.float64],
    point: NDArray[np.float64],
    matrix: NDArray[np.float64],
) -> None:
    """Writes the tool's place in the base frame.

    :param position: joint positions (n,) [rad or m].
    :param joints: (k, 2) from the base to the tool: kind, and place in `position`.
    :param fixed: (k + 1, 12): transform from each joint's moved frame to the next joint's frame, and from the last to
        the tool; its rotation row by row, then its translation [m].
    :param point: its first three [m] are overwritten.
    :param matrix: (3, 3), the rotation, overwritten.
    """
    a, b, c, d, e, f, g, h, i = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0  # row by row
    x, y, z = 0.0, 0.0, 0.0
    for k in range(fixed.shape[0]):
        t = fixed[k]
        x, y, z = (x + a * t[9] + b * t[10] + c * t[11], y + d * t[9] + e * t[10] + f * t[11],
                   z + g * t[9] + h * t[10] + i * t[11])
        a, b, c = a * t[0] + b * t[3] + c * t[6], a * t[1] + b * t[4] + c * t[7], a * t[2] + b * t[5] + c * t[8]
        d, e, f = d * t[0] + e * t[3] + f * t[6], d * t[1] + e * t[4] + f * t[7], d * t[2] + e * t[5] + f * t[8]
        g, h, i = g * t[0] + h * t[3] + i * t[6], g * t[1] + h * t[4] + i * t[7], g * t[2] + h * t[5] + i * t[8]
        if k < joints.shape[0]:
            q = position[joints[k, 1]]
            if joints[k, 0] == PRISMATIC:
                x, y, z = x + c * q, y + f * q, z + i * q
            else:
                cos, sin = math.cos(q), math.sin(q)
                a, b = cos * a + sin * b, cos * b - sin * a
                d, e = cos * d + sin * e, cos * e - sin * d
                g, h = cos * g + sin * h, cos * h - sin * g
    point[0], point[1], point[2] = x, y, z
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = a, b, c
    matrix[1, 0], matrix[1, 1], matrix[1, 2] = d, e, f
    matrix[2, 0], matrix[2, 1], matrix[2, 2] = g, h, i


@compiled
def tool_distance(
    position: NDArray[np.float64],
    goal: NDArray[np.float64],
    joints: NDArray[np.int64],
    fixed: NDArray[np.float64],
    point: NDArray[np.float64],
    matrix: NDArray[np.float64],
) -> float:
    """Distance from the tool to a goal (3,) [m]; all else as in `place_tool`."""
    place_tool(position, joints, fixed, point, matrix)
    x, y, z = point[0] - goal[0], point[1] - goal[1], point[2] - goal[2]
    return math.sqrt(x * x + y * y + z * z)


@compiled
def scale_action(action: NDArray[np.float64], scale: NDArray[np.float64], scaled: NDArray[np.float64]) -> None:
    """Writes an action (n,), cut to [-1, 1], times a scale (n,); what is not a number stays none."""
    for i in range(action.size):
        value = action[i]
        if value > 1.0:
            value = 1.0
        elif value < -1.0:
            value = -1.0
        scaled[i] = value * scale[i]


@compiled
def build_observation(
    state: NDArray[np.float64],
    aim: NDArray[np.float64],
    scales: NDArray[np.float64],
    terms: NDArray[np.int64],
    factors: NDArray[np.float64],
    past: NDArray[np.float64],
    fresh: bool,
    joints: NDArray[np.int64],
    fixed: NDArray[np.float64],
    matrix: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """Writes an observation, term after term.

    :param state: (3, n): joint position [rad], velocity [rad/s], last action.
    :param aim: the tool's position, overwritten where there is a chain, and the goal's, both (3,) [m]; behind them what
        GIVEN terms are, end to end.
    :param scales: (2, n): home [rad] and the scale of velocities [rad/s].
    :param terms: (k, 3): source, width, samples of history.
    :param factors: (k,).
    :param past: as `out`, but in float64: the last observation, changed.
    :param fresh: whether there is none.
    :param joints: of the chain to the tool, see `place_tool`.
    :param fixed: of the same; empty: nobody wants the tool, or the caller has worked it out.
    :param matrix: (3, 3), overwritten.
    :param out: (size,), overwritten.
    """
    place, given = 0, 6
    if fixed.shape[0] > 0:
        place_tool(state[0], joints, fixed, aim, matrix)
    for k in range(terms.shape[0]):
        source, width, history = terms[k, 0], terms[k, 1], terms[k, 2]
        for j in range(place + history * width - 1, place + width - 1, -1):  # each sample becomes the one before
            past[j] = past[j - width]
        for j in range(width):
            if source == POSITION:
                value = state[0, j] - scales[0, j]
            elif source == VELOCITY:
                value = state[1, j] / scales[1, j]
            elif source == ACTION:
                value = state[2, j]
            elif source == TOOL:
                value = aim[j] - aim[3 + j]
            else:
                value = aim[given + j]
            past[place + j] = value * factors[k]
        if source == GIVEN:
            given += width
        if fresh:  # the oldest known sample stands for those before the start
            for j in range(place + width, place + history * width):
                past[j] = past[j - width]
        for j in range(place, place + history * width):
            out[j] = past[j]
        place += history * width

# SPDX-License-Identifier: Apache-2.0
"""Goals given in other frames than the arm's base: turned by /tf where tf2 is installed, else refused with a reason."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rclpy.node import Node
from rclpy.time import Time

from qgf_core.errors import ConfigError
from qgf_core.rotation import composed
from qgf_policy.loop import GoalMessage

try:  # comes with a ROS distribution only
    import tf2_ros
except ImportError:
    tf2_ros = None

Vector = NDArray[np.float64]

OLDEST = 1_000_000_000
"""A moving frame not told of for longer than this before the goal's stamp [ns] has lost its publisher."""


def in_parent(position: ArrayLike, translation: ArrayLike, rotation: ArrayLike) -> Vector:
    """A point (3,) [m] of a frame, in its parent: translation + q p q*.

    :param translation: of the frame in its parent (3,) [m].
    :param rotation: the quaternion q of the frame in its parent (4,), x y z w.
    """
    x, y, z, w = np.asarray(rotation, dtype=np.float64) / np.linalg.norm(rotation)
    p, axis = np.asarray(position, dtype=np.float64), np.array([x, y, z])
    across = 2.0 * np.cross(axis, p)
    return np.asarray(np.asarray(translation, dtype=np.float64) + p + w * across + np.cross(axis, across))


class BaseFrameOnly:
    """Lets goals pass as they are, and says what to do about one in another frame.

    :param base: the robot's base frame.
    """

    def __init__(self, base: str) -> None:
        self._base = base

    def to_base(self, goal: GoalMessage) -> GoalMessage:
        """The goal, with what is wrong about its frame."""
        if goal.frame == self._base:
            return goal
        remedy = "set transform_goals" if tf2_ros else "tf2_ros, which could turn it, is not installed here"
        return goal._replace(
            unusable=f"frame '{goal.frame}' is not the base frame '{self._base}', the only one understood; {remedy}"
        )

    def destroy(self) -> None:
        """Nothing to take down."""


class TransformedGoals(BaseFrameOnly):
    """Turns goals into the base frame by the transform at their stamp, or by the newest where that is older.

    The goal then stays where it is in the base frame, also if its own frame moves on.

    :param node: hears /tf and /tf_static in its executor: every message there takes time from the other threads.
    :param base: the robot's base frame.
    :raises ConfigError: tf2 is not installed.
    """

    def __init__(self, node: Node, base: str) -> None:
        super().__init__(base)
        if tf2_ros is None:
            problem = "tf2_ros is not installed here, so that goals are understood in the robot's base frame only"
            remedy = "install it from the ROS distribution, or leave transform_goals false"
            raise ConfigError("policy_node", "transform_goals", problem, remedy)
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def to_base(self, goal: GoalMessage) -> GoalMessage:
        """The goal in the base frame, or with what is wrong."""
        if goal.frame == self._base:
            return goal
        try:
            newest = self._buffer.get_latest_common_time(self._base, goal.frame).nanoseconds  # 0: all static
            if newest and goal.stamp - newest > OLDEST:
                age = 1e-9 * (goal.stamp - newest)
                return goal._replace(unusable=f"the newest transform of frame '{goal.frame}' is {age:.1f} s old")
            time = Time(nanoseconds=min(goal.stamp, newest))
            told = self._buffer.lookup_transform_core(self._base, goal.frame, time).transform
        except tf2_ros.TransformException as error:
            text = " ".join(str(error).split()).rstrip(".")
            return goal._replace(unusable=f"frame '{goal.frame}' cannot be turned into '{self._base}': {text}")
        shift, turn = told.translation, told.rotation
        position = in_parent(goal.position, (shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))
        orientation = goal.orientation
        if orientation is not None:
            with contextlib.suppress(ValueError):  # of no length: the runner refuses it where it matters
                x, y, z, w = composed((turn.x, turn.y, turn.z, turn.w), orientation).tolist()
                orientation = (x, y, z, w)
        return GoalMessage((float(position[0]), float(position[1]), float(position[2])), self._base, goal.stamp,
                           orientation=orientation)

    def destroy(self) -> None:
        """Stop listening; the loop must have ended."""
        self._listener.unregister()

# SPDX-License-Identifier: Apache-2.0
"""What a policy is told to reach: a goal or a joint reference, taken or refused by what the policy was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qgf_core.errors import StateError
from qgf_core.manifest import Manifest
from qgf_core.reference import JointReference
from qgf_core.rotation import unit_quaternion
from qgf_policy.joint_state import JointState
from qgf_policy.references import ReferenceMessage, read_reference

Vector = NDArray[np.float64]

GOAL_TOLERANCE = 1e-3
"""How far outside the goal region a goal may lie [m or rad]: rounding, not another task."""


FOLLOWED = 0.2
"""An arm that is further from its reference than this in a joint [rad] does not follow it: at a usual lag of 0.1 s it
would move at 2 rad/s."""


class Goals:
    """The goal or reference in force. Times in ns, on the clock of the runner's `now`.

    :param manifest: of the policy that is told.
    :param timeout: a goal told longer ago, or a reference whose last point is longer past, is stale [s]; 0: never.
    """

    def __init__(self, manifest: Manifest, timeout: float) -> None:
        self._manifest, self._timeout = manifest, timeout
        self.goal: Vector = np.zeros(0)
        """(3,) [m], or (7,) with a quaternion; (0,) while there is none."""
        self.reference: JointReference | None = None
        self.stamp = self._told = 0

    def forget(self) -> None:
        """Back to none."""
        self.goal, self.reference, self.stamp = np.zeros(0), None, 0

    def follow(self, manifest: Manifest) -> None:
        """Another policy is told now; what it was not trained on is forgotten."""
        self._manifest = manifest
        if len(self.goal) and self._outside(self.goal):
            self.forget()

    def time(self, now: int) -> float:
        """On the reference's clock, which began when it arrived [s]."""
        return 1e-9 * (now - self._told)

    def judge(self, now: int) -> StateError | None:
        """What forbids to act at `now`, or None."""
        reference = self._manifest.aim == "reference"
        what = "reference" if reference else "goal"
        if (self.reference is None) if reference else not len(self.goal):
            return StateError("stale_goal", f"no {what} was received yet")
        age = self.time(now)
        if self.reference is not None:
            age -= self.reference.end
        if not 0.0 < self._timeout < age:
            return None
        if reference:
            return StateError("stale_goal", f"the reference ended {age:.2f} s ago, allowed are {self._timeout:g} s")
        return StateError("stale_goal", f"the goal is {age:.2f} s old, allowed are {self._timeout:g} s")

    def set_goal(
        self, position: ArrayLike, orientation: ArrayLike | None, frame: str, stamp: int, now: int, unusable: str
    ) -> str:
        """Take a goal, or tell why not; see PolicyRunner.set_goal."""
        goal = np.array(position, dtype=np.float64)
        base = self._manifest.robot.base_frame
        if self._manifest.aim == "reference":
            return "this policy follows joint references, on ~/reference"
        if goal.shape != (3,) or not np.isfinite(goal).all():
            return f"position {goal.tolist()} is not three finite numbers"
        if frame != base:
            return unusable or f"frame '{frame}' is not the base frame '{base}'"
        if self._manifest.aim == "pose":
            try:
                goal = np.concatenate([goal, unit_quaternion([] if orientation is None else orientation)])
            except ValueError as error:
                return str(error)
        problem = self._outside(goal)
        if not problem:
            self.goal, self.stamp, self._told = goal, stamp, now
        return problem

    def set_reference(self, message: ReferenceMessage, state: JointState, now: int) -> str:
        """Take a reference, or tell why not; see PolicyRunner.set_reference."""
        robot = self._manifest.robot
        if self._manifest.aim != "reference":
            return "this policy is told goals, on ~/goal"
        if state.missing or not (np.isfinite(state.position).all() and np.isfinite(state.velocity).all()):
            return "the arm's own state is not known, where the way to its first point begins"
        try:
            running = self._running(state, now)
            position, velocity = (state.position, state.velocity) if running is None else running
            points = read_reference(message, robot, position, velocity)
            goes_on = running is not None and message.times[0] + message.begins > 0
            start = velocity if goes_on else None
            reference = JointReference(points.times, points.positions, points.velocities, start)
            reference.check(robot, self._manifest.reference_speed * robot.policy_velocity)
        except ValueError as error:
            return str(error)
        self.reference, self.stamp, self._told = reference, message.stamp, now
        return ""

    def _running(self, state: JointState, now: int) -> tuple[Vector, Vector] | None:
        """Position and velocity (n,) now of the reference that the arm follows, or None if it follows none. A new one
        goes on from there, so that a stream of them is one smooth motion."""
        if self.reference is None or self.time(now) >= self.reference.end:
            return None
        position, velocity = self.reference.at(self.time(now))
        return (position, velocity) if np.abs(position - state.position).max() <= FOLLOWED else None

    def _outside(self, goal: Vector) -> str:
        """Why a goal is not one that the policy was trained on, or an empty text."""
        region, turned = self._manifest.goal_region, self._manifest.goal_orientation
        assert region is not None
        if not region.contains(goal[:3], GOAL_TOLERANCE):
            return (f"position {np.round(goal[:3], 4).tolist()} m lies outside the region trained on, "
                    f"{list(region.lower)} to {list(region.upper)}")
        if turned is not None and not turned.contains(goal[3:], GOAL_TOLERANCE):
            return (f"orientation {np.round(goal[3:], 4).tolist()} is turned further than the {turned.spread:g} rad "
                    f"trained on from {np.round(turned.centre, 4).tolist()}")
        return ""

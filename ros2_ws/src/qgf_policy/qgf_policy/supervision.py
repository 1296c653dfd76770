# SPDX-License-Identifier: Apache-2.0
"""What ends an activation: an arm that does not follow, a policy stuck at full speed, a tool about to leave its space.

Unlike a stale state, which a hold outlives, these say that arm and policy have parted: the runner brings the arm to
rest and demands a new activation, which starts from where the arm then is.
"""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import StateError
from qgf_core.kinematics import Kinematics
from qgf_core.limiter import stop_distance
from qgf_core.robot import Box, RobotSpec
from qgf_policy.tracking_kernel import follow

Vector = NDArray[np.float64]

FORGETTING_TIME = 1.0
"""A velocity-controlled arm drifts from the sum of its commands; that sum forgets with this time constant [s]."""
FULL = 0.995
"""An action of at least this size counts as saturated."""


@dataclasses.dataclass(frozen=True)
class Space:
    """Where the tool point may be, in the base frame."""

    workspace: Box | None = None
    keep_out: tuple[Box, ...] = ()

    def refuses(self, point: Vector) -> str:
        """Why a point (3,) [m] is not allowed, or an empty text."""
        if self.workspace is not None and not self.workspace.contains(point):
            return f"outside the workspace {list(self.workspace.lower)} .. {list(self.workspace.upper)} m"
        for box in self.keep_out:
            if box.contains(point):
                return f"inside the keep-out box {list(box.lower)} .. {list(box.upper)} m"
        return ""


class Tracking:
    """How far an arm is from where its commands should have brought it.

    The expected position follows the commanded velocity through the drive's latency and first-order lag. Under velocity
    control it also forgets towards the measured one (FORGETTING_TIME), because nothing keeps an integrated velocity
    from drifting: an arm that stands still while v is commanded then shows v * FORGETTING_TIME. Under position control
    nothing is forgotten.

    :param robot: its drive.
    :param period: between commands [s].
    :param forgetting: whether the commands are velocities.
    """

    def __init__(self, robot: RobotSpec, period: float, forgetting: bool) -> None:
        drive = robot.drive
        self._period = period
        self._delay = round(drive.latency / period)
        self._lag = -np.expm1(-period / drive.time_constant) if drive.time_constant > 0 else 1.0
        self._forget = -np.expm1(-period / FORGETTING_TIME) if forgetting else 0.0
        self.reset(robot.home)

    def reset(self, position: Vector) -> None:
        """The arm stands at `position` (n,) [rad]."""
        self._expected = np.array(position, dtype=np.float64)
        self._velocity = np.zeros_like(self._expected)
        self._waiting: deque[Vector] = deque([np.zeros_like(self._expected)] * self._delay)

    def error(self, measured: Vector) -> Vector:
        """Measured minus expected position (n,) [rad], for a state taken now."""
        return np.asarray(measured - self._expected)

    def command(self, velocity: Vector, measured: Vector | None) -> None:
        """A command (n,) [rad/s] was sent; `measured` (n,) [rad] is where the arm was, None where nobody knows."""
        known = measured is not None and self._forget > 0.0
        self._waiting.append(velocity)
        follow(
            np.ascontiguousarray(measured if known else velocity), self._waiting.popleft(),
            self._forget if known else 0.0, self._lag, self._period, self._expected, self._velocity
        )


class Supervisor:
    """The rules together.

    :param robot: the arm.
    :param kinematics: its tool.
    :param period: between commands [s].
    :param control_period: between actions [s].
    :param forgetting: whether the commands are velocities.
    :param tracking_limit: largest tracking error of a joint [rad]; 0: not judged.
    :param saturation_time: longest time for which an action may stay saturated [s]; 0: not judged.
    :param space: of the tool point.
    :param home_limit: furthest that a joint may be from home at the start [rad]; 0: not judged.
    :param going_on: for how long a controller that hears nothing more goes on with the last command [s]; by default
        until the next command was due.
    """

    def __init__(
        self,
        robot: RobotSpec,
        kinematics: Kinematics,
        *,
        period: float,
        control_period: float,
        forgetting: bool,
        tracking_limit: float,
        saturation_time: float,
        space: Space,
        home_limit: float = 0.0,
        going_on: float = 0.0,
    ) -> None:
        self._robot, self._kinematics, self._space = robot, kinematics, space
        self._tracking = Tracking(robot, period, forgetting)
        self._limit, self._saturation_time = tracking_limit, saturation_time
        self._home_limit = home_limit
        self._control_period = control_period
        self._going_on = max(period, going_on) + robot.drive.latency + robot.drive.time_constant
        self._confined = space.workspace is not None or bool(space.keep_out)
        self._saturated = self._none = [0] * len(robot.joints)

    def reset(self, position: Vector) -> None:
        """Begin anew with the arm at `position` (n,) [rad]."""
        self._tracking.reset(position)
        self._saturated = self._none

    def judge_start(self, position: Vector, velocity: Vector) -> StateError | None:
        """What forbids starting from joint positions (n,) [rad] and velocities (n,) [rad/s]."""
        for i, joint in enumerate(self._robot.joints):
            lower, upper = joint.position
            if not lower <= position[i] <= upper:
                return StateError(
                    "position_limit",
                    f"joint '{joint.name}' stands at {position[i]:.4f} rad, outside its limits "
                    f"{lower} .. {upper}; move it inside",
                )
            if abs(velocity[i]) > joint.velocity:
                return StateError(
                    "velocity_limit",
                    f"joint '{joint.name}' moves at {velocity[i]:.3f} rad/s, faster than its "
                    f"limit {joint.velocity}; let it come to rest",
                )
        away = np.abs(position - self._robot.home)
        worst = int(away.argmax())
        if 0.0 < self._home_limit < away[worst]:
            return StateError(
                "far_from_home",
                f"joint '{self._robot.joint_names[worst]}' is {away[worst]:.2f} rad from home, where the policy hardly "
                f"trained; move it within {self._home_limit:g} rad, or set home_limit",
            )
        if not self._confined:
            return None
        point = self._kinematics.tool_position(position)
        refusal = self._space.refuses(point)
        if not refusal:
            return None
        place = f"the tool at {np.round(point, 3).tolist()} m"
        return StateError("workspace", f"{place} is {refusal}; move it away by hand")

    def judge_action(self, action: NDArray[np.floating]) -> StateError | None:
        """One action (n,) in [-1, 1] of the policy."""
        asked = action.tolist()
        if min(asked) > -FULL and max(asked) < FULL:  # nearly always
            self._saturated = self._none
            return None
        self._saturated = [
            periods + 1 if abs(a) >= FULL else 0 for a, periods in zip(asked, self._saturated, strict=True)
        ]
        most = max(self._saturated)
        longest, duration = self._saturated.index(most), most * self._control_period
        if not 0.0 < self._saturation_time < duration - 1e-9:
            return None
        return StateError(
            "saturated_action",
            f"the policy has asked joint '{self._robot.joint_names[longest]}' for full speed for "
            f"{duration:.2f} s, allowed are {self._saturation_time:g} s",
        )

    def judge_motion(self, measured: Vector, velocity: Vector) -> StateError | None:
        """The arm's measured position (n,) [rad], and the velocity (n,) [rad/s] last commanded."""
        if self._limit > 0.0:
            errors = [abs(error) for error in self._tracking.error(measured).tolist()]
            largest = max(errors)
            if largest > self._limit:
                worst = self._robot.joint_names[errors.index(largest)]
                return StateError(
                    "tracking_error",
                    f"joint '{worst}' is {largest:.3f} rad from where its commands "
                    f"should have brought it, allowed are {self._limit:g} rad: a protective stop, an inactive "
                    "controller or something in the way",
                )
        return self._judge_stop(measured, velocity) if self._confined else None

    def _judge_stop(self, measured: Vector, velocity: Vector) -> StateError | None:
        """Whether the tool would be out of its space by the time the arm has stopped."""
        robot, speed = self._robot, np.abs(velocity)
        way = speed * self._going_on
        way += stop_distance(speed, np.zeros_like(speed), robot.acceleration_limit, robot.jerk_limit)
        for share in (1.0, 0.5):
            point = self._kinematics.tool_position(measured + share * np.sign(velocity) * way)
            refusal = self._space.refuses(point)
            if refusal:
                return StateError("workspace", f"the tool would come to {np.round(point, 3).tolist()} m, {refusal}")
        return None

    def commanded(self, velocity: Vector, measured: Vector | None) -> None:
        """What was sent in this period (n,) [rad/s], and the arm's position (n,) [rad] if it is known."""
        self._tracking.command(velocity, measured)

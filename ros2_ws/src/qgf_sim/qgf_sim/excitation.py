# SPDX-License-Identifier: Apache-2.0
"""A motion from which an arm's drives can be identified: one joint at a time, bounded, known before it begins."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import ConfigError
from qgf_core.kinematics import Kinematics
from qgf_core.limiter import Limiter
from qgf_core.robot import RobotSpec, read_urdf, strip_meshes

Vector = NDArray[np.float64]
_LEVELS = (1.0, 0.6, 0.3, 0.1)
"""Of the speed: large steps tell delay and lag, small ones dry friction."""
_DWELL = (0.08, 0.4)
"""Shortest and longest time at one speed [s]."""


@dataclasses.dataclass(frozen=True)
class ExcitationSettings:
    """How far, fast and long each joint is moved."""

    speed: float = 0.3
    """Largest [rad/s]; cut to half of the joint's limit."""
    reach: float = 0.15
    """Furthest to each side of where the joint stands [rad]."""
    seconds: float = 8.0
    """Motion of one joint [s]."""
    rest: float = 1.0
    """Standing still before it, and half of that after it [s]."""
    rate: float = 100.0
    """Of the commands [Hz]."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("speed", 0.02, 2.0), ("reach", 0.02, 1.0), ("seconds", 2.0, 120.0),
                                ("rest", 0.5, 10.0), ("rate", 10.0, 1000.0)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} {getattr(self, name)} must lie in {low:g} .. {high:g}")


class Excitation:
    """The commands from the first to the last, through the limiter.

    :param robot: the arm.
    :param start: where it stands (n,) [rad]; it ends there too, as far as the drives follow.
    :param joints: indices of the joints to move, one after the other.
    :raises ConfigError: a joint stands too near its limits, or the tool would leave its workspace.
    """

    def __init__(self, robot: RobotSpec, settings: ExcitationSettings, start: Vector, joints: tuple[int, ...]) -> None:
        self.robot, self.settings, self.joints = robot, settings, joints
        self.period = 1.0 / settings.rate
        n = len(robot.joints)
        random = np.random.default_rng(settings.seed)
        wanted: list[Vector] = []
        self.parts: dict[str, tuple[float, float, float]] = {}
        """Per joint: when it begins to stand still, to move, and is at rest again [s from the first command]."""
        for j in joints:
            self._demand_room(j, start)
            profile = self._within_reach(j, start, self._profile(min(settings.speed, 0.5 * robot.joints[j].velocity),
                                                                 random))
            rest, before = round(settings.rest * settings.rate), sum(len(rows) for rows in wanted)
            rows = np.zeros((rest + len(profile) + rest // 2, n))
            rows[rest:rest + len(profile), j] = profile
            wanted.append(rows)
            self.parts[robot.joints[j].name] = (before * self.period, (before + rest) * self.period,
                                                (before + len(rows)) * self.period)
        self.wanted = np.concatenate(wanted)
        """(k, n) [rad/s], what the limiter is asked for."""
        limiter = self.limiter(start)
        steps = [limiter.step(row) for row in self.wanted]
        self.velocity = np.array([step.velocity for step in steps])
        """(k, n) [rad/s], in the URDF's sign."""
        self.position = np.array([step.position for step in steps])
        """(k, n) [rad]"""
        self._demand_workspace(start)

    def limiter(self, start: Vector) -> Limiter:
        """A limiter for the commands, at rest at `start` (n,) [rad]."""
        drive = self.robot.drive
        limiter = Limiter(self.robot, self.period, drive.latency + drive.time_constant)
        limiter.reset(start)
        return limiter

    @property
    def duration(self) -> float:
        """[s]"""
        return len(self.velocity) * self.period

    def _profile(self, speed: float, random: np.random.Generator) -> Vector:
        """Speeds (k,) [rad/s] in steps, whose sum never leaves 0.8 of the reach."""
        bound, h = 0.8 * self.settings.reach, self.period
        shortest = max(1, math.ceil(_DWELL[0] / h))
        periods, out, offset = round(self.settings.seconds / h), list[float](), 0.0
        while len(out) < periods:
            level = speed * float(random.choice(_LEVELS))
            # Towards the middle the more surely the further out.
            sign = -1.0 if random.random() < 0.5 + 0.5 * offset / bound else 1.0
            room = bound - sign * offset
            count = min(math.ceil(random.uniform(*_DWELL) / h), int(room / (level * h)))
            if count < shortest:
                sign, count = -sign, shortest
                level = min(level, (bound + abs(offset)) / (count * h))
            out += [sign * level] * count
            offset += sign * level * count * h
        return np.array(out)

    def _within_reach(self, j: int, start: Vector, profile: Vector) -> Vector:
        """The profile, slowed down where the limiter, which cannot follow steps at once, would lead it out of reach,
        and the way back to where it began."""
        while True:
            limiter = self.limiter(start)
            rows = np.zeros((len(profile) + round(0.5 / self.period), start.size))
            rows[:len(profile), j] = profile
            moved = [limiter.step(row).position[j] - start[j] for row in rows]
            furthest = max(map(abs, moved))
            if furthest <= self.settings.reach:
                break
            profile = profile * (0.95 * self.settings.reach / furthest)
        back = max(1, math.ceil(abs(moved[-1]) / (0.3 * np.abs(profile).max() * self.period)))
        return np.concatenate([rows[:, j], np.full(back, -moved[-1] / (back * self.period))])

    def _demand_room(self, j: int, start: Vector) -> None:
        joint, margin, reach = self.robot.joints[j], self.robot.position_margin, self.settings.reach
        if not joint.position[0] + margin + reach <= start[j] <= joint.position[1] - margin - reach:
            raise ConfigError("identify", joint.name, f"stands at {start[j]:.3f} rad, nearer than {reach:g} rad (and "
                              f"position_margin {margin:g}) to a limit of {list(joint.position)}",
                              "move it towards the middle, or give a smaller --reach or other --joints")

    def _demand_workspace(self, start: Vector) -> None:
        robot = self.robot
        if robot.workspace is None and not robot.keep_out:
            return
        kinematics = Kinematics(strip_meshes(read_urdf(robot)), robot.joint_names, robot.tool)
        for position in (start, *self.position[::5]):
            tool = kinematics.tool_position(position)
            outside = robot.workspace is not None and not robot.workspace.contains(tool)
            if outside or any(box.contains(tool) for box in robot.keep_out):
                raise ConfigError("identify", "", f"the tool would come to {tool.round(3).tolist()} m, which is "
                                  f"{'outside the workspace' if outside else 'in a keep_out box'}",
                                  "move the arm, or give a smaller --reach or fewer --joints")


_PULL = 1.0
"""Of a joint that has sagged, back to where it belongs [1/s]."""
_SLOW = 0.02
"""Fastest motion back [rad/s]: far below what a joint is excited with."""


def held(wanted: Vector, asked: Vector, measured: Vector) -> Vector:
    """Velocities (n,) [rad/s] as wanted, but of joints that are to stand: these are led back to where they were asked
    to be (n,) [rad] from where they are (n,) [rad]. An arm that is told velocities alone sags by its weight, and in a
    minute comes far."""
    return np.where(wanted == 0.0, np.clip(_PULL * (asked - measured), -_SLOW, _SLOW), wanted)


class Guard:
    """Judges every state while the arm is moved; times are handed in.

    :param robot: limits.
    :param still: how far a joint may be from where it is expected [rad].
    :param oldest: age of a state at which it is stale [s].
    """

    def __init__(self, robot: RobotSpec, still: float = 0.1, oldest: float = 0.2) -> None:
        self._robot, self._still, self._oldest = robot, still, oldest
        self._past: list[tuple[float, Vector]] = []

    def told(self, now: float, position: Vector) -> None:
        """At `now` [s] the command asked for positions (n,) [rad]."""
        self._past.append((now, position))
        while len(self._past) > 2 and self._past[1][0] < now - 0.5:
            self._past.pop(0)

    def problem(self, now: float, state_time: float, position: Vector) -> str:
        """"" or why the arm must be halted, for a state (n,) [rad] that arrived at `state_time` [s]."""
        if now - state_time > self._oldest:
            return f"no joint state for {now - state_time:.2f} s"
        if not np.isfinite(position).all():
            return f"a joint state is not finite: {position.tolist()}"
        robot = self._robot
        outside = (position < robot.position_lower) | (position > robot.position_upper)
        if outside.any():
            joint = robot.joints[int(np.argmax(outside))]
            return f"'{joint.name}' is outside its position limits {list(joint.position)} rad"
        if not self._past:
            return ""
        # An arm may lag behind by up to half a second: it has to be near where it was asked to be in that time.
        asked = np.array([q for _, q in self._past])
        off = np.maximum(np.maximum(position - asked.max(axis=0), asked.min(axis=0) - position), 0.0)
        worst = int(np.argmax(off))
        if off[worst] > self._still:
            return (f"'{robot.joints[worst].name}' is {off[worst]:.3f} rad from where it was asked to be "
                    f"(allowed: {self._still:g})")
        return ""

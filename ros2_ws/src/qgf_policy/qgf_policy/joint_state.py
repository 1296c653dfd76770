# SPDX-License-Identifier: Apache-2.0
"""Joint states merged by name: drivers publish other orders, extra joints, and one arm's joints in several messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import StateError
from qgf_core.robot import RobotSpec
from qgf_policy.joint_state_kernel import merge_whole

Vector = NDArray[np.float64]

# Layouts (orders of names) remembered; a driver has one, and a malicious stream of new ones must not fill the memory.
_LAYOUTS_KEPT = 32
_REFUSALS_KEPT = 16  # one tick's worth; the rest would say the same


@dataclasses.dataclass(frozen=True)
class JointState:
    """The newest known state of every required joint; arrays (n,) in the robot's order and the URDF's sign."""

    position: Vector
    """[rad]"""
    velocity: Vector
    """[rad/s]"""
    sampled: NDArray[np.int64]
    """When each joint was in that state [ns], on the loop's clock."""
    stamp: int
    """Stamp of the oldest of them [ns], on the clock of the messages; 0 where a message carried none."""
    missing: tuple[str, ...] = ()
    """Required joints never seen; their entries above mean nothing."""
    refusals: tuple[StateError, ...] = ()
    """Messages refused since the last snapshot."""


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the required joints stand in messages with one order of names."""

    joints: NDArray[np.int64]
    columns: NDArray[np.int64]
    twice: str
    whole: bool
    """Every required joint, once."""


class JointStateMerger:
    """Keeps the newest state of each required joint, and refuses messages that must not be acted upon.

    A message that names no required joint is another device's and is ignored whatever it holds. Of the others, only the
    required joints' numbers are judged: grippers publish NaN for what they do not measure.

    :param robot: required joints, their order and signs.
    :param restart_after: a joint not refreshed for this long [ns] accepts a stamp older than its last: its driver's
        clock was set back or it was started anew.
    """

    def __init__(self, robot: RobotSpec, restart_after: int) -> None:
        n = len(robot.joints)
        self._index = {name: i for i, name in enumerate(robot.joint_names)}
        self._names, self._signs = robot.joint_names, robot.signs
        self._restart_after = restart_after
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._position, self._velocity = np.zeros(n), np.zeros(n)
        self._sampled, self._arrived = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._stamp = np.full(n, -1, dtype=np.int64)
        self._newest = -1
        self._seen = np.zeros(n, dtype=np.bool_)
        self._complete = False
        self._refusals: list[StateError] = []
        self.out_of_order = 0
        """Messages ignored because their stamp was not newer than what was known."""

    def add(
        self,
        names: Sequence[str],
        position: Any,
        velocity: Any,
        stamp: int,
        now: int,
        age: int = 0,
        effort_length: int = 0,
    ) -> None:
        """Take in one message; what is wrong with it is told by the next snapshot.

        :param names: joint names, in the message's order.
        :param position: positions [rad], one for each name.
        :param velocity: velocities [rad/s], one for each name.
        :param stamp: the message's stamp [ns] on its own clock; 0 where it has none.
        :param now: present time [ns] on the loop's clock.
        :param age: how old the message is [ns]; negative where its stamp lies in the future.
        :param effort_length: number of efforts; they are not used.
        """
        layout = self._layout(names)
        if not len(layout.joints):
            return
        try:
            self._add(layout, len(names), position, velocity, stamp, now, age, effort_length)
        except StateError as error:
            if len(self._refusals) < _REFUSALS_KEPT:
                self._refusals.append(error)

    def refuse(self, problem: str) -> None:
        """A message that cannot be read at all; told by the next snapshot as well."""
        if len(self._refusals) < _REFUSALS_KEPT:
            self._refusals.append(StateError("malformed_state", problem))

    def _layout(self, names: Sequence[str]) -> _Layout:
        key = tuple(names)
        layout = self._layouts.get(key)
        if layout is None:
            found = sorted((self._index[name], column) for column, name in enumerate(key) if name in self._index)
            twice = next((name for name in key if key.count(name) > 1), "") if len(set(key)) < len(key) else ""
            joints, columns = [j for j, _ in found], [c for _, c in found]
            whole = joints == list(range(len(self._names)))
            layout = _Layout(np.array(joints, dtype=np.int64), np.array(columns, dtype=np.int64), twice, whole)
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            self._layouts[key] = layout
        return layout

    def _add(
        self,
        layout: _Layout,
        length: int,
        position: Any,
        velocity: Any,
        stamp: int,
        now: int,
        age: int,
        effort_length: int,
    ) -> None:
        if layout.twice:
            raise StateError("malformed_state", f"a joint state names joint '{layout.twice}' twice")
        if len(position) != length or len(velocity) != length or effort_length not in (0, length):
            raise StateError(
                "malformed_state",
                f"a joint state has {length} names, {len(position)} positions, "
                f"{len(velocity)} velocities and {effort_length} efforts",
            )
        if -age > self._restart_after:
            raise StateError(
                "future_state",
                f"a joint state is stamped {-1e-6 * age:.1f} ms ahead of this machine's clock; let the clocks agree, "
                "or set state_age_from to arrival",
            )
        age = max(age, 0)
        joints, columns = layout.joints, layout.columns
        position, velocity = np.array(position, dtype=np.float64), np.array(velocity, dtype=np.float64)
        if layout.whole and stamp > self._newest:
            merged, sampled = np.empty((2, len(self._names))), np.empty(len(self._names), np.int64)
            times = (now - age, now, stamp)
            if merge_whole(
                position, velocity, columns, self._signs, *times, merged, sampled, self._arrived, self._stamp
            ):
                self._position, self._velocity = merged
                self._sampled, self._newest, self._complete = sampled, stamp, True
                return
        new_position, new_velocity = position[columns], velocity[columns]
        finite = np.isfinite(new_position) & np.isfinite(new_velocity)
        if not finite.all():
            name = self._names[joints[int(np.argmin(finite))]]
            raise StateError(
                "non_finite_state", f"a joint state gives joint '{name}' a number that is not finite"
            )
        if stamp:
            known = self._stamp[joints]
            restarted = (stamp < known) & (now - self._arrived[joints] > self._restart_after)
            newer = (stamp > known) | restarted
            if not newer.all():
                self.out_of_order += 1
                joints, new_position, new_velocity = joints[newer], new_position[newer], new_velocity[newer]
                if not len(joints):
                    return
            self._stamp[joints] = stamp
        else:
            self._stamp[joints] = 0
        self._newest = int(self._stamp.max())
        # Snapshots hold these arrays: changed are copies.
        self._position, self._velocity = self._position.copy(), self._velocity.copy()
        self._sampled = self._sampled.copy()
        self._position[joints] = new_position * self._signs[joints]
        self._velocity[joints] = new_velocity * self._signs[joints]
        self._sampled[joints] = now - age
        self._arrived[joints] = now
        if not self._complete:
            self._seen[joints] = True
            self._complete = bool(self._seen.all())

    def snapshot(self) -> JointState:
        """The merged state, with the refusals since the last call."""
        refusals = tuple(self._refusals)
        if refusals:
            self._refusals.clear()
        missing = (
            ()
            if self._complete
            else tuple(n for n, seen in zip(self._names, self._seen, strict=True) if not seen)
        )
        oldest = int(self._sampled.argmin())
        return JointState(
            self._position,
            self._velocity,
            self._sampled,
            max(int(self._stamp[oldest]), 0),
            missing,
            refusals,
        )

# SPDX-License-Identifier: Apache-2.0
"""What the monitor keeps of the messages: one sliding window per signal, and a count of everything refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from qgf_core.samples import Array
from qgf_core.sliding_window import SlidingWindow
from qgf_core.time_grid import TimeGrids
from qgf_monitor.config import MonitorConfig

Stamps: TypeAlias = npt.NDArray[np.int64]
MOST_JOINTS = 64
"""A message that names more joints than this is malformed: no window is made for it."""
MOST_OBSERVATIONS = 1024
LARGEST = 1e100
"""Numbers from this on count as not finite: their squares would soon be."""
INFERENCE = "inference"
"""Not judged, but kept to tell causes: observation, raw action and the age of the state used [s], side by side."""
JOINT_STATE = {"joint_position": "position", "joint_velocity": "velocity", "joint_effort": "effort"}
"""Signals of a joint state, and what they are."""


@dataclass
class Counts:
    """Messages refused or incomplete since the start."""

    malformed: int = 0
    """Arrays of different length, a name twice, or too many joints."""
    non_finite: int = 0
    """Signals with a number that is not finite, or absurdly large, for a joint of interest."""
    incomplete: int = 0
    """Joint states with some of the joints of interest, but not all."""
    unstamped: int = 0
    """Messages without a stamp; their time of arrival is taken instead."""


@dataclass
class Source:
    """One signal. Its window counts time from `origin` [ns], so that float seconds keep their resolution."""

    name: str
    joint_names: tuple[str, ...]
    window: SlidingWindow
    origin: int
    arrival: float
    """Time at which the newest usable message came, on the caller's steady clock [s]."""
    quantity: str = ""
    """What the values are: "position" [rad], "velocity" [rad/s], "effort" [N m], or nothing of these."""
    period: float | None = None
    """Nominal period [s], where the message tells it."""
    dropped: int = 0
    """Messages missing by their sequence, since the start."""

    def stamp(self, seconds: float) -> int:
        """A time of the window as a stamp [ns]."""
        return self.origin + round(seconds * 1e9)


@dataclass(frozen=True)
class _Layout:
    """Where the joints of interest stand in joint states with these names; None if none of them is there."""

    names: tuple[str, ...]
    order: npt.NDArray[np.int_] | None
    malformed: bool = False
    incomplete: bool = False


@dataclass
class Recorder:
    """Keeps the newest stretch of every signal; what cannot be used is refused and counted, never an exception.

    :param config: settings.
    :param joints: joints of interest in joint states; if empty, those that the policy commands.
    """

    config: MonitorConfig
    joints: tuple[str, ...] = ()
    sources: dict[str, Source] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    publishers: dict[str, int] = field(default_factory=dict)
    """Number of publishers of the topic that a signal comes from, where somebody counts them."""
    control_period: float | None = None
    """The policy's [s], once known."""
    fault: str = ""
    """Of the newest policy command."""
    takes_any_joints: bool = False
    """Whether the joints of the first joint state are those of interest, where none are given."""

    def __post_init__(self) -> None:
        self._joints_are_given = bool(self.joints)
        self._layout = _Layout((), None)
        self._sequence: int | None = None
        self._grids = TimeGrids()

    def joint_state(self, names: Sequence[str], position: npt.ArrayLike, velocity: npt.ArrayLike, stamp: int,
                    arrival: float, effort: npt.ArrayLike = ()) -> None:
        """Take one joint state: see `joint_states`. Arrays are (m,); a stamp of 0 [ns] means the time of arrival."""
        try:
            rows = [np.asarray(values, float)[None] for values in (position, velocity, effort)]
        except ValueError:
            self.counts.malformed += 1
            return
        received = np.array([round(arrival * 1e9)])
        self.joint_states(names, rows[0], rows[1], rows[2], np.array([stamp]), received, arrival)

    def joint_states(self, names: Sequence[str], position: Array, velocity: Array, effort: Array, stamps: Stamps,
                     received: Stamps, arrival: float) -> None:
        """Take K joint states. Joints are matched by name; other joints in the messages do not matter.

        :param names: (m,), any order.
        :param position: (K, m) [rad] or (K, 0), and so `velocity` [rad/s] and `effort` [N m].
        :param stamps: (K,) [ns], 0 where a message has none; then `received` (K,) [ns] stands in.
        :param arrival: of the newest on a steady clock [s].
        """
        if self.takes_any_joints and not self.joints and 0 < len(names) <= MOST_JOINTS:
            self.joints = tuple(names)
        if self._layout.names != tuple(names):
            self._layout = self._layout_of(tuple(names))
        layout, count = self._layout, len(stamps)
        values = dict(zip(JOINT_STATE, (position, velocity, effort), strict=True))
        if layout.malformed or any(v.shape[1:] not in ((0,), (len(names),)) for v in values.values()):
            self.counts.malformed += count
        elif layout.incomplete:
            self.counts.incomplete += count
        elif layout.order is not None:
            when = self._times(stamps, received)
            for name, rows in values.items():
                if rows.shape[1]:
                    self._add(name, self.joints, rows[:, layout.order], when, arrival, JOINT_STATE[name])

    def _layout_of(self, names: tuple[str, ...]) -> _Layout:
        place = {name: index for index, name in enumerate(names)}
        found = [place[name] for name in self.joints if name in place]
        if len(place) < len(names):
            return _Layout(names, None, malformed=True)
        if len(found) < len(self.joints):
            return _Layout(names, None, incomplete=bool(found))
        return _Layout(names, np.array(found) if found else None)

    def policy_command(self, joint_names: Sequence[str], raw_action: npt.ArrayLike, command: npt.ArrayLike,
                       command_interface: str, sequence: int, period: float, fault: str, stamp: int, arrival: float,
                       observation: npt.ArrayLike = ()) -> None:
        """Take one policy command: see `policy_commands`. Arrays are of one message."""
        action, sent, seen = (np.asarray(values, float)[None] for values in (raw_action, command, observation))
        self.policy_commands(joint_names, action, sent, seen, command_interface, np.array([sequence], np.uint64),
                             period, fault, np.array([stamp]), np.array([round(arrival * 1e9)]), arrival)

    def policy_commands(self, joint_names: Sequence[str], raw_action: Array, command: Array, observation: Array,
                        command_interface: str, sequence: npt.NDArray[np.uint64], period: float, fault: str,
                        stamps: Stamps, received: Stamps, arrival: float, state_stamps: Stamps | None = None) -> None:
        """Take K policy commands with the same texts, with the fields of qgf_msgs/PolicyCommand.

        :param joint_names: (n,).
        :param raw_action: (K, n_act) in [-1, 1], (K, 0) where there was no inference.
        :param command: (K, n) [SI].
        :param observation: (K, n_obs).
        :param sequence: (K,) since activation.
        :param period: nominal [s].
        :param stamps: (K,) [ns], 0 where a message has none; then `received` (K,) [ns] stands in.
        :param arrival: of the newest on a steady clock [s].
        :param state_stamps: of the states that the observations were built from (K,) [ns].
        """
        names = tuple(joint_names)
        if not 0 < len(names) <= MOST_JOINTS or len(set(names)) != len(names) or command.shape[1:] != (len(names),) \
                or raw_action.shape[1] > MOST_JOINTS or observation.shape[1] > MOST_OBSERVATIONS:
            self.counts.malformed += len(stamps)
            return
        self.fault = fault
        if math.isfinite(period) and period > 0.0:
            self.control_period = period
        self._set_joints(names)
        when = self._times(stamps, received)
        dropped = self._dropped(sequence)
        quantity = "position" if command_interface == "joint_trajectory" else command_interface
        self._add("command", names, command, when, arrival, quantity, self.control_period, dropped)
        if raw_action.shape[1]:
            driven = names if len(names) == raw_action.shape[1] else _numbered("action", raw_action.shape[1])
            self._add("raw_action", driven, raw_action, when, arrival, "", self.control_period, dropped)
            if observation.shape[1]:
                taken = when if state_stamps is None else np.where(state_stamps == 0, when, state_stamps)
                both = np.concatenate([observation, raw_action, 1e-9 * (when - taken)[:, None]], axis=1)
                self._add(INFERENCE, _numbered("value", both.shape[1]), both, when, arrival, "", self.control_period)

    def commands(self, joint_names: Sequence[str], values: Array, quantity: str, stamps: Stamps, received: Stamps,
                 arrival: float) -> None:
        """Take K commands of some other controller.

        :param joint_names: (n,); empty where the messages do not tell: then the joints of interest are meant if there
            are n of them.
        :param values: (K, n).
        :param quantity: "position", "velocity" or "effort".
        :param stamps: as for `joint_states`, and so `received` and `arrival`.
        """
        width = values.shape[1]
        names = tuple(joint_names) or (self.joints if len(self.joints) == width else _numbered("command", width))
        if not 0 < width <= MOST_JOINTS or len(set(names)) != len(names) or len(names) != width:
            self.counts.malformed += len(stamps)
            return
        if joint_names:
            self._set_joints(names)
        # Arrays have no stamp to miss; a joint state that names no joint has one.
        when = self._times(stamps, received) if joint_names else np.where(stamps == 0, received, stamps)
        self._add("command", names, values, when, arrival, quantity)

    def _set_joints(self, names: tuple[str, ...]) -> None:
        if not self._joints_are_given and names != self.joints:
            self.joints = names
            self._layout = _Layout((), None)

    def _dropped(self, sequence: npt.NDArray[np.uint64]) -> int:
        """Messages that the sequence lacks; a smaller number than before means that the policy was activated again."""
        numbers = [int(number) for number in sequence]
        before = [numbers[0] - 1 if self._sequence is None else self._sequence, *numbers[:-1]]
        self._sequence = numbers[-1]
        return sum(max(0, number - last - 1) for last, number in zip(before, numbers, strict=True))

    def _times(self, stamps: Stamps, received: Stamps) -> Stamps:
        self.counts.unstamped += int(np.sum(stamps == 0))
        return np.where(stamps == 0, received, stamps)

    def _add(self, name: str, joint_names: tuple[str, ...], values: Array, stamps: Stamps, arrival: float,
             quantity: str = "", period: float | None = None, dropped: int = 0) -> None:
        source = self.sources.get(name)
        if source is None or source.joint_names != joint_names or source.quantity != quantity:
            window = SlidingWindow(self.config.kept, len(joint_names), self.config.capacity, self._grids)
            source = Source(name, joint_names, window, int(stamps[0]), arrival, quantity,
                            dropped=source.dropped if source else 0)
            self.sources[name] = source
        source.period = period
        source.dropped += dropped
        finite = (np.abs(values) < LARGEST).all(axis=1)
        self.counts.non_finite += int(np.sum(~finite))
        if source.window.extend((stamps[finite] - source.origin) * 1e-9, values[finite]):
            source.arrival = arrival


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word}_{i}" for i in range(count))

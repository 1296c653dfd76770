# SPDX-License-Identifier: Apache-2.0
"""What the monitor keeps of the messages: one sliding window per signal, and a count of everything refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qgf_core.errors import MetricError
from qgf_core.sliding_window import SlidingWindow
from qgf_monitor.config import MonitorConfig

MOST_JOINTS = 64
"""A message that names more joints than this is malformed: no window is made for it."""


@dataclass
class Counts:
    """Messages refused or incomplete since the start."""

    malformed: int = 0
    """Arrays of different length, a name twice, or too many joints."""
    non_finite: int = 0
    """Signals with a number that is not finite, for a joint of interest."""
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
    is_position: bool = False
    """Whether the values are joint positions [rad]."""
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
    control_period: float | None = None
    """The policy's [s], once known."""
    fault: str = ""
    """Of the newest policy command."""

    def __post_init__(self) -> None:
        self._joints_are_given = bool(self.joints)
        self._layout = _Layout((), None)
        self._sequence: int | None = None

    def joint_state(self, names: Sequence[str], position: npt.ArrayLike, velocity: npt.ArrayLike, stamp: int,
                    arrival: float) -> None:
        """Take one joint state. Joints are matched by name; other joints in the message do not matter.

        :param names: (m,), any order.
        :param position: (m,) [rad] or empty.
        :param velocity: (m,) [rad/s] or empty.
        :param stamp: [ns], 0 if the message has none.
        :param arrival: on a steady clock [s].
        """
        if self._layout.names != tuple(names):
            self._layout = self._layout_of(tuple(names))
        layout = self._layout
        values = {"joint_position": np.asarray(position, float), "joint_velocity": np.asarray(velocity, float)}
        if layout.malformed or any(v.shape not in ((0,), (len(names),)) for v in values.values()):
            self.counts.malformed += 1
        elif layout.incomplete:
            self.counts.incomplete += 1
        elif layout.order is not None:
            for name, all_values in values.items():
                if len(all_values):
                    self._add(name, self.joints, all_values[layout.order], stamp, arrival, name == "joint_position")

    def _layout_of(self, names: tuple[str, ...]) -> _Layout:
        place = {name: index for index, name in enumerate(names)}
        found = [place[name] for name in self.joints if name in place]
        if len(place) < len(names):
            return _Layout(names, None, malformed=True)
        if len(found) < len(self.joints):
            return _Layout(names, None, incomplete=bool(found))
        return _Layout(names, np.array(found) if found else None)

    def policy_command(self, joint_names: Sequence[str], raw_action: npt.ArrayLike, command: npt.ArrayLike,
                       command_interface: str, sequence: int, period: float, fault: str, stamp: int,
                       arrival: float) -> None:
        """Take one policy command, with the fields of qgf_msgs/PolicyCommand.

        :param joint_names: (n,).
        :param raw_action: (n_act,) in [-1, 1], empty where there was no inference.
        :param command: (n,) [SI].
        :param sequence: since activation.
        :param period: nominal [s].
        :param stamp: [ns], 0 if the message has none.
        :param arrival: on a steady clock [s].
        """
        names = tuple(joint_names)
        action, sent = np.asarray(raw_action, dtype=float), np.asarray(command, dtype=float)
        if not 0 < len(names) <= MOST_JOINTS or len(set(names)) != len(names) or sent.shape != (len(names),) \
                or len(action) > MOST_JOINTS:
            self.counts.malformed += 1
            return
        self.fault = fault
        if math.isfinite(period) and period > 0.0:
            self.control_period = period
        if not self._joints_are_given and names != self.joints:
            self.joints = names
            self._layout = _Layout((), None)
        dropped = 0
        if self._sequence is not None and sequence > self._sequence:  # a smaller one: the policy was activated again
            dropped = sequence - self._sequence - 1
        self._sequence = sequence
        is_position = command_interface in ("position", "joint_trajectory")
        self._add("command", names, sent, stamp, arrival, is_position, self.control_period, dropped)
        if len(action):
            driven = names if len(names) == len(action) else tuple(f"action_{i}" for i in range(len(action)))
            self._add("raw_action", driven, action, stamp, arrival, False, self.control_period, dropped)

    def _add(self, name: str, joint_names: tuple[str, ...], values: npt.NDArray[np.float64], stamp: int, arrival: float,
             is_position: bool = False, period: float | None = None, dropped: int = 0) -> None:
        if stamp == 0:
            self.counts.unstamped += 1
            stamp = round(arrival * 1e9)
        source = self.sources.get(name)
        if source is None or source.joint_names != joint_names or source.is_position != is_position:
            window = SlidingWindow(self.config.window, len(joint_names), self.config.capacity)
            source = Source(name, joint_names, window, stamp, arrival, is_position,
                            dropped=source.dropped if source else 0)
            self.sources[name] = source
        source.period = period
        source.dropped += dropped
        try:
            if source.window.add((stamp - source.origin) * 1e-9, values):
                source.arrival = arrival
        except MetricError:
            self.counts.non_finite += 1

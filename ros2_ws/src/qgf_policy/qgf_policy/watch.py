# SPDX-License-Identifier: Apache-2.0
"""What the joint states of an arm that is not commanded yet say about it: rate, and signs of its velocities.

Both are known only from several states: a driver that stutters looks well between two silences, and a swapped sign
shows when the arm is moved by somebody else. So the runner watches while nothing is commanded.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qgf_core.errors import StateError
from qgf_core.robot import RobotSpec
from qgf_policy.joint_state import JointState

Vector = NDArray[np.float64]

MOVING = 0.01
"""A joint whose positions vary by this much [rad, standard deviation] while watched shows the sign of its velocity: a
way of 0.035 rad at constant speed, and more than any encoder's noise."""
JUMP = 0.02
"""A position that changed by this much more [rad] than the joint can move at twice its velocity limit did not move
there: a simulation was reset, or a driver was started anew."""
MEMORY = 3_000_000_000
"""Samples older than this are forgotten [ns]."""
SPACING = 5_000_000
"""Samples for the signs are at least this far apart [ns]."""


def velocity_ratio(time: ArrayLike, position: ArrayLike, velocity: ArrayLike) -> float | None:
    """Integral of a joint's velocity over the change of its position: 1 where one is the other's derivative; None where
    it varied by less than MOVING. Noise averages out; a swapped joint, sign or unit does not.

    :param time: (k,) [s]. :param position: (k,) [rad]. :param velocity: (k,) [rad/s].
    """
    t, q, dq = (np.asarray(column, dtype=np.float64) for column in (time, position, velocity))
    if len(t) < 3 or np.std(q) < MOVING:
        return None
    way = np.concatenate([[0.0], np.cumsum(0.5 * (dq[1:] + dq[:-1]) * np.diff(t))])
    centred = q - q.mean()
    return float(np.dot(way - way.mean(), centred) / np.dot(centred, centred))


def fits(ratio: float) -> bool:
    """Whether a `velocity_ratio` is that of a right sign and unit, filtered or late as it may be."""
    return 0.5 < ratio < 2.0


class StateWatch:
    """Remembers the last seconds of joint states.

    :param robot: its joints' names and velocity limits.
    :param state_limit: silence that counts as stale [ns].
    :param needed: time to watch before anything can be said [s].
    """

    def __init__(self, robot: RobotSpec, state_limit: int, needed: float) -> None:
        self._names, self._speeds = robot.joint_names, robot.velocity_limit
        self._limit, self._needed = state_limit, round(1e9 * needed)
        self._silences: deque[tuple[int, int]] = deque(maxlen=4096)
        self._samples: deque[tuple[int, Vector, Vector]] = deque(maxlen=1 + MEMORY // SPACING)
        self.restart()

    def restart(self) -> None:
        """Forget everything: the arm was commanded, or time has begun anew."""
        self._since = self._newest = self._changed = 0
        self._position: Vector | None = None
        self._silences.clear()
        self._samples.clear()

    def add(self, state: JointState, now: int) -> None:
        """One look at the newest state at `now` [ns]."""
        if now < self._changed:  # simulated time went back
            self.restart()
        newest = int(state.sampled.min())
        if state.missing or newest == self._newest:
            return
        if self._position is not None:
            way = 2e-9 * (now - self._changed) * self._speeds + JUMP
            if (np.abs(state.position - self._position) > way).any():
                self.restart()  # what was seen before is of another place
        self._position = state.position
        if not self._since:
            self._since = now
        elif now - self._changed > self._limit:
            self._silences.append((now, now - self._changed))
        self._newest, self._changed = newest, now
        if not self._samples or now - self._samples[-1][0] >= SPACING:
            self._samples.append((now, state.position, state.velocity))

    def judge(self, now: int) -> StateError | None:
        """What forbids an activation at `now` [ns], or None."""
        if self._needed and (not self._since or now - self._since < self._needed):
            text = f"the joint states were watched for less than {1e-9 * self._needed:g} s yet"
            return StateError("state_rate", text)
        while self._silences and now - self._silences[0][0] > MEMORY:
            self._silences.popleft()
        if self._silences:
            longest = max(silence for _, silence in self._silences)
            return StateError(
                "state_rate",
                f"within the last {1e-9 * MEMORY:g} s the joint states were silent for up to {1e-6 * longest:.1f} ms, "
                f"allowed are {1e-6 * self._limit:.1f} ms; raise the driver's rate or stale_periods",
            )
        return self._judge_signs(now)

    def _judge_signs(self, now: int) -> StateError | None:
        while self._samples and now - self._samples[0][0] > MEMORY:
            self._samples.popleft()
        if len(self._samples) < 3:
            return None
        time = 1e-9 * np.array([sample[0] - self._samples[0][0] for sample in self._samples])
        position = np.array([sample[1] for sample in self._samples])
        velocity = np.array([sample[2] for sample in self._samples])
        for i, name in enumerate(self._names):
            ratio = velocity_ratio(time, position[:, i], velocity[:, i])
            if ratio is not None and not fits(ratio):
                return StateError(
                    "velocity_sign",
                    f"joint '{name}' moved, and its velocity is not that of its position (ratio {ratio:+.2f}, not 1); "
                    "correct the driver, or the robot YAML's signs and joints",
                )
        return None

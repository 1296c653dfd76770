# SPDX-License-Identifier: Apache-2.0
"""What a governor may ask of a policy that chatters: its command smoothed with a bounded lag, or a hold.

Stands between the policy and the limiter, so that the limits hold for whatever comes out of it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import ConfigError, StateError
from qgf_policy.blend import minimum_jerk

Vector = NDArray[np.float64]

COMMAND_MODES = ("policy", "smooth", "hold")
"""What the arm gets: the policy's command, that command smoothed, or nothing but a hold."""
BLEND_TIME = 0.5
"""Time over which smoothing is blended in and out [s]."""
MEASURE_WINDOW = 1.0
"""The lag is measured over this long [s]."""
MEASURE_RATE = 100.0
"""Samples that it is measured with, at most [Hz]."""


class Governed(NamedTuple):
    """What the filter does, for the status."""

    command_mode: str = "policy"
    share: float = 0.0
    """Of the smoothed command in what is passed on, 0..1."""
    lag: float = 0.0
    """By `measured_lag`, once all is smoothed [s]; NaN while it cannot be told; 0 while nothing is smoothed."""


class CommandFilter:
    """A Hann-weighted mean over the last 2 lag + 1 samples, blended in and out by a minimum-jerk share.

    The weights are positive, sum to 1 and are symmetric. So the output never leaves the range of the latest inputs, and
    every frequency is delayed by exactly `lag`, neither more nor less (Oppenheim and Schafer, Discrete-Time Signal
    Processing, 3rd ed., 5.7: linear phase); blending lies between that and no delay.

    :param joints: number of them. :param rate: of `step` [Hz].
    :param lag: of the smoothed command [s]; 0: there is no governor, everything is passed on.
    :raises ConfigError: a lag shorter than one period.
    """

    def __init__(self, joints: int, rate: float, lag: float) -> None:
        self.mode = COMMAND_MODES[0]
        """One of COMMAND_MODES; another thread may set it."""
        half = round(lag * rate)
        if lag > 0.0 and half < 1:
            problem = f"{lag:g} s is shorter than a command period, {1.0 / rate:g} s"
            raise ConfigError("policy_node", "governor_lag", problem, "give at least that, or 0 for none")
        self.enabled, self.lag = half > 0, half / rate
        weights = np.sin(np.pi * np.arange(1, 2 * half + 2) / (2 * half + 2)) ** 2
        self._weights = weights / weights.sum()
        self._history = np.zeros((2 * half + 1, joints))
        self._blended, self._blend_step = 0.0, 1.0 / (BLEND_TIME * rate)
        # The lag is measured on every n-th sample, for a few microseconds of each period at most.
        self._every = max(1, math.ceil(rate / MEASURE_RATE))
        self._period = self._every / rate
        self._longest = math.ceil(2.0 * self.lag / self._period) + 1
        kept = round(MEASURE_WINDOW / self._period) + self._longest
        self._into: deque[Vector] = deque(maxlen=kept)
        self._out: deque[Vector] = deque(maxlen=kept)
        self._steps, self._lag = 0, math.nan

    def restart(self) -> None:
        """The command begins anew, from rest."""
        self._history[:] = 0.0
        self._forget()

    def judge(self) -> StateError | None:
        """Why the arm is to be held, or None."""
        if self.enabled and self.mode == "hold":
            return StateError("governed", "held by the governor; command_mode policy or smooth ends it")
        return None

    def step(self, wanted: Vector) -> Vector:
        """What is passed on (n,) for the joint velocities wanted (n,) [rad/s] in this period."""
        if not self.enabled:
            return wanted
        self._history[:-1] = self._history[1:]
        self._history[-1] = wanted
        toward = 1.0 if self.mode == "smooth" else 0.0
        self._blended += float(np.clip(toward - self._blended, -self._blend_step, self._blend_step))
        share = self.share
        passed = wanted if share == 0.0 else wanted + share * (self._weights @ self._history - wanted)
        self._measure(wanted, passed, share)
        return passed

    def _measure(self, wanted: Vector, passed: Vector, share: float) -> None:
        """Keep what goes in and out while all of it is smoothed, and compare the two twice a second."""
        if share < 1.0:
            self._forget()
            return
        if self._steps % self._every == 0:
            self._into.append(wanted)
            self._out.append(passed)
        self._steps += 1
        if self._steps % (self._every * 50) == 0 and len(self._out) == self._out.maxlen:
            self._lag = measured_lag(np.array(self._into), np.array(self._out), self._period, self._longest)

    def _forget(self) -> None:
        if self._steps:
            self._into.clear()
            self._out.clear()
            self._steps, self._lag = 0, math.nan

    @property
    def share(self) -> float:
        """Of the smoothed command in what is passed on, 0..1."""
        return minimum_jerk(self._blended, 1.0)

    @property
    def state(self) -> Governed:
        """For the status."""
        share = self.share
        return Governed(self.mode, share, self._lag if share > 0.0 else 0.0)

    @property
    def reason(self) -> str:
        """Why the command is not purely the policy's; empty while it is."""
        return f"smoothed by the governor, {1e3 * self.lag:.0f} ms behind" if self._blended > 0.0 else ""


def measured_lag(into: Vector, out: Vector, period: float, longest: int) -> float:
    """By how much `out` follows `into`, both (T, n), [s]: the shift with the least squared difference, refined between
    samples by the parabola through it and its neighbours. NaN where no shift stands out: at rest, or where `into` only
    chatters and `out` does not move.

    :param period: of the samples [s]. :param longest: shift that is tried [samples], below T.
    """
    into, out = (0.25 * x[:-2] + 0.5 * x[1:-1] + 0.25 * x[2:] for x in (into, out))  # chatter tells no shift
    late = out[longest:]
    errors = np.array([np.sum((late - into[longest - k:len(into) - k]) ** 2) for k in range(longest + 1)])
    best = int(errors.argmin())
    if not errors[best] < 0.95 * errors.max():
        return math.nan
    if 0 < best < longest:
        before, at, after = errors[best - 1:best + 2]
        bend = before - 2.0 * at + after
        if bend > 0.0:
            return float((best + 0.5 * (before - after) / bend) * period)
    return best * period

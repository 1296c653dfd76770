# SPDX-License-Identifier: Apache-2.0
"""What to do about roughness that lasts: smooth the command, then hold, then stop; each step is taken back again.

Judged is what the arm gets (the limited command, and its own velocity). Smoothing hides the policy's chatter from the
command, so it is taken back only once the policy's raw action is calm too. While the arm is held nothing is inferred,
so a hold ends by trying anew, smoothed, a few times. Pure: levels and a time go in, the wanted step comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from qgf_core.config import config_root, from_mapping, load_yaml

COMMANDED = ("RAMPING", "ACTIVE", "HOLDING")
"""Modes of the policy in which the governor acts."""


class Step(IntEnum):
    """How far it has gone; all but the last are values of the policy node's parameter command_mode, in lower case."""

    POLICY = 0
    SMOOTH = 1
    HOLD = 2
    ESTOP = 3


@dataclass(frozen=True)
class GovernorConfig:
    """Settings. Levels as in qgf_msgs/SmoothnessReport, times in [s]."""

    engage_level: int
    """Joints at this level or above are rough: 1 WARN, 2 ERROR."""
    smooth_after: float
    """The command must have been rough for this long to be smoothed."""
    release_after: float
    """Raw action and command must have been calm for this long, for the smoothing to be taken back."""
    hold_after: float
    """The smoothed command must still have been rough for this long for the arm to be held."""
    hold_time: float
    """A hold lasts this long; then the smoothed command is tried again."""
    estop_after: float
    """A held arm whose velocity has been rough for this long is stopped."""
    most_holds: int
    """Holds without a release in between; one more is an emergency stop."""
    reports_stale_after: float
    """A report older than this tells nothing."""

    def __post_init__(self) -> None:
        if self.engage_level not in (1, 2):
            raise ValueError(f"engage_level: {self.engage_level} must be 1 (WARN) or 2 (ERROR)")
        for name in ("smooth_after", "release_after", "hold_after", "hold_time", "estop_after", "reports_stale_after"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")
        if self.most_holds < 0:
            raise ValueError(f"most_holds: {self.most_holds} must be at least 0")


def load_governor_config(path: str | Path | None = None) -> GovernorConfig:
    """The settings in a YAML file, config/governor.yaml by default. :raises ConfigError: a bad key or value."""
    source = config_root() / "governor.yaml" if path is None else Path(path)
    return from_mapping(GovernorConfig, load_yaml(source), source)


@dataclass(frozen=True)
class Change:
    """A step taken, and why."""

    step: Step
    reason: str


class Governor:
    """Decides about steps. :param config: settings."""

    def __init__(self, config: GovernorConfig) -> None:
        self.config, self.step, self.holds = config, Step.POLICY, 0
        self._since: dict[str, float] = {}
        self._begun = 0.0

    def _lasts(self, what: str, condition: bool, now: float) -> float:
        """For how long a condition has held without a break [s]; -1 while it does not."""
        if not condition:
            self._since.pop(what, None)
            return -1.0
        return now - self._since.setdefault(what, now)

    def _go(self, step: Step, now: float, reason: str) -> Change:
        self.step, self._begun = step, now
        self._since.clear()
        return Change(step, reason)

    def update(self, mode: str, levels: Mapping[str, int], now: float) -> Change | None:
        """The next step, if there is reason for one.

        :param mode: of the policy, by its name in qgf_msgs/PolicyStatus; "" while its status is stale.
        :param levels: worst level of any joint by source; sources with stale reports are left out.
        :param now: on a steady clock [s].
        """
        config = self.config
        if mode and mode not in COMMANDED and not (self.step == Step.ESTOP and mode == "ESTOPPED"):
            if self.step == Step.POLICY:
                self._since.clear()
                return None
            if self.step == Step.ESTOP and now - self._begun < 1.0:
                return None  # the stop is still on its way
            self.holds = 0
            return self._go(Step.POLICY, now, f"the policy is {mode}: begun anew")

        def rough(source: str) -> bool:
            return levels.get(source, 0) >= config.engage_level

        command = self._lasts("command rough", rough("command"), now)
        if self.step == Step.POLICY:
            if command >= config.smooth_after:
                return self._go(Step.SMOOTH, now, f"the command has been rough for {command:.1f} s")
        elif self.step == Step.SMOOTH:
            known = {"command", "raw_action"} <= levels.keys()
            calm = self._lasts("calm", known and not rough("command") and not rough("raw_action"), now)
            if command >= config.hold_after:
                self.holds += 1
                text = f"the smoothed command has been rough for {command:.1f} s"
                if self.holds > config.most_holds:
                    return self._go(Step.ESTOP, now, f"{text}, after {config.most_holds} holds")
                return self._go(Step.HOLD, now, text)
            if calm >= config.release_after:
                self.holds = 0
                return self._go(Step.POLICY, now, f"raw action and command have been calm for {calm:.1f} s")
        elif self.step == Step.HOLD:
            shaking = self._lasts("shaking", rough("joint_velocity"), now)
            if shaking >= config.estop_after:
                return self._go(Step.ESTOP, now, f"the held arm has been shaking for {shaking:.1f} s")
            if shaking < 0.0 and now - self._begun >= config.hold_time:
                return self._go(Step.SMOOTH, now, f"held for {now - self._begun:.1f} s, the arm is calm: tried again")
        return None

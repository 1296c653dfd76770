# SPDX-License-Identifier: Apache-2.0
"""`smoothness: auto`, the decisions: the dial is raised in steps while the return holds, and backs off where it does
not.

Every so often the policy is tried, without noise, from the same few starts. The best mean return of all tries so far is
the reference R, and a return holds if it is at least R - budget / 2 |R|: the other half is for what a plain policy
would have gone on to learn, and for starts that were not tried. A level found by that stays while it is within the
whole budget. A level fails by two tries in a row that neither hold nor gain on what it reached before. How rough a
policy is (mean |delta a|) is no matter here, as any learner grows rougher while it still learns; it decides at the end,
among the learners whose return holds. Phases:
    learn    the dial rests at `start`, which is nearly plain, until the return has stopped rising (two tries without a
             gain of a quarter of the budget, after `earliest` of the run: before, it may not have begun to) or `latest`
             of the run is over
    climb    the dial is multiplied by `factor` while tries hold, until a level fails, or the largest dial or
             `look_back` of the run is reached
    probe    back at `start` for two tries, three if the return rises: what would a plain policy have reached by now?
             Without this, a dial that slows learning would hold by its own low standard
    again    if what the highest level reached before the probe holds no longer, the task may just have gone on being
             learned: the level is tried once more, from the probe's learner
    narrow   where none has failed, as the climb ran out of time, the dial goes on rising; then the space between the
             level that holds (whose learner is returned to if it does) and the failure is halved, in logarithms, until
             they are close
    stay     training goes on at the last level that held; where it fails after all, at a level a `factor` lower
A task whose return still rises towards the end of the run is judged by too low a standard: give it more steps.
No torch and no environment here: a try goes in, a decision comes out.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple


@dataclasses.dataclass(frozen=True)
class AutoConfig:
    """How `field.smoothness: auto` seeks the smoothest setting that the task bears."""

    budget: float = 0.05
    """Share of a plain policy's return that smoothness may cost."""
    start: float = 0.1
    """The dial until the return has stopped rising."""
    largest: float = 10.0
    """The dial is not raised beyond."""
    factor: float = 2.5
    """By which the dial is raised."""
    earliest: float = 0.25
    """Share of the run before which the dial is not raised."""
    latest: float = 0.4
    """Share of the run after which it is raised even if the return still rises."""
    look_back: float = 0.6
    """Share of the run by which the climb ends, so that time is left to judge and mend what it reached."""
    evaluations: int = 24
    """Tries over the run."""
    episodes: int = 16
    """Episodes of a try, from the same starts each time; other starts than those of training and evaluation."""
    verification: int = 60
    """Episodes from further starts, at the end, on which the choice among the best tries is checked; again as many, up
    to four times, while the error of what they tell exceeds a fifth of the budget."""

    def __post_init__(self) -> None:
        if not (0.0 < self.budget < 1.0 and 0.0 <= self.earliest <= self.latest <= self.look_back < 1.0):
            raise ValueError(
                f"budget {self.budget} must lie between 0 and 1, earliest {self.earliest}, latest {self.latest} and "
                f"look_back {self.look_back} in [0, 1) in this order"
            )
        if not (0.0 < self.start <= self.largest and self.factor > 1.0):
            raise ValueError(
                f"start {self.start} must be positive and at most largest {self.largest}, factor {self.factor} above 1"
            )
        if min(self.evaluations, self.episodes, self.verification) < 1:
            raise ValueError("evaluations, episodes and verification must be at least 1")

    @property
    def allowed(self) -> float:
        """Share of the reference that a try may fall short of it."""
        return 0.5 * self.budget


class Try(NamedTuple):
    """What a policy did from the fixed starts."""

    mean_return: float
    roughness: float
    """mean |delta a|"""
    returns: tuple[float, ...] = ()
    """Of each start; their mean is `mean_return`."""


class Decision(NamedTuple):
    """What follows from a try."""

    dial: float
    held: bool
    """The return was within the budget."""
    go_back: bool
    """Training goes on from the last try that held."""


Phase = Literal["learn", "climb", "probe", "again", "narrow", "stay"]

_CLOSE = 1.4  # levels that lie closer than this factor are alike
_PATIENCE = 2  # tries
_LONGEST_PROBE = 3  # tries
_NO_HIGHER = 0.85  # of the run, from which on no level is tried that is higher than all that held


def within(mean_return: float, reference: float, budget: float) -> bool:
    """Whether a return is at least reference - budget |reference|."""
    return mean_return >= reference - budget * abs(reference)


def loss(found: Try, reference: Try) -> tuple[float, float]:
    """Return lost to a reference start by start, and the standard error of it, as shares of the reference's size.

    :raises ValueError: they have not as many starts.
    """
    lost = [best - mine for best, mine in zip(reference.returns, found.returns, strict=True)]
    mean = sum(lost) / len(lost)
    variance = sum((x - mean) ** 2 for x in lost) / max(len(lost) - 1, 1)
    size = max(abs(reference.mean_return), 1e-9)
    return mean / size, math.sqrt(variance / len(lost)) / size


class DialSearch:
    """The state of the search: plain numbers, so that a checkpoint can hold them."""

    def __init__(self, config: AutoConfig) -> None:
        self.config = config
        self.dial = config.start
        self.phase: Phase = "learn"
        self.reference = -math.inf
        self._waited = 0  # tries without a gain (learn), or in a row that did not do
        self._level_best = -math.inf  # return of the tries since the dial moved
        self._probed = 0  # tries of the probe
        self._held = config.start  # the highest level that held
        self._held_return = -math.inf  # its latest return that did
        self._failed = math.inf  # the lowest that did not

    def observe(self, found: Try, done: float) -> Decision:
        """Judge a try at the present dial. :param done: share of the run."""
        value, before, first = found.mean_return, self.dial, math.isinf(self.reference)
        gained, gained_here = self._gains(value, self.reference), self._gains(value, self._level_best)
        self.reference, self._level_best = max(self.reference, value), max(self._level_best, value)
        allowed = self.config.budget if self.phase == "stay" else self.config.allowed
        held = within(value, self.reference, allowed)
        go_back = False
        if self.phase == "learn":
            self._waited = 0 if gained or first else self._waited + 1
            rested = self._waited >= _PATIENCE and done >= self.config.earliest
            if held and (rested or done >= self.config.latest):
                self._held_return, self.phase = value, "climb"
                self.dial = min(self.dial * self.config.factor, self.config.largest)
        elif self.phase == "probe":
            go_back = self._end_probe(value, gained, done)
        elif held:
            self._held, self._held_return, self._waited = self.dial, value, 0
            if self.phase == "climb":
                self.dial = min(self.dial * self.config.factor, self.config.largest)
                if self._held >= self.config.largest or done >= self.config.look_back:
                    self._probe()
            elif self.phase != "stay":
                self._between(done)
        else:
            self._waited = 0 if gained_here else self._waited + 1
            too_slow = gained_here and self.phase == "climb" and done >= self.config.look_back
            if self._waited >= _PATIENCE or too_slow:
                self._waited, go_back, self._failed = 0, True, self.dial
                if self.phase == "climb":
                    self._probe()
                elif self.phase == "stay":
                    self._held = self.dial = max(self.dial / self.config.factor, self.config.start)
                else:
                    self._between(done)
        if self.dial != before:
            self._waited, self._level_best = 0, -math.inf
        return Decision(self.dial, held, go_back)

    def _gains(self, value: float, best: float) -> bool:
        """Whether a return is a gain worth waiting for; the first is none."""
        return math.isfinite(best) and value > best + 0.5 * self.config.allowed * abs(best)

    def _probe(self) -> None:
        self.phase, self.dial, self._probed = "probe", self.config.start, 0

    def _end_probe(self, value: float, gained: bool, done: float) -> bool:
        """Whether the probe has ended and the learner of the level that held is to be returned to."""
        self._probed += 1
        if self._probed < _PATIENCE or (gained and self._probed < _LONGEST_PROBE):
            return False
        holds = within(self._held_return, self.reference, self.config.allowed)
        if holds or self._held == self.config.start:
            self._between(done)
            return holds
        self.phase, self.dial = "again", self._held
        self._held, self._held_return = self.config.start, value
        return False

    def _between(self, done: float) -> None:
        """Half-way, in logarithms, between the level that held and the one that failed; a factor higher where none has
        failed and there is time; or stay."""
        unexplored = math.isinf(self._failed) and self._held < self.config.largest and done < _NO_HIGHER
        if unexplored:
            self.dial, self.phase = min(self._held * self.config.factor, self.config.largest), "narrow"
        elif math.isinf(self._failed) or self._failed / self._held < _CLOSE:
            self.dial, self.phase = self._held, "stay"
        else:
            self.dial, self.phase = math.sqrt(self._held * self._failed), "narrow"

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint; infinities as None, which JSON has no number for."""
        return {
            key: None if isinstance(value, float) and math.isinf(value) else value
            for key, value in vars(self).items()
            if key != "config"
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`. :raises KeyError: it does not fit."""
        infinite = {"reference": -math.inf, "_held_return": -math.inf, "_failed": math.inf, "_level_best": -math.inf}
        for key in self.state():
            setattr(self, key, infinite[key] if state[key] is None else state[key])

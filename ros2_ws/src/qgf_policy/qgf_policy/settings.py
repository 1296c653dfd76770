# SPDX-License-Identifier: Apache-2.0
"""Settings of the runner and of the loop that runs it."""

from __future__ import annotations

import dataclasses
import math

from qgf_core.robot import CommandInterface
from qgf_policy.supervision import Space


@dataclasses.dataclass(frozen=True)
class RunnerSettings:
    """How a policy is run. Rates in Hz, times in s."""

    command_interface: CommandInterface = "velocity"
    command_rate: float = 0.0
    """Rate of commands: an integer multiple of the control rate; 0 means the control rate."""
    stamped_commands: bool = False
    """Commands carry a stamp and the joints' names."""
    speed_scale: float = 1.0
    """Factor on the desired velocity, 0.1 .. 1."""
    ramp_duration: float = 0.5
    """Blending from rest to the policy after activation or a hold; 0 means none."""
    stale_periods: float = 3.0
    """A required joint's state older than this many control periods is stale."""
    state_timeout: float = 0.0
    """The same as a time, in place of stale_periods; 0 means stale_periods counts."""
    goal_timeout: float = 0.0
    """A goal older than this, or a reference ended so long ago, is stale; 0 means never."""
    tracking_limit: float = 0.3
    """Largest distance of a joint from where its commands should have brought it [rad]; 0 means any."""
    saturation_time: float = 3.0
    """An action that stays at full size for longer ends the activation; 0 means never."""
    home_limit: float = 0.0
    """An activation is refused where a joint is further from home than this [rad]; 0 means anywhere."""
    watch_time: float = 0.0
    """The joint states must have been watched for so long before an activation [s]."""
    governor_lag: float = 0.0
    """Lag of the command once a governor has it smoothed [s]; 0: no governor may."""
    space: Space = dataclasses.field(default_factory=Space)
    """Where the tool may be."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.speed_scale <= 1.0:
            raise ValueError(f"speed_scale {self.speed_scale} lies outside 0.1 .. 1")
        if not 0.0 <= self.ramp_duration <= 10.0:
            raise ValueError(f"ramp_duration {self.ramp_duration} s lies outside 0 .. 10")
        if not 0.0 <= self.governor_lag <= 1.0:
            raise ValueError(f"governor_lag {self.governor_lag} s lies outside 0 .. 1")
        if not 1.0 <= self.stale_periods <= 1000.0:
            raise ValueError(f"stale_periods {self.stale_periods} lies outside 1 .. 1000")
        if not (0.0 <= self.home_limit < math.inf and 0.0 <= self.watch_time <= 10.0):
            raise ValueError("home_limit must be finite and not negative, watch_time lie in 0 .. 10 s")
        if not (0.0 <= self.tracking_limit < math.inf and 0.0 <= self.saturation_time < math.inf):
            raise ValueError("tracking_limit and saturation_time must be finite and not negative")
        if not (
            0.0 <= self.state_timeout <= 10.0
            and 0.0 <= self.goal_timeout < math.inf
            and self.command_rate >= 0.0
        ):
            raise ValueError(
                "state_timeout (at most 10 s), goal_timeout and command_rate must be finite and not negative"
            )


CHOSEN, ANY = -1, -2
"""In place of a processor's number: one that the node chooses; none in particular."""


@dataclasses.dataclass(frozen=True)
class RealtimeSettings:
    """What the loop asks of the operating system; what is not permitted is told and done without."""

    priority: int = 0
    """SCHED_FIFO priority of the loop's thread, 1 .. 98; 0 leaves the scheduling as it is."""
    lock_memory: bool = False
    """Keep the process's memory from being paged out (mlockall)."""
    cpu: int = ANY
    """Processor that the loop's thread is kept on, or CHOSEN or ANY."""
    stay_awake: bool = False
    """Keep the loop's processor from sleeping while it runs with a priority; all, where it may run on any."""

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 98:
            raise ValueError(f"realtime_priority {self.priority} lies outside 0 .. 98")

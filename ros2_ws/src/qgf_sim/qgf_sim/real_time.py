# SPDX-License-Identifier: Apache-2.0
"""Physics in step with the wall clock: absolute deadlines, short delays made up for, long ones counted."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from qgf_core.clocks import Clock, Pacer
from qgf_sim.faults import StateMessage
from qgf_sim.robot_double import JointSample, RobotDouble

_CATCH_UP = 0.1
"""Longest delay that is made up for by extra physics steps [s]; beyond it, simulated time falls behind."""


@dataclasses.dataclass(frozen=True)
class Health:
    """How well the simulation kept up since the last report; counters are since the start."""

    real_time_factor: float
    """Simulated time by time that passed; 0 if the physics stands still."""
    late_steps: int
    """Physics steps that were made a period or more after their time."""
    dropped_steps: int
    """Physics steps that were never made."""
    accepted_commands: int
    malformed_commands: int
    commands_beyond_limits: int
    ignored_commands: int
    """Commands during a protective stop or with the controller inactive."""
    dropped_states: int
    """Joint states that were lost on purpose."""
    timed_out: bool
    """Whether the command timeout keeps the arm at rest now."""
    stopped: bool
    """Whether a protective stop is in force now."""
    inactive: bool
    """Whether the controller is inactive now."""
    newly_malformed: int
    newly_dropped: int

    @property
    def slow(self) -> bool:
        """Whether simulated time fell behind."""
        return self.real_time_factor < 1.0

    @property
    def problem(self) -> str:
        """What is wrong, in words; "" if nothing is."""
        parts = []
        if self.slow:
            parts.append(f"physics cannot keep up with real time (factor {self.real_time_factor:.2f})")
        if self.newly_malformed:
            parts.append(f"{self.newly_malformed} malformed commands refused")
        if self.stopped:
            parts.append("protective stop")
        if self.inactive:
            parts.append("controller not active")
        if self.timed_out:
            parts.append("no command within the timeout, arm at rest")
        return "; ".join(parts)


class RealTimeLoop:
    """Runs a RobotDouble in real time in the thread that calls `run`.

    As in the cycle of ros2_control (read, publish, write), a command acts from the first physics deadline after its
    arrival.

    :param on_state: called in that thread at every state period with the deadline at which the state holds
        [ns of `clock`], the simulated time [ns], and the measured and the true state; returns the stamp [ns] that the
        message carries, None for the deadline.
    :param on_message: called in that thread when the measured state, with the faults in force, arrives at its readers:
        at once, or where it is delayed, between two deadlines.
    """

    def __init__(self, double: RobotDouble, clock: Clock,
                 on_state: Callable[[int, int, JointSample, JointSample], int | None],
                 on_message: Callable[[StateMessage], None] = lambda _: None) -> None:
        self.double, self._clock, self._on_state, self._on_message = double, clock, on_state, on_message
        rate = double.settings.physics_rate
        self.period = round(1e9 / rate)
        self._every = round(rate / double.settings.state_rate)
        self._most_steps = max(1, round(_CATCH_UP * rate))
        self._pacer = Pacer(clock, self.period)
        self._ticks = self._steps = self.late_steps = self.dropped_steps = 0
        self._reset_done: threading.Event | None = None
        self._reported = (0, 0, 0)

    def run(self, stop: threading.Event) -> None:
        """Simulate until `stop` is set."""
        self._pacer = Pacer(self._clock, self.period)
        while not stop.is_set():
            self.cycle()

    def cycle(self) -> None:
        """Wait for the next deadline, report the state there, and simulate to the one after it."""
        while (arrival := self.double.faults.next_arrival) is not None and arrival < self._pacer.deadline + self.period:
            self._clock.sleep_until(arrival)
            self._deliver(arrival)
        before = self._pacer.skipped
        deadline = self._pacer.wait()
        missed = self._pacer.skipped - before
        made_up = min(missed, self._most_steps)
        for i in range(made_up):
            self.double.step(deadline - (made_up - i) * self.period)
        self.late_steps += made_up
        self.dropped_steps += missed - made_up
        self._steps += made_up
        request, self._reset_done = self._reset_done, None
        if request is not None:
            self.double.reset()
            request.set()
        tick = self._ticks + missed
        if self._ticks == 0 or tick // self._every > (self._ticks - 1) // self._every:
            measured, truth = self.double.read()
            stamp = self._on_state(deadline, self._steps * self.period, measured, truth)
            self.double.faults.push(deadline, deadline if stamp is None else stamp, *measured, *truth)
        self._deliver(deadline)
        self.double.step(deadline)
        self._ticks = tick + 1
        self._steps += 1

    def _deliver(self, now: int) -> None:
        for message in self.double.faults.due(now):
            self._on_message(message)

    def reset(self, timeout: float) -> bool:
        """From another thread: put the arm back to its start. :return: whether the loop did it within `timeout` [s]."""
        done = threading.Event()
        self._reset_done = done
        return done.wait(timeout)

    def health(self) -> Health:
        """From any one thread, at intervals: how it went since the last call."""
        old_steps, old_malformed, old_dropped = self._reported
        steps, malformed, dropped = self._reported = (self._steps, self.double.malformed, self.dropped_steps)
        made = steps - old_steps
        return Health(
            # By what is due and not by the clock: a short delay that is about to be made up for is no slowness.
            real_time_factor=made / (made + dropped - old_dropped) if made else 0.0,
            late_steps=self.late_steps, dropped_steps=dropped,
            accepted_commands=self.double.accepted, malformed_commands=malformed,
            commands_beyond_limits=self.double.beyond_limits, timed_out=self.double.timed_out,
            ignored_commands=self.double.ignored, dropped_states=self.double.faults.dropped,
            stopped=self.double.faults.settings.protective_stop,
            inactive=self.double.faults.settings.inactive_controller,
            newly_malformed=malformed - old_malformed, newly_dropped=dropped - old_dropped)

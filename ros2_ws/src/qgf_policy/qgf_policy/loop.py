# SPDX-License-Identifier: Apache-2.0
"""The control loop: a thread with absolute deadlines that takes messages, steps the runner and sends its command.

Nothing stands between it and the arm: no executor, no lock, no queue. Other threads hand it small jobs through `call`,
which it runs between two periods, so that the runner belongs to one thread alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeVar

from qgf_core.clocks import Clock, Pacer
from qgf_core.errors import ConfigError, StateError
from qgf_policy.joint_state import JointState
from qgf_policy.realtime import ask
from qgf_policy.runner import PolicyRunner, Vector
from qgf_policy.settings import RealtimeSettings
from qgf_policy.sim_time import ClockStepped, ClockStopped
from qgf_policy.status import Command, Event, RunnerStatus
from qgf_policy.timing import LoopTiming, TimingReport

T = TypeVar("T")

SEND_SHARE = 0.4
"""Of a period, for which a command waits at most."""
_SHORTEST_WAIT = 20_000
"""A command that is due sooner is sent at once [ns]: going to sleep and waking takes as long."""
_AFTER_TICK = 250_000
"""From a multiple of the period to its deadline in real time [ns]. The kernel's tick (each 1, 4 or 10 ms) and whatever
else sleeps to whole milliseconds keep a thread that wakes with them waiting."""

GOAL_PERIOD = 0.01
"""Goals are looked for no more often than this [s]."""
REPORT_PERIOD = 0.1
"""Status reports are made this often [s]."""
_TOLD_APART = 5_000_000
"""Where periods are shorter than this [ns], a report is made in one and told in the next: both at once would be in the
way of the deadline behind them."""
SWITCH_INTERVAL = 0.00005
"""Longest time another Python thread keeps the interpreter from the loop [s]; the default of 5 ms shows as spikes."""


class GoalMessage(NamedTuple):
    """A goal as it arrived."""

    position: tuple[float, float, float]
    """[m]"""
    frame: str
    stamp: int
    """[ns]"""
    unusable: str = ""
    """Why it cannot be used, whatever it is."""
    orientation: tuple[float, float, float, float] | None = None
    """Quaternion x y z w; None where nobody tells one"""


class Port(Protocol):
    """The loop's side of the middleware."""

    @property
    def out_of_order(self) -> int:
        """Joint states ignored because their stamp was not newer than what was known."""

    def take(self, now: int) -> JointState:
        """Everything that has arrived, merged; `now` [ns] is the loop's time."""

    def restart(self) -> None:
        """Forget all joint states: time has begun anew."""

    def take_goal(self) -> GoalMessage | None:
        """The newest goal that has arrived, if any."""

    def take_estop(self) -> bool:
        """Whether a request for an emergency stop has arrived."""

    def send(self, values: Vector) -> None:
        """Send a command to the arm."""

    def report(self, command: Command) -> None:
        """Tell what was computed and sent in a control period."""


class LoopReport(NamedTuple):
    """The loop's state, as other threads may see it."""

    status: RunnerStatus
    """With counters of its own, which no longer change."""
    timing: TimingReport
    events: tuple[Event, ...]
    """What has changed since the last report."""
    goal_refusal: str
    out_of_order: int
    """Joint states ignored because their stamp was not newer than what was known."""
    note: str = ""
    """What keeps the loop from running."""


class ControlLoop:
    """Runs a PolicyRunner at its command rate.

    :param runner: not to be touched from outside once the loop runs, except through `call`.
    :param port: where messages come from and go to.
    :param clock: steady, or virtual in tests.
    :param realtime: what to ask of the operating system.
    :param prepare: called once in the loop's thread before its first period: warm-up.
    :param publish: False computes and reports everything, but sends nothing to the arm.
    :param overrun_share: share of a second's periods that may be overrun or left out; 1 is not judged.
    :param send_delay: from a period's deadline to its command's leaving [s], so that commands come evenly however long
        each took to compute; one that took longer leaves at once. At most SEND_SHARE of a period, and 0 with simulated
        time.
    :param tell: called in the loop's thread with every report, after a period's work; must be quick. What other
        threads do about a report is best begun from there too: later they would hold the interpreter's lock when the
        next deadline comes.
    """

    def __init__(
        self,
        runner: PolicyRunner,
        port: Port,
        clock: Clock,
        realtime: RealtimeSettings | None = None,
        prepare: Callable[[], None] = lambda: None,
        publish: bool = True,
        overrun_share: float = 1.0,
        tell: Callable[[LoopReport], None] = lambda report: None,
        send_delay: float = 0.0,
    ) -> None:
        self.runner, self._port, self._clock = runner, port, clock
        self._realtime, self._prepare, self._publish = realtime or RealtimeSettings(), prepare, publish
        self._jobs: queue.SimpleQueue[tuple[Callable[[JointState, int], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._timing = LoopTiming(runner.command_period)
        self._overrun_share, self._tell = overrun_share, tell
        delay = 0.0 if clock.simulated else min(1e9 * send_delay, SEND_SHARE * runner.command_period)
        self._send_delay = round(delay)
        self._report_every = max(1, round(REPORT_PERIOD * 1e9 / runner.command_period))
        self._goal_every = max(1, round(GOAL_PERIOD * 1e9 / runner.command_period))
        self._until_report = self._until_goal = 0
        self._apart = runner.command_period < _TOLD_APART
        self._untold: LoopReport | None = None
        self._stop = False
        self._estop_reason = self._note = ""
        self._reports: queue.SimpleQueue[LoopReport] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="control_loop", daemon=True)
        self._ready: Future[None] = Future()
        self.notes: list[str] = []
        """What the operating system did not permit."""

    # ---------------------------------------------------------------------------------------- from other threads

    def start(self, timeout: float = 30.0) -> None:
        """Begin, and wait until the loop is prepared. Whatever `prepare` raises is raised here."""
        self._thread.start()
        self._ready.result(timeout)

    @property
    def thread_id(self) -> int:
        """Native id of the loop's thread, once started."""
        return self._thread.native_id or 0

    @property
    def alive(self) -> bool:
        """Whether the loop's thread runs."""
        return self._thread.is_alive()

    def call(self, job: Callable[[JointState, int], T]) -> Future[T]:
        """Have `job(state, now)` run in the loop's thread at its next period."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def request_estop(self, reason: str) -> None:
        """Latch an emergency stop at the next period; does not wait and cannot fail."""
        self._estop_reason = reason

    def reports(self) -> list[LoopReport]:
        """Reports made since the last call, oldest first."""
        reports = []
        while not self._reports.empty():
            reports.append(self._reports.get())
        return reports

    def stop(self, timeout: float) -> bool:
        """Bring the arm to rest, then end the thread. Returns whether all that happened within `timeout` [s]."""
        if not self._thread.is_alive():
            return True
        self.call(lambda state, now: self.runner.deactivate())
        deadline = self._clock.now() + round(timeout * 1e9)
        while self.runner.commanding and self._thread.is_alive() and self._clock.now() < deadline:
            self._thread.join(0.005)
        at_rest = not self.runner.commanding
        self._stop = True
        self._thread.join(max(0.1, 1e-9 * (deadline - self._clock.now())))
        return at_rest and not self._thread.is_alive()

    # ------------------------------------------------------------------------------------------ in the loop's thread

    def activate(self, state: JointState, now: int) -> None:
        """A job for `call`: activate the runner and begin to count anew. :raises StateError: refused."""
        self.runner.activate(state, now)
        self._timing.reset()

    def _run(self) -> None:
        try:
            self._set_up()
        except BaseException as error:
            self._ready.set_exception(error)
            if isinstance(error, Exception):
                return  # told by start()
            raise
        self._ready.set_result(None)
        pacer = self._new_pacer()
        finished = False
        try:
            while not self._stop:
                pacer = self._next(pacer)
            finished = True
        finally:
            if not finished:
                self._last_resort(pacer)
            gc.unfreeze()
            gc.enable()

    def _next(self, pacer: Pacer) -> Pacer:
        """Wait for the next period and run it; returns the pacer of the one after it."""
        skipped = pacer.skipped
        try:
            deadline = pacer.wait()
            self._note = ""
            self.cycle(deadline, pacer.skipped - skipped)
        except ClockStopped:
            self._note = "/clock stands still: the simulation is paused, slow to start, or gone"
            self._stand_by(pacer.deadline)
        except ClockStepped as step:
            self._port.restart()
            self._timing.reset()
            self.runner.abort(StateError("clock_step", f"simulated time went back {step}"))
            return self._new_pacer()
        return pacer

    def _new_pacer(self) -> Pacer:
        """Deadlines at multiples of the period: those of simulated time do not depend on when the loop began. Those of
        real time lie a little after them, as the kernel's own work begins at whole milliseconds."""
        pacer = Pacer(self._clock, self.runner.command_period)
        pacer.deadline -= pacer.deadline % pacer.period
        if not self._clock.simulated:
            pacer.deadline += _AFTER_TICK
        return pacer

    def _stand_by(self, now: int) -> None:
        """While simulated time stands still: nothing is commanded, and others are still answered."""
        state = self._port.take(now)
        if self._estop_reason or self._port.take_estop():
            self.runner.estop(self._estop_reason or "requested on ~/estop_request")
            self._estop_reason = ""
        while not self._jobs.empty():
            self._do(*self._jobs.get(), state, now)
        self._make_report()
        self._tell_report()

    def _set_up(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._prepare()
        gc.collect()
        gc.freeze()
        gc.disable()
        self.notes = ask(self._realtime, threading.get_native_id())

    def cycle(self, deadline: int, skipped: int = 0) -> None:
        """One command period; `skipped` were left out before it. A goal is in force from the period after the
        one in which it was found."""
        start = self._clock.now()
        runner, port = self.runner, self._port
        state = port.take(start)
        if self._estop_reason or port.take_estop():
            runner.estop(self._estop_reason or "requested on ~/estop_request")
            self._estop_reason = ""
        while not self._jobs.empty():
            self._do(*self._jobs.get(), state, start)
        taken = self._clock.now()
        command = runner.advance(state, start)
        stepped, waited = self._clock.now(), 0
        if command is not None:
            if self._publish:
                waited = self._hold_back(deadline + self._send_delay) if self._send_delay else 0
                port.send(command.values)
            if command.inference:
                port.report(command)
        ended = self._clock.now() - waited
        self._timing.begin(deadline, start, skipped)
        self._timing.end((start - deadline, taken - start, runner.infer_time, runner.limit_time, ended - stepped))
        # A goal takes longer to read than all the rest: the command does not wait for it.
        self._until_goal -= 1
        if self._until_goal <= 0:
            self._until_goal = self._goal_every
            goal = port.take_goal()
            if goal is not None:
                self._set_goal(goal, start)
        if command is not None:
            self._count(skipped, start)
        if self._untold is not None:
            self._tell_report()
        self._until_report -= 1
        if self._until_report <= 0:
            self._until_report = self._report_every
            self._make_report()
            if not self._apart:
                self._tell_report()

    def _hold_back(self, due: int) -> int:
        """Waits until a command is `due`, and returns for how long [ns]."""
        now = self._clock.now()
        if due - now < _SHORTEST_WAIT:
            return 0
        self._clock.sleep_until(due)
        return self._clock.now() - now

    def _count(self, skipped: int, start: int) -> None:
        counters = self.runner.counters
        counters.skipped_cycles += skipped
        overrun = self._clock.now() - start > self.runner.command_period
        counters.overruns += overrun
        share = self._timing.overrun_share(overrun, skipped)
        if share > self._overrun_share:
            text = f"{share:.0%} of the periods of the last second were overrun or left out"
            allowed = f"allowed are {self._overrun_share:.0%}: the machine is too busy"
            self.runner.abort(StateError("overruns", f"{text}, {allowed}"))

    def _set_goal(self, goal: GoalMessage, now: int) -> None:
        with contextlib.suppress(StateError):  # counted, and told by the runner's status
            self.runner.set_goal(goal.position, goal.frame, goal.stamp, now, goal.unusable, goal.orientation)

    @staticmethod
    def _do(job: Callable[[JointState, int], Any], future: Future[Any], state: JointState, now: int) -> None:
        try:
            future.set_result(job(state, now))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, (StateError, ConfigError)):  # those are answers, anything else is a bug
                raise

    def _make_report(self) -> None:
        runner = self.runner
        events = tuple(runner.events)
        runner.events.clear()
        status = runner.status()
        report = LoopReport(
            status._replace(counters=dataclasses.replace(status.counters)),
            self._timing.report(),
            events,
            runner.goal_refusal,
            self._port.out_of_order,
            self._note,
        )
        if self._reports.qsize() < 100:  # nobody reads: do not fill the memory
            self._reports.put(report)
        self._untold = report

    def _tell_report(self) -> None:
        report, self._untold = self._untold, None
        assert report is not None
        self._tell(report)

    def _last_resort(self, pacer: Pacer) -> None:
        """The loop is dying of an error nobody foresaw: stop the arm within its limits first."""
        if not self.runner.commanding or not self._publish:
            return
        for _ in range(10 * max(1, round(1e9 / self.runner.command_period))):
            pacer.wait()
            values, at_rest = self.runner.halt_step()
            self._port.send(values)
            if at_rest:
                break

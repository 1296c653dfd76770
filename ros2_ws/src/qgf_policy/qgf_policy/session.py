# SPDX-License-Identifier: Apache-2.0
"""One configured policy in a node: its port, its loop and its end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TypeVar

from rclpy.node import Node

from qgf_core.clocks import SteadyClock
from qgf_core.errors import ConfigError, StateError
from qgf_policy.goal_frames import BaseFrameOnly, TransformedGoals
from qgf_policy.joint_state import JointState
from qgf_policy.loop import ControlLoop, LoopReport
from qgf_policy.parameters import PolicyParameters
from qgf_policy.preflight import Preflight, warm_up
from qgf_policy.processor import Awake, Seat
from qgf_policy.realtime import Companions
from qgf_policy.references import ReferenceMessage
from qgf_policy.ros_port import ClockPort, EstopPort, ReferencePort, RosPort
from qgf_policy.settings import RealtimeSettings
from qgf_policy.sim_time import SimClock

T = TypeVar("T")


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None where it cannot be told."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


HALT_MARGIN = 1.0
"""Allowed beyond the robot's stop_time until a halt has come to rest and was repeated [s]."""
STATE_WAIT = 3.0
"""An activation right after configure waits this long for the arm's topics to be discovered and watched [s]."""
_PASSING = ("incomplete_state", "stale_state", "state_rate")
"""Refusals of an activation that a little more time may mend."""
ANSWER_TIME = 2.0
"""The loop answers requests within this time [s], or something is badly wrong."""


class Session:
    """From configure to cleanup: the loop runs, and commands while activated.

    :param node: owner of the topics.
    :param flight: what passed the checks.
    :param parameters: of the node.
    :param estop: requests of the topic.
    :param estopped: an emergency stop was latched before.
    :param simulated: the loop ticks by /clock.
    :param tell: called from the loop's thread with each report; must be quick.
    :raises QgfError: the warm-up fails.
    """

    def __init__(
        self,
        node: Node,
        flight: Preflight,
        parameters: PolicyParameters,
        estop: EstopPort,
        estopped: bool,
        simulated: bool,
        tell: Callable[[LoopReport], None],
    ) -> None:
        self.flight, self.runner = flight, flight.runner
        self._earlier: Preflight | None = None
        self._seen = _fingerprint(flight.path)
        if estopped:
            self.runner.estop("latched before configure")
            self.runner.counters.estops = 0  # counted when it was latched
        base = flight.robot.base_frame
        frames = TransformedGoals(node, base) if parameters.transform_goals else BaseFrameOnly(base)
        self._clock_port = ClockPort(node) if simulated else None
        clock = SteadyClock() if self._clock_port is None else SimClock(self._clock_port.newest, SteadyClock())
        from_stamp = parameters.state_age_from == "stamp"
        self._port = RosPort(node, flight.robot, self.runner, estop, frames, from_stamp, simulated)
        realtime = RealtimeSettings(
            parameters.realtime_priority, parameters.lock_memory, parameters.cpu, parameters.stay_awake
        )
        self.loop = ControlLoop(
            self.runner,
            self._port,
            clock,
            realtime,
            prepare=lambda: warm_up(flight.bundle),
            publish=not parameters.dry_run,
            overrun_share=parameters.overrun_share,
            send_delay=parameters.send_delay,
            tell=tell,
        )
        self._reference_port: ReferencePort | None = None
        try:
            if flight.bundle.manifest.aim == "reference":
                self._reference_port = ReferencePort(node, self._hear_reference)
            self.loop.start()
        except BaseException:
            self._take_down()
            raise
        self._companions = Companions(realtime, self.loop.thread_id)
        self._seat = Seat(realtime, self.loop.thread_id)
        self._awake = Awake(realtime, self.loop.thread_id)
        self.notes = self.loop.notes + [note for note in [self._awake.note] if note]
        """What the operating system did not permit."""
        rate, commands = flight.bundle.manifest.control_rate, 1e9 / self.runner.command_period
        self.summary = (
            f"loaded {flight.path} for {flight.robot.name}: {rate:g} Hz inference, {commands:g} Hz "
            f"{flight.settings.command_interface} commands"
        )
        if flight.bundle.network is None:
            self.summary += ", its network run by TorchScript, which takes several times as long"
        if parameters.dry_run:
            self.summary += ", dry run: nothing is sent to the arm"

    def _hear_reference(self, message: ReferenceMessage) -> None:
        # A refusal is counted, and told by the runner's status.
        self.loop.call(lambda state, now: self.runner.set_reference(message, state, now))

    def activate(self) -> None:
        """Begin to command; waits a little for joint states. :raises StateError: refused."""
        deadline = time.monotonic() + STATE_WAIT
        while True:
            refusal = self._judge_surroundings()
            if refusal is not None:
                raise refusal
            try:  # judged and begun in one period: what was found in an earlier one may be true no more
                self._ask(self.loop.activate)
                return
            except StateError as error:
                if error.kind not in _PASSING or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def judge_activation(self) -> StateError | None:
        """Why `activate` would be refused now, or None. :raises StateError: the loop does not answer."""
        return self._judge_surroundings() or self._ask(self.runner.judge_activation)

    def _judge_surroundings(self) -> StateError | None:
        rival = self._port.rival
        if rival:
            text = f"somebody else commands the arm too: {rival}; end it (a killed one fades within 20 s)"
            return StateError("second_commander", text)
        if self._seen is None:
            text = f"{self.flight.path} was changed on disk since it was loaded; clean up and configure again"
            return StateError("bundle_changed", text)
        return None

    def watch(self) -> None:
        """Look round for what the loop cannot see; to be called about ten times a second."""
        rival = self._port.rival
        if rival:
            fault = StateError("second_commander", f"somebody else commands the arm too: {rival}")
            self.loop.call(lambda state, now: self.runner.abort(fault))

    def watch_file(self) -> str:
        """Look for changes of the bundle's file; returns what is new and worth a line in the log."""
        if self._seen is None or _fingerprint(self.flight.path) == self._seen:
            return ""
        try:
            same = hashlib.sha256(self.flight.path.read_bytes()).hexdigest() == self.flight.bundle.sha256
        except OSError:
            same = False
        self._seen = _fingerprint(self.flight.path) if same else None
        if same:
            return ""
        self.loop.call(lambda state, now: self.runner.counters.count_fault("bundle_changed"))
        return f"{self.flight.path} was changed on disk; the policy loaded before runs on, a new activation is refused"

    def swap(self, flight: Preflight) -> None:
        """Put another policy in the place of the running one between two periods. :raises ConfigError: it does not fit.
        :raises StateError: the loop does not answer."""
        if flight.robot != self.flight.robot or flight.settings != self.flight.settings:
            problem = "its robot or settings are not those of the running policy"
            raise ConfigError("policy_node", "load_policy", problem, "deactivate first, then load it")
        self._ask(lambda state, now: self.runner.replace(flight.bundle, now))
        self._earlier, self.flight = self.flight, flight
        self._seen = _fingerprint(flight.path)

    def roll_back(self) -> None:
        """Back to the policy before the last swap. :raises ConfigError: there was none."""
        if self._earlier is None:
            problem = "no policy was swapped out while it ran"
            raise ConfigError("policy_node", "rollback_policy", problem, "load one by ~/load_policy")
        self.swap(self._earlier)

    def reset_estop(self) -> None:
        """Unlatch. :raises StateError: refused."""
        self._ask(lambda state, now: self.runner.reset_estop())

    def halt(self, meanwhile: Callable[[], None]) -> bool:
        """Bring the arm to rest, calling `meanwhile` every 10 ms. Returns whether it is at rest. :raises StateError:
        the loop does not answer."""
        if not self.loop.alive:
            return False
        self._ask(lambda state, now: self.runner.deactivate())
        deadline = time.monotonic() + self.flight.robot.stop_time + HALT_MARGIN
        while self.runner.commanding and self.loop.alive and time.monotonic() < deadline:
            time.sleep(0.01)
            meanwhile()
        return not self.runner.commanding

    def _ask(self, job: Callable[[JointState, int], T]) -> T:
        """The loop's answer. :raises StateError: refused, or none in time."""
        try:
            return self.loop.call(job).result(ANSWER_TIME)
        except FutureTimeout as error:
            raise StateError("busy", "the control loop does not answer") from error

    def end(self) -> list[LoopReport]:
        """Halt and take everything down. Returns the last reports."""
        self.loop.stop(self.flight.robot.stop_time + HALT_MARGIN)
        reports = self.loop.reports()
        self._companions.end()
        self._awake.end()
        self._seat.end()
        self._take_down()
        return reports

    def _take_down(self) -> None:
        self._port.destroy()
        for port in (self._clock_port, self._reference_port):
            if port is not None:
                port.destroy()

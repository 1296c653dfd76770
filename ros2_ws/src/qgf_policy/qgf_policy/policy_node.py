# SPDX-License-Identifier: Apache-2.0
"""policy_node: the lifecycle node that runs a policy bundle on an arm. Wiring only; the rules stand in runner.py.

configure loads, checks and warms up the bundle; activate demands a fresh, complete state and begins to command;
deactivate brings the arm to rest within its limits and returns when it is: the velocity interface then repeats 0 for
0.1 s and falls silent, a position interface leaves its last command standing. An emergency stop latches until
~/reset_estop, which also deactivates the node, and a new activate.
"""

from __future__ import annotations

import dataclasses
import gc
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from qgf_core.early import ends_within
from qgf_core.errors import ConfigError, QgfError, StateError
from qgf_msgs.msg import PolicyStatus
from qgf_msgs.srv import LoadPolicy
from qgf_policy.conversions import NodeState, diagnostics, policy_status
from qgf_policy.loop import LoopReport
from qgf_policy.node_parameters import NodeParameters
from qgf_policy.parameters import PolicyParameters
from qgf_policy.preflight import Preflight, inside, prepare, warm_up
from qgf_policy.ros_port import OVERRIDABLE, EstopPort, overrides_checked
from qgf_policy.session import Session
from qgf_policy.status import Event, Mode

TICK = 0.1
"""The node looks after itself this often [s], while nothing moves."""
TICK_EVERY = 3
"""While the arm is commanded, only this many of the loop's reports bring the node to look after itself."""
NOT_MOVING = (Mode.UNCONFIGURED, Mode.INACTIVE, Mode.ESTOPPED)
WATCH = 1.0
"""A running loop that reports nothing is looked after this often [s]."""
DIAGNOSTICS_PERIOD = 1.0
"""Between two messages on /diagnostics [s]."""
AUTOSTART_NOTE = 5.0
"""Autostart says at most this often what it waits for [s]."""


class PolicyNode(LifecycleNode):
    """Runs a policy bundle at a fixed rate. :raises ConfigError: a parameter that will not do."""

    @overrides_checked()
    def __init__(self) -> None:
        super().__init__("policy_node")
        self.exit_code: int | None = None
        """Set where the node cannot go on; the process then ends with it."""
        self._session: Session | None = None
        self.report: LoopReport | None = None
        """The loop's newest report; None while none runs."""
        self._state = NodeState()
        self._settings = NodeParameters(self, self._label, self._on_parameters)
        self._autostart = self._settings.read().autostart
        self._autostart_noted = 0.0
        self._estop_port = EstopPort(self)
        self._status = self.create_publisher(PolicyStatus, "~/status", 10, qos_overriding_options=OVERRIDABLE)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10, qos_overriding_options=OVERRIDABLE
        )
        self.create_service(Trigger, "~/estop", self._on_estop)
        self.create_service(Trigger, "~/reset_estop", self._on_reset_estop)
        self.create_service(LoadPolicy, "~/load_policy", self._on_load_policy)
        self.create_service(Trigger, "~/rollback_policy", self._on_rollback_policy)
        # Not on the node's clock, which may step, or stand still for want of a /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(TICK, self._on_timer, clock=steady)
        self._wake = self.create_guard_condition(self._tick)
        self._reported, self._last_tick, self._last_diagnostics = 0, 0.0, 0.0

    @property
    def notes(self) -> list[str]:
        """What the operating system did not permit the loop."""
        return [] if self._session is None else self._session.notes

    # ------------------------------------------------------------------------------------ parameters, refusals

    def _on_parameters(self, parameters: PolicyParameters) -> None:
        if self._session is None:
            return
        runner = self._session.runner
        runner.speed_scale = parameters.speed_scale
        if parameters.command_mode != runner.filter.mode:
            runner.filter.mode = parameters.command_mode
            self.get_logger().warning(f"command_mode is now {parameters.command_mode}")

    def _refuse(self, what: str, error: Exception) -> TransitionCallbackReturn:
        self._state = dataclasses.replace(self._state, refusal=f"{what} refused: {error}")
        self.get_logger().error(self._state.refusal)
        return TransitionCallbackReturn.FAILURE

    def _accept(self) -> TransitionCallbackReturn:
        self._state = dataclasses.replace(self._state, refusal="")
        return TransitionCallbackReturn.SUCCESS

    # ---------------------------------------------------------------------------------------------- lifecycle

    def _label(self) -> str:
        return str(self._state_machine.current_state[1])

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check and warm up; nothing is commanded."""
        try:
            self._begin(prepare(self._settings.read()))
        except QgfError as error:
            return self._refuse("configure", error)
        except Exception:
            self.get_logger().error(traceback.format_exc())  # rclpy would swallow it without a word
            raise
        return self._accept()

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to command, from where the arm is."""
        assert self._session is not None
        try:
            self._session.activate()
        except StateError as error:
            return self._refuse("activate", error)
        return self._accept()

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the arm to rest; returns when it is."""
        try:
            at_rest = self._session is None or self._session.halt(meanwhile=self._read_reports)
        except StateError:
            at_rest = False
        if not at_rest:
            self.get_logger().error("the arm did not come to rest in time; the emergency stop is latched")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy."""
        self.end()
        return self._accept()

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Halt and end."""
        self.end()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Halt, latch and forget the policy: a person has to look first."""
        self.end()
        self._state = dataclasses.replace(self._state, estopped=True)
        return TransitionCallbackReturn.SUCCESS

    def _begin(self, flight: Preflight) -> None:
        parameters, simulated = self._settings.read(), bool(self.get_parameter("use_sim_time").value)
        self._session = Session(
            self, flight, parameters, self._estop_port, self._state.estopped, simulated, self._on_report
        )
        self._session.runner.filter.mode = parameters.command_mode
        self._state = dataclasses.replace(
            self._state,
            bundle=str(flight.path),
            sha256=flight.bundle.sha256,
            control_rate=flight.bundle.manifest.control_rate,
            robot=flight.robot.name,
        )
        self._pace(running=True)
        for note in self.notes:
            self.get_logger().warning(note)
        self.get_logger().info(self._session.summary)

    def end(self) -> None:
        """Halt, end the loop and take its topics down."""
        if self._session is None:
            return
        session, self._session = self._session, None
        self._pace(running=False)
        self._take_in(session.end())
        self.report = None
        estops = self._state.estops + session.runner.counters.estops
        self._state = NodeState(refusal=self._state.refusal, estopped=session.runner.estopped, estops=estops)

    def destroy_node(self) -> None:
        """Also let go of the state machine, which else keeps the node in the graph until its lease runs out."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    # ---------------------------------------------------------------------------------------------- services

    def _latch(self, reason: str) -> None:
        if self._session is not None:
            self._session.loop.request_estop(reason)
        elif not self._state.estopped:
            self._state = dataclasses.replace(self._state, estopped=True, estops=self._state.estops + 1)
            self.get_logger().error(f"emergency stop: {reason}")

    def _on_estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._latch("requested by ~/estop")
        response.success = True
        response.message = "the arm is being brought to rest; call ~/reset_estop, then activate"
        return response

    def _on_reset_estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._session is not None:
                self._session.reset_estop()
            elif not self._state.estopped:
                raise StateError("estop", "no emergency stop is latched")
        except StateError as error:
            self._refuse("reset_estop", error)
            response.success, response.message = False, str(error)
            return response
        self._state = dataclasses.replace(self._state, estopped=False, refusal="")
        if self._label() == "active":
            self.trigger_deactivate()
        response.success, response.message = True, "reset; activate to go on"
        return response

    def _on_load_policy(
        self, request: LoadPolicy.Request, response: LoadPolicy.Response
    ) -> LoadPolicy.Response:
        try:
            if self._session is None:
                remedy = "configure it first"
                raise ConfigError("policy_node", "load_policy", f"the node is {self._label()}", remedy)
            parameters = self._settings.read()
            path = inside(Path(parameters.bundle_folder or self._session.flight.path.parent), request.bundle)
            flight = prepare(dataclasses.replace(parameters, bundle=str(path)))
            warm_up(flight.bundle)  # whatever fails shall fail before the present policy is gone
            if self._label() == "inactive":
                self.end()
                self._begin(flight)
            else:
                self._session.swap(flight)
        except QgfError as error:
            self._refuse("load_policy", error)
            response.success, response.message = False, str(error)
            return response
        self._changed()
        response.success, response.message, response.sha256 = True, f"loaded {path}", flight.bundle.sha256
        return response

    def _on_rollback_policy(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._session is None:
                raise ConfigError("policy_node", "rollback_policy", "no policy is loaded", "configure it first")
            self._session.roll_back()
        except QgfError as error:
            self._refuse("rollback_policy", error)
            response.success, response.message = False, str(error)
            return response
        self._changed()
        response.success, response.message = True, f"back to {self._state.bundle}"
        return response

    def _changed(self) -> None:
        """Another policy runs: tell it."""
        assert self._session is not None
        flight = self._session.flight
        self._accept()
        self._state = dataclasses.replace(self._state, bundle=str(flight.path), sha256=flight.bundle.sha256)
        self._settings.tell_bundle(flight.path)
        self.get_logger().info(f"the policy is now {flight.path}")

    # ---------------------------------------------------------------------------------------------- timers

    def _pace(self, running: bool) -> None:
        """A running loop wakes the executor itself, when there is time for it; the timer then only watches."""
        self._timer.timer_period_ns = round(1e9 * (WATCH if running else TICK))

    def _on_report(self, report: LoopReport) -> None:
        """In the loop's thread, which has time for it now: another thread would come to be in its way."""
        self._status.publish(policy_status(report, self._state, self.get_clock().now().nanoseconds))
        self._reported += 1
        if report.events or report.status.mode in NOT_MOVING or self._reported % TICK_EVERY == 0:
            self._wake.trigger()

    def _on_timer(self) -> None:
        if time.monotonic() - self._last_tick > 0.5 * TICK:
            self._tick()

    def _tick(self) -> None:
        self._last_tick = time.monotonic()
        if self._session is None:
            if self._estop_port.take():
                self._latch("requested on ~/estop_request")
            self._publish_status()
        else:
            self._read_reports()
            self._session.watch()
            self._follow_runner()
            if not self._session.loop.alive:
                self.get_logger().fatal(
                    "the control loop died of the error above, after bringing the arm to rest"
                )
                self.exit_code = 1
        if self._autostart and self.exit_code is None:
            self._try_autostart()
        if self._last_tick - self._last_diagnostics > DIAGNOSTICS_PERIOD - 0.5 * TICK:
            self._last_diagnostics = self._last_tick
            self._publish_diagnostics()

    def _read_reports(self) -> None:
        if self._session is not None:
            self._take_in(self._session.loop.reports())

    def _take_in(self, reports: list[LoopReport]) -> None:
        for report in reports:
            self.report = report
            for event in report.events[-5:]:
                self._log(event)

    def _follow_runner(self) -> None:
        """Deactivate where the runner has ended the activation by itself."""
        assert self._session is not None
        if self._label() == "active" and not self._session.runner.commanding and self._session.loop.alive:
            self.trigger_deactivate()

    def _log(self, event: Event) -> None:
        text = f"{event.mode.name}: {event.text}" if event.text else event.mode.name
        if event.mode == Mode.ESTOPPED:
            self.get_logger().error(text)
        elif event.kind:
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)

    def _publish_status(self) -> None:
        self._status.publish(policy_status(self.report, self._state, self.get_clock().now().nanoseconds))

    def _publish_diagnostics(self) -> None:
        if self._session is not None:
            news = self._session.watch_file()
            if news:
                self.get_logger().warning(news)
            gc.collect(1)  # the loop has switched collecting off; what little has gathered since takes some 20 us
        now = self.get_clock().now().nanoseconds
        self._diagnostics.publish(diagnostics(self.report, self._state, self.get_fully_qualified_name()[1:], now))

    def _try_autostart(self) -> None:
        """Configure once; then activate as soon as that would not be refused."""
        if self._session is None:
            if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                print(f"qgf: error: {self._state.refusal.partition(': ')[2]}", file=sys.stderr)
                self.exit_code = 2
            return
        if self._label() != "inactive":  # somebody else has taken over
            self._autostart = False
            return
        try:
            refusal = self._session.judge_activation()
        except StateError as error:
            refusal = error
        if refusal is None:
            self._autostart = self.trigger_activate() != TransitionCallbackReturn.SUCCESS
            return
        self._state = dataclasses.replace(self._state, refusal=f"waiting to activate: {refusal}")
        if time.monotonic() - self._autostart_noted > AUTOSTART_NOTE:
            self._autostart_noted = time.monotonic()
            self.get_logger().warning(self._state.refusal)


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal; returns the exit code: 0, 1 for a bug, 2 for a mistake of the user."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = executor = None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = PolicyNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not stop.is_set() and node.exit_code is None:
            executor.spin_once(timeout_sec=0.5)
    except (QgfError, rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError) as error:
        print(f"qgf: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ExternalShutdownException:
        pass
    finally:
        if node is not None:
            node.end()
        with ends_within():
            if executor is not None:
                executor.shutdown()
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    return (node.exit_code or 0) if node is not None else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""monitor_node: publishes how smooth and how timely the policy's actions, its commands and the joints are.

Wiring only; what is measured and judged stands in `qgf_monitor.monitor`. Subscriptions are emptied by a timer: at
1 kHz an executor callback for each message would cost half a core.
"""

from __future__ import annotations

import array
import dataclasses
import signal
import sys
import time

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState

from qgf_core.errors import QgfError
from qgf_monitor.config import load_config
from qgf_monitor.monitor import Diagnosis, Judgement, Monitor, SpectrumOfSource
from qgf_msgs.msg import PolicyCommand, PolicyStatus, SmoothnessReport, Spectrum

DEPTH = 2000
"""Messages a subscription holds: two seconds at 1 kHz."""
MODES = {getattr(PolicyStatus, name): name
         for name in ("UNCONFIGURED", "INACTIVE", "RAMPING", "ACTIVE", "HOLDING", "HALTING", "ESTOPPED")}
STATUS_VALUES = [name for name in PolicyStatus.get_fields_and_field_types()
                 if name not in ("header", "mode", "fault", "stage_names", "stage_mean", "stage_max")]
"""Fields of a status that its diagnosis shows."""


class TakenByTimer(CallbackGroup):
    """Keeps its subscriptions out of the executor; `MonitorNode` takes their messages itself."""

    def can_execute(self, entity):
        return False

    beginning_execution = can_execute

    def ending_execution(self, entity):
        pass


class MonitorNode(Node):
    """:raises QgfError: the configuration cannot be used."""

    def __init__(self):
        super().__init__("monitor_node")
        policy = self._parameter("policy", "policy_node", "Name of the policy node to watch, relative or absolute.")
        joints = self._parameter("joints", [""], "Joints to watch in joint_states; empty: those the policy commands.")
        path = self._parameter("config", "", "Settings (YAML); empty: monitor.yaml of the configuration folder.")
        config = load_config(path or None)
        self.monitor = Monitor(config, tuple(name for name in joints if name))

        # Best effort receives from reliable and from best-effort publishers.
        profile = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        group = TakenByTimer()
        self._inputs = [
            (self.create_subscription(kind, topic, record, profile, callback_group=group), record)
            for kind, topic, record in (
                (JointState, "joint_states", self._record_joint_state),
                (PolicyCommand, f"{policy}/command", self._record_command),
                (PolicyStatus, f"{policy}/status", self._record_status),
            )
        ]
        self._reports = self.create_publisher(SmoothnessReport, "~/report", 10)
        self._spectra = self.create_publisher(Spectrum, "~/spectrum", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A stopped simulation must not silence the monitor: its timers run on the steady clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for rate, callback in ((config.report_rate, self._report), (config.spectrum_rate, self._publish_spectra),
                               (config.diagnostics_rate, self._diagnose)):
            self.create_timer(1.0 / rate, callback, clock=steady)

    def _parameter(self, name, default, description):
        return self.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True)).value

    # --- in

    def _drain(self, now: float) -> None:
        for subscription, record in self._inputs:
            with subscription.handle:
                for _ in range(DEPTH):
                    if not self._take(subscription, record, now):
                        break

    def _take(self, subscription: Subscription, record, now: float) -> bool:
        try:
            taken = subscription.handle.take_message(subscription.msg_type, False)
        except UnicodeDecodeError:  # a name that is no text
            self.monitor.recorder.counts.malformed += 1
            return True
        if taken is None:
            return False
        message, information = taken
        received = information["received_timestamp"]  # [ns] of the system clock; None where the middleware has none
        waited = 1e-9 * (time.time_ns() - received) if received else 0.0
        record(message, now - max(0.0, waited))
        return True

    def _record_joint_state(self, message: JointState, arrival: float) -> None:
        self.monitor.recorder.joint_state(message.name, message.position, message.velocity,
                                          nanoseconds(message.header.stamp), arrival)

    def _record_command(self, message: PolicyCommand, arrival: float) -> None:
        self.monitor.recorder.policy_command(
            message.joint_names, message.raw_action, message.command, message.command_interface, message.sequence,
            message.period, message.fault, nanoseconds(message.header.stamp), arrival)

    def _record_status(self, message: PolicyStatus, arrival: float) -> None:
        mode = MODES.get(message.mode, f"mode {message.mode}")
        values = {name: getattr(message, name) for name in STATUS_VALUES}
        self.monitor.policy_status(mode, message.fault, message.late10, values, arrival)

    # --- out

    def _report(self) -> None:
        now = time.monotonic()
        self._drain(now)
        for judgement in self.monitor.judge(now):
            self._reports.publish(report_message(judgement, self.get_clock().now().to_msg()))

    def _publish_spectra(self) -> None:
        for spectrum in self.monitor.spectra():
            self._spectra.publish(spectrum_message(spectrum))

    def _diagnose(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [diagnostic_status(self.get_fully_qualified_name(), entry)
                          for entry in self.monitor.diagnose(time.monotonic())]
        self._diagnostics.publish(message)


def nanoseconds(stamp: Time) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def report_message(judgement: Judgement, stamp: Time) -> SmoothnessReport:
    message = SmoothnessReport(level=int(judgement.verdict.level), summary=judgement.verdict.summary,
                               message_age=judgement.message_age)
    message.header.stamp = stamp
    for field in dataclasses.fields(judgement.report):
        value = getattr(judgement.report, field.name)
        if field.name == "joint_names":
            value = list(value)
        elif hasattr(value, "dtype"):
            value = array.array("d", value.tobytes())
        elif isinstance(value, int):
            value = min(value, 2**64 - 1)
        setattr(message, field.name, value)
    return message


def spectrum_message(spectrum: SpectrumOfSource) -> Spectrum:
    message = Spectrum(source=spectrum.source, joint_names=list(spectrum.joint_names), sample_rate=spectrum.sample_rate,
                       frequency=array.array("d", spectrum.frequency.tobytes()),
                       power=array.array("d", spectrum.power.T.tobytes()))
    message.header.stamp = Time(sec=spectrum.stamp // 1_000_000_000, nanosec=spectrum.stamp % 1_000_000_000)
    return message


def diagnostic_status(node: str, entry: Diagnosis) -> DiagnosticStatus:
    return DiagnosticStatus(level=bytes([entry.verdict.level]), name=f"{node.lstrip('/')}: {entry.name}",
                            message=entry.verdict.summary,
                            values=[KeyValue(key=key, value=str(value)) for key, value in entry.values.items()])


def main(args=None) -> int:
    stop = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.append(True))
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = MonitorNode()
    except (QgfError, InvalidParameterTypeException, InvalidTopicNameException) as error:
        print("qgf: error:", *str(error).split(), file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop:
        executor.spin_once(timeout_sec=0.2)  # in which a signal is noticed
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

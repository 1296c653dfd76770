# SPDX-License-Identifier: Apache-2.0
"""monitor_node: publishes how smooth and how timely the policy's actions, its commands and the joints are.

Wiring only; what is measured and judged stands in `qgf_monitor.monitor`. Subscriptions are emptied by a timer, and
their messages are decoded in batches: at 1 kHz an executor callback for each would cost half a core.
"""

from __future__ import annotations

import array
import dataclasses
import math
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from qgf_core.errors import QgfError
from qgf_core.manifest import Manifest, read_manifest
from qgf_core.q_field import FieldFigures
from qgf_monitor.attribution import Act
from qgf_monitor.config import load_config
from qgf_monitor.explanation import explain, policy_of, to_json
from qgf_monitor.health import Level
from qgf_monitor.inputs import KINDS, Input, command_kind
from qgf_monitor.mishaps import Mishaps
from qgf_monitor.monitor import Diagnosis, Judgement, Monitor
from qgf_monitor.recorder import JOINT_STATE
from qgf_monitor.reports import Figures, Report
from qgf_monitor.run_node import run
from qgf_monitor.ticks import Ticks
from qgf_msgs.msg import PolicyCommand, PolicyStatus, SmoothnessReport, Spectrum

DEPTH = 2000
"""Messages a subscription holds: two seconds at 1 kHz."""
AT_ONCE = 300_000
"""Bytes of spectra sent without a pause: more of them would overrun the listeners' sockets, and reports would be lost
with them and come a heartbeat later."""
PAUSE = 0.03
"""Between them [s]."""
TYPES = {KINDS[kind.__name__]: kind for kind in (JointState, Float64MultiArray, JointTrajectory, PolicyCommand)}
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
        # The critic takes its time; reports do not wait for it.
        self._aside = ThreadPoolExecutor(1)
        self._field: Future[FieldFigures] | None = None
        super().__init__("monitor_node")
        policy = self._parameter("policy", "policy_node", "Name of the policy node to watch, relative or absolute.")
        joints = self._parameter("joints", [""], "Joints to watch in joint_states; empty: those the policy commands.")
        path = self._parameter("config", "", "Settings (YAML); empty: monitor.yaml of the configuration folder.")
        self._bundle = self._parameter(
            "bundle", "", "Bundle whose baseline is compared with; empty: the one that the policy's status names.")
        topic = self._parameter("command_topic", "", "Commands to watch; empty: ~/command of the policy node.")
        goals = self._parameter("goal_topic", "", "Goals that the policy is told; empty: ~/goal of the policy node.")
        kind = self._parameter("command_type", "PolicyCommand", f"Message type of it, one of: {', '.join(KINDS)}.")
        quantity = self._parameter(
            "command_quantity", "", "What these commands are: position [rad], velocity [rad/s] or effort [N m].")
        self._replay = self._parameter(
            "replay", False, "Whether ~/explain also asks the policy again; loads torch (seconds, 200 MB).")
        kind = command_kind(kind)
        self.monitor = Monitor(load_config(path or None), tuple(name for name in joints if name))
        recorder = self.monitor.recorder
        recorder.takes_any_joints = kind != KINDS["PolicyCommand"]
        if self._bundle:
            self.monitor.use_bundle(self._bundle)
        config = self.monitor.config

        # Best effort receives from reliable and from best-effort publishers.
        profile = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._group = TakenByTimer()
        states = self._subscribe(JointState, "joint_states", profile, raw=True)
        commands = self._subscribe(TYPES[kind], topic or f"{policy}/command", profile, raw=True)
        self._status = self._subscribe(PolicyStatus, f"{policy}/status", profile)
        self._goals = self._subscribe(PoseStamped, goals or f"{policy}/goal", QoSProfile(depth=10))
        self._inputs = [(states, Input(recorder, KINDS["JointState"])),
                        (commands, Input(recorder, kind, is_command=True, quantity=quantity))]
        self._topics = dict.fromkeys(JOINT_STATE, states) | dict.fromkeys(("raw_action", "command"), commands)

        self._reports = self.create_publisher(SmoothnessReport, "~/report", 10)
        self._spectra = self.create_publisher(Spectrum, "~/spectrum", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._plain: dict[str, Publisher] = {}
        self._heard: set[str] = set()
        """Plain topics that somebody listens to, and "" for the spectra, as of the last look; others cost nothing."""
        self._judgements: list[Judgement] = []
        self._due: list[Figures] = []
        self._next_spectra = 0.0
        self._policy: tuple[str, Manifest, Act | None] | None = None
        self.create_service(Trigger, "~/explain", self._explain)
        # On the steady clock: a stopped simulation must not silence the monitor.
        self.ticks = Ticks()
        logger = self.get_logger()
        self._mishaps = Mishaps(lambda text: logger.error(text, throttle_duration_sec=10.0))
        for name, rate, work in (("a report", config.report_rate, self._report),
                                 ("the diagnostics", config.diagnostics_rate, self._diagnose),
                                 ("the look at the critic", config.critic_rate, self._look_at_field),
                                 ("the look for listeners", 1.0, self._look_for_listeners)):
            self.ticks.every(1.0 / rate, self._mishaps.outlive(name, work))
        self.get_logger().info(f"watching {commands.topic_name} and {states.topic_name}")

    def _parameter(self, name, default, description):
        return self.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True)).value

    def _subscribe(self, kind, topic: str, profile: QoSProfile, raw: bool = False) -> Subscription:
        return self.create_subscription(kind, topic, lambda _: None, profile, callback_group=self._group, raw=raw)

    # --- in

    def _drain(self, now: float) -> None:
        for subscription, entry in self._inputs:
            payloads, received = self._take(subscription, raw=True)
            if payloads:
                entry.take(payloads, np.array(received), now - max(0.0, 1e-9 * (time.time_ns() - received[-1])))
        for message in self._take(self._status, raw=False)[0]:
            self._record_status(message, now)
        for message in self._take(self._goals, raw=False)[0]:
            place = message.pose.position
            if not self.monitor.goals.tell((place.x, place.y, place.z), message.header.frame_id, now):
                self.monitor.recorder.counts.malformed += 1

    def _take(self, subscription: Subscription, raw: bool) -> tuple[list, list[int]]:
        """Messages that wait, and when they came [ns] of the system clock."""
        messages, received = [], []
        with subscription.handle:
            for _ in range(DEPTH):
                try:
                    taken = subscription.handle.take_message(subscription.msg_type, raw)
                except UnicodeDecodeError:  # a text that is none
                    self.monitor.recorder.counts.malformed += 1
                    continue
                if taken is None:
                    break
                messages.append(taken[0])
                # 0 or None where the middleware does not tell
                received.append(taken[1]["received_timestamp"] or time.time_ns())
        return messages, received

    def _record_status(self, message: PolicyStatus, arrival: float) -> None:
        mode = MODES.get(message.mode, f"mode {message.mode}")
        values = {name: getattr(message, name) for name in STATUS_VALUES}
        self.monitor.policy_status(mode, message.fault, message.late10, values, arrival)
        if message.bundle and not self._bundle:
            self.monitor.use_bundle(message.bundle)

    # --- out

    def _report(self) -> None:
        now = time.monotonic()
        self._drain(now)
        self._judgements = self.monitor.judge(now)
        for judgement in self._judgements:
            # What making the figures took counts too.
            aged = dataclasses.replace(judgement, message_age=judgement.message_age + time.monotonic() - now)
            self._reports.publish(report_message(aged, self.get_clock().now().to_msg()))
            if judgement.report.nominal_window == self.monitor.config.windows[0]:
                self._publish_plain(judgement.report)
        tick = 1.0 / self.monitor.config.report_rate
        if "" in self._heard and now >= self._next_spectra - 0.5 * tick:
            self._next_spectra = max(self._next_spectra, now - tick) + 1.0 / self.monitor.config.spectrum_rate
            waiting = bool(self._due)
            self._due = [judgement.figures for judgement in self._judgements
                         if judgement.report.nominal_window == self.monitor.config.windows[0]
                         and judgement.verdict.level != Level.STALE]
            if not waiting:
                self._publish_spectra()

    def _look_for_listeners(self) -> None:
        self._heard = {key for key, publisher in {"": self._spectra, **self._plain}.items()
                       if publisher.get_subscription_count()}

    def _publish_plain(self, report: Report) -> None:
        for name in self.monitor.config.plain:
            key = f"{report.source}/{name}"
            publisher = self._plain.get(key)
            if publisher is not None and key not in self._heard:
                continue
            value = plain_value(report, name)
            if value is None:
                continue
            if publisher is None:
                publisher = self._plain[key] = self.create_publisher(Float64, f"~/plain/{key}", 10)
            publisher.publish(Float64(data=value))

    def _publish_spectra(self) -> None:
        """Some of those that are due; the others after a pause."""
        sent = 0
        while self._due and sent < AT_ONCE:
            figures = self._due.pop()
            sent += 4 * figures.spectra.power.size
            self._spectra.publish(spectrum_message(figures))
        if self._due:
            self.ticks.once(PAUSE, self._mishaps.outlive("the spectra", self._publish_spectra))

    def _look_at_field(self) -> None:
        """Take what the critic said of the states before, and ask it about the newest."""
        if self._field is not None and not self._field.done():
            return
        now = time.monotonic()
        asked, self._field = self._field, None  # one that failed is told once, and asked anew
        visited = self.monitor.visited(now)
        self.monitor.take_field(asked.result() if visited and asked is not None else None, now)
        self._field = self._aside.submit(self.monitor.critic.field_figures, *visited) if visited else None

    def destroy_node(self) -> None:
        self._aside.shutdown()
        super().destroy_node()

    def _explain(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = False, "the explanation failed; see the log and /diagnostics"
        self._mishaps.outlive("an explanation", lambda: self._find_causes(response))()
        return response

    def _find_causes(self, response: Trigger.Response) -> None:
        self._drain(time.monotonic())
        monitor = self.monitor
        try:
            if monitor.bundle and (self._policy is None or self._policy[0] != monitor.bundle):
                loaded = policy_of(monitor.bundle) if self._replay else (read_manifest(monitor.bundle), None)
                self._policy = (monitor.bundle, *loaded)
        except QgfError as error:
            self.get_logger().warning(f"explained without the bundle: {error}", throttle_duration_sec=10.0)
        _, manifest, act = self._policy or ("", None, None)
        causes = explain(monitor.recorder, monitor.config, manifest, act)
        response.success, response.message = not math.isnan(causes[0].score), to_json(causes)

    def _diagnose(self) -> None:
        entries: list[Diagnosis] = []
        try:
            self.monitor.recorder.publishers.update(
                {name: self.count_publishers(subscription.topic_name) for name, subscription in self._topics.items()})
            entries = self.monitor.diagnose(time.monotonic())
        finally:  # of what went wrong it tells in any case
            mishap = self._mishaps.diagnosis()
            message = DiagnosticArray()
            message.header.stamp = self.get_clock().now().to_msg()
            message.status = [diagnostic_status(self.get_fully_qualified_name(), entry)
                              for entry in [*entries, *([mishap] if mishap else [])]]
            self._diagnostics.publish(message)


def report_message(judgement: Judgement, stamp: Time) -> SmoothnessReport:
    message = SmoothnessReport(level=int(judgement.verdict.level), summary=judgement.verdict.summary,
                               message_age=judgement.message_age,
                               rough_in_simulation=judgement.verdict.rough_in_simulation,
                               joint_level=array.array("B", [int(level) for level in judgement.verdict.joints]))
    message.header.stamp = stamp
    for field in dataclasses.fields(judgement.report):
        value = getattr(judgement.report, field.name)
        if field.name == "joint_names":
            value = list(value)
        elif isinstance(value, np.ndarray):
            value = numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            value = min(value, 2**64 - 1)
        setattr(message, field.name, value)
    return message


def numbers(values: np.ndarray) -> array.array:
    return array.array("Q" if values.dtype == np.uint64 else "d", values.tobytes())


def single(values: np.ndarray) -> array.array:
    return array.array("f", values.astype(np.float32).tobytes())


def spectrum_message(figures: Figures) -> Spectrum:
    report, spectra = figures.report, figures.spectra
    message = Spectrum(source=report.source, joint_names=list(report.joint_names), sample_rate=report.sample_rate,
                       frequency=numbers(spectra.frequency), power=single(spectra.power.T),
                       baseline=single(figures.baseline_power.T), high_frequency_cutoff=report.high_frequency_cutoff,
                       peak_frequency=numbers(report.peak_frequency), peak_power=numbers(figures.peak_power))
    message.header.stamp = Time(sec=figures.stamp // 1_000_000_000, nanosec=figures.stamp % 1_000_000_000)
    return message


def plain_value(report: Report, name: str) -> float | None:
    """The figure, or the largest of it over the joints; None where there is none."""
    value = np.ravel(getattr(report, name))
    known = value[~np.isnan(value)]
    return float(known.max()) if len(known) else None


def diagnostic_status(node: str, entry: Diagnosis) -> DiagnosticStatus:
    return DiagnosticStatus(level=bytes([entry.verdict.level]), name=f"{node.lstrip('/')}: {entry.name}",
                            message=entry.verdict.summary,
                            values=[KeyValue(key=key, value=str(value)) for key, value in entry.values.items()])


def main(args=None) -> int:
    return run(MonitorNode, args)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the plain values of the runner."""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qgf_core.cdr_single import MessageTemplate
from qgf_msgs.msg import PolicyCommand, PolicyStatus
from qgf_policy.loop import GoalMessage, LoopReport
from qgf_policy.references import ReferenceMessage
from qgf_policy.runner import Vector
from qgf_policy.status import Command, Counters, Mode
from qgf_policy.timing import HISTOGRAM_EDGES, STAGES

_LEVELS = {
    Mode.UNCONFIGURED: DiagnosticStatus.OK,
    Mode.INACTIVE: DiagnosticStatus.OK,
    Mode.RAMPING: DiagnosticStatus.OK,
    Mode.ACTIVE: DiagnosticStatus.OK,
    Mode.HOLDING: DiagnosticStatus.WARN,
    Mode.HALTING: DiagnosticStatus.WARN,
    Mode.ESTOPPED: DiagnosticStatus.ERROR,
}
_TEMPLATES_KEPT = 32  # faults' texts hold numbers: each may come once
LATE10_WARNING = 0.01
"""Share of late periods from which the diagnostics warn."""


def nanoseconds(stamp: Time) -> int:
    """A stamp [ns]."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def time_message(stamp: int) -> Time:
    """A stamp given in [ns]."""
    return Time(sec=stamp // 1_000_000_000, nanosec=stamp % 1_000_000_000)


def goal_message(message: PoseStamped, received: int) -> GoalMessage:
    """The goal in a pose; one without a stamp gets the time at which it was received [ns]."""
    position, turn = message.pose.position, message.pose.orientation
    stamp = nanoseconds(message.header.stamp) or received
    return GoalMessage((position.x, position.y, position.z), message.header.frame_id, stamp,
                       orientation=(turn.x, turn.y, turn.z, turn.w))


def reference_message(message: JointTrajectory, now: int) -> ReferenceMessage:
    """A trajectory that arrived at `now` [ns] on the clock of its stamp; without a stamp it begins then."""
    stamp = nanoseconds(message.header.stamp)
    return ReferenceMessage(
        list(message.joint_names),
        [int(p.time_from_start.sec) * 1_000_000_000 + int(p.time_from_start.nanosec) for p in message.points],
        [list(p.positions) for p in message.points],
        [list(p.velocities) for p in message.points],
        stamp - now if stamp else 0,
        stamp or now,
    )


def stamped_message(
    values: Vector, interface: str, joint_names: list[str], now: int
) -> JointState:
    """The same with joints by name, stamped `now` [ns]: positions or velocities of a JointState, nothing else."""
    message = JointState(name=joint_names, **{interface: array.array("d", values.tolist())})
    message.header.stamp = time_message(now)
    return message


def trajectory_message(values: Vector, joint_names: tuple[str, ...], horizon: int) -> JointTrajectory:
    """Positions (n,) [rad] as one point to be reached after `horizon` [ns].

    Without velocities: joint_trajectory_controller refuses a trajectory that does not end at rest.
    """
    point = JointTrajectoryPoint(positions=array.array("d", values.tolist()))
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(horizon, 1_000_000_000)
    return JointTrajectory(joint_names=list(joint_names), points=[point])


Serialize = Callable[[Any], bytes]
"""The middleware's own, of a message; its bytes are the template for those to come."""


class ArrayCommand:
    """A command for the forward_command_controllers."""

    def __init__(self, serialize: Serialize) -> None:
        self._serialize, self._templates = serialize, dict[int, MessageTemplate]()

    def payload(self, values: Vector) -> bytes:
        """The serialised message."""
        numbers: list[float] = values.tolist()
        template = self._templates.get(len(numbers))
        if template is None:
            message = Float64MultiArray(data=array.array("d", numbers))
            template = MessageTemplate("std_msgs/msg/Float64MultiArray", self._serialize(message))
            self._templates[len(numbers)] = template
        template.set("data", numbers)
        return template.payload()


class CommandReport:
    """What was computed and sent in a control period.

    :param interface: quantity that the commands carry.
    :param joint_names: in the commands' order.
    :param period: control period [ns].
    :param serialize: of messages.
    """

    def __init__(self, interface: str, joint_names: list[str], period: int, serialize: Serialize) -> None:
        self._message = PolicyCommand(command_interface=interface, joint_names=joint_names, period=1e-9 * period)
        self._serialize = serialize
        self._templates: dict[tuple[str, int, int], MessageTemplate] = {}

    def payload(self, command: Command, now: int) -> bytes:
        """The serialised message at `now` [ns] on the node's clock."""
        observation = [] if command.observation is None else command.observation.tolist()
        action = [] if command.raw_action is None else command.raw_action.tolist()
        numbers = command.values.tolist()
        key = (command.reason, len(observation), len(action))
        template = self._templates.get(key)
        if template is None:
            template = self._template(key, len(numbers))
        template.set_time("stamp", now)
        template.set_time("state_stamp", command.state_stamp)
        template.set_time("goal_stamp", command.goal_stamp)
        template.set("sequence", (command.sequence,))
        template.set("observation", observation)
        template.set("raw_action", action)
        template.set("command", numbers)
        return template.payload()

    def _template(self, key: tuple[str, int, int], joints: int) -> MessageTemplate:
        message = self._message
        message.fault = key[0]
        message.observation, message.raw_action = (array.array("f", bytes(4 * count)) for count in key[1:])
        message.command = array.array("d", bytes(8 * joints))
        template = MessageTemplate("qgf_msgs/msg/PolicyCommand", self._serialize(message))
        if len(self._templates) >= _TEMPLATES_KEPT:
            self._templates.clear()
        self._templates[key] = template
        return template


@dataclasses.dataclass(frozen=True)
class NodeState:
    """What the messages about the node tell beside the loop's report."""

    bundle: str = ""
    sha256: str = ""
    control_rate: float = 0.0
    robot: str = ""
    refusal: str = ""
    """The last refusal of a request; told while no fault is present."""
    estopped: bool = False
    """An emergency stop is latched although no loop runs."""
    estops: int = 0
    """Emergency stops of loops that have ended."""


def mode_and_fault(report: LoopReport | None, node: NodeState) -> tuple[Mode, str]:
    """The node's mode, and its present fault or last refusal."""
    if report is None:
        mode = Mode.ESTOPPED if node.estopped else Mode.UNCONFIGURED
        return mode, node.refusal or (
            "an emergency stop is latched; call ~/reset_estop" if node.estopped else ""
        )
    return report.status.mode, report.status.fault or report.note or report.goal_refusal or node.refusal


def policy_status(report: LoopReport | None, node: NodeState, now: int) -> PolicyStatus:
    """State of the node at `now` [ns] on its clock."""
    mode, fault = mode_and_fault(report, node)
    message = PolicyStatus(mode=int(mode), fault=fault, bundle=node.bundle, bundle_sha256=node.sha256)
    message.header.stamp = time_message(now)
    message.control_rate = node.control_rate
    message.stage_names = list(STAGES)
    message.estops = node.estops
    if report is not None:
        for field in dataclasses.fields(Counters):
            setattr(message, field.name, getattr(report.status.counters, field.name))
        message.estops += node.estops
        message.cycles, message.state_age = report.status.cycles, report.status.state_age
        governed = report.status.governed
        message.command_mode, message.smoothed_share = governed.command_mode, governed.share
        message.smoothing_lag = governed.lag
        timing = report.timing
        message.stage_mean, message.stage_max = (
            array.array("d", timing.stage_mean),
            array.array("d", timing.stage_max),
        )
        message.histogram_edges = array.array("d", HISTOGRAM_EDGES)
        message.stage_histogram = array.array("Q", [count for bins in timing.histogram for count in bins])
        message.period_jitter_rms, message.period_jitter_p99 = timing.jitter_rms, timing.jitter_p99
        message.period_jitter_max, message.late10 = timing.jitter_max, timing.late10
    return message


def diagnostics(report: LoopReport | None, node: NodeState, name: str, now: int) -> DiagnosticArray:
    """The same for /diagnostics; `name` is the node's."""
    mode, fault = mode_and_fault(report, node)
    level, text = _LEVELS[mode], f"{mode.name}: {fault}" if fault else mode.name
    values: dict[str, Any] = {"bundle": node.bundle, "control_rate [Hz]": f"{node.control_rate:g}"}
    if report is not None:
        late10 = report.timing.late10
        if report.note:
            level = max(level, DiagnosticStatus.WARN)
        if late10 > LATE10_WARNING:
            level = max(level, DiagnosticStatus.WARN)
            text += f"; {100 * late10:.1f} % of the periods are late by more than 10 %"
        values |= {
            "cycles": report.status.cycles,
            "late10": f"{late10:.4f}",
            "period_jitter_max [s]": f"{report.timing.jitter_max:.6f}",
            "state_age [s]": f"{report.status.state_age:.4f}",
        }
        values |= dataclasses.asdict(report.status.counters)
        values["out_of_order_states"] = report.out_of_order
        for stage, mean, largest in zip(STAGES, report.timing.stage_mean, report.timing.stage_max, strict=True):
            values[f"{stage} mean, max [s]"] = f"{mean:.6f}, {largest:.6f}"
    elif fault:
        level = max(level, DiagnosticStatus.WARN)
    status = DiagnosticStatus(
        level=level,
        name=f"{name}: policy",
        message=text,
        hardware_id=node.robot,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = time_message(now)
    return message

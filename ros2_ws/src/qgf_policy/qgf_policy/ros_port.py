# SPDX-License-Identifier: Apache-2.0
"""The control loop's port to ROS: takes messages itself and publishes, without an executor in between."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState as JointStateMessage
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from qgf_core.cdr import MalformedMessage
from qgf_core.cdr_single import JointStateReader
from qgf_core.errors import ConfigError
from qgf_core.robot import RobotSpec
from qgf_msgs.msg import PolicyCommand
from qgf_policy.conversions import (
    ArrayCommand,
    CommandReport,
    goal_message,
    nanoseconds,
    reference_message,
    stamped_message,
    trajectory_message,
)
from qgf_policy.endpoints import node_names
from qgf_policy.goal_frames import BaseFrameOnly
from qgf_policy.joint_state import JointState, JointStateMerger
from qgf_policy.loop import GoalMessage
from qgf_policy.references import ReferenceMessage
from qgf_policy.runner import PolicyRunner, Vector
from qgf_policy.status import Command
from qgf_policy.trajectory_stream import TrajectoryStream

STATE_DEPTH = 50
"""Joint states kept between two periods: several publishers share the topic, and one of depth 1 would hide another."""
OVERRIDABLE = QoSOverridingOptions(
    policy_kinds=(
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)
"""Every topic's quality of service may be set by parameters qos_overrides.TOPIC.publisher.depth and the like."""


@contextlib.contextmanager
def overrides_checked() -> Iterator[None]:
    """Round what makes topics. :raises ConfigError: a qos_overrides parameter holds what is no quality of service."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        if "qos" not in str(error).lower():
            raise
        remedy = "see docs/faces.md for what is known"
        raise ConfigError("policy_node", "qos_overrides", str(error), remedy) from error


class TakenByLoop(CallbackGroup):
    """A callback group that the executor passes over: what is in it is taken by the control loop."""

    def can_execute(self, entity: Any) -> bool:
        """Never by the executor."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never by the executor."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Never reached."""


def _unused(_: Any) -> None:
    """Callback of a subscription whose messages are taken."""


def take(subscription: Any) -> Any:
    """The next message of a subscription, or None."""
    taken = subscription.handle.take_message(subscription.msg_type, False)
    return None if taken is None else taken[0]


def take_serialised(subscription: Any) -> bytes | None:
    """The same as bytes."""
    taken = subscription.handle.take_message(subscription.msg_type, True)
    return None if taken is None else taken[0]


class EstopPort:
    """Requests on ~/estop_request; exists as long as the node, so that none is lost.

    :param node: the node; not to be used by two threads at once.
    """

    def __init__(self, node: Node) -> None:
        self._group = TakenByLoop()
        self._subscription = node.create_subscription(
            Bool, "~/estop_request", _unused, 10, callback_group=self._group, qos_overriding_options=OVERRIDABLE
        )

    def take(self) -> bool:
        """Whether a request has arrived since the last call."""
        requested = False
        while (message := take(self._subscription)) is not None:
            requested = requested or message.data
        return requested


class ClockPort:
    """/clock, taken by the control loop.

    :param node: owns the subscription.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._group = node, TakenByLoop()
        qos = QoSProfile(depth=10, reliability=qos_profile_sensor_data.reliability)
        self._subscription = node.create_subscription(ClockMessage, "/clock", _unused, qos, callback_group=self._group)

    def newest(self) -> int | None:
        """The newest time told [ns] since the last call, or None."""
        newest = None
        while (message := take(self._subscription)) is not None:
            newest = nanoseconds(message.clock)
        return newest

    def destroy(self) -> None:
        """Take the subscription down; the loop must have ended."""
        self._node.destroy_subscription(self._subscription)


class ReferencePort:
    """~/reference, heard by the node's executor: a trajectory takes longer to read than the loop may wait.

    :param node: owns the subscription.
    :param hear: called with each trajectory; must not wait.
    """

    @overrides_checked()
    def __init__(self, node: Node, hear: Callable[[ReferenceMessage], None]) -> None:
        self._node, clock = node, node.get_clock()
        self._subscription = node.create_subscription(
            JointTrajectory,
            "~/reference",
            lambda message: hear(reference_message(message, clock.now().nanoseconds)),
            10,
            qos_overriding_options=OVERRIDABLE,
        )

    def destroy(self) -> None:
        """Take the subscription down."""
        self._node.destroy_subscription(self._subscription)


class RosPort:
    """Subscriptions and publishers of the control loop.

    :param node: owns them; its executor passes over the subscriptions.
    :param robot: names of the topics.
    :param runner: whose joints, interface and periods are meant.
    :param estop: shared with the node.
    :param frames: turns goals into the base frame.
    :param age_from_stamp: whether a joint state's age counts from its stamp, else from its arrival.
    :param simulated: whether the loop's time is that of /clock, and so that of the stamps.
    """

    @overrides_checked()
    def __init__(
        self,
        node: Node,
        robot: RobotSpec,
        runner: PolicyRunner,
        estop: EstopPort,
        frames: BaseFrameOnly,
        age_from_stamp: bool,
        simulated: bool = False,
    ) -> None:
        self._node, self._estop = node, estop
        self._interface = runner.settings.command_interface
        self._names, self._name_list = robot.joint_names, list(robot.joint_names)
        self._reader = JointStateReader()
        self._array = ArrayCommand(serialize_message)
        self._report = CommandReport(self._interface, self._name_list, runner.control_period, serialize_message)
        self._stream = TrajectoryStream(runner.manifest.robot, runner.command_period)
        self._frames, self._age_from_stamp = frames, age_from_stamp
        self._simulated = simulated
        clock = node.get_clock()
        # Without /clock, ROS time is the system's, which costs a tenth to ask for itself.
        self._ros_now: Callable[[], int] = (lambda: int(clock.now().nanoseconds)) if simulated else time.time_ns
        self._new_merger = lambda: JointStateMerger(runner.manifest.robot, runner.state_limit)
        self._merger = self._new_merger()
        sensor = QoSProfile(
            depth=STATE_DEPTH,
            reliability=qos_profile_sensor_data.reliability,
            durability=qos_profile_sensor_data.durability,
        )
        self._group = TakenByLoop()
        self._states = node.create_subscription(
            JointStateMessage,
            robot.topics.joint_states,
            _unused,
            sensor,
            callback_group=self._group,
            qos_overriding_options=OVERRIDABLE,
        )
        self._goals = node.create_subscription(
            PoseStamped, "~/goal", _unused, 10, callback_group=self._group, qos_overriding_options=OVERRIDABLE
        )
        self._stamped = runner.settings.stamped_commands
        kind: Any = JointStateMessage if self._stamped else Float64MultiArray
        if self._interface == "joint_trajectory":
            kind = JointTrajectory
        self._commands = node.create_publisher(
            kind, getattr(robot.topics, self._interface), 1, qos_overriding_options=OVERRIDABLE
        )
        self._reports = node.create_publisher(
            PolicyCommand, "~/command", 100, qos_overriding_options=OVERRIDABLE
        )

    def destroy(self) -> None:
        """Take subscriptions and publishers down; the loop must have ended."""
        for subscription in (self._states, self._goals):
            self._node.destroy_subscription(subscription)
        for publisher in (self._commands, self._reports):
            self._node.destroy_publisher(publisher)
        self._frames.destroy()

    @property
    def rival(self) -> str:
        """Who else publishes commands to the arm: names of nodes, or an empty text."""
        if self._node.count_publishers(self._commands.topic_name) < 2:  # cheap, and nearly always the answer
            return ""
        others = self._node.get_publishers_info_by_topic(self._commands.topic_name)
        mine = (self._node.get_name(), self._node.get_namespace())
        names = node_names([info for info in others if (info.node_name, info.node_namespace) != mine])
        return f"{', '.join(names) or 'another node of this name'} on {self._commands.topic_name}"

    @property
    def out_of_order(self) -> int:
        """Joint states ignored because their stamp was not newer than what was known."""
        return self._merger.out_of_order

    def take(self, now: int) -> JointState:
        """Everything that has arrived, merged."""
        ros_now = 0
        for _ in range(2 * STATE_DEPTH):  # a publisher gone wild must not keep the loop here
            payload = take_serialised(self._states)
            if payload is None:
                break
            try:
                names, position, velocity, effort_length, stamp = self._reader.read(payload)
            except MalformedMessage as error:
                self._merger.refuse(f"a message on {self._states.topic_name} is no joint state: {error}")
                continue
            age = 0
            if stamp and self._age_from_stamp:
                ros_now = ros_now or (now if self._simulated else self._ros_now())
                age = ros_now - stamp
            self._merger.add(names, position, velocity, stamp, now, age, effort_length)
        return self._merger.snapshot()

    def restart(self) -> None:
        """Forget all joint states: time has begun anew."""
        self._merger = self._new_merger()

    def take_goal(self) -> GoalMessage | None:
        """The newest goal that has arrived, if any."""
        newest = None
        while (message := take(self._goals)) is not None:
            newest = message
        if newest is None:
            return None
        return self._frames.to_base(goal_message(newest, self._ros_now()))

    def take_estop(self) -> bool:
        """Whether a request for an emergency stop has arrived."""
        return self._estop.take()

    def send(self, values: Vector) -> None:
        """Send a command to the arm."""
        if self._interface == "joint_trajectory":
            self._commands.publish(trajectory_message(self._stream.point(values), self._names, self._stream.horizon))
        elif self._stamped:
            now = self._ros_now()
            self._commands.publish(stamped_message(values, self._interface, self._name_list, now))
        else:
            self._commands.publish(self._array.payload(values))

    def report(self, command: Command) -> None:
        """Tell what was computed and sent in a control period."""
        self._reports.publish(self._report.payload(command, self._ros_now()))

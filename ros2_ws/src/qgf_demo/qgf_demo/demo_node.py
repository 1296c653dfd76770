# SPDX-License-Identifier: Apache-2.0
"""demo_node: sends the goals of a plan one after the other and records what the other nodes publish meanwhile.

Wiring only; what is due and what is kept stands in `qgf_demo.session`. Its messages are taken in a plain loop: nothing
here is worth the processor time of an executor, of which the policy node is to be measured undisturbed.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

import rclpy
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from qgf_core.errors import QgfError
from qgf_demo.listeners import owner_hears
from qgf_demo.session import Plan, Session, read_plan
from qgf_msgs.msg import PolicyCommand, PolicyStatus, SmoothnessReport

POLL_PERIOD = 0.01
"""Time between two looks at the subscriptions [s]."""
RESEND_PERIOD = 0.5
"""A goal that the policy has not taken up is sent again so often [s]."""
READY_MODES = (PolicyStatus.RAMPING, PolicyStatus.ACTIVE, PolicyStatus.HOLDING)
STOPPED_MODES = (PolicyStatus.HALTING, PolicyStatus.ESTOPPED, PolicyStatus.INACTIVE, PolicyStatus.UNCONFIGURED)


def tell(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


def nanoseconds(stamp):
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def plain(message):
    """The fields of a message but its header, as numbers, texts and lists."""
    values = {}
    for name in message.get_fields_and_field_types():
        value = getattr(message, name)
        if name == "header":
            values["stamp"] = nanoseconds(value.stamp)
        else:
            values[name] = list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
    return values


class DemoNode(Node):
    """Goals out, everything else in.

    :param plan: what to do.
    :param stop: set to leave early.
    """

    def __init__(self, plan: Plan, stop: threading.Event):
        super().__init__("demo_node")
        self.plan, self.session, self._stop = plan, Session(plan), stop
        self._mode, self._fault, self._rejected = None, "", 0
        self._goals = self.create_publisher(PoseStamped, "policy_node/goal", 10)
        self._change_state = self.create_client(ChangeState, "policy_node/change_state")
        self._reset_arm = self.create_client(Trigger, "sim_node/reset")
        deep = QoSProfile(depth=2000)
        self._inputs = [
            (self.create_subscription(kind, topic, take, deep), take)
            for kind, topic, take in (
                (PolicyCommand, "policy_node/command", self._on_command),
                (PolicyStatus, "policy_node/status", self._on_status),
                (JointState, "sim_node/ground_truth", lambda message: self._on_joint_state("truth", message)),
                (JointState, plan.joint_states, lambda message: self._on_joint_state("measured", message)),
                (SmoothnessReport, "monitor_node/report", lambda message: self.session.report(plain(message))),
            )
        ]

    # --- in

    def take_all(self):
        for subscription, record in self._inputs:
            with subscription.handle:
                while (taken := subscription.handle.take_message(subscription.msg_type, False)) is not None:
                    record(taken[0])

    def _on_command(self, message):
        self.session.command(
            nanoseconds(message.header.stamp),
            nanoseconds(message.state_stamp),
            nanoseconds(message.goal_stamp),
            message.sequence,
            message.raw_action,
            message.command,
            message.observation,
            message.fault,
        )

    def _on_status(self, message):
        self._mode, self._fault, self._rejected = message.mode, message.fault, message.faults_rejected_goal
        self.session.status = plain(message)

    def _on_joint_state(self, kind, message):
        self.session.joint_state(
            kind, nanoseconds(message.header.stamp), message.name, message.position, message.velocity
        )

    # --- what is waited for

    def _wait(self, condition, timeout, complaint):
        """Take messages until the condition holds; False when asked to stop. :raises QgfError: the time is over."""
        deadline = time.monotonic() + timeout
        while not self._stop.is_set():
            self.take_all()
            if condition():
                return True
            if time.monotonic() > deadline:
                raise QgfError(complaint())
            time.sleep(POLL_PERIOD)
        return False

    def be_ready(self):
        """Wait until all nodes are heard and the policy waits for a goal. :returns: False when asked to stop."""
        remedy = (
            "no DDS discovery between processes of this machine? Allow UDP on the loopback interface, and see "
            "./qgf doctor"
        )
        steps = (
            (
                "the simulated arm",
                lambda: self.session.has("truth") and self.session.has("measured"),
                lambda: f"sim_node/ground_truth and {self.plan.joint_states} are not heard; {remedy}",
            ),
            ("the policy", lambda: self._mode is not None, lambda: f"policy_node/status is not heard; {remedy}"),
            (
                "its activation",
                lambda: self._mode in READY_MODES and self.session.total_commands > 0,
                lambda: f"policy_node does not become active: {self._fault or 'it tells no fault'}; see its log",
            ),
            (
                "the way for goals",
                lambda: owner_hears(self, self._goals),
                lambda: f"policy_node does not listen to policy_node/goal; {remedy}",
            ),
            ("the monitor", lambda: self.session.reports > 0, lambda: f"monitor_node/report is not heard; {remedy}"),
        )
        begun = time.monotonic()
        for what, condition, complaint in steps:
            tell("waiting", what=what)
            remaining = max(1.0, begun + self.plan.start_timeout - time.monotonic())
            if not self._wait(condition, remaining, lambda: f"after {time.monotonic() - begun:.0f} s {complaint()}"):  # noqa: B023
                return False
        tell("ready", seconds=time.monotonic() - begun)
        return True

    # --- out

    def run_goals(self):
        """Send every goal and record its episode. :returns: False when asked to stop."""
        told = 0
        while not self.session.finished:
            if self.session.goal_is_due:
                if not self._begin_episode():
                    return False
                self._send_next_goal()
            if not self._wait(self._moved_on, self.plan.goal_timeout, self._no_progress):
                return False
            if self.session.done // 10 > told:
                told = self.session.done // 10
                tell("progress", done=self.session.done, goal=len(self.session.sent))
        return True

    def _begin_episode(self):
        """Every episode begins at home, as in training: the policy is deactivated, the arm put back, and the policy
        activated from there. :returns: False when asked to stop."""
        if not self.session.sent:
            return True  # the arm has not moved yet
        self._ask(self._change_state, ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE)))
        self._ask(self._reset_arm, Trigger.Request())
        self._mode = None
        self._ask(self._change_state, ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE)))
        return self._wait(
            lambda: self._mode in READY_MODES,
            self.plan.goal_timeout,
            lambda: f"policy_node does not become active again: {self._fault or 'it tells no fault'}; see its log",
        )

    def _ask(self, client, request):
        """:raises QgfError: no answer in time, or a refusal."""
        future = client.call_async(request)
        rclpy.spin_until_future_complete(self, future, timeout_sec=self.plan.goal_timeout)
        if not future.done() or not future.result().success:
            answer = "refuses" if future.done() else "does not answer"
            raise QgfError(f"{client.srv_name} {answer}: {self._fault or 'no fault is told'}; see the nodes' logs")

    def _send_next_goal(self):
        stamp, rejected = self.get_clock().now().nanoseconds, self._rejected
        position = self.plan.goals[len(self.session.sent)]
        self.session.goal_sent(stamp)
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = Time(nanoseconds=stamp).to_msg(), self.plan.base_frame
        message.pose.position.x, message.pose.position.y, message.pose.position.z = position
        message.pose.orientation.w = 1.0
        self._goals.publish(message)
        self._again = time.monotonic() + RESEND_PERIOD

        def taken_up():
            if self._rejected > rejected:
                raise QgfError(f"policy_node refuses goal {list(position)}: {self._fault or 'it tells no reason'}")
            if time.monotonic() > self._again:
                self._again = time.monotonic() + RESEND_PERIOD
                self._goals.publish(message)
            return self.session.in_episode > 0

        self._seen = self.session.done
        self._wait(
            taken_up,
            self.plan.goal_timeout,
            lambda: (
                f"goal {len(self.session.sent)} was not taken up within "
                f"{self.plan.goal_timeout:g} s; policy_node tells: {self._fault or 'nothing'}"
            ),
        )

    def _moved_on(self):
        if self._mode in STOPPED_MODES:
            raise QgfError(
                f"policy_node has stopped at goal {len(self.session.sent)}: {self._fault or 'it tells no fault'}"
            )
        before, self._seen = self._seen, self.session.done
        return self._seen > before or self.session.goal_is_due or self.session.finished

    def _no_progress(self):
        return (
            f"no command for goal {len(self.session.sent)} within {self.plan.goal_timeout:g} s; policy_node tells: "
            f"{self._fault or 'nothing'}"
        )


def run(plan: Plan, stop: threading.Event):
    node = DemoNode(plan, stop)
    try:
        if node.be_ready() and node.run_goals():
            node.session.recording().save(Path(plan.recording))
            tell("saved", path=plan.recording)
    finally:
        node.destroy_node()


def main() -> int:
    """`python -m qgf_demo.demo_node PLAN.json`. :returns: 0, 2 for an error, which is told as an event."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        plan = read_plan(Path(sys.argv[1]))
        with rclpy.init(signal_handler_options=SignalHandlerOptions.NO):
            run(plan, stop)
    except QgfError as error:
        tell("error", message=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

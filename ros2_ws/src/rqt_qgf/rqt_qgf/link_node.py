# SPDX-License-Identifier: Apache-2.0
"""The dashboard's connection to the robots: subscriptions that it empties itself, and requests to the policy node.

Wiring only. Nothing here waits: messages are taken and answers looked at when the widget's timer calls `drain`. The
node may be rqt's own, spun by rqt; its executor passes over the subscriptions, because a callback for each message at
1 kHz would cost half a core.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from qgf_msgs.msg import PolicyCommand, PolicyStatus, SmoothnessReport, Spectrum
from rqt_qgf.arms import Arm, find_arms
from rqt_qgf.model import ArmModel

DEPTH = 1000
"""Messages a subscription holds, the oldest are dropped: a second at 1 kHz, ten times the widget's period."""
ANSWER_TIME = 10.0
"""A transition answers within this time [s]: bringing an arm to rest takes a few seconds."""
STATE_PERIOD = 1.0
"""The lifecycle state is asked for this often [s]."""
TRANSITIONS = {"configure": Transition.TRANSITION_CONFIGURE, "activate": Transition.TRANSITION_ACTIVATE,
               "deactivate": Transition.TRANSITION_DEACTIVATE}


class TakenByTimer(ReentrantCallbackGroup):
    """Keeps its subscriptions out of the executor."""

    def can_execute(self, entity: Any) -> bool:
        return False


class RosLink:
    """:param node: owns the topics and clients; somebody must spin it, for the answers of services."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._group = TakenByTimer()
        self._arm: Arm | None = None
        self._model = ArmModel()
        self._inputs: list[tuple[Any, Any]] = []
        self._clients: dict[str, Any] = {}
        self._stop: Any = None
        self._pending: list[tuple[str, Any, float]] = []
        self._state_asked = -STATE_PERIOD
        self._news: deque[str] = deque(maxlen=50)

    def arms(self) -> list[Arm]:
        return find_arms(self._node.get_topic_names_and_types())

    def watch(self, arm: Arm | None) -> ArmModel:
        same = arm and self._arm and arm.same(self._arm)
        self._let_go()
        if not same:
            self._model = ArmModel()
        self._arm = arm
        if arm is None:
            return self._model
        model = self._model
        topics: list[tuple[Any, str, Any]] = [(JointState, arm.joint_states, model.take_joint_state)]
        if arm.monitor:
            topics += [(SmoothnessReport, f"{arm.monitor}/report", model.take_report),
                       (Spectrum, f"{arm.monitor}/spectrum", model.take_spectrum)]
        if arm.policy:
            topics += [(PolicyCommand, f"{arm.policy}/command", model.take_command),
                       (PolicyStatus, f"{arm.policy}/status", model.take_status)]
            kinds = {"change_state": ChangeState, "get_state": GetState, "estop": Trigger, "reset_estop": Trigger}
            self._clients = {name: self._node.create_client(kind, f"{arm.policy}/{name}")
                             for name, kind in kinds.items()}
            self._stop = self._node.create_publisher(Bool, f"{arm.policy}/estop_request", 10)
        # Best effort receives from reliable and from best-effort publishers.
        profile = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._inputs = [(self._node.create_subscription(kind, topic, take, profile, callback_group=self._group), take)
                        for kind, topic, take in topics]
        return model

    def drain(self) -> None:
        now = time.monotonic()
        for subscription, take in self._inputs:
            with subscription.handle:
                for _ in range(DEPTH):
                    try:
                        taken = subscription.handle.take_message(subscription.msg_type, False)
                    except UnicodeDecodeError:  # a name that is no text
                        continue
                    if taken is None:
                        break
                    message, information = taken
                    received = information["received_timestamp"]  # [ns] of the system clock, or None
                    take(message, now - max(0.0, 1e-9 * (time.time_ns() - received) if received else 0.0))
        get_state = self._clients.get("get_state")
        if get_state and now - self._state_asked >= STATE_PERIOD and get_state.service_is_ready():
            self._state_asked = now
            self._call("get_state", GetState.Request())
        self._pending = [call for call in self._pending if not self._answered(*call, now)]

    def request(self, arm: Arm, what: str) -> None:
        if arm != self._arm:
            return
        if what == "estop" and self._stop:
            self._stop.publish(Bool(data=True))  # taken by the control loop itself, even if the node's services hang
        name = "change_state" if what in TRANSITIONS else what
        if not self._clients[name].service_is_ready():
            self._news.append(f"{what}: {arm.policy} does not answer" + (
                "; sent on ~/estop_request: IF THE ARM MOVES, USE THE HARDWARE'S STOP" if what == "estop" else ""))
            return
        if what in TRANSITIONS:
            self._call(what, ChangeState.Request(transition=Transition(id=TRANSITIONS[what])), "change_state")
        else:
            self._call(what, Trigger.Request())

    def _call(self, what: str, request: Any, name: str = "") -> None:
        self._pending.append((what, self._clients[name or what].call_async(request), time.monotonic() + ANSWER_TIME))

    def _answered(self, what: str, future: Any, deadline: float, now: float) -> bool:
        if not future.done():
            if now < deadline:
                return False
            if what != "get_state":
                self._news.append(f"{what}: no answer within {ANSWER_TIME:g} s")
            return True
        answer = future.result()
        if what == "get_state":
            self._model.take_lifecycle(answer.current_state.label, now)
            return True
        self._state_asked = now - STATE_PERIOD  # show at once what has come of it
        told = getattr(answer, "message", "") or ("the reason stands above" if not answer.success else "")
        self._news.append(f"{what}: {'done' if answer.success else 'REFUSED'}" + (f", {told}" if told else ""))
        return True

    def news(self) -> list[str]:
        lines = []
        while self._news:
            lines.append(self._news.popleft())
        return lines

    def close(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._pending = []
        for subscription, _ in self._inputs:
            self._node.destroy_subscription(subscription)
        for client in self._clients.values():
            self._node.destroy_client(client)
        if self._stop is not None:
            self._node.destroy_publisher(self._stop)
        self._inputs, self._clients, self._stop = [], {}, None

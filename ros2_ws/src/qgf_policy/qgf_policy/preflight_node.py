# SPDX-License-Identifier: Apache-2.0
"""`preflight`: listens to a live arm and prints whether a policy may be run on it. It publishes nothing at all."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState

from qgf_core.errors import QgfError
from qgf_policy.checklist import Finding, Heard, HeardState, check_bundle, checklist, refused_bundle
from qgf_policy.conversions import nanoseconds
from qgf_policy.endpoints import node_names, unnamed
from qgf_policy.parameters import PARAMETERS, defaults
from qgf_policy.preflight import Preflight, prepare
from qgf_policy.processor import Awake, Seat
from qgf_policy.realtime import ask
from qgf_policy.settings import CHOSEN, RealtimeSettings

DISCOVERY = 3.5
"""Nobody commands the arm: that is known only after so long [s], since DDS announces itself every 3 s."""
PATIENCE = 4.0
"""What is waited beyond the time asked for until the arm is found [s]; a node's name comes apart from its topics."""


class Listener(Node):
    """Collects joint states, and who else is on the topics."""

    def __init__(self, flight: Preflight, namespace: str) -> None:
        super().__init__("preflight", namespace=namespace)
        self._flight = flight
        self.states: list[HeardState] = []
        qos = QoSProfile(
            depth=200,
            reliability=qos_profile_sensor_data.reliability,
            durability=qos_profile_sensor_data.durability,
        )
        topics, interface = flight.robot.topics, flight.settings.command_interface
        self._states = self.create_subscription(JointState, topics.joint_states, self._on_state, qos)
        self.command_topic = self.resolve_topic_name(getattr(topics, interface))

    def _on_state(self, message: JointState) -> None:
        stamp = nanoseconds(message.header.stamp)
        age = self.get_clock().now().nanoseconds - stamp
        self.states.append(
            HeardState(
                tuple(message.name),
                np.array(message.position),
                np.array(message.velocity),
                len(message.effort),
                stamp,
                time.monotonic_ns(),
                age,
            )
        )

    @property
    def complete(self) -> bool:
        """Whether there are states, a controller, and names of all on the command's topic."""
        listeners = self.get_subscriptions_info_by_topic(self.command_topic)
        commanders = self.get_publishers_info_by_topic(self.command_topic)
        return bool(self.states and listeners) and not unnamed([*listeners, *commanders])

    def heard(self, seconds: float, notes: Sequence[str]) -> Heard:
        """Everything so far."""
        listeners = node_names(self.get_subscriptions_info_by_topic(self.command_topic))
        commanders = node_names(self.get_publishers_info_by_topic(self.command_topic))
        return Heard(
            seconds, self.states, self._states.topic_name, self.command_topic, listeners, commanders, notes
        )


def realtime_notes() -> list[str]:
    """What the policy node would not be permitted, tried in a thread of its own that then ends."""
    notes: list[str] = []
    priority = next(int(spec.default) for spec in PARAMETERS if spec.name == "realtime_priority")
    settings = RealtimeSettings(priority, cpu=CHOSEN, stay_awake=True)

    def try_out() -> None:
        notes.extend(ask(settings, threading.get_native_id()))
        seat = Seat(settings, threading.get_native_id())
        awake = Awake(settings, threading.get_native_id())
        notes.extend(note for note in [awake.note] if note)
        awake.end()
        seat.end()

    thread = threading.Thread(target=try_out)
    thread.start()
    thread.join()
    return notes


def listen(flight: Preflight, seconds: float, namespace: str) -> list[Finding]:
    """The lines on the live arm."""
    rclpy.init()
    try:
        node = Listener(flight, namespace)
        start, least = time.monotonic(), max(seconds, DISCOVERY)
        while (passed := time.monotonic() - start) < least or (passed < least + PATIENCE and not node.complete):
            rclpy.spin_once(node, timeout_sec=0.05)
        findings = list(checklist(flight, node.heard(round(passed, 1), realtime_notes())))
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return findings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="qgf preflight",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check a bundle, and listen to the live arm, before a policy may move it. Nothing is commanded.\n\n"
        "example:  ./qgf preflight runs/myarm/bundle.pt --robot myarm --seconds 5\n"
        "Jog every joint a little while it listens: that proves the signs. Exits with 1 if a line says fail.",
    )
    result.add_argument("bundle", help="the bundle.pt that is to run")
    result.add_argument("--robot", default="", help="name in config/robots or a YAML file (default: the bundle's)")
    result.add_argument(
        "--command-interface", default="", help="position, velocity or joint_trajectory (default: the robot's)"
    )
    result.add_argument("--namespace", default="", help="of the arm's topics")
    result.add_argument(
        "--trusted-keys", default="", help="*.pub files or folders, ':' between: the bundle must be signed with one"
    )
    result.add_argument("--seconds", type=float, default=5.0, help="how long to listen, at least 3.5 (default: 5)")
    result.add_argument("--json", action="store_true", help="print one JSON list")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 all well, 1 a line says fail, 2 a mistake in the command."""
    options = parser().parse_args(arguments)
    if not 0.5 <= options.seconds <= 600.0:
        print(f"qgf: error: --seconds {options.seconds:g}: must lie in 0.5 .. 600", file=sys.stderr)
        return 2
    parameters = dataclasses.replace(
        defaults(),
        bundle=options.bundle,
        robot=options.robot,
        command_interface=options.command_interface,
        trusted_keys=options.trusted_keys,
        allow_controller_without_timeout=True,  # a line of the list tells it
    )
    try:
        flight = prepare(parameters)
    except QgfError as error:
        findings = [refused_bundle(error)]
    else:
        try:
            findings = [check_bundle(flight), *listen(flight, options.seconds, options.namespace)]
        except (KeyboardInterrupt, ExternalShutdownException):
            return 130
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        print("\n".join(map(str, findings)))
    return int(any(finding.level == "fail" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())

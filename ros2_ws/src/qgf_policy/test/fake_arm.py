# SPDX-License-Identifier: Apache-2.0
"""A Panda as a process: integrates velocity commands, publishes joint states at 200 Hz, and fails on request.

Joints come in another order than the policy's, with two fingers among them that measure no velocity. Requests on
fake_arm/fault: "nan" (once), "twice" (once), "lengths" (once), "outside" (stands beyond a limit from then on), "stand"
(a protective stop: commands have no effect), "go" (the end of it; the last command is forgotten).
"""

import array
import math
import signal
import sys

import rclpy
from rclpy.callback_groups import CallbackGroup
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String

from qgf_core.clocks import Pacer, SteadyClock
from qgf_policy.realtime import ask
from qgf_policy.settings import RealtimeSettings

RATE = 200.0
HOME = [0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.785]
ORDER = [
    "finger_1",
    "panda_joint4",
    "panda_joint1",
    "panda_joint7",
    "panda_joint2",
    "finger_2",
    "panda_joint6",
    "panda_joint3",
    "panda_joint5",
]


class NotSpun(CallbackGroup):
    """Subscriptions whose messages are taken by the loop below."""


def taken(subscription):
    while (message := subscription.handle.take_message(subscription.msg_type, False)) is not None:
        yield message[0]


def main():
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    ask(RealtimeSettings(priority=40), 0)  # a driver is no more to be kept waiting than the loop
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("fake_arm")
    group = NotSpun()
    commands = node.create_subscription(
        Float64MultiArray, "forward_velocity_controller/commands", print, 10, callback_group=group
    )
    faults = node.create_subscription(String, "fake_arm/fault", print, 10, callback_group=group)
    states = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    standing = False
    position, velocity, pacer = list(HOME), [0.0] * 7, Pacer(SteadyClock(), round(1e9 / RATE))
    while not stop:
        pacer.wait()
        for message in taken(commands):
            velocity = [0.0] * 7 if standing else list(message.data)
        position = [p + v / RATE for p, v in zip(position, velocity, strict=True)]
        values = {f"panda_joint{i + 1}": (position[i], velocity[i]) for i in range(7)}
        values |= {"finger_1": (0.04, math.nan), "finger_2": (0.04, math.nan)}
        message = JointState(name=list(ORDER))
        message.position = array.array("d", [values[name][0] for name in ORDER])
        message.velocity = array.array("d", [values[name][1] for name in ORDER])
        message.effort = array.array("d", [math.nan] * len(ORDER))
        for fault in taken(faults):
            if fault.data == "nan":
                message.position[2] = math.nan
            elif fault.data == "twice":
                message.name[1] = "panda_joint1"
            elif fault.data == "lengths":
                message.velocity = message.velocity[:-1]
            elif fault.data == "outside":
                position[3] = 0.2
            elif fault.data in ("stand", "go"):
                standing, velocity = fault.data == "stand", [0.0] * 7
        message.header.stamp = node.get_clock().now().to_msg()
        states.publish(message)
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Plays a joint log with /clock at a real-time factor, until it is ended: 5 ms a step, the same every 2 s."""

import array
import signal
import sys
import time

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from qgf_core.clocks import Pacer, SteadyClock
from qgf_core.robot import load_robot
from qgf_policy.realtime import ask
from qgf_policy.settings import RealtimeSettings


def main():
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    robot, factor = load_robot("panda"), float(sys.argv[1])
    ask(RealtimeSettings(priority=40), 0)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("player")
    qos = QoSProfile(depth=1, reliability=qos_profile_sensor_data.reliability)
    clock = node.create_publisher(Clock, "/clock", qos)
    states = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    pacer, step, phase = Pacer(SteadyClock(), round(5e6 / factor)), 0, np.arange(7)
    while not stop:
        pacer.wait()
        step += 1
        turn = 2.0 * np.pi * (step % 400) / 400
        message = JointState(name=list(robot.joint_names))
        message.position = array.array("d", (robot.home + 0.2 * np.sin(turn + phase)).tolist())
        message.velocity = array.array("d", (0.628 * np.cos(turn + phase)).tolist())
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(10**9 + step * 5_000_000, 10**9)
        states.publish(message)
        time.sleep(0.0004)  # on its way before the time that it belongs to is told
        clock.publish(Clock(clock=message.header.stamp))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""A process that publishes joint states and policy commands made of known sines, and now and then unusable messages.

usage: synthetic_arm.py NAMESPACE RATE KIND, where KIND is good, bad (messages that cannot be used among them) or
bunched (now and then one more command, 0.3 periods after another, as of a loop on a busy machine).
"""

from __future__ import annotations

import math
import sys
import time

import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState

from qgf_msgs.msg import PolicyCommand, PolicyStatus

JOINTS = ["shoulder", "elbow", "wrist"]
CHATTERING = 1
SLOW, SLOW_FREQUENCY = 0.3, 2.0
CHATTER, CHATTER_FREQUENCY = 0.1, 31.0
VELOCITY_SCALE = 0.5


def signal_at(t: float) -> list[float]:
    """Slow sine on all joints, chatter on one of them."""
    values = [SLOW * math.sin(2 * math.pi * SLOW_FREQUENCY * t)] * len(JOINTS)
    values[CHATTERING] += CHATTER * math.sin(2 * math.pi * CHATTER_FREQUENCY * t)
    return values


def joint_state(stamp: Time, t: float) -> JointState:
    """Joints in another order than the policy's, and a finger among them."""
    values = dict(zip(JOINTS, signal_at(t), strict=True))
    names = ["wrist", "finger", "shoulder", "elbow"]
    message = JointState(name=names, position=[values.get(name, 0.04) for name in names],
                         velocity=[VELOCITY_SCALE * values.get(name, 0.0) for name in names])
    message.header.stamp = stamp
    return message


def policy_command(stamp: Time, k: int, rate: float) -> PolicyCommand:
    values = signal_at(k / rate)
    message = PolicyCommand(sequence=k, period=1.0 / rate, joint_names=JOINTS, command_interface="velocity",
                            raw_action=values, command=[2.0 * value for value in values])
    message.header.stamp = stamp
    return message


def unusable(stamp: Time, k: int, rate: float) -> list[JointState | PolicyCommand]:
    """One of each kind of message that must be refused."""
    nan_state, short_state, twice = joint_state(stamp, 0.0), joint_state(stamp, 0.0), joint_state(stamp, 0.0)
    nan_state.position[2] = math.nan
    nan_state.velocity[2] = math.inf
    short_state.velocity = short_state.velocity[:2]
    twice.name = ["wrist", "wrist", "shoulder", "elbow"]
    nan_command, short_command = policy_command(stamp, k, rate), policy_command(stamp, k, rate)
    nan_command.raw_action = [math.nan] * 3
    nan_command.command = [math.nan] * 3
    short_command.command = [0.0]
    return [nan_state, short_state, twice, JointState(), nan_command, short_command, PolicyCommand()]


def main() -> None:
    namespace, rate, kind = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    rclpy.init()
    node = rclpy.create_node("policy_node", namespace=namespace)
    states = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    commands = node.create_publisher(PolicyCommand, "~/command", 10)
    statuses = node.create_publisher(PolicyStatus, "~/status", 10)
    start, begun, k, more = node.get_clock().now().nanoseconds, time.monotonic(), 0, 0
    while True:
        nanoseconds = start + round(k * 1e9 / rate)
        stamp = Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        states.publish(joint_state(stamp, k / rate))
        commands.publish(policy_command(stamp, k + more, rate))
        if kind == "bunched" and k % 10 == 5:
            more, close = more + 1, nanoseconds + round(0.3e9 / rate)
            commands.publish(policy_command(Time(sec=close // 10**9, nanosec=close % 10**9), k + more, rate))
        if kind == "bad" and k % 10 == 5:
            later = Time(sec=stamp.sec, nanosec=stamp.nanosec + 1 if stamp.nanosec < 10**9 - 1 else stamp.nanosec)
            for message in unusable(later, k, rate):
                (states if isinstance(message, JointState) else commands).publish(message)
        if k % 20 == 0:
            statuses.publish(PolicyStatus(mode=PolicyStatus.ACTIVE, control_rate=rate, cycles=k))
        k += 1
        time.sleep(max(0.0, begun + k / rate - time.monotonic()))


if __name__ == "__main__":
    main()

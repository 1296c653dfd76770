# SPDX-License-Identifier: Apache-2.0
"""Sends one goal to a running policy node: `./qgf run qgf_demo send_goal X Y Z --frame FRAME`, in metres."""

from __future__ import annotations

import argparse
import sys
import time

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node

from qgf_demo.listeners import owner_hears

TIMEOUT = 10.0


def main() -> int:
    """:returns: 0, 2 where no policy node listens."""
    parser = argparse.ArgumentParser(prog="send_goal", description=__doc__)
    for axis in "xyz":
        parser.add_argument(axis, type=float, help=f"{axis} of the tool's goal in the robot's base frame [m]")
    parser.add_argument("--frame", default="panda_link0", help="the robot's base frame (default: %(default)s)")
    options = parser.parse_args()
    with rclpy.init():
        node = Node("send_goal")
        publisher = node.create_publisher(PoseStamped, "policy_node/goal", 10)
        deadline = time.monotonic() + TIMEOUT
        while not (heard := owner_hears(node, publisher)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not heard:
            print(
                f"qgf: error: no policy_node listens to policy_node/goal within {TIMEOUT:g} s; check ROS_DOMAIN_ID",
                file=sys.stderr,
            )
            return 2
        message = PoseStamped()
        message.header.frame_id, message.header.stamp = options.frame, node.get_clock().now().to_msg()
        message.pose.position.x, message.pose.position.y, message.pose.position.z = options.x, options.y, options.z
        message.pose.orientation.w = 1.0
        publisher.publish(message)
        publisher.wait_for_all_acked()
        node.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(main())

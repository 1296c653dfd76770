# SPDX-License-Identifier: Apache-2.0
"""Asks a node for one of its parameters: `python healthcheck.py /policy_node`. Exits with 0 if it answers in time, else
with 1. That it is listed in the graph would not do: a node that hangs is listed too."""

import sys
import time

import rclpy
from rcl_interfaces.srv import GetParameters

TIMEOUT = 6.0
"""For discovery, which takes two seconds at times, and the answer [s]."""


def answers(name: str, timeout: float = TIMEOUT) -> bool:
    """Whether the node `name` answers within `timeout` [s]."""
    end = time.monotonic() + timeout
    node = rclpy.create_node("qgf_healthcheck", enable_rosout=False, start_parameter_services=False)
    client = node.create_client(GetParameters, f"{name}/get_parameters")
    if not client.wait_for_service(timeout):
        return False
    future = client.call_async(GetParameters.Request(names=["use_sim_time"]))
    rclpy.spin_until_future_complete(node, future, timeout_sec=max(0.1, end - time.monotonic()))
    return bool(future.done() and future.result() is not None)


if __name__ == "__main__":
    with rclpy.init():
        sys.exit(0 if answers(sys.argv[1]) else 1)

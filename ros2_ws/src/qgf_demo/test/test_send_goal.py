# SPDX-License-Identifier: Apache-2.0
"""send_goal as a process, over DDS: the goal comes to the policy node, whoever else listens."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

pytestmark = pytest.mark.ros


@pytest.fixture
def context(domain):
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    context.try_shutdown()


def send(domain: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "qgf_demo.send_goal", "0.5", "-0.1", "0.4", "--frame", "base"]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def listen(context: Context, name: str, heard: list[PoseStamped]):
    """A node that hears goals of policy_node."""
    node = rclpy.create_node(name, context=context)
    node.create_subscription(PoseStamped, "policy_node/goal", heard.append, 10)
    return node


def test_the_goal_waits_for_the_policy_node_though_the_monitor_listens_already(context, domain):
    by_monitor: list[PoseStamped] = []
    by_policy: list[PoseStamped] = []
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(listen(context, "monitor_node", by_monitor))
    sender = send(domain)
    try:
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        assert sender.poll() is None, sender.stderr.read()
        assert by_monitor == []
        executor.add_node(listen(context, "policy_node", by_policy))
        end = time.monotonic() + 20.0
        while not (by_policy and by_monitor) and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        assert [(m.header.frame_id, m.pose.position.y) for m in by_policy] == [("base", -0.1)]
        assert len(by_monitor) == 1
        assert sender.wait(10.0) == 0
    finally:
        sender.kill()
        sender.communicate()
        executor.shutdown()


def test_without_a_policy_node_it_says_so_and_fails(context, domain):
    node = listen(context, "monitor_node", [])
    sender = send(domain)
    _, text = sender.communicate(timeout=40.0)
    node.destroy_node()
    assert sender.returncode == 2
    assert text.startswith("qgf: error: no policy_node listens to policy_node/goal within 10 s")

# SPDX-License-Identifier: Apache-2.0
"""The loop's port over real topics: what it reads of bytes, and what others read of the bytes that it writes."""

from __future__ import annotations

import time

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from qgf_core.robot import load_robot
from qgf_msgs.msg import PolicyCommand
from qgf_policy.goal_frames import BaseFrameOnly
from qgf_policy.ros_port import EstopPort, RosPort
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings
from qgf_policy.status import Command

pytestmark = pytest.mark.ros
ROBOT = load_robot("panda")


@pytest.fixture(scope="module")
def graph(domain, bundle):
    """A port, and a node that speaks and listens to it."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node, other = (rclpy.create_node(name, context=context) for name in ("policy_node", "other"))
    runner = PolicyRunner(bundle, RunnerSettings())
    port = RosPort(node, ROBOT, runner, EstopPort(node), BaseFrameOnly(ROBOT.base_frame), age_from_stamp=False)
    states = other.create_publisher(JointState, ROBOT.topics.joint_states, 10)
    sent, reported = [], []
    other.create_subscription(Float64MultiArray, ROBOT.topics.velocity, sent.append, 10)
    other.create_subscription(PolicyCommand, "policy_node/command", reported.append, 10)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(other)
    deadline = time.monotonic() + 10.0
    while not (states.get_subscription_count() and other.count_publishers("policy_node/command")):
        assert time.monotonic() < deadline
        executor.spin_once(timeout_sec=0.05)
    time.sleep(0.5)  # both sides of a match
    yield port, states, executor, sent, reported
    port.destroy()
    executor.shutdown()
    for each in (node, other):
        each.destroy_node()
    rclpy.shutdown(context=context)


def take_until(port, done):
    """The states taken until one is as asked for."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        state = port.take(time.monotonic_ns())
        if done(state):
            return state
        time.sleep(0.005)
    raise AssertionError("not within 5 s")


def test_bytes_that_are_no_joint_state_are_refused_and_the_next_message_is_read(graph):
    port, states, *_ = graph
    good = JointState(name=[*ROBOT.joint_names, "finger"], position=[*ROBOT.home, np.nan], velocity=[0.5] * 8)
    whole = serialize_message(good)
    # Cut short, and names that would take four gigabytes.
    for broken in (whole[:60], whole[:20] + b"\xff\xff\xff\xff" + whole[24:]):
        states.publish(broken)
        refused = take_until(port, lambda state: state.refusals).refusals
        assert [fault.kind for fault in refused] == ["malformed_state"]
        assert ROBOT.topics.joint_states in str(refused[0]) and "no joint state" in str(refused[0])
        states.publish(good)
        state = take_until(port, lambda state: not state.missing)
        np.testing.assert_array_equal(state.position, ROBOT.home)
        assert state.velocity.tolist() == [0.5] * 7 and not state.refusals


def test_others_read_what_is_sent_and_reported(graph):
    port, _, executor, sent, reported = graph
    values = np.array([0.1, -0.2, 1e-300, 0.0, 5e300, -0.0, 1.0])
    observation, action = np.arange(24, dtype=np.float32) / 7, np.linspace(-1, 1, 7, dtype=np.float32)
    commands = [
        Command(values, True, 2**40 + 1, action, observation, 12 * 10**9 + 34, 56, ""),
        Command(values, True, 2**40 + 2, None, None, 0, 0, "the state is old"),
        Command(-values, True, 2**40 + 3, action, observation, 1, 2, ""),
    ]
    for command in commands:
        port.send(command.values)
        port.report(command)
    deadline = time.monotonic() + 5.0
    while len(sent) < 3 or len(reported) < 3:
        assert time.monotonic() < deadline
        executor.spin_once(timeout_sec=0.05)
    for command, message, report in zip(commands, sent, reported, strict=True):
        assert list(message.data) == command.values.tolist() == list(report.command)
        assert list(report.observation) == ([] if command.observation is None else command.observation.tolist())
        assert list(report.raw_action) == ([] if command.raw_action is None else command.raw_action.tolist())
        assert (report.sequence, report.fault) == (command.sequence, command.reason)
        assert report.state_stamp.sec * 10**9 + report.state_stamp.nanosec == command.state_stamp
        assert report.goal_stamp.sec * 10**9 + report.goal_stamp.nanosec == command.goal_stamp
        assert (report.command_interface, list(report.joint_names)) == ("velocity", list(ROBOT.joint_names))
        assert report.period == pytest.approx(0.01)
        assert abs(time.time() - report.header.stamp.sec) < 30

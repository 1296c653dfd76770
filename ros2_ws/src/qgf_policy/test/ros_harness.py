# SPDX-License-Identifier: Apache-2.0
"""What the tests with real processes share: an operator who hears everything, and children that are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

from qgf_core.robot import load_robot
from qgf_msgs.msg import PolicyCommand, PolicyStatus

NODE = "/policy_node"
PERIOD = 0.01
START = ["-c", "from qgf_policy.start import main; main()"]
ARM = [str(Path(__file__).with_name("fake_arm.py"))]


class Operator:
    """Hears everything that the node says, and asks things of it."""

    def __init__(self, domain, robot=None):
        self.robot = robot or load_robot("panda")
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("operator", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.commands, self.statuses, self.sent, self.positions = [], [], [], []
        self.diagnostics, self.joint_states, self.turn = [], [], False
        subscribe = self.node.create_subscription
        subscribe(PolicyCommand, f"{NODE}/command", self.commands.append, 1000)
        subscribe(PolicyStatus, f"{NODE}/status", self.statuses.append, 100)
        topics = self.robot.topics
        subscribe(Float64MultiArray, topics.velocity, lambda m: self.sent.append(np.array(m.data)), 1000)
        subscribe(Float64MultiArray, topics.position, lambda m: self.positions.append(np.array(m.data)), 1000)
        subscribe(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)
        subscribe(JointState, topics.joint_states, self.joint_states.append, qos_profile_sensor_data)
        self.goal = self.node.create_publisher(PoseStamped, f"{NODE}/goal", 10)
        self.estop_request = self.node.create_publisher(Bool, f"{NODE}/estop_request", 10)
        self.arm_fault = self.node.create_publisher(String, "fake_arm/fault", 10)

    # ------------------------------------------------------------------------------------------------ listening

    def until(self, condition, what, timeout=20.0):
        """Listen until the condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            last = [(s.mode, s.fault) for s in self.statuses[-1:]]
            assert time.monotonic() < end, f"not within {timeout} s: {what}; last status {last}"
            self.executor.spin_once(timeout_sec=0.05)

    def listen(self, duration):
        """Listen for a while [s]."""
        end = time.monotonic() + duration
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def forget(self):
        """Forget what was heard."""
        for heard in (self.commands, self.statuses, self.sent, self.positions, self.diagnostics, self.joint_states):
            heard.clear()

    def mode(self):
        """The mode last told."""
        return self.statuses[-1].mode if self.statuses else None

    def reach(self, *modes, timeout=20.0):
        """Listen until the node tells one of these modes anew; returns that status."""
        self.statuses.clear()
        self.until(lambda: self.mode() in modes, f"mode {modes}", timeout)
        return self.statuses[-1]

    def measured(self, message=None):
        """Joint positions (n,) [rad] of a message, or those last heard."""
        message = message or self.joint_states[-1]
        state = dict(zip(message.name, message.position, strict=True))
        return np.array([state[name] for name in self.robot.joint_names])

    def check_limits(self):
        """All commands heard are within the limits, and so are the changes between consecutive ones."""
        values = np.array([c.command for c in self.commands])
        assert np.isfinite(values).all() and all(np.isfinite(v).all() for v in self.sent)
        assert np.all(np.abs(values) <= self.robot.velocity_limit + 1e-9)
        following = np.diff([c.sequence for c in self.commands]) == 1
        changes = np.abs(np.diff(values, axis=0))[following]
        assert len(changes) and np.all(changes <= self.robot.acceleration_limit * PERIOD + 1e-9)

    # --------------------------------------------------------------------------------------------------- asking

    def call(self, kind, name, request=None, timeout=20.0):
        """The answer of a service."""
        client = self.node.create_client(kind, f"{NODE}/{name}")
        self.until(client.service_is_ready, f"service {name}", timeout)
        future = client.call_async(request or kind.Request())
        self.until(future.done, f"answer of {name}", timeout)
        self.node.destroy_client(client)
        return future.result()

    def transition(self, number):
        """Whether a lifecycle transition succeeded."""
        return self.call(ChangeState, "change_state", ChangeState.Request(transition=Transition(id=number))).success

    def label(self):
        """The lifecycle state."""
        return self.call(GetState, "get_state").current_state.label

    def put(self, name, value):
        """The answer to setting a parameter."""
        if isinstance(value, bool):
            told = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=value)
        elif isinstance(value, int):
            told = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)
        elif isinstance(value, float):
            told = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        else:
            told = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=str(value))
        request = SetParameters.Request(parameters=[Parameter(name=name, value=told)])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def send_goal(self, x=0.5, y=0.1, z=0.4, frame="panda_link0"):
        """Send a goal once somebody listens; returns the message."""
        self.until(lambda: self.goal.get_subscription_count() > 0, "the goal's subscription")
        message = PoseStamped()
        message.header.frame_id = frame
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
        self.goal.publish(message)
        return message

    def send_far_goal(self):
        """One of two goals in turn, so that the arm has far to go."""
        self.turn = not self.turn
        return self.send_goal(0.45, -0.2, 0.35) if self.turn else self.send_goal(0.6, 0.2, 0.55)

    def until_moving(self):
        """Set the arm in motion."""
        self.send_far_goal()
        self.until(lambda: self.commands and np.abs(self.commands[-1].command).max() > 0.1, "motion", 5.0)

    def bring_to_active(self):
        """Whatever the tests before have left: active, with a goal, and nothing heard yet."""
        self.reach(*range(7))
        if self.mode() == PolicyStatus.ESTOPPED:
            assert self.call(Trigger, "reset_estop").success
        if self.label() == "inactive":
            self.reach(PolicyStatus.INACTIVE)
            assert self.transition(Transition.TRANSITION_ACTIVATE)
        self.send_goal()
        self.reach(PolicyStatus.ACTIVE)
        self.forget()

    def close(self):
        """End."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class Child:
    """A process in the test's domain; its standard error goes to a file."""

    def __init__(self, command, domain, errors):
        self.errors = errors
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
        with errors.open("w") as file:
            self.popen = subprocess.Popen([sys.executable, *map(str, command)], stderr=file, env=environment)

    def text(self):
        """What it wrote to standard error."""
        return self.errors.read_text()

    def end(self):
        """End it so that it takes leave of the others; a killed one would haunt their graph for 20 s."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait(10)


def words_for_policy_node(remap=(), **parameters):
    """The node's arguments from --ros-args on, before an arm that nobody gets hurt by.

    :param remap: rules such as "joint_states:=other".
    """
    parameters = {"allow_controller_without_timeout": "true"} | parameters
    options = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return ["--ros-args", *options, *(word for rule in remap for word in ("-r", rule))]


def policy_node(domain, errors, remap=(), start=START, **parameters):
    """policy_node as a child.

    :param start: what Python runs.
    """
    return Child([*start, *words_for_policy_node(remap, **parameters)], domain, errors)

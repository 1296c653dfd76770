# SPDX-License-Identifier: Apache-2.0
"""Two arms in one graph, over DDS: each a simulated arm and a policy node in a namespace; neither disturbs the other.

The left one takes velocities, the right one trajectories. Their policy turns the fifth joint at SPEED as soon as there
is a goal, whatever it sees.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf
from qgf_demo import dds

pytestmark = [pytest.mark.ros, pytest.mark.alone]

PANDA = load_robot("panda")
JOINT, ACTION = 4, 0.1
SPEED = ACTION * PANDA.policy_velocity[JOINT]
"""[rad/s]"""
SIDES = {"left": "velocity", "right": "joint_trajectory"}
COMMANDS = {"left": "/left/forward_velocity_controller/commands",
            "right": "/right/joint_trajectory_controller/joint_trajectory"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    manifest = make_manifest(
        task="reach", robot=PANDA,
        observation=(ObservationTerm("joint_position"), ObservationTerm("tool_position_error")),
        action=ActionSpec("joint_velocity", tuple(PANDA.policy_velocity.tolist())), control_rate=100.0,
        delay_range=(0.0, 0.02), goal_region=Box((0.42, -0.25, 0.30), (0.67, 0.25, 0.60)), training={}, evaluation={},
        urdf=read_urdf(PANDA))
    layer = torch.nn.Linear(10, 7)
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.atanh(torch.tensor([ACTION if i == JOINT else 0.0 for i in range(7)]))
    path = tmp_path_factory.mktemp("bundle") / "bundle.pt"
    save_bundle(path, torch.nn.Sequential(layer, torch.nn.Tanh()), manifest, np.zeros((2, 10)))
    return path


class Side:
    """What is heard of one arm, and what it is told."""

    def __init__(self, ros, name):
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState

        from qgf_msgs.msg import PolicyStatus

        self.ros, self.name, self.truths, self.statuses = ros, name, [], []
        ros.create_subscription(JointState, f"/{name}/sim_node/ground_truth", self.truths.append, 1000)
        ros.create_subscription(PolicyStatus, f"/{name}/policy_node/status", self.statuses.append, 100)
        self.goals = ros.create_publisher(PoseStamped, f"/{name}/policy_node/goal", 1)

    def mode(self):
        return self.statuses[-1].mode if self.statuses else None

    def speeds(self):
        """Of the joint that moves, and the largest of the others [rad/s], as heard since `forget`."""
        velocity = np.array([truth.velocity[:7] for truth in self.truths])
        return velocity[:, JOINT], np.abs(np.delete(velocity, JOINT, axis=1)).max()

    def forget(self):
        self.truths.clear()
        self.statuses.clear()

    def send_goal(self):
        from geometry_msgs.msg import PoseStamped

        goal = PoseStamped()
        goal.header.frame_id = "panda_link0"
        goal.pose.position.x, goal.pose.position.z = 0.5, 0.4
        self.goals.publish(goal)

    def call(self, service):
        from std_srvs.srv import Trigger

        client = self.ros.create_client(Trigger, f"/{self.name}/policy_node/{service}")
        self.ros.until(client.service_is_ready, f"{self.name}: {service}")
        future = client.call_async(Trigger.Request())
        self.ros.until(future.done, f"{self.name}: an answer of {service}")
        return future.result()


@pytest.fixture
def arms(bundle, tmp_path):
    """Both, running, as {name: Side}; `.ros.until` and `.ros.listen` spin, `.ros.diagnosed` has names heard of."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor

    domain = int(os.environ.get("ROS_DOMAIN_ID") or 95)
    environment = dds.environment(domain, tmp_path) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    children = {}

    def begin(package, side, **parameters):
        log = tmp_path / f"{package}-{side}"
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        with log.open("wb") as stream:
            children[log] = subprocess.Popen(
                [sys.executable, "-c", f"from {package}.start import main; main()", "--ros-args", "-r",
                 f"__ns:=/{side}", *words], stdout=subprocess.DEVNULL, stderr=stream, env=environment)

    before = {name: os.environ.get(name) for name in environment}
    os.environ.update({name: value for name, value in environment.items() if "DDS" in name or name.startswith("ROS_")})
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("both", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(condition, what, timeout=60.0):
        end = time.monotonic() + timeout
        while not condition():
            executor.spin_once(timeout_sec=0.05)
            ended = [log.read_text(errors="replace") for log, child in children.items() if child.poll() is not None]
            assert time.monotonic() < end and not ended, f"{what}: {ended}"

    def listen(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)

    node.until, node.listen, node.diagnosed = until, listen, set()
    node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: node.diagnosed.update(status.name for status in m.status), 100)
    try:
        for side, interface in SIDES.items():
            begin("qgf_sim", side, command_interface=interface)
            begin("qgf_policy", side, bundle=bundle, command_interface=interface, autostart="true",
                  allow_controller_without_timeout="true", ramp_duration=0.1)
        sides = {side: Side(node, side) for side in SIDES}
        yield sides
        assert not [log.read_text() for log in children if "Traceback" in log.read_text(errors="replace")]
    finally:
        for child in children.values():
            child.send_signal(signal.SIGINT)
        for child in children.values():
            try:
                child.wait(10.0)
            except subprocess.TimeoutExpired:
                child.kill()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def test_an_emergency_stop_of_one_arm_leaves_the_other_moving(arms):
    from qgf_msgs.msg import PolicyStatus

    left, right = arms["left"], arms["right"]
    ros = left.ros
    for side in arms.values():
        ros.until(lambda side=side: side.mode() == PolicyStatus.HOLDING, f"{side.name}: activation")
        ros.until(lambda side=side: side.goals.get_subscription_count() == 1, f"{side.name}: the goal's subscription")

    # A goal of the one is none of the other's.
    left.send_goal()
    ros.until(lambda: left.mode() == PolicyStatus.ACTIVE, "the left arm's policy")
    right.forget()
    ros.listen(1.0)
    assert {status.mode for status in right.statuses} == {PolicyStatus.HOLDING}
    assert max(np.abs(right.speeds()[0]).max(), right.speeds()[1]) < 0.02

    # Both move, each through its own interface, the stream of trajectories as steadily as the velocities.
    right.send_goal()
    ros.until(lambda: right.mode() == PolicyStatus.ACTIVE, "the right arm's policy")
    ros.listen(1.0)
    for side in arms.values():
        side.forget()
    ros.listen(2.0)
    for side in arms.values():
        speed, others = side.speeds()
        print(f"{side.name}: {speed.min():.4f} .. {speed.max():.4f} rad/s of {SPEED:.4f}, others {others:.4f}")
        assert len(speed) > 300 and np.abs(np.median(speed) - SPEED) < 0.03 * SPEED and others < 0.03
        assert np.mean(speed < 0.8 * SPEED) < 0.02, "no stops, but where this machine was busy elsewhere"

    # Nothing of either is outside its namespace, and what they share names them.
    wanted = {f"{side}/{name}" for side in SIDES for name in ("policy_node: policy", "sim_node: simulation")}
    ros.until(lambda: ros.diagnosed >= wanted, f"diagnostics of all nodes: {ros.diagnosed}", 10.0)
    names = {name for name, _ in ros.get_topic_names_and_types()}
    shared = {name for name in names if not name.startswith(("/left/", "/right/"))}
    assert shared <= {"/diagnostics", "/parameter_events", "/rosout"}, shared
    for side, topic in COMMANDS.items():
        ends = [*ros.get_publishers_info_by_topic(topic), *ros.get_subscriptions_info_by_topic(topic)]
        assert sorted((e.node_namespace, e.node_name) for e in ends) == [
            (f"/{side}", "policy_node"), (f"/{side}", "sim_node")]

    assert left.call("estop").success
    ros.until(lambda: left.mode() == PolicyStatus.ESTOPPED, "the left arm's emergency stop", 5.0)
    ros.listen(PANDA.stop_time)
    for side in arms.values():
        side.forget()
    ros.listen(2.0)
    assert max(np.abs(left.speeds()[0]).max(), left.speeds()[1]) < 0.02
    assert {status.mode for status in left.statuses} == {PolicyStatus.ESTOPPED}
    speed, _ = right.speeds()
    assert {status.mode for status in right.statuses} == {PolicyStatus.ACTIVE}
    assert np.abs(np.median(speed) - SPEED) < 0.03 * SPEED and np.mean(speed < 0.8 * SPEED) < 0.02
    assert right.statuses[-1].estops == 0 and right.statuses[-1].faults_second_commander == 0
    assert not right.call("reset_estop").success and left.call("reset_estop").success

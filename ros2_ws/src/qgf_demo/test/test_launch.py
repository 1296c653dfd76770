# SPDX-License-Identifier: Apache-2.0
"""The launch files, really launched. `launch_ros` comes with a ROS 2 distribution and not as a wheel: without it there
is nothing that could run them, and these tests say so."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf

pytest.importorskip("launch_ros", reason="launch_ros is not installed: launch files run on a ROS 2 distribution only")
pytestmark = pytest.mark.ros

FOLDER = Path(__file__).resolve().parents[4] / "launch"
LAUNCH = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [word.split(":=", 1) for word in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(
    IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments))
sys.exit(service.run())
"""
NODES_START_WITHIN = 60.0
"""[s]: three processes that import torch, pybullet and ROS, on a machine that does other things too."""


def installed(name):
    """The launch file as `ros2 launch qgf_bringup` finds it."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("qgf_bringup")) / "launch" / name


def description(name):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    return get_launch_description_from_python_launch_file(str(installed(name)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    robot = load_robot("panda")
    manifest = make_manifest(
        task="reach", robot=robot,
        observation=(ObservationTerm("joint_position"), ObservationTerm("tool_position_error")),
        action=ActionSpec("joint_velocity", tuple(robot.policy_velocity.tolist())), control_rate=50.0,
        delay_range=(0.0, 0.02), goal_region=Box((0.42, -0.25, 0.30), (0.67, 0.25, 0.60)), training={}, evaluation={},
        urdf=read_urdf(robot))
    # Whatever it sees, it moves the fifth joint, by an action of 0.2.
    layer = torch.nn.Linear(10, 7)
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.atanh(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0]))
    path = tmp_path_factory.mktemp("bundle") / "bundle.pt"
    save_bundle(path, torch.nn.Sequential(layer, torch.nn.Tanh()), manifest, np.zeros((2, 10)))
    return path


class Launched:
    """A launch file in a process of its own, with its children."""

    numbers = itertools.count()

    def __init__(self, folder, name, *arguments):
        self.namespace = f"launched_{next(self.numbers)}"
        self._log = folder / f"{self.namespace}.log"
        with self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(installed(name)), f"namespace:={self.namespace}", *arguments],
                stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"})

    def text(self):
        return self._log.read_text(encoding="utf-8", errors="replace")

    def interrupt(self):
        """Ctrl-C, which a terminal sends to all of a group.

        :return: exit code, time it took [s], and names of processes that are left.
        """
        children = psutil.Process(self.process.pid).children(recursive=True)
        began = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(30.0)
        return code, time.monotonic() - began, [child.name() for child in children if child.is_running()]

    def end(self):
        if self.process.poll() is None:
            for child in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                child.kill()
            self.process.wait()


@pytest.fixture
def launch(tmp_path):
    launched = []

    def begin(name, *arguments):
        launched.append(Launched(tmp_path, name, *arguments))
        return launched[-1]

    yield begin
    for one in launched:
        one.end()


@pytest.fixture
def ros():
    """A node in a context of its own, whose `until(condition)` spins until the condition holds."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("launch_tester", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(condition, launched, what):
        end = time.monotonic() + NODES_START_WITHIN
        while not condition():
            executor.spin_once(timeout_sec=0.05)
            assert time.monotonic() < end and launched.process.poll() is None, f"{what}: {launched.text()}"

    node.until = until
    yield node
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_every_launch_file_is_installed():
    names = sorted(path.name for path in FOLDER.glob("*.launch.py"))
    assert names == ["deploy.launch.py", "sim.launch.py"]
    for name in names:
        assert installed(name).read_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", ["deploy.launch.py", "sim.launch.py"])
def test_every_argument_is_described_and_the_bundle_must_be_given(name):
    arguments = {argument.name: argument for argument in description(name).get_launch_arguments()}
    assert all(len(argument.description) > 20 and argument.description.endswith((".", "]"))
               for argument in arguments.values())
    assert [argument.name for argument in arguments.values() if argument.default_value is None] == ["bundle"]
    assert {"robot", "command_interface", "speed_scale", "dry_run", "autostart", "namespace"} <= set(arguments)
    for switch in ("dry_run", "autostart", "monitor"):
        assert arguments[switch].choices == ["true", "false"]


def default(name, argument):
    from launch.utilities import perform_substitutions

    from launch import LaunchContext

    arguments = {one.name: one for one in description(name).get_launch_arguments()}
    return perform_substitutions(LaunchContext(), arguments[argument].default_value)


def test_an_arm_moves_by_itself_in_simulation_only():
    assert default("deploy.launch.py", "autostart") == "false"
    assert default("sim.launch.py", "autostart") == "true"
    assert default("deploy.launch.py", "allow_controller_without_timeout") == "false"
    assert default("sim.launch.py", "allow_controller_without_timeout") == "true"


def test_simulation_runs_the_policy_and_ends_with_ctrl_c(launch, ros, bundle):
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    from qgf_msgs.msg import PolicyStatus, SmoothnessReport

    sim = launch("sim.launch.py", f"bundle:={bundle}", "speed_scale:=0.5", "seed:=3")
    truths, statuses, reports = [], [], []
    ros.create_subscription(JointState, f"{sim.namespace}/sim_node/ground_truth", truths.append, 10)
    ros.create_subscription(PolicyStatus, f"{sim.namespace}/policy_node/status", statuses.append, 10)
    ros.create_subscription(SmoothnessReport, f"{sim.namespace}/monitor_node/report", reports.append, 10)
    goals = ros.create_publisher(PoseStamped, f"{sim.namespace}/policy_node/goal", 1)
    goal = PoseStamped()
    goal.header.frame_id = "panda_link0"
    goal.pose.position.x, goal.pose.position.z, goal.pose.orientation.w = 0.5, 0.4, 1.0

    def is_active():
        goals.publish(goal)
        return statuses and statuses[-1].mode == PolicyStatus.ACTIVE

    ros.until(is_active, sim, "an active policy")
    # The parameters arrived: an action of 0.2 at half speed on a joint that a full one moves at 1.5 rad/s.
    ros.until(lambda: truths and abs(truths[-1].velocity[4] - 0.15) < 0.01, sim, "the policy's speed")
    ros.until(lambda: any(report.source == "raw_action" and report.samples > 10 for report in reports), sim, "a report")
    code, took, left = sim.interrupt()
    assert (code, left) == (0, []), sim.text()
    assert took < 5.0, sim.text()
    assert sim.text().count("process has finished cleanly") == 3 and "Traceback" not in sim.text()


def test_deploy_sends_nothing_to_the_arm_in_a_dry_run(launch, ros, bundle):
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray

    from qgf_msgs.msg import PolicyCommand

    deployed = launch("deploy.launch.py", f"bundle:={bundle}", "dry_run:=true", "autostart:=true", "monitor:=false")
    computed, sent = [], []
    ros.create_subscription(PolicyCommand, f"{deployed.namespace}/policy_node/command", computed.append, 10)
    for interface in ("velocity", "position"):
        ros.create_subscription(
            Float64MultiArray, f"{deployed.namespace}/forward_{interface}_controller/commands", sent.append, 10)
    states = ros.create_publisher(JointState, f"{deployed.namespace}/joint_states", 10)
    goals = ros.create_publisher(PoseStamped, f"{deployed.namespace}/policy_node/goal", 1)
    robot = load_robot("panda")
    state = JointState(name=list(robot.joint_names), position=robot.home.tolist(), velocity=[0.0] * 7)
    goal = PoseStamped()
    goal.header.frame_id = "panda_link0"
    goal.pose.position.x, goal.pose.position.z, goal.pose.orientation.w = 0.5, 0.4, 1.0

    def tick():
        state.header.stamp = ros.get_clock().now().to_msg()
        states.publish(state)

    ros.create_timer(0.005, tick)
    ros.create_timer(0.5, lambda: goals.publish(goal))
    ros.until(lambda: len([one for one in computed if one.raw_action and not one.fault]) > 50, deployed, "dry commands")
    assert sent == []
    assert deployed.interrupt()[::2] == (0, [])


def test_deploy_waits_to_be_configured(launch, ros, bundle):
    from lifecycle_msgs.srv import GetState

    deployed = launch("deploy.launch.py", f"bundle:={bundle}", "robot:=panda")
    client = ros.create_client(GetState, f"{deployed.namespace}/policy_node/get_state")
    ros.until(client.service_is_ready, deployed, "policy_node")
    future = client.call_async(GetState.Request())
    ros.until(future.done, deployed, "its state")
    assert future.result().current_state.label == "unconfigured"


@pytest.mark.parametrize(("arguments", "message"), [
    (["robot:=ur5000"], "qgf: error: config/robots: unknown robot 'ur5000'; choose one of: iiwa, panda, ur5e"),
    (["command_interface:=effort"], "Valid options are: ['velocity', 'position']"),
    (["gui:=maybe"], "Valid options are: ['true', 'false']"),
])
def test_a_wrong_argument_ends_everything_with_a_word(launch, bundle, arguments, message):
    sim = launch("sim.launch.py", f"bundle:={bundle}", *arguments)
    sim.process.wait(NODES_START_WITHIN)
    assert message in sim.text()


def test_without_a_bundle_it_says_so(launch):
    sim = launch("sim.launch.py")
    assert sim.process.wait(NODES_START_WITHIN) == 1
    assert "missing required argument 'bundle'" in sim.text()

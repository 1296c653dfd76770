# SPDX-License-Identifier: Apache-2.0
"""The launch files, really launched. `launch_ros` comes with a ROS 2 distribution and not as a wheel: without it there
is nothing that could run them, and these tests say so."""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.config import config_root
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf

sys.path.insert(0, str(Path(__file__).parent))
from launched import Launched, installed, names_of

pytest.importorskip("launch_ros", reason="launch_ros is not installed: launch files run on a ROS 2 distribution only")
pytestmark = [pytest.mark.ros, pytest.mark.alone]  # Ctrl-C has five seconds

FOLDER = Path(__file__).resolve().parents[4] / "launch"
FILES = ["dashboard", "deploy", "gazebo", "monitor", "sim", "train"]
OF_AN_ARM = ["deploy", "gazebo", "sim"]
NODES_START_WITHIN = 180.0
"""[s]: three processes that import torch, pybullet and ROS, on a machine that does other things too."""


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


@pytest.fixture
def launch(tmp_path):
    launched = []

    def begin(name, *arguments, **options):
        launched.append(Launched(tmp_path, name, *arguments, **options))
        return launched[-1]

    yield begin
    for one in launched:
        one.end()


def patient(folder, job):
    """Its parameters, with a policy that does not mind being late: the machine does other things too."""
    path = folder / f"{job}.yaml"
    text = (config_root() / "nodes" / f"{job}.yaml").read_text()  # which ends with policy_node's
    path.write_text(f"{text}    overrun_share: 1.0\n    state_timeout: 2.0\n")
    return f"parameters:={path}"


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


def state_of(ros, launched):
    """The policy node's lifecycle state."""
    from lifecycle_msgs.srv import GetState

    client = ros.create_client(GetState, f"{launched.namespace}/policy_node/get_state")
    ros.until(client.service_is_ready, launched, "policy_node")
    future = client.call_async(GetState.Request())
    ros.until(future.done, launched, "its state")
    ros.destroy_client(client)
    return future.result().current_state.label


def test_every_launch_file_is_installed():
    names = sorted(path.name for path in FOLDER.glob("*.launch.py"))
    assert names == [f"{name}.launch.py" for name in FILES]
    for name in names:
        assert installed(name).read_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described_and_the_bundle_must_be_given(name):
    arguments = {argument.name: argument for argument in description(f"{name}.launch.py").get_launch_arguments()}
    assert all(len(argument.description) > 20 and argument.description.endswith((".", "]"))
               for argument in arguments.values())
    missing = [argument.name for argument in arguments.values() if argument.default_value is None]
    assert missing == (["bundle"] if name in OF_AN_ARM else [])
    assert name == "dashboard" or "namespace" in arguments
    if name in OF_AN_ARM:
        assert {"robot", "command_interface", "speed_scale", "dry_run", "autostart"} <= set(arguments)
        for switch in ("dry_run", "autostart", "monitor"):
            assert arguments[switch].choices == ["true", "false"]
        assert "" in arguments["command_interface"].choices or "velocity" in arguments["command_interface"].choices


def test_parameters_stand_in_the_configuration_and_are_the_nodes_own():
    """rclpy passes over a name that no node declares."""
    from qgf_launch.arguments import as_text, parameter_file, values_of

    from qgf_policy.parameters import PARAMETERS
    from qgf_sim.robot_double import DoubleSettings

    known = {"policy_node": {spec.name for spec in PARAMETERS},
             "sim_node": {*DoubleSettings.__dataclass_fields__, "robot", "gui", "publish_clock"},
             "trainer_node": {"queue", "output_root", "hand_over_timeout"},
             "monitor_node": {"policy", "joints", "config", "bundle", "replay"},
             "governor_node": {"policy", "monitor", "config"}}
    files = sorted((config_root() / "nodes").glob("*.yaml"))
    assert [path.stem for path in files] == ["deploy", "gazebo", "monitor", "sim", "train"]
    for path in files:
        assert path == parameter_file(path.stem)
        for name in yaml.safe_load(path.read_text()):
            node = name.removeprefix("/**/")
            values = values_of(path, node)
            assert values and set(values) <= known[node], path
            arguments = {one.name for one in description(f"{path.stem}.launch.py").get_launch_arguments()}
            for parameter in set(values) & arguments - {"policy", "config", "bundle"}:
                assert default(f"{path.stem}.launch.py", parameter) == as_text(values[parameter])


def default(name, argument):
    from launch.utilities import perform_substitutions

    from launch import LaunchContext

    arguments = {one.name: one for one in description(name).get_launch_arguments()}
    return perform_substitutions(LaunchContext(), arguments[argument].default_value)


def test_an_arm_moves_by_itself_in_simulation_only():
    assert default("deploy.launch.py", "autostart") == "false"
    assert default("deploy.launch.py", "respawn") == "false"
    assert default("sim.launch.py", "autostart") == "true"
    assert default("deploy.launch.py", "allow_controller_without_timeout") == "false"
    assert default("sim.launch.py", "allow_controller_without_timeout") == "true"


def test_simulation_runs_the_policy_and_ends_with_ctrl_c(launch, ros, bundle, tmp_path):
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    from qgf_msgs.msg import PolicyStatus, SmoothnessReport

    # By the command, where there is one.
    ros2 = shutil.which("ros2")
    command = [ros2, "launch", "qgf_bringup", "sim.launch.py"] if ros2 else None
    sim = launch("sim.launch.py", f"bundle:={bundle}", "speed_scale:=0.5", "seed:=3", patient(tmp_path, "sim"),
                 environment={"FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT"},
                 command=command)
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
    assert "Unable to start transition" not in sim.text()
    assert sim.left() == []


@pytest.fixture
def arm(ros):
    """A Panda at home, whose driver tells of it, and a goal for its policy: `arm(launched)` begins."""
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    robot = load_robot("panda")
    state = JointState(name=list(robot.joint_names), position=robot.home.tolist(), velocity=[0.0] * 7)
    goal = PoseStamped()
    goal.header.frame_id = "panda_link0"
    goal.pose.position.x, goal.pose.position.z, goal.pose.orientation.w = 0.5, 0.4, 1.0

    def begin(launched):
        states = ros.create_publisher(JointState, f"{launched.namespace}/joint_states", 10)
        goals = ros.create_publisher(PoseStamped, f"{launched.namespace}/policy_node/goal", 1)

        def tick():
            state.header.stamp = ros.get_clock().now().to_msg()
            states.publish(state)

        ros.create_timer(0.005, tick)
        ros.create_timer(0.5, lambda: goals.publish(goal))

    return begin


def test_deploy_waits_for_the_arm_sends_nothing_when_dry_and_never_activates_twice(launch, ros, arm, bundle, tmp_path):
    from std_msgs.msg import Float64MultiArray

    from qgf_msgs.msg import PolicyCommand, PolicyStatus

    deployed = launch("deploy.launch.py", f"bundle:={bundle}", "dry_run:=true", "autostart:=true", "monitor:=false",
                      "respawn:=true", patient(tmp_path, "deploy"))
    computed, sent, statuses = [], [], []
    ros.create_subscription(PolicyCommand, f"{deployed.namespace}/policy_node/command", computed.append, 10)
    ros.create_subscription(PolicyStatus, f"{deployed.namespace}/policy_node/status", statuses.append, 10)
    for interface in ("velocity", "position"):
        ros.create_subscription(
            Float64MultiArray, f"{deployed.namespace}/forward_{interface}_controller/commands", sent.append, 10)
    # Without an arm the activation is refused, and tried again.
    ros.until(lambda: "activate refused: " in deployed.text(), deployed, "a refusal")
    assert state_of(ros, deployed) == "inactive"
    arm(deployed)
    ros.until(lambda: len([one for one in computed if one.raw_action and not one.fault]) > 50, deployed, "dry commands")
    assert sent == [] and "Unable to start transition" not in deployed.text()

    (policy,) = [child for child in psutil.Process(deployed.process.pid).children(recursive=True)
                 if "policy_node" in " ".join(child.cmdline())]
    policy.kill()
    ros.until(lambda: deployed.text().count("process started with pid") == 2, deployed, "its next life")
    statuses.clear()
    ros.until(lambda: len(statuses) > 20, deployed, "its status")
    # It has been configured and could be activated, and two seconds on nobody has.
    ros.until(lambda: statuses[-1].mode == PolicyStatus.INACTIVE, deployed, "its configuration")
    statuses.clear()
    ros.until(lambda: len(statuses) > 20, deployed, "more of its status")
    assert {one.mode for one in statuses} == {PolicyStatus.INACTIVE}
    assert state_of(ros, deployed) == "inactive"
    assert deployed.interrupt()[::2] == (0, [])


def test_deploy_spawns_the_controller_first_and_waits_to_be_activated(launch, ros, arm, bundle, faked):
    deployed = launch("deploy.launch.py", f"bundle:={bundle}", "controllers:=true", "monitor:=false",
                      "allow_controller_without_timeout:=true", environment=faked)
    arm(deployed)
    ros.until(lambda: "loaded " in deployed.text(), deployed, "a configured policy")
    assert state_of(ros, deployed) == "inactive"
    text = deployed.text()
    asked = f"spawner was asked for forward_velocity_controller --controller-manager controller_manager --param-file " \
            f"{config_root() / 'controllers' / 'panda.yaml'}"
    assert asked in text and text.index(asked) < text.index("[policy_node-")
    assert deployed.interrupt()[::2] == (0, [])


def test_gazebo_gets_the_arm_and_then_the_policy_comes(launch, ros, bundle, faked):
    pytest.importorskip("xacro", reason="xacro is not installed")
    gazebo = launch("gazebo.launch.py", f"bundle:={bundle}", "headless:=true", "autostart:=false", "monitor:=false",
                    environment=faked)
    ros.until(lambda: "loaded " in gazebo.text(), gazebo, "a configured policy")
    text = gazebo.text()
    assert f"gz gets -r -s {config_root() / 'gazebo' / 'world.sdf'}" in text
    places = [text.index(words) for words in (
        "create was asked for -topic robot_description -name arm", "spawner was asked for joint_state_broadcaster")]
    assert places == sorted(places) and "spawner was asked for forward_velocity_controller" in text
    assert text.count(f"-r __ns:=/{gazebo.namespace}") >= 4, "all of them in the namespace"
    assert state_of(ros, gazebo) == "inactive"
    assert gazebo.interrupt()[::2] == (0, [])


@pytest.fixture(scope="module")
def damaged(bundle):
    """The bundle with one byte changed."""
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    path = bundle.with_name("damaged.pt")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("file", "arguments", "word", "error", "begun"), [
    ("deploy", ["bundle:={bundle}", "robot:=iiwa"], "configure refused: ",
     "policy_node refuses its configuration", True),
    ("deploy", ["bundle:={damaged}", "robot:=panda"], "configure refused: ",
     "policy_node refuses its configuration", True),
    ("deploy", ["bundle:={bundle}", "controllers:=true", "command_interface:=position"], "spawner was asked for",
     "the controller manager did not take forward_position_controller", False),
    ("sim", ["bundle:={bundle}", "perturb:=nonsense"], "nonsense", "sim_node has ended with code ", True),
])
def test_what_is_refused_ends_it_with_an_error_and_all_that_runs(
        launch, bundle, damaged, faked, file, arguments, word, error, begun):
    arguments = [argument.format(bundle=bundle, damaged=damaged) for argument in arguments]
    launched = launch(f"{file}.launch.py", *arguments, "monitor:=false", environment=faked)
    assert launched.wait(NODES_START_WITHIN) == 1, launched.text()
    errors = [line for line in launched.text().splitlines() if "[launch]" in line and "[ERROR]" in line]
    assert len(errors) == 1 and error in errors[0], launched.text()
    assert word in launched.text() and "Traceback" not in launched.text()
    assert ("[policy_node-" in launched.text()) == begun
    assert launched.left() == []


def test_a_node_that_dies_is_the_launchs_failure(launch, ros):
    train = launch("train.launch.py")
    ros.until(lambda: f"/{train.namespace}/trainer_node" in names_of(ros), train, "the trainer node")
    (node,) = [child for child in psutil.Process(train.process.pid).children(recursive=True)
               if "trainer_node" in " ".join(child.cmdline())]
    node.kill()
    assert train.wait(30.0) == 1, train.text()
    assert "trainer_node has ended with code -9, for what it says above" in train.text()
    assert "Traceback" not in train.text() and train.left() == []


def test_the_other_files_start_what_they_say_and_end_with_ctrl_c(launch, ros):
    """Training, monitor with governor, and dashboard, side by side."""
    train, monitor = launch("train.launch.py"), launch("monitor.launch.py", "governor:=true")
    windows = {"QT_QPA_PLATFORM": "offscreen", "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", "0")}
    dashboard = launch("dashboard.launch.py", "theme:=dark", environment=windows)

    wanted = {f"/{train.namespace}/trainer_node", f"/{monitor.namespace}/monitor_node",
              f"/{monitor.namespace}/governor_node", "/dashboard"}
    ros.until(lambda: wanted <= names_of(ros), train, "all of the nodes")
    for one in (dashboard, monitor, train):
        code, took, left = one.interrupt()
        assert (code, left) == (0, []) and took < 5.0, one.text()
        assert "Traceback" not in one.text() and "process has died" not in one.text(), one.text()


@pytest.mark.parametrize(("file", "arguments", "message"), [
    ("sim", ["bundle:={bundle}", "robot:=ur5000"],
     "config/robots: unknown robot 'ur5000'; choose one of: iiwa, panda, ur5e"),
    ("sim", ["bundle:={bundle}", "command_interface:=effort"], "Valid options are: ['velocity', 'position'"),
    ("sim", ["bundle:={bundle}", "gui:=maybe"], "Valid options are: ['true', 'false']"),
    ("deploy", ["bundle:=nowhere.pt"], "bundle:=nowhere.pt: no such file; check the path"),
    ("deploy", ["bundle:={bundle}", "speed_scale:=fast"], "speed_scale:=fast is not a number"),
    ("deploy", [], "missing required argument 'bundle'"),
])
def test_a_wrong_argument_is_one_line_and_starts_nothing(launch, bundle, file, arguments, message):
    launched = launch(f"{file}.launch.py", *(word.format(bundle=bundle) for word in arguments))
    assert launched.wait(NODES_START_WITHIN) == 1, launched.text()
    errors = [line for line in launched.text().splitlines() if "[ERROR]" in line]
    # launch itself tells a wrong choice twice.
    assert 1 <= len(errors) <= 2 and all(message in line for line in errors), launched.text()
    assert "process started" not in launched.text()

# SPDX-License-Identifier: Apache-2.0
"""What ros2_control and Gazebo are told of an arm agrees with the arm's description, and simulators can load it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from qgf_core.config import config_root, find_config
from qgf_core.errors import QgfError
from qgf_core.robot import load_robot, strip_meshes

ROBOTS = sorted(path.stem for path in (config_root() / "robots").glob("*.yaml"))
CONTROLLERS = sorted((config_root() / "controllers").glob("*.yaml"))
DOCS = Path(__file__).resolve().parents[4] / "docs" / "arms"
DRIVER_RATE = {"ur5e": 500, "panda": 1000, "iiwa": 200, "generic": 100}
"""Rate that each driver takes commands at [Hz], as its documentation says."""


def parameters(path: Path) -> dict:
    """By node, without the wildcard before its name."""
    return {name.removeprefix("/**/"): entry["ros__parameters"]
            for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def test_every_robot_has_its_controllers():
    assert {*ROBOTS, "generic"} == {path.stem for path in CONTROLLERS}


@pytest.mark.parametrize("path", CONTROLLERS, ids=lambda path: path.stem)
def test_controllers_agree_with_the_robot(path):
    told = parameters(path)
    manager = told.pop("controller_manager")
    rate = manager.pop("update_rate")
    assert {name: entry["type"] for name, entry in manager.items()} == {
        name: entry["type"] for name, entry in told.items()}
    assert rate == DRIVER_RATE[path.stem]
    joints = {tuple(entry["joints"]) for entry in told.values() if "joints" in entry}
    assert len(joints) == 1
    assert told["forward_velocity_controller"]["interface_name"] == "velocity"
    assert told["forward_position_controller"]["interface_name"] == "position"
    assert told["joint_trajectory_controller"]["interpolate_from_desired_state"] is True
    if path.stem == "generic":
        return
    robot = load_robot(path.stem)
    assert joints == {robot.joint_names}
    assert rate >= robot.state_rate and rate % robot.state_rate == 0 and rate % (robot.command_rate or 1) == 0
    for interface in ("velocity", "position", "joint_trajectory"):
        controller, _, topic = getattr(robot.topics, interface).partition("/")
        assert controller in told and topic == ("joint_trajectory" if interface == "joint_trajectory" else "commands")


@pytest.mark.parametrize("page", ["ur", "franka", "kuka", "generic"])
def test_every_page_tells_what_was_tried_and_names_what_there_is(page):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert "tried on the double, not on the hardware" in " ".join(text.lower().split())
    for heading in ("## What runs where", "## Check first", "## Step by step", "## Safety"):
        assert heading in text
    for name in re.findall(r"config/[a-z]+/[a-z0-9_]+\.yaml", text):
        assert (config_root().parent / name).is_file() or "my_" in name, f"{page}.md: {name}"
    for words in re.findall(r"qgf_bringup (\w+\.launch\.py)", text):
        assert (config_root().parent / "launch" / words).is_file(), f"{page}.md: {words}"


# ---------------------------------------------------------------------------------------------------------- Gazebo

pytest.importorskip("xacro", reason="xacro is not installed")


def gazebo_urdf(*arguments):
    from qgf_launch.gazebo import gazebo_urdf

    return gazebo_urdf(*arguments)


@pytest.fixture(scope="module")
def urdfs():
    return {name: gazebo_urdf(name, "left") for name in ROBOTS}


@pytest.mark.parametrize("name", ROBOTS)
def test_gazebo_drives_the_robots_joints_within_its_limits(urdfs, name):
    robot, root = load_robot(name), ElementTree.fromstring(urdfs[name])
    control = root.find("ros2_control")
    assert control.find("hardware/plugin").text == "gz_ros2_control/GazeboSimSystem"
    assert tuple(joint.get("name") for joint in control.findall("joint")) == robot.joint_names
    for joint, spec in zip(control.findall("joint"), robot.joints, strict=True):
        limits = {one.get("name"): [float(one.find(f"param[@name='{end}']").text) for end in ("min", "max")]
                  for one in joint.findall("command_interface")}
        assert limits == {"velocity": [-spec.velocity, spec.velocity], "position": list(spec.position)}
        assert float(joint.find("state_interface[@name='position']/param").text) == spec.home
        assert {one.get("name") for one in joint.findall("state_interface")} >= {"position", "velocity"}
    plugin = root.find("gazebo/plugin")
    assert plugin.get("name") == "gz_ros2_control::GazeboSimROS2ControlPlugin"
    assert Path(plugin.find("parameters").text) == config_root() / "controllers" / f"{name}.yaml"
    assert plugin.find("ros/namespace").text == "/left"
    fixed = root.find("joint[@name='world_to_arm']")
    assert (fixed.find("parent").get("link"), fixed.find("child").get("link")) == ("world", robot.base_frame)
    meshes = [Path(mesh.get("filename").removeprefix("file://")) for mesh in root.iter("mesh")]
    assert meshes and all(path.is_absolute() and path.is_file() for path in meshes)


@pytest.mark.parametrize("name", ROBOTS)
def test_both_engines_load_what_gazebo_gets(urdfs, name, tmp_path):
    import mujoco
    import pybullet

    robot, path = load_robot(name), tmp_path / "arm.urdf"
    path.write_text(strip_meshes(urdfs[name]), encoding="utf-8")
    client = pybullet.connect(pybullet.DIRECT)
    try:
        body = pybullet.loadURDF(str(path), physicsClientId=client)
        infos = [pybullet.getJointInfo(body, i, physicsClientId=client)
                 for i in range(pybullet.getNumJoints(body, physicsClientId=client))]
        turning = [info[1].decode() for info in infos if info[2] == pybullet.JOINT_REVOLUTE]
        assert pybullet.getBodyInfo(body, physicsClientId=client)[0] == b"world"
    finally:
        pybullet.disconnect(client)
    assert set(robot.joint_names) <= set(turning)
    model = mujoco.MjModel.from_xml_string(strip_meshes(urdfs[name]))
    assert set(robot.joint_names) <= {model.joint(i).name for i in range(model.njnt)}


def test_a_joint_counted_the_other_way_round_is_refused(tmp_path):
    text = find_config("robots", "ur5e").read_text(encoding="utf-8")
    path = tmp_path / "mirrored.yaml"
    path.write_text(text.replace("home: -0.25,", "home: -0.25, sign: -1,"), encoding="utf-8")
    with pytest.raises(QgfError, match=r"'shoulder_pan_joint'.*sign -1"):
        gazebo_urdf(str(path))


def test_world_and_bridge_carry_the_clock():
    world = ElementTree.parse(config_root() / "gazebo" / "world.sdf").getroot().find("world")
    assert float(world.find("physics/max_step_size").text) <= 1.0 / max(DRIVER_RATE.values())
    assert {plugin.get("name") for plugin in world.findall("plugin")} == {
        "gz::sim::systems::Physics", "gz::sim::systems::UserCommands", "gz::sim::systems::SceneBroadcaster"}
    (clock,) = yaml.safe_load((config_root() / "gazebo" / "bridge.yaml").read_text(encoding="utf-8"))
    assert clock == {"ros_topic_name": "/clock", "gz_topic_name": "/clock", "direction": "GZ_TO_ROS",
                     "ros_type_name": "rosgraph_msgs/msg/Clock", "gz_type_name": "gz.msgs.Clock"}

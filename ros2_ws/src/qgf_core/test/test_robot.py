# SPDX-License-Identifier: Apache-2.0
"""Robot descriptions: the arms that are shipped, and what is said of those that contradict themselves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from qgf_core.config import config_root
from qgf_core.errors import ConfigError, RobotError
from qgf_core.robot import (
    DriveSpec,
    JointSpec,
    RobotSpec,
    ToolSpec,
    check_against_urdf,
    load_robot,
    read_urdf,
    strip_meshes,
)

ARMS = {"panda": 7, "iiwa": 7, "ur5e": 6}
"""The arms of the project and their joints."""


def good_yaml() -> dict[str, Any]:
    return {
        "name": "tiny", "urdf": "tiny.urdf", "base_frame": "base", "tool": {"link": "tip"},
        "joints": [
            {"name": "shoulder", "position": [-1.9, 1.9], "velocity": 2.0, "acceleration": 10.0, "jerk": 500.0,
             "effort": 20.0, "home": 0.1},
            {"name": "elbow", "position": [-3.0, 3.0], "velocity": 2.0, "acceleration": 10.0, "jerk": 500.0,
             "effort": 20.0},
        ]}


@pytest.fixture
def write(tmp_path: Path, two_joint_urdf: str) -> Callable[..., str]:
    """Writes a robot's YAML and URDF; returns the YAML's path."""
    def do(data: dict[str, Any], urdf: str = two_joint_urdf) -> str:
        (tmp_path / "tiny.urdf").write_text(urdf)
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(data))
        return str(path)
    return do


def refusal(path: str, of: type[ConfigError] = ConfigError) -> str:
    """What load_robot says, without the folder."""
    with pytest.raises(of) as caught:
        load_robot(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(caught.value.remedy) and caught.value.remedy
    return message.replace(str(Path(path).parent) + "/", "")


def test_every_arm_of_the_project_is_known():
    assert sorted(ARMS) == sorted(path.stem for path in (config_root() / "robots").glob("*.yaml"))


@pytest.mark.parametrize("arm", ARMS)
def test_the_arms_of_the_project(arm):
    spec = load_robot(arm)
    assert spec.name == arm and len(spec.joints) == ARMS[arm] and Path(spec.urdf).is_absolute()
    for values in (spec.home, spec.position_lower, spec.velocity_limit, spec.acceleration_limit, spec.jerk_limit,
                   spec.effort_limit, spec.policy_velocity, spec.signs):
        assert values.shape == (ARMS[arm],) and values.dtype == np.float64
    assert np.all(spec.policy_velocity <= spec.velocity_limit)


def test_the_panda_by_its_data_sheet():
    spec = load_robot("panda")
    assert spec.joint_names == tuple(f"panda_joint{i}" for i in range(1, 8))
    np.testing.assert_array_equal(spec.velocity_limit, [2.175] * 4 + [2.61] * 3)
    np.testing.assert_array_equal(spec.acceleration_limit, [15, 7.5, 10, 12.5, 15, 20, 20])
    np.testing.assert_array_equal(spec.jerk_limit, [7500, 3750, 5000, 6250, 7500, 10000, 10000])
    np.testing.assert_array_equal(spec.position_lower, [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
    np.testing.assert_array_equal(spec.position_upper, [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
    np.testing.assert_array_equal(spec.effort_limit, [87] * 4 + [12] * 3)


def test_a_good_description_and_names_with_spaces(write, two_joint_urdf):
    assert load_robot(write(good_yaml())).joint_names == ("shoulder", "elbow")
    data = good_yaml()
    data["joints"][0]["name"] = "the shoulder"
    spec = load_robot(write(data, two_joint_urdf.replace('name="shoulder"', 'name="the shoulder"')))
    assert spec.joint_names == ("the shoulder", "elbow") and np.all(spec.signs == 1.0)


def test_the_order_of_the_yaml_is_the_order(write):
    data = good_yaml()
    data["joints"].reverse()
    data["joints"][0]["sign"] = -1
    spec = load_robot(write(data))
    assert spec.joint_names == ("elbow", "shoulder")
    np.testing.assert_array_equal(spec.signs, [-1.0, 1.0])
    np.testing.assert_array_equal(spec.position_upper, [3.0, 1.9])
    np.testing.assert_array_equal(spec.home, [0.0, 0.1])


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = good_yaml()
    change(data)
    return data


@pytest.mark.parametrize(("data", "message"), [
    (changed(lambda d: d["joints"][0].update(position=[1.9, -1.9])),
     "tiny.yaml: joints[0]: joint 'shoulder': lower position limit 1.9 is not below the upper -1.9; correct the value"),
    (changed(lambda d: d["joints"][0].update(position=[-110.0, 110.0])),
     "tiny.yaml: joints[0]: joint 'shoulder': position limits -110.0, 110.0 look like degrees; give rad; "
     "correct the value"),
    (changed(lambda d: d["joints"][1].update(home=3.5)),
     "tiny.yaml: joints[1]: joint 'elbow': home 3.5 rad lies outside its limits -3.0, 3.0; correct the value"),
    (changed(lambda d: d["joints"][1].update(home=2.97)),
     "tiny.yaml: joint 'elbow': home 2.97 rad lies within position_margin 0.05 rad of its limits [-3.0, 3.0]; "
     "correct the value"),
    (changed(lambda d: d["joints"][0].update(velocity=0.0)),
     "tiny.yaml: joints[0]: joint 'shoulder': velocity 0.0 must be positive; correct the value"),
    (changed(lambda d: d["joints"][0].update(policy_velocity=2.5)),
     "tiny.yaml: joints[0]: joint 'shoulder': policy_velocity 2.5 exceeds velocity 2.0; correct the value"),
    (changed(lambda d: d["joints"][0].update(sign=0)),
     "tiny.yaml: joints[0].sign: 0 is not known; choose one of: 1, -1"),
    (changed(lambda d: d["joints"][0].update(position=[-1.9])),
     "tiny.yaml: joints[0].position: expected 2 entries, got 1; give all of them"),
    (changed(lambda d: d["joints"][0].update(jerk=float("inf"))),
     "tiny.yaml: joints[0].jerk: inf is not finite; give a finite number"),
    (changed(lambda d: d["joints"][0].pop("effort")), "tiny.yaml: joints[0].effort: missing; add it"),
    (changed(lambda d: d["joints"][1].update(name="shoulder")),
     "tiny.yaml: joints: 'shoulder' is listed twice; correct the value"),
    (changed(lambda d: d.update(joints=[])), "tiny.yaml: joints: at least one joint is needed; correct the value"),
    (changed(lambda d: d.update(command_interface="torque")),
     "tiny.yaml: command_interface: 'torque' is not known; choose one of: position, velocity, effort, "
     "joint_trajectory"),
    (changed(lambda d: d.update(stop_time=0)), "tiny.yaml: stop_time 0.0 must be positive; correct the value"),
    (changed(lambda d: d.update(position_margin=-0.1)),
     "tiny.yaml: command_rate, command_timeout and position_margin must not be negative; correct the value"),
    (changed(lambda d: d.update(drive={"latency": -0.1})),
     "tiny.yaml: drive: drive: latency, time_constant and joint_damping must not be negative; correct the value"),
    (changed(lambda d: d["joints"][0].update(name="wrist")),
     "tiny.yaml: joints.wrist: the URDF has no such joint; its joints that turn: shoulder, elbow"),
    (changed(lambda d: d["joints"][0].update(name="flange")),
     "tiny.yaml: joints.flange: is of type 'fixed'; only revolute and continuous joints can be driven"),
    (changed(lambda d: d["tool"].update(link="hand")),
     "tiny.yaml: tool.link: the URDF has no link 'hand'; choose one of: base, upper, fore, tip"),
    (changed(lambda d: d.update(base_frame="upper")),
     "tiny.yaml: base_frame: 'upper' is not the URDF's root link; write 'base'"),
    (changed(lambda d: d["joints"][0].update(position=[-2.1, 1.9])),
     "tiny.yaml: joints.shoulder.position: [-2.1, 1.9] rad is wider than the URDF's [-2.0, 2.0]; narrow it"),
    (changed(lambda d: d["joints"][0].update(velocity=3.1)),
     "tiny.yaml: joints.shoulder.velocity: 3.1 is more than the URDF's 3.0; lower it"),
    (changed(lambda d: d["joints"][1].update(effort=21.0)),
     "tiny.yaml: joints.elbow.effort: 21.0 is more than the URDF's 20.0; lower it"),
    (changed(lambda d: d.update(urdf="other.urdf")), "tiny.yaml: urdf: no such file: other.urdf; correct the path"),
    (changed(lambda d: d.update(urdf="no_such_package:arm.urdf")),
     "tiny.yaml: urdf: the Python package 'no_such_package' is not installed; install it, or correct the name"),
    (changed(lambda d: d.update(urdf="pybullet_data:no/such.urdf")), None),
    (changed(lambda d: d.update(urdf=":x")), None),
    (changed(lambda d: d.update(urdf="..:x")), None),
])
def test_a_yaml_that_contradicts_itself_or_its_urdf(write, data, message):
    told = refusal(write(data))
    assert told == message if message is not None else told.startswith("tiny.yaml: urdf: ")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("</robot>", "", "tiny.urdf: not well-formed XML (no element found: line 24, column 0); mend the URDF"),
    ('lower="-2.0" upper="2.0"', 'lower="2.0" upper="-2.0"',
     "tiny.urdf: joint 'shoulder': lower limit 2.0 is not below the upper -2.0; swap them"),
    ('lower="-2.0"', 'lower="${-pi}"', "tiny.urdf: joint 'shoulder': limit lower '${-pi}' is no number; mend the URDF"),
    ('lower="-2.0"', 'lower="nan"',
     "tiny.urdf: joint 'shoulder': lower limit nan is not below the upper 2.0; swap them"),
    ('<limit lower="-2.0" upper="2.0" velocity="3.0" effort="20.0"/>', "",
     "tiny.urdf: joint 'shoulder': is revolute and has no <limit>; add it"),
    ('<child link="fore"/>', '<child link="arm"/>',
     "tiny.urdf: joint 'elbow': there is no child link 'arm'; mend the URDF"),
    ('<parent link="upper"/>', "", "tiny.urdf: joint 'elbow': there is no parent link ''; mend the URDF"),
    ('<parent link="fore"/><child link="tip"/>', '<parent link="base"/><child link="fore"/>',
     "tiny.urdf: joint 'flange': link 'fore' has two parents; mend the URDF"),
    ('<link name="tip"/>', '<link name="tip"/><link name="lonely"/>',
     "tiny.urdf: it has 2 root links ['base', 'lonely'], not one; join them by fixed joints"),
    ('<parent link="base"/>', '<parent link="tip"/>',
     "tiny.urdf: links ['fore', 'tip', 'upper'] form a loop; mend the URDF"),
    ('type="revolute"', 'type="prismatic"',
     "tiny.yaml: joints.shoulder: is of type 'prismatic'; only revolute and continuous joints can be driven"),
    ("robot", "sdf", "tiny.urdf: its root element is <sdf>, not <robot>; give a URDF"),
])
def test_a_broken_urdf(write, two_joint_urdf, old, new, message):
    assert old in two_joint_urdf
    assert refusal(write(good_yaml(), two_joint_urdf.replace(old, new)), RobotError) == message


def test_a_urdf_that_is_no_text(write, tmp_path):
    path = write(good_yaml())
    (tmp_path / "tiny.urdf").write_bytes(b"\xff\xfe\x00")
    assert refusal(path, RobotError).startswith("tiny.urdf: cannot be read (")


def test_limits_that_a_urdf_leaves_open_are_the_yamls_alone(write, two_joint_urdf):
    urdf = two_joint_urdf.replace('velocity="3.0" effort="20.0"', 'velocity="0" effort="0"')
    data = changed(lambda d: d["joints"][0].update(velocity=9.0, effort=900.0))
    assert load_robot(write(data, urdf)).joints[0].velocity == 9.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_by_the_spec_itself(joint, two_joint_robot, bad):
    for field in ("velocity", "acceleration", "jerk", "effort", "home", "policy_velocity"):
        with pytest.raises(ValueError, match=f"joint 'joint': {field} {bad} is not finite"):
            joint(**{field: bad})
    for limits in ((bad, 1.0), (-1.0, bad)):
        with pytest.raises(ValueError, match=f"joint 'joint': position {bad} is not finite"):
            joint(position=limits)
    with pytest.raises(ValueError, match=f"tool: offset {bad} is not finite"):
        ToolSpec("tip", (0.0, bad, 0.0))
    for field in ("latency", "time_constant", "joint_damping"):
        with pytest.raises(ValueError, match=f"drive: {field} {bad} is not finite"):
            DriveSpec(**{field: bad})
    for field in ("command_rate", "state_rate", "stop_time", "position_margin"):
        with pytest.raises(ValueError, match=f"robot 'tiny': {field} {bad} is not finite"):
            dataclasses.replace(two_joint_robot, **{field: bad})


def test_every_number_of_a_spec_is_looked_at():
    """A field added later must be refused when it is not finite, too."""
    for cls, good in ((JointSpec, {"name": "j", "position": (-1.0, 1.0), "velocity": 1.0, "acceleration": 1.0,
                                   "jerk": 1.0, "effort": 1.0}), (DriveSpec, {})):
        for field in dataclasses.fields(cls):
            if field.type == "float":
                with pytest.raises(ValueError, match="not finite"):
                    cls(**{**good, field.name: math.nan})


def test_strip_meshes_keeps_everything_but_the_meshes(two_joint_urdf):
    stripped = strip_meshes(two_joint_urdf)
    assert "mesh" not in stripped and "visual" not in stripped
    assert stripped.count("<link") == 4 and stripped.count("<joint") == 3 and strip_meshes(stripped) == stripped
    spec = load_robot("panda")
    full = read_urdf(spec)
    stripped = strip_meshes(full)
    assert full.count("<inertial") == stripped.count("<inertial") > 0 and "package://" not in stripped
    check_against_urdf(spec, stripped, "panda.yaml")
    with pytest.raises(RobotError, match="URDF: not well-formed XML"):
        strip_meshes("<robot>")


def test_specs_cannot_be_changed(two_joint_robot: RobotSpec):
    with pytest.raises(dataclasses.FrozenInstanceError):
        two_joint_robot.joints[0].velocity = 100.0  # type: ignore[misc]


def test_a_prefix_that_nobody_declares_is_read_as_it_stands():
    """As airo_models' UR5e has it, and as PyBullet, pinocchio and MuJoCo take it."""
    text = '<robot name="a"><link name="b" drake:x="1"/><drake:y>z</drake:y></robot>'
    assert strip_meshes(text) == '<robot name="a"><link name="b" drake:x="1" /><drake:y>z</drake:y></robot>'

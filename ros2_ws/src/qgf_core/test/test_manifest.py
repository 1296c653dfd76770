# SPDX-License-Identifier: Apache-2.0
"""The manifest as JSON, and whether a policy is let onto a robot."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qgf_core.errors import BundleError
from qgf_core.limiter import Limiter
from qgf_core.manifest import Box, Manifest, OrientationRegion, check_robot, parse_manifest
from qgf_core.observation import UNITS, ObservationTerm
from qgf_core.robot import RobotSpec, ToolSpec


def parse(data: Any, urdf: str = "") -> Manifest:
    return parse_manifest(data if isinstance(data, str) else json.dumps(data), urdf, "bundle.pt")


def test_json_round_trip(manifest):
    text = manifest.to_json()
    again = parse(text, manifest.urdf)
    # The URDF's path on the exporting machine is not part of the contract.
    assert again == dataclasses.replace(manifest, robot=dataclasses.replace(manifest.robot, urdf="robot.urdf"))
    assert again.urdf == manifest.urdf and again.to_json() == text
    data = json.loads(text)
    assert data["schema_version"] == 2 and "urdf" not in data and data["robot"]["urdf"] == "robot.urdf"
    assert [term["unit"] for term in data["observation"]] == [UNITS[t["name"]] for t in data["observation"]]
    assert [joint["name"] for joint in data["robot"]["joints"]] == list(manifest.robot.joint_names)


def test_what_it_makes_fits_together(manifest):
    assert manifest.observation_builder().size == 24
    np.testing.assert_array_equal(manifest.action_decoder().decode(np.ones(7)), manifest.robot.policy_velocity)
    limiter, drive = manifest.velocity_limiter(), manifest.robot.drive
    assert isinstance(limiter, Limiter) and limiter.period == 0.02
    same = Limiter(manifest.robot, 0.02, drive.latency + drive.time_constant)
    near_limit = manifest.robot.position_upper - 0.1
    for each in (limiter, same):
        each.reset(near_limit)
    for _ in range(10):
        mine, other = limiter.step(np.full(7, 9.0), near_limit), same.step(np.full(7, 9.0), near_limit)
        np.testing.assert_array_equal(mine.velocity, other.velocity)


def test_a_bundle_of_version_1_is_read_as_it_was_meant(manifest):
    """Its JSON knows none of the later fields: velocities, no posture, tool positions."""
    data = json.loads(manifest.to_json())
    data["schema_version"] = 1
    for name in ("goal_orientation", "reference_speed"):
        del data[name]
    data["action"] = {"kind": "joint_velocity", "scale": data["action"]["scale"]}
    for term in data["observation"]:
        del term["preview"]
    old = parse(data, manifest.urdf)
    assert old.schema_version == 1 and old.aim == "position"
    assert (old.action, old.observation, old.goal_region) == (
        manifest.action, manifest.observation, manifest.goal_region)


def test_a_policy_that_follows_a_reference_has_no_goal_region(manifest):
    following = dataclasses.replace(manifest, observation=(ObservationTerm("reference_error", preview=(0.0, 0.1)),),
                                    goal_region=None, reference_speed=0.5)
    assert following.aim == "reference"
    again = parse(following.to_json(), manifest.urdf)
    assert again.observation == following.observation and again.goal_region is None and again.reference_speed == 0.5
    with pytest.raises(ValueError, match="goal_region: needed by a policy that is told a goal"):
        dataclasses.replace(following, goal_region=manifest.goal_region)


def test_the_orientations_of_goals():
    region = OrientationRegion((0.0, 0.0, 0.0, 1.0), 0.2)
    tilted = [np.array([math.sin(a / 2), 0.0, 0.0, math.cos(a / 2)]) for a in (0.19, 0.21)]
    assert region.contains(tilted[0]) and region.contains(-tilted[0]) and not region.contains(tilted[1])
    assert region.contains(tilted[1], 0.02)


def broken(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def apply(data: dict[str, Any]) -> dict[str, Any]:
        data = copy.deepcopy(data)
        change(data)
        return data
    return apply


CONTRACT = "; the bundle does not keep its contract: export it again"
THIS_VERSION = "; export the bundle with this version"


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d.update(schema_version=3), f"manifest schema 3 is not 1 or 2{THIS_VERSION}"),
    (lambda d: d.update(schema_version=0), f"manifest schema 0 is not 1 or 2{THIS_VERSION}"),
    (lambda d: d.update(schema_version="1"), f"manifest schema '1' is not 1 or 2{THIS_VERSION}"),
    (lambda d: d.update(schema_version=True), f"manifest schema True is not 1 or 2{THIS_VERSION}"),
    (lambda d: d.update(schema_version=1.0), f"manifest schema 1.0 is not 1 or 2{THIS_VERSION}"),
    (lambda d: d.pop("schema_version"), f"manifest schema None is not 1 or 2{THIS_VERSION}"),
    (lambda d: d.update(task=3), f"task: expected str, got 3; give a value of that type{CONTRACT}"),
    (lambda d: d.pop("task"), f"task: missing; add it{CONTRACT}"),
    (lambda d: d.update(extra=3), "extra: unknown key; known keys: "),
    (lambda d: d.update(control_rate=0.5), f"control_rate 0.5 Hz lies outside 1..10000; correct the value{CONTRACT}"),
    (lambda d: d.update(control_rate=1e5), "control_rate 100000.0 Hz lies outside 1..10000"),
    (lambda d: d.update(control_rate="50"), "control_rate: expected float, got '50'"),
    (lambda d: d.update(delay_range=[0.02, 0.01]), "delay_range [0.02, 0.01] must be 0 <= smallest <= largest"),
    (lambda d: d.update(delay_range=[-0.1, 0.01]), "delay_range [-0.1, 0.01] must be 0 <= smallest <= largest"),
    (lambda d: d.update(observation=[]), "observation: at least one term is needed"),
    (lambda d: d.update(observation=5), "observation: expected a list, got 5"),
    (lambda d: d.update(observation={"a": 1}), "observation: expected a list, got {'a': 1}"),
    (lambda d: d.update(observation=[5]), "observation[0]: expected a mapping, got 5"),
    (lambda d: d["observation"][0].update(name="torque"), "observation term 'torque' has unit "),
    (lambda d: d["observation"][0].update(name=["a"]), "observation term '['a']' has unit "),
    (lambda d: d["observation"][0].update(unit="deg"), "observation term 'joint_position' has unit 'deg', this version "
     f"knows 'rad, relative to home'{THIS_VERSION}"),
    (lambda d: d["observation"][0].pop("unit"), "observation term 'joint_position' has unit None"),
    (lambda d: d["observation"][0].update(history=0), "observation[0]: observation term 'joint_position': history 0"),
    (lambda d: d["observation"][0].update(scale=0.0), "observation[0]: observation term 'joint_position': scale 0.0"),
    (lambda d: d["action"].update(kind="torque"),
     "action.kind: 'torque' is not known; choose one of: joint_velocity, "),
    (lambda d: d["action"].update(scale=[1.0]), "action has 1 entries for 7 joints"),
    (lambda d: d["action"].update(scale=[0.0] * 7), "action: action scale [0.0, 0.0, "),
    (lambda d: d["action"].update(posture_rate=-1), "action: action: posture_rate -1.0 1/s lies outside 0 .. 10"),
    (lambda d: d.update(goal_region=None), "goal_region: needed by a policy that is told a goal"),
    (lambda d: d.update(goal_orientation={"centre": [0, 0, 0, 1], "spread": 0.1}), "goal_orientation: needed by a "
     "policy that is told a pose"),
    (lambda d: d.update(goal_orientation={"centre": [0, 0, 0, 2], "spread": 0.1}), "goal_orientation: orientation "),
    (lambda d: d.update(reference_speed=1.5), "reference_speed 1.5 lies outside 0 .. 1"),
    (lambda d: d["goal_region"].update(lower=[0.7, 0, 0]), "goal_region: box: lower [0.7, 0.0, 0.0] must be below"),
    (lambda d: d["goal_region"].update(lower=[0.1, 0]), "goal_region.lower: expected 3 entries, got 2"),
    (lambda d: d.update(training=[1]), "training: expected a mapping, got [1]"),
    (lambda d: d["robot"]["joints"][2].update(velocity=-1), "robot.joints[2]: joint 'panda_joint3': velocity -1.0"),
    (lambda d: d["robot"]["joints"][2].update(jerk=10**400), "robot.joints[2].jerk: inf is not finite"),
    (lambda d: d["robot"].update(joints=[]), "robot: joints: at least one joint is needed"),
    (lambda d: d["robot"].update(safe=True), "robot.safe: unknown key"),
    (lambda d: d["robot"]["tool"].update(offset=[0, 0]), "robot.tool.offset: expected 3 entries, got 2"),
])
def test_each_wrong_field_is_named(manifest, change, message):
    data = broken(change)(json.loads(manifest.to_json()))
    with pytest.raises(BundleError) as caught:
        parse(data)
    told = str(caught.value)
    assert told.startswith(f"bundle.pt: {message}") and "\n" not in told


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[1, 2]", "null", "3", '"text"', "[" * 100_000,
                                  '{"schema_version": 1}', '{"schema_version": 1, "training": {"x": NaN}}',
                                  '{"schema_version": 1, "observation": Infinity}', "\x00"])
def test_what_is_no_manifest(text):
    with pytest.raises(BundleError) as caught:
        parse(text)
    assert str(caught.value).startswith("bundle.pt: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object()])
def test_values_that_json_cannot_hold(manifest, value):
    with pytest.raises(BundleError, match="give finite numbers, strings, lists and mappings only"):
        dataclasses.replace(manifest, evaluation={"success": value}).to_json()


def test_the_goal_region():
    box = Box((0.4, -0.2, 0.3), (0.6, 0.2, 0.5))
    assert box.contains((0.4, 0.2, 0.4)) and box.contains(np.array([0.5, 0.0, 0.3]))
    for outside in ((0.39, 0.0, 0.4), (0.5, 0.21, 0.4), (0.5, 0.0, 0.51), (math.nan, 0.0, 0.4)):
        assert not box.contains(outside)
    assert box.contains((0.39, 0.0, 0.4), tolerance=0.02)


def other_joint(robot: RobotSpec, index: int, **fields: Any) -> RobotSpec:
    joints = list(robot.joints)
    joints[index] = dataclasses.replace(joints[index], **fields)
    return dataclasses.replace(robot, joints=tuple(joints))


def swapped(robot: RobotSpec) -> RobotSpec:
    return dataclasses.replace(robot, joints=(robot.joints[1], robot.joints[0], *robot.joints[2:]))


WIDER = "; train with this robot's YAML"


@pytest.mark.parametrize(("change", "message"), [
    (swapped, "made for joints ['panda_joint1', 'panda_joint2', "),
    (lambda r: dataclasses.replace(r, joints=r.joints[:6]), "made for joints ["),
    (lambda r: other_joint(r, 0, position=(-2.0, 2.8973)),
     f"position_lower -2.8473 of joint 'panda_joint1' is wider than the robot's -1.95{WIDER}"),
    (lambda r: other_joint(r, 3, position=(-3.0718, -0.5)),
     f"position_upper -0.1198 of joint 'panda_joint4' is wider than the robot's -0.55{WIDER}"),
    (lambda r: dataclasses.replace(r, position_margin=0.1),
     f"position_lower -2.8473 of joint 'panda_joint1' is wider than the robot's -2.7973{WIDER}"),
    (lambda r: other_joint(r, 5, velocity=2.0),
     f"velocity_limit 2.61 of joint 'panda_joint6' is wider than the robot's 2{WIDER}"),
    (lambda r: other_joint(r, 1, acceleration=7.0),
     f"acceleration_limit 7.5 of joint 'panda_joint2' is wider than the robot's 7{WIDER}"),
    (lambda r: other_joint(r, 2, jerk=100.0),
     f"jerk_limit 5000 of joint 'panda_joint3' is wider than the robot's 100{WIDER}"),
    (lambda r: other_joint(r, 6, effort=10.0),
     f"effort_limit 12 of joint 'panda_joint7' is wider than the robot's 10{WIDER}"),
    (lambda r: other_joint(r, 4, sign=-1), f"sign or home of joint 'panda_joint5' differs from the robot's{WIDER}"),
    (lambda r: other_joint(r, 4, home=0.01), f"sign or home of joint 'panda_joint5' differs from the robot's{WIDER}"),
    (lambda r: dataclasses.replace(r, base_frame="panda_link1"), "base frame or tool differs ("),
    (lambda r: dataclasses.replace(r, tool=ToolSpec("panda_hand")), "base frame or tool differs ("),
    (lambda r: dataclasses.replace(r, tool=ToolSpec(r.tool.link, (0.0, 0.0, 0.001))), "base frame or tool differs ("),
])
def test_a_bundle_for_another_robot(manifest, change, message):
    with pytest.raises(BundleError) as caught:
        check_robot(manifest, change(manifest.robot), manifest.urdf, "bundle.pt")
    assert str(caught.value).startswith(f"bundle.pt: {message}") and "\n" not in str(caught.value)


def test_a_bundle_for_this_robot(manifest):
    check_robot(manifest, manifest.robot, manifest.urdf, "bundle.pt")
    roomier = other_joint(manifest.robot, 0, velocity=9.0, acceleration=99.0, jerk=99999.0, effort=99.0)
    check_robot(manifest, dataclasses.replace(roomier, name="panda_2", position_margin=0.0), manifest.urdf, "bundle.pt")


def test_another_geometry_is_seen_in_the_urdf(manifest):
    longer = manifest.urdf.replace('xyz="0 -0.316 0"', 'xyz="0 -0.326 0"')
    assert longer != manifest.urdf
    with pytest.raises(BundleError, match=r"its URDF puts the tool 10\.0 mm away from where the robot's does"):
        check_robot(manifest, manifest.robot, longer, "bundle.pt")


@pytest.mark.parametrize("fields", [
    {"control_rate": math.nan}, {"control_rate": math.inf}, {"delay_range": (math.nan, 0.1)}, {"observation": ()}])
def test_the_manifest_refuses_by_itself(manifest, fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        dataclasses.replace(manifest, **fields)

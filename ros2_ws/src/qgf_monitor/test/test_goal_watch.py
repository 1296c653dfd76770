# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from qgf_core.action import ActionSpec
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf
from qgf_monitor.goal_watch import GoalWatch

ROBOT = load_robot("panda")


@pytest.fixture(scope="module")
def manifest():
    terms = tuple(map(ObservationTerm, ("joint_position", "joint_velocity", "previous_action", "tool_position_error")))
    return make_manifest(
        task="reach", robot=ROBOT, observation=terms, control_rate=100.0, delay_range=(0.0, 0.0), training={},
        action=ActionSpec("joint_velocity", tuple(ROBOT.policy_velocity.tolist())), evaluation={},
        goal_region=Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), urdf=read_urdf(ROBOT))


def test_nothing_is_told_before_a_goal_and_only_its_age_without_a_policy():
    watch = GoalWatch()
    assert watch.figures(ROBOT.joint_names, ROBOT.home, 5.0) == {} == watch.values({})
    assert not watch.tell((0.1, math.nan, 0.3), "base", 4.0)
    assert watch.figures(ROBOT.joint_names, ROBOT.home, 5.0) == {}
    assert watch.tell((0.1, 0.2, 0.3), ROBOT.base_frame, 4.0)
    figures = watch.figures(ROBOT.joint_names, ROBOT.home, 5.5)
    assert figures["goal_age"] == 1.5 and math.isnan(figures["goal_distance"])


def test_the_distance_is_the_tools_whatever_the_joints_order(manifest):
    watch = GoalWatch()
    watch.use(manifest)
    tool = manifest.kinematics().tool_position(ROBOT.home)
    watch.tell(tool + np.array([0.03, 0.0, -0.04]), ROBOT.base_frame, 1.0)
    names, position = [*reversed(ROBOT.joint_names), "finger"], np.append(ROBOT.home[::-1], 9.0)
    assert watch.figures(names, position, 3.0) == {"goal_age": 2.0, "goal_distance": pytest.approx(0.05)}
    assert math.isnan(watch.figures(names[1:], position[1:], 3.0)["goal_distance"])
    assert watch.values({"goal_age": 2.0})["goal_age"] == "2"


def test_a_repeated_goal_keeps_its_age_and_another_frame_has_no_distance(manifest):
    watch = GoalWatch()
    watch.use(manifest)
    for arrival in (1.0, 2.0):
        watch.tell((0.5, 0.0, 0.5), ROBOT.base_frame, arrival)
    assert watch.figures(ROBOT.joint_names, ROBOT.home, 3.0)["goal_age"] == 2.0
    watch.tell((0.5, 0.0, 0.5), "table", 2.5)
    figures = watch.figures(ROBOT.joint_names, ROBOT.home, 3.0)
    assert figures["goal_age"] == 0.5 and math.isnan(figures["goal_distance"])
    watch.use(None)
    watch.tell((0.5, 0.0, 0.5), ROBOT.base_frame, 3.0)
    assert math.isnan(watch.figures(ROBOT.joint_names, ROBOT.home, 3.0)["goal_distance"])

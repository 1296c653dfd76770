# SPDX-License-Identifier: Apache-2.0
"""The reach task without physics: reward by hand, drawn goals and starts, bad configurations."""

import dataclasses
import math

import numpy as np
import pytest

from qgf_core.config import find_config, from_mapping, load_yaml
from qgf_core.errors import ConfigError
from qgf_core.robot import load_robot
from qgf_sim.reach import draw_episode, load_reach, reward_terms

TASK = load_reach()


def test_reward_worked_by_hand():
    terms = reward_terms(TASK, distance=0.04, previous_distance=0.05, action=np.array([1.0, -0.5, 0, 0, 0, 0, 0]))
    assert terms == pytest.approx({
        "progress": 40.0 * 0.01,          # a centimetre nearer
        "distance": -0.04,
        "precision": math.exp(-1.0),      # one width away
        "effort": -0.05 * 1.25 / 7.0,     # mean of 1 and 0.25 over seven joints
    }, abs=1e-12)


def test_reward_at_the_goal_and_going_away():
    assert reward_terms(TASK, 0.0, 0.0, np.zeros(7)) == pytest.approx(
        {"progress": 0.0, "distance": 0.0, "precision": 1.0, "effort": 0.0})
    assert reward_terms(TASK, 0.3, 0.2, np.zeros(7))["progress"] == pytest.approx(-4.0)


def test_goals_fill_their_region_and_no_more():
    generator, spec = np.random.default_rng(0), load_robot("panda")
    goals = np.array([draw_episode(TASK, spec, generator)[1] for _ in range(2000)])
    lower, upper = np.array(TASK.goal_region.lower), np.array(TASK.goal_region.upper)
    assert (goals >= lower).all() and (goals <= upper).all()
    assert (goals.min(0) < lower + 0.01).all() and (goals.max(0) > upper - 0.01).all()


@pytest.mark.parametrize("robot", ["panda", "iiwa", "ur5e"])
def test_starts_lie_round_home_and_inside_the_margins(robot):
    spec = load_robot(robot)
    generator = np.random.default_rng(0)
    starts = np.array([draw_episode(TASK, spec, generator)[0] for _ in range(2000)])
    assert (np.abs(starts - spec.home) <= TASK.start_spread + 1e-12).all()
    assert (starts >= spec.position_lower + spec.position_margin).all()
    assert (starts <= spec.position_upper - spec.position_margin).all()
    assert (np.ptp(starts, axis=0) > 1.9 * TASK.start_spread).all()


def test_a_start_at_the_edge_is_moved_inside_the_margin():
    spec = load_robot("panda")
    joints = tuple(dataclasses.replace(joint, home=joint.position[1] - 0.06) for joint in spec.joints)
    edge = dataclasses.replace(spec, joints=joints)
    start, _ = draw_episode(TASK, edge, np.random.default_rng(0))
    assert (start <= edge.position_upper - edge.position_margin).all()


@pytest.mark.parametrize(("key", "value", "text"), [
    ("physics_rate", 0.0, "must be positive"),
    ("control_rate", 9.0, "lies outside 10 .. 1000"),
    ("action", {"kind": "joint_torque"}, "choose one of: joint_velocity"),
    ("action", {"scale": 2.0}, "scale 2.0 lies outside 0 .. 1"),
    ("episode_steps", 0, "must be positive"),
    ("position_noise", -0.1, "must not be negative"),
    ("goal_tolerence", 0.1, "unknown key"),
    ("control_rate", float("nan"), "not finite"),
    ("goal_region", {"lower": [0, 0, 0], "upper": [0, 1, 1]}, "goal_region"),
])
def test_a_bad_configuration_is_one_line_with_the_key(tmp_path, key, value, text):
    data = load_yaml(find_config("tasks", "reach")) | {key: value}
    with pytest.raises(ConfigError) as caught:
        from_mapping(type(TASK), data, "reach.yaml")
    message = str(caught.value)
    assert text in message and message.startswith("reach.yaml") and "\n" not in message


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(ConfigError, match="unknown task 'reech'; choose one of: hold, reach, "):
        load_reach("reech")

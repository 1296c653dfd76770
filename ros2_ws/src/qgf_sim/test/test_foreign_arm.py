# SPDX-License-Identifier: Apache-2.0
"""An arm that is none of ours, an xArm 6 as its maker describes it, from import to both engines."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from qgf_core.kinematics import Kinematics
from qgf_core.robot import load_robot, read_urdf, strip_meshes
from qgf_sim import robot_cli
from qgf_sim.engines import make_arm
from qgf_sim.goal_region import distance_left, likely_goal_region

HOME = ["0", "-0.4", "-1.2", "0", "1.6", "0"]


@pytest.fixture(scope="module")
def xarm(tmp_path_factory):
    spec = importlib.util.find_spec("pybullet_data")
    assert spec is not None and spec.submodule_search_locations
    urdf = Path(spec.submodule_search_locations[0]) / "xarm/xarm6_robot.urdf"
    out = tmp_path_factory.mktemp("xarm") / "my_arm.yaml"
    assert robot_cli.main(["import", str(urdf), "--name", "my_arm", "--out", str(out), "--home", *HOME]) == 0
    return load_robot(str(out))


def test_both_engines_move_it_alike(xarm):
    """Two of its links have moments that no body has; MuJoCo must take them all the same."""
    ends = []
    for engine in ("pybullet", "mujoco"):
        arm = make_arm(engine, xarm, 200.0)
        arm.step(np.full(6, 0.3), steps=100)
        ends.append(arm.state()[0])
        arm.close()
    assert np.allclose(ends[0], xarm.home + 0.3 * 0.5, atol=0.02)
    assert np.allclose(ends[0], ends[1], atol=0.01)


def test_a_goal_region_is_proposed_whose_corners_it_reaches(xarm, capsys):
    box = likely_goal_region(xarm)
    assert box is not None
    size = np.array(box.upper) - box.lower
    assert (size > 0.1).all() and box.lower[2] >= 0.05
    kinematics = Kinematics(strip_meshes(read_urdf(xarm)), xarm.joint_names, xarm.tool)
    limits = xarm.position_lower + 0.05, xarm.position_upper - 0.05
    for corner in (box.lower, box.upper, (box.lower[0], box.upper[1], box.lower[2])):
        assert distance_left(kinematics, np.array(corner), xarm.home, *limits) < 0.005
    assert distance_left(kinematics, np.array([2.0, 0.0, 0.3]), xarm.home, *limits) > 1.0


def test_the_projects_own_goal_region_would_have_been_found():
    """Of the Panda's, most lies in what is proposed for it."""
    box = likely_goal_region(load_robot("panda"))
    assert box is not None and box.contains([0.5, 0.0, 0.45])

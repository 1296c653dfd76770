# SPDX-License-Identifier: Apache-2.0
"""Arms for the tests of qgf_core: a tiny one described in text, and specs with limits at will."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qgf_core.robot import JointSpec, RobotSpec, ToolSpec

TWO_JOINT_URDF = """<?xml version="1.0"?>
<robot name="tiny">
  <link name="base">
    <visual><geometry><mesh filename="package://nowhere/base.stl"/></geometry></visual>
  </link>
  <link name="upper"/>
  <link name="fore"/>
  <link name="tip"/>
  <joint name="shoulder" type="revolute">
    <parent link="base"/><child link="upper"/>
    <origin xyz="0 0 0.5"/><axis xyz="0 0 1"/>
    <limit lower="-2.0" upper="2.0" velocity="3.0" effort="20.0"/>
  </joint>
  <joint name="elbow" type="continuous">
    <parent link="upper"/><child link="fore"/>
    <origin xyz="0.4 0 0"/><axis xyz="0 1 0"/>
    <limit velocity="3.0" effort="20.0"/>
  </joint>
  <joint name="flange" type="fixed">
    <parent link="fore"/><child link="tip"/>
    <origin xyz="0.3 0 0"/>
  </joint>
</robot>
"""


@pytest.fixture
def two_joint_urdf() -> str:
    """A shoulder about z at height 0.5 m, a continuous elbow about y 0.4 m further on, the tip 0.3 m beyond it."""
    return TWO_JOINT_URDF


@pytest.fixture
def joint() -> Callable[..., JointSpec]:
    """Makes a JointSpec; keywords replace its fields."""
    def make(**fields: Any) -> JointSpec:
        defaults: dict[str, Any] = {"name": "joint", "position": (-1.0, 1.0), "velocity": 2.0, "acceleration": 10.0,
                                    "jerk": 1000.0, "effort": 50.0, "home": 0.0, "policy_velocity": 0.5}
        return JointSpec(**{**defaults, **fields})
    return make


@pytest.fixture
def two_joint_robot(joint: Callable[..., JointSpec]) -> RobotSpec:
    """The spec that goes with `two_joint_urdf`."""
    return RobotSpec(
        name="tiny", urdf="tiny.urdf", base_frame="base", tool=ToolSpec("tip", (0.0, 0.0, 0.1)),
        joints=(joint(name="shoulder", position=(-2.0, 2.0), home=0.25, policy_velocity=0.5),
                joint(name="elbow", position=(-3.0, 3.0), home=-0.5, policy_velocity=2.0)))

# SPDX-License-Identifier: Apache-2.0
"""Arms for the tests of qgf_core: a tiny one described in text, and specs with limits at will."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qgf_core.action import ActionSpec
from qgf_core.manifest import Box, Manifest, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import JointSpec, RobotSpec, ToolSpec, load_robot, read_urdf

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


class Actor(torch.nn.Module):
    """A small policy as the trainer exports one: frozen normaliser, hidden layer, tanh."""

    def __init__(self, n_obs: int, n_act: int, hidden: int = 16) -> None:
        super().__init__()
        self.register_buffer("mean", 0.1 * torch.randn(n_obs))
        self.register_buffer("std", 0.5 + torch.rand(n_obs))
        self.net = torch.nn.Sequential(torch.nn.Linear(n_obs, hidden), torch.nn.SiLU(), torch.nn.Linear(hidden, n_act))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.net((observation - self.mean) / self.std))


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """The contract of a reaching policy for the Panda: 24 observations, 7 actions."""
    robot = load_robot("panda")
    terms = (ObservationTerm("joint_position"), ObservationTerm("joint_velocity"), ObservationTerm("previous_action"),
             ObservationTerm("tool_position_error", scale=5.0))
    return make_manifest(
        task="reach", robot=robot, observation=terms, action=ActionSpec("joint_velocity", tuple(robot.policy_velocity)),
        control_rate=50.0, delay_range=(0.02, 0.02), goal_region=Box((0.42, -0.25, 0.3), (0.67, 0.25, 0.6)),
        training={"algorithm": "td3", "seeds": [0, 1], "losses": {"mixed_partial": 2.0}}, evaluation={"success": 0.95},
        urdf=read_urdf(robot))


@pytest.fixture
def actor() -> Actor:
    """A policy that fits `manifest`, always the same."""
    torch.manual_seed(0)
    return Actor(24, 7)


@pytest.fixture(scope="session")
def probes() -> np.ndarray:
    """Observations (16, 24)."""
    return np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)


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

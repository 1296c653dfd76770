# SPDX-License-Identifier: Apache-2.0
"""The physics engines by name."""

from __future__ import annotations

from typing import Literal

from qgf_core.errors import ConfigError
from qgf_core.robot import RobotSpec
from qgf_sim.arm import PyBulletArm
from qgf_sim.engine import SimulatedArm

Engine = Literal["pybullet", "mujoco"]


def make_arm(
    engine: Engine, robot: RobotSpec, physics_rate: float, gui: bool = False, payload: bool = False
) -> SimulatedArm:
    """An arm in that engine; see SimulatedArm for the arguments.

    :param payload: whether `configure` may give it a payload.
    :raises ConfigError: an unknown engine, or one without a window was asked for a window.
    :raises RobotError: the engine cannot use the robot's URDF.
    """
    if engine == "pybullet":
        return PyBulletArm(robot, physics_rate, gui, payload)
    if engine != "mujoco":
        raise ConfigError("engine", "", f"'{engine}' is not known", "choose one of: pybullet, mujoco")
    if gui:
        raise ConfigError("engine", "", "mujoco has no window here", "choose pybullet, or leave the window out")
    from qgf_sim.mujoco_arm import MuJoCoArm  # a fifth of a second and 50 MB that training does not need

    return MuJoCoArm(robot, physics_rate)

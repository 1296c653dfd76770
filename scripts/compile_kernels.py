# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels of the packages that are built, so that no program has to when it starts; called by set-up."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

import numpy as np


def main() -> None:
    """Import them, and use once those that are compiled for what they are called with."""
    for package in ("qgf_core", "qgf_policy", "qgf_sim", "qgf_trainer"):
        if importlib.util.find_spec(package) is None:
            continue
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name.endswith("_kernel"):
                importlib.import_module(f"{package}.{module.name}")
    if importlib.util.find_spec("qgf_trainer") is not None:
        import torch

        from qgf_trainer.native_library import functions

        functions(torch.float32)  # says itself what is amiss
    from qgf_core.robot import load_robot

    robot = load_robot("panda")
    if importlib.util.find_spec("qgf_sim") is not None:
        from qgf_sim.env import ArmEnv

        env = ArmEnv(robot)
        env.reset(seed=0)
        env.step(np.zeros(len(robot.joints), np.float32))
        env.close()
    else:
        from qgf_core.action import ActionDecoder, ActionSpec
        from qgf_core.kinematics import Kinematics
        from qgf_core.observation import ObservationBuilder, ObservationTerm
        from qgf_core.robot import read_urdf, strip_meshes

        kinematics = Kinematics(strip_meshes(read_urdf(robot)), robot.joint_names, robot.tool)
        names = ("joint_position", "joint_velocity", "previous_action", "tool_position_error")
        ObservationBuilder(tuple(ObservationTerm(name) for name in names), robot, kinematics).build(
            robot.home, np.zeros(7), np.zeros(7), np.zeros(3)
        )
        ActionDecoder(ActionSpec("joint_velocity", tuple(robot.policy_velocity.tolist())), robot, kinematics, 0.02)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""A robot's computer has no simulator and no trainer; the runner needs no ROS either. Proved by work, not by import."""

import os
import subprocess
import sys
from pathlib import Path

import qgf_core
import qgf_policy

PROGRAM = """
import importlib.abc, sys
import numpy as np

class Block(importlib.abc.MetaPathFinder):
    names = {"qgf_sim", "qgf_trainer", "qgf_monitor", "qgf_demo", "pybullet", "gymnasium", "rclpy", "qgf_msgs"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
from qgf_policy.preflight import prepare, warm_up
from qgf_policy.parameters import defaults
from qgf_policy.joint_state import JointStateMerger
from qgf_policy.loop import ControlLoop
import dataclasses

flight = prepare(dataclasses.replace(defaults(), bundle=sys.argv[1], allow_controller_without_timeout=True))
warm_up(flight.bundle)
runner, robot = flight.runner, flight.bundle.manifest.robot
merger = JointStateMerger(robot, runner.state_limit)
position, moved = robot.home.copy(), 0.0
for k in range(200):
    now = 10**9 + k * runner.command_period
    merger.add(robot.joint_names, position, np.zeros(len(position)), stamp=now, now=now)
    state = merger.snapshot()
    if k == 50:  # watched for long enough
        runner.set_goal((0.5, 0.1, 0.4), robot.base_frame, now, now)
        runner.activate(state, now)
    command, status = runner.step(state, now)
    if command is None:
        continue
    position = position + command.values * 1e-9 * runner.command_period
    moved = max(moved, float(np.abs(command.values).max()))
print(status.mode.name, moved > 0.05)
"""


def test_the_runner_works_over_a_joint_log_with_everything_else_blocked(bundle_path: Path) -> None:
    folders = [str(Path(package.__file__).parents[1]) for package in (qgf_core, qgf_policy)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundle_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["ACTIVE", "True"]


def test_no_source_names_a_forbidden_package() -> None:
    for source in Path(qgf_policy.__file__).parent.glob("*.py"):
        text = source.read_text()
        for name in ("qgf_sim", "qgf_trainer", "qgf_monitor", "qgf_demo", "pybullet", "gymnasium"):
            assert f"import {name}" not in text and f"from {name}" not in text, source.name

# SPDX-License-Identifier: Apache-2.0
"""Episodes as they were when every part of a step was plain Python: golden.json, which is made anew only where the
physics is meant to change (`python test_golden.py`, from this folder)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qgf_sim.env import ArmEnv
from qgf_sim.perturb import Distribution, load_perturbation
from qgf_sim.task import ActionConfig
from qgf_sim.tasks import load_task

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 20
EVERYTHING = {
    "damping_ratio": (0.3, 1.2), "coulomb": (0.0, 2.0), "viscous": (0.0, 5.0), "backlash": (0.001, 0.01),
    "top_speed": (0.5, 2.0), "effort_factor": (0.8, 1.0), "state_delay": (0.0, 0.03), "dropout": (0.2, 0.4)}
"""What no file in config/perturb draws, or draws mildly."""
CASES: dict[str, dict[str, Any]] = {
    **{f"{task} {perturb}": {"task": task, "perturb": perturb}
       for task, perturb in (("reach", "train"), ("track", "harsh"), ("hold", "train"), ("reach_pose", "harsh"))},
    **{kind: {"kind": kind, "perturb": "harsh"} for kind in ("joint_effort", "joint_position", "joint_position_delta")},
    "mujoco": {"task": "hold", "perturb": "harsh", "engine": "mujoco"},
    "mujoco joint_effort": {"kind": "joint_effort", "engine": "mujoco"},
    "command rate": {"config": {"command_rate": 200.0}},
    "control rate": {"config": {"control_rate": 25.0}},
    "everything": {"more": EVERYTHING},
    "everything joint_position": {"kind": "joint_position", "more": EVERYTHING},
}


def episode(
    robot: str, task: str = "reach", kind: str = "", perturb: str = "train", engine: str = "pybullet",
    config: dict[str, Any] | None = None, more: dict[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """Where held random actions lead."""
    changes = dict(config or {})
    # One sample of each, as it was when the file was made.
    changes["observation"] = tuple(dataclasses.replace(term, history=1) for term in load_task(task).observation)
    if kind:
        changes["action"] = ActionConfig(kind=kind, scale=0.3 if kind == "joint_effort" else 1.0)
    perturbation = dataclasses.replace(
        load_perturbation(perturb), **{name: Distribution(uniform=ends) for name, ends in (more or {}).items()})
    env = ArmEnv(robot, dataclasses.replace(load_task(task), **changes), perturbation=perturbation, engine=engine)
    random, rewards, action = np.random.default_rng(1), 0.0, None
    env.reset(seed=3)
    for step in range(STEPS):
        if step % 5 == 0:
            action = random.uniform(-1, 1, len(env.robot.joints)).astype(np.float32)
        observation, reward, _, _, info = env.step(action)
        rewards += reward
    env.close()
    return {"rewards": rewards, "distance": info["distance"], "sent": info["sent"].tolist(),
            "measured": [values.tolist() for values in info["measured"]], "velocity": info["joint_velocity"].tolist(),
            "observation": observation.tolist()}


@pytest.mark.parametrize("robot", ["panda", "iiwa", "ur5e"])
@pytest.mark.parametrize("case", CASES)
def test_an_episode_is_what_it_was(robot, case):
    """Within the last digits of sums in another order: float32 of the observation and, then, of the reward."""
    found, expected = episode(robot, **CASES[case]), json.loads(GOLDEN.read_text())[robot][case]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-7, atol=2e-7 if name == "observation" else 1e-7)


if __name__ == "__main__":
    made = {robot: {case: episode(robot, **CASES[case]) for case in CASES} for robot in ("panda", "iiwa", "ur5e")}
    GOLDEN.write_text(json.dumps(made, indent=None, separators=(",", ":")) + "\n")

# SPDX-License-Identifier: Apache-2.0
"""Records a golden joint log: an untrained policy that moves vigorously, as a bundle, and an episode of it in the
training's environment. `./qgf install-check` lets a robot's computer, which has no simulator, repeat it bit for bit."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from qgf_core.action import ActionKind
from qgf_core.bundle import Bundle, load_bundle
from qgf_core.errors import QgfError
from qgf_core.reference import JointReference
from qgf_core.signing import load_private_key, make_keys, sign_bundle
from qgf_policy.golden import GoldenLog
from qgf_sim.env import ArmEnv
from qgf_sim.task import ActionConfig
from qgf_sim.tasks import load_task
from qgf_trainer.config import load_train_config
from qgf_trainer.evaluation import run_episode
from qgf_trainer.export import export_bundle
from qgf_trainer.td3 import TD3


def record(
    robot: str, path: Path, task: str = "reach", action: ActionKind = "joint_velocity"
) -> tuple[Bundle, ArmEnv, GoldenLog]:
    """Export the bundle of an arm of config/robots to `path`, and run an episode of it.

    :param action: in place of the task's own, where it is another.
    :returns: the bundle as loaded again, the environment, closed, and the log.
    """
    config, described = load_train_config(task, robot=robot), load_task(task)
    if action != described.action.kind:
        described = dataclasses.replace(described, action=ActionConfig(action))
    env = ArmEnv(robot, described)
    agent = TD3(env.observation_space.shape[0], env.action_space.shape[0], config.learner, config.field, seed=3)
    for parameter in agent.actor_target.net[-2].parameters():
        parameter.data *= 12.0
    seen = run_episode(env, agent.deployed().act, 10_000)
    export_bundle(path, agent.deployed(), env, config, 0, {"success": 0.0}, [seen])
    bundle = load_bundle(path)
    measured, actions, commands = [], [], []
    observation, info = env.reset(seed=10_001)
    reference = np.zeros((0, 0))
    if env.reference is not None:  # at times that a message can tell
        curve = env.reference
        times = np.round(1e9 * curve.times)
        assert curve.velocities is not None
        signs = env.robot.signs
        reference = np.column_stack([times, curve.positions * signs, curve.velocities * signs])
        told = JointReference(1e-9 * times, curve.positions, curve.velocities)
        observation, info = env.reset(seed=10_001, options={"reference": told})
    for _ in range(env.config.episode_steps):
        measured.append(info["measured"])
        action = bundle.act(observation)
        observation, _, _, _, info = env.step(action)
        actions.append(action)
        commands.append(info["sent"])
    env.close()
    position, velocity = (np.array(part) for part in zip(*measured, strict=True))
    sent = np.array(commands) * env.robot.signs
    log = GoldenLog(np.asarray(env.goal), position, velocity, np.array(actions), sent, reference)
    return bundle, env, log


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m qgf_demo.golden", description=__doc__)
    parser.add_argument("folder", type=Path, help="gets bundle.pt, log.npz and trusted/lab.pub, whose key signed it")
    parser.add_argument("--robot", default="panda", help="of config/robots (default: panda)")
    options = parser.parse_args()
    folder: Path = options.folder
    try:
        (folder / "trusted").mkdir(parents=True, exist_ok=True)
        _, _, log = record(options.robot, folder / "bundle.pt")
        log.save(folder / "log.npz")
        make_keys(folder / "lab")
        sign_bundle(folder / "bundle.pt", load_private_key(folder / "lab.key"), folder / "bundle.pt")
        (folder / "lab.pub").rename(folder / "trusted" / "lab.pub")
    except (QgfError, OSError) as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""One observation builder, decoder and limiter: a golden joint log gives the same actions and commands in training's
environment and in the runner on the robot."""

import dataclasses

import numpy as np
import pytest

from qgf_core.bundle import load_bundle
from qgf_core.reference import JointReference
from qgf_policy.joint_state import JointState
from qgf_policy.references import ReferenceMessage
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings
from qgf_sim.env import ArmEnv
from qgf_sim.task import ActionConfig
from qgf_sim.tasks import load_task
from qgf_trainer.config import load_train_config
from qgf_trainer.evaluation import run_episode
from qgf_trainer.export import export_bundle
from qgf_trainer.td3 import TD3

PERIOD = 20_000_000  # [ns]
CASES = ["panda reach", "iiwa reach", "ur5e reach", "iiwa reach_chain", "panda reach_pose", "panda track",
         "panda track joint_position", "ur5e track joint_position_delta"]


@pytest.fixture(scope="module", params=CASES)
def golden(request, tmp_path_factory):
    """An untrained policy that moves vigorously, as a bundle, and an episode of it in the environment."""
    robot, name, *kind = request.param.split()
    config, task = load_train_config(name, robot=robot), load_task(name)
    if kind:
        task = dataclasses.replace(task, action=ActionConfig(kind[0]))
    env = ArmEnv(robot, task)
    agent = TD3(env.observation_space.shape[0], env.action_space.shape[0], config.learner, config.field, seed=3)
    for parameter in agent.actor_target.net[-2].parameters():
        parameter.data *= 12.0
    seen = run_episode(env, agent.deployed().act, 10_000)
    path = tmp_path_factory.mktemp("golden") / "bundle.pt"
    export_bundle(path, agent.deployed(), env, config, 0, {"success": 0.0}, [seen])
    bundle = load_bundle(path)
    measured, actions, commands = [], [], []
    observation, info = env.reset(seed=10_001)
    if env.reference is not None:  # at times that a message can tell
        times = 1e-9 * np.round(1e9 * env.reference.times)
        told = JointReference(times, env.reference.positions, env.reference.velocities)
        observation, info = env.reset(seed=10_001, options={"reference": told})
    for _ in range(env.config.episode_steps):
        measured.append(info["measured"])
        action = bundle.act(observation)
        observation, _, _, _, info = env.step(action)
        actions.append(action)
        commands.append(info["sent"])
    env.close()
    return bundle, env, measured, np.array(actions), np.array(commands)


def message_of(env):
    """The reference as it would arrive."""
    curve, signs = env.reference, env.robot.signs
    times = [round(1e9 * t) for t in curve.times]
    return ReferenceMessage(env.robot.joint_names, times, curve.positions * signs, curve.velocities * signs, 0, 7)


def replay(bundle, env, measured):
    interface = env.config.action.interface
    # The log's arm may be another, and a policy that is shown nonsense may be stuck.
    settings = RunnerSettings(interface, ramp_duration=0.0, tracking_limit=0.0, saturation_time=0.0)
    runner = PolicyRunner(bundle, settings)
    actions, commands = [], []
    for k, (position, velocity) in enumerate(measured):
        now = k * PERIOD
        state = JointState(position, velocity, np.full(len(position), now, np.int64), now)
        if k == 0:
            runner.activate(state, now)
            if env.reference is not None:
                runner.set_reference(message_of(env), state, now)
            else:
                runner.set_goal(env.goal[:3], env.robot.base_frame, now, now, orientation=env.goal[3:])
        command, _ = runner.step(state, now)
        actions.append(command.raw_action)
        commands.append(command.values)
    return np.array(actions), np.array(commands)


def test_the_runner_repeats_the_environment_bit_for_bit(golden):
    bundle, env, measured, actions, commands = golden
    assert np.abs(actions).max() > 0.5 and np.abs(np.diff(actions, axis=0)).max() > 0.01
    ours, sent = replay(bundle, env, measured)
    assert np.array_equal(ours, actions)
    assert np.array_equal(sent, commands * env.robot.signs)


def test_the_log_is_sensitive_to_a_permuted_joint(golden):
    bundle, env, measured, actions, _ = golden
    swapped = [(q[[1, 0, *range(2, len(q))]], dq) for q, dq in measured]
    ours, _ = replay(bundle, env, swapped)
    assert not np.allclose(ours, actions, atol=1e-3)


def test_limits_were_at_work(golden):
    _, env, _, _, commands = golden
    if env.config.action.interface == "position":
        commands = np.diff(commands, axis=0) * env.config.control_rate
    change = np.abs(np.diff(commands, axis=0)) * env.config.control_rate
    assert change.max() <= env.robot.acceleration_limit.max() + 1e-9
    assert (change >= 0.99 * env.robot.acceleration_limit).any()

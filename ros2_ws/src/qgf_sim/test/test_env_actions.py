# SPDX-License-Identifier: Apache-2.0
"""Every kind of action in the environment, at control rates that the physics rate is no multiple of."""

import dataclasses

import numpy as np
import pytest

from qgf_sim.env import ArmEnv
from qgf_sim.task import ActionConfig
from qgf_sim.tasks import load_task

KINDS = ["joint_velocity", "joint_position", "joint_position_delta", "joint_effort"]


def made(kind, rate=50.0, engine="pybullet", **more):
    task = load_task("track")
    action = ActionConfig(kind, **more)
    task = dataclasses.replace(task, action=action, control_rate=rate, episode_steps=round(4 * rate))
    return ArmEnv("panda", task, sensor_noise=False, engine=engine)


def towards(env, kind, position, velocity, target):
    """A hand law's action (7,) by the meaning of its kind."""
    scale = np.array(env.action_spec.scale)
    wanted = 2.0 * (target - position)
    value = {
        "joint_velocity": wanted,
        "joint_position": target - env.robot.home,
        "joint_position_delta": wanted / env.config.control_rate,
        "joint_effort": env.task.kinematics.mass_matrix(position) @ (8.0 * (wanted - velocity)),
    }[kind]
    return np.clip(value / scale, -1.0, 1.0).astype(np.float32)


@pytest.mark.parametrize("engine", ["pybullet", "mujoco"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_brings_the_arm_to_a_pose_and_keeps_it_there(kind, engine):
    env = made(kind, engine=engine)
    _, info = env.reset(seed=1)
    target = info["start"] + 0.2 * np.array([1, -1, 1, 1, -1, 1, -1])
    commands = []
    for _ in range(200):
        _, _, _, _, info = env.step(towards(env, kind, *info["measured"], target))
        commands.append(info["command"])
    assert np.abs(env.joint_position - target).max() < 0.02
    assert np.abs(info["joint_velocity"]).max() < 0.02
    acceleration = np.diff(commands, axis=0) * env.config.control_rate
    assert (np.abs(acceleration) <= env.robot.acceleration_limit + 1e-6).all()
    env.close()


@pytest.mark.parametrize(("rate", "substeps"), [(10.0, 20), (30.0, 7), (333.0, 1), (1000.0, 1)])
def test_control_rates_are_free_of_the_physics_rate(rate, substeps):
    """A second at constant action takes the arm as far at every rate; the physics is never coarser than asked for."""
    env = made("joint_velocity", rate)
    env.reset(seed=1, options={"start": env.robot.home})
    assert env.config.substeps == substeps and env.config.stepped_rate >= 200.0
    action = np.zeros(7, np.float32)
    action[0] = 0.5
    for _ in range(round(rate)):
        _, _, _, _, info = env.step(action)
    # 0.6 rad/s, less latency 20 ms, lag 40 ms and the time to speed up to it.
    assert env.joint_position[0] == pytest.approx(0.6 * (1.0 - 0.06 - 0.02), abs=0.025)
    assert info["joint_velocity"][0] == pytest.approx(0.6, abs=0.01)
    env.close()


def test_torques_are_cut_to_what_the_arm_has_and_random_ones_leave_the_limiter_in_force():
    env = made("joint_effort")
    env.reset(seed=3)
    generator, commands = np.random.default_rng(0), []
    for k in range(150):
        if k % 10 == 0:
            action = generator.choice([-1.0, 1.0], 7).astype(np.float32)
        _, _, _, _, info = env.step(action)
        commands.append(info["command"])
    robot = env.robot
    assert (np.abs(commands) <= robot.velocity_limit + 1e-9).all() and np.abs(commands).max() > 0.5
    assert (np.abs(np.diff(commands, axis=0)) * 50.0 <= robot.acceleration_limit + 1e-6).all()
    assert (env.joint_position > robot.position_lower - 0.05).all()
    assert (env.joint_position < robot.position_upper + 0.05).all()
    env.close()

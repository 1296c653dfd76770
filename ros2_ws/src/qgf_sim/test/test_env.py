# SPDX-License-Identifier: Apache-2.0
"""The environments, by the reach task: API, determinism, latency, limits, noise, reward, ends of episodes."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pybullet
import pytest
from gymnasium.utils.env_checker import check_env

from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot
from qgf_sim.arm import PyBulletArm
from qgf_sim.env import ArmEnv
from qgf_sim.reach import load_reach, seeded_episode

IDS = {"panda": "QGF/Reach-Panda-v0", "iiwa": "QGF/Reach-Iiwa-v0", "ur5e": "QGF/Reach-Ur5e-v0"}
MORE_IDS = ["QGF/Reach-iiwa-v0", "QGF/ReachPose-Panda-v0", "QGF/Track-UR5e-v0", "QGF/Hold-iiwa-v0"]


@pytest.fixture(scope="module", params=sorted(IDS))
def env(request):
    environment = ArmEnv(request.param)
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def panda():
    environment = ArmEnv("panda")
    yield environment
    environment.close()


def rollout(env, seed, steps=60):
    """Digest of everything that random actions bring about."""
    generator = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    digest = hashlib.sha256(observation.tobytes() + info["goal"].tobytes() + info["start"].tobytes())
    for _ in range(steps):
        action = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, _, _, info = env.step(action)
        digest.update(observation.tobytes() + np.float64(reward).tobytes() + info["joint_velocity"].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", [*IDS.values(), *MORE_IDS])
def test_the_checker_of_gymnasium_has_nothing_to_say(name):
    made = gymnasium.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped)
    made.close()


@pytest.mark.parametrize("robot", sorted(IDS))
def test_seeds_reproduce_bit_for_bit_in_this_and_in_another_process(robot):
    first, second = ArmEnv(robot), ArmEnv(robot)
    expected = rollout(first, 7)
    assert rollout(second, 7) == expected
    assert rollout(second, 8) != expected
    assert rollout(second, 7) == expected  # the episodes before leave no trace in the physics
    first.close()
    second.close()
    code = ("import importlib.util as u, sys; s = u.spec_from_file_location('t', sys.argv[1]); "
            "t = u.module_from_spec(s); s.loader.exec_module(t); print(t.rollout(t.ArmEnv(sys.argv[2]), 7))")
    run = subprocess.run([sys.executable, "-c", code, __file__, robot], capture_output=True, text=True, timeout=60,
                         check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert run.stdout.split() == [expected]


def test_the_generator_goes_on_between_episodes(env):
    _, first = env.reset(seed=3)
    _, second = env.reset()
    _, again = env.reset(seed=3)
    assert not np.array_equal(first["goal"], second["goal"])
    assert np.array_equal(first["goal"], again["goal"]) and np.array_equal(first["start"], again["start"])
    start, goal = seeded_episode(env.config, env.robot, 3)
    assert np.array_equal(start, first["start"]) and np.array_equal(goal, first["goal"])


def test_the_observation_is_made_of_the_declared_terms(env):
    robot = env.robot
    oracle = _LinkOracle(robot)
    env.reset(seed=5)
    generator = np.random.default_rng(5)
    velocities, errors = [], []
    for step in range(5):
        action = generator.uniform(-1, 1, len(robot.joints)).astype(np.float32)
        observation, _, _, _, info = env.step(action)
        position, velocity = info["measured"]
        velocities.insert(0, velocity / robot.policy_velocity)
        errors.insert(0, 5.0 * (oracle.tool(position) - env.goal))
        if step >= 2:
            expected = np.concatenate([position - robot.home, *velocities[:3], action, *errors[:3]])
            assert observation == pytest.approx(expected, abs=2e-6)
    oracle.close()


class _LinkOracle:
    """PyBullet's own forward kinematics, beside pinocchio's that the environment uses."""

    def __init__(self, robot):
        self._robot = robot
        self._client = pybullet.connect(pybullet.DIRECT)
        self._body = pybullet.loadURDF(robot.urdf, useFixedBase=True, physicsClientId=self._client)
        infos = [pybullet.getJointInfo(self._body, i, physicsClientId=self._client)
                 for i in range(pybullet.getNumJoints(self._body, physicsClientId=self._client))]
        self._index = {info[1].decode(): info[0] for info in infos}
        self._link = next(info[0] for info in infos if info[12].decode() == robot.tool.link)

    def tool(self, position):
        for name, q in zip(self._robot.joint_names, position, strict=True):
            pybullet.resetJointState(self._body, self._index[name], q, physicsClientId=self._client)
        state = pybullet.getLinkState(self._body, self._link, computeForwardKinematics=True,
                                      physicsClientId=self._client)
        offset, _ = pybullet.multiplyTransforms(state[4], state[5], self._robot.tool.offset, (0, 0, 0, 1))
        return np.array(offset)

    def close(self):
        pybullet.disconnect(self._client)


def test_histories_begin_anew_with_each_episode():
    task = load_reach()
    long = dataclasses.replace(task, observation=(ObservationTerm("joint_position", history=3),))
    env = ArmEnv("panda", long, sensor_noise=False)
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.ones(7, np.float32))
    observation, info = env.reset(seed=1)
    assert observation.reshape(3, 7) == pytest.approx(np.tile(info["start"] - env.robot.home, (3, 1)), abs=1e-6)
    env.close()


def test_the_reward_is_the_sum_of_its_terms_by_the_true_distance(env):
    quiet = ArmEnv(env.robot, sensor_noise=False)
    oracle = _LinkOracle(env.robot)
    _, info = quiet.reset(seed=11)
    distance = np.linalg.norm(oracle.tool(info["start"]) - info["goal"])
    assert info["distance"] == pytest.approx(distance, abs=1e-6)
    for action in np.random.default_rng(1).uniform(-1, 1, (10, len(env.robot.joints))).astype(np.float32):
        _, reward, _, _, info = quiet.step(action)
        before, distance = distance, np.linalg.norm(oracle.tool(info["measured"][0]) - quiet.goal)
        assert list(info["reward_terms"]) == ["progress", "distance", "precision", "effort"]
        assert reward == sum(info["reward_terms"].values())
        # 40 (d_prev - d) - d + exp(-(d / 0.04)^2) - 0.05 mean(a^2)
        expected = 40.0 * (before - distance) - distance + np.exp(-((distance / 0.04) ** 2)) - 0.05 * np.mean(action**2)
        assert reward == pytest.approx(expected, abs=1e-4)
    oracle.close()
    quiet.close()


@pytest.mark.parametrize("robot", sorted(IDS))
@pytest.mark.parametrize("latency", [0.0, 0.005, 0.02, 0.035])
def test_a_command_takes_effect_exactly_after_the_latency(robot, latency):
    spec = load_robot(robot)
    spec = dataclasses.replace(spec, drive=dataclasses.replace(spec.drive, latency=latency))
    told, untold = PyBulletArm(spec, 200.0), PyBulletArm(spec, 200.0)
    differs = []
    for _ in range(12):
        told.step(np.full(len(spec.joints), 0.4))
        untold.step(np.zeros(len(spec.joints)))
        differs.append(not np.array_equal(told.state()[1], untold.state()[1]))
    told.close()
    untold.close()
    delay = round(latency * 200.0)
    assert differs == [False] * delay + [True] * (12 - delay)


def test_the_environment_shows_an_action_one_control_period_late(env):
    told, untold = ArmEnv(env.robot, sensor_noise=False), ArmEnv(env.robot, sensor_noise=False)
    told.reset(seed=2)
    untold.reset(seed=2)
    velocities, n = [], len(env.robot.joints)
    for _ in range(3):
        velocities.append(told.step(np.full(n, 0.5, np.float32))[4]["joint_velocity"]
                          - untold.step(np.zeros(n, np.float32))[4]["joint_velocity"])
    assert np.array_equal(velocities[0], np.zeros(n))
    assert (velocities[1] > 0).all() and (velocities[2] > velocities[1]).all()
    told.close()
    untold.close()


def test_commands_obey_the_limiter_under_bang_bang_actions(env):
    robot, period = env.robot, 1.0 / env.config.control_rate
    generator = np.random.default_rng(0)
    for seed in range(4):
        env.reset(seed=seed)
        commands = [np.zeros(len(robot.joints))] * 2
        for _ in range(150):
            action = generator.choice([-1.0, 1.0], len(robot.joints)).astype(np.float32)
            commands.append(env.step(action)[4]["command"])
        velocity = np.array(commands)
        acceleration = np.diff(velocity, axis=0) / period
        jerk = np.diff(acceleration, axis=0) / period
        assert (np.abs(velocity) <= robot.velocity_limit + 1e-9).all()
        assert (np.abs(acceleration) <= robot.acceleration_limit + 1e-6).all()
        assert (np.abs(jerk) <= robot.jerk_limit + 1e-3).all()
        # The limits are what binds, not the actions: each joint's acceleration reaches its own.
        assert (np.abs(acceleration).max(0) >= 0.99 * np.minimum(
            robot.acceleration_limit, 2 * robot.policy_velocity / period)).all()


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_no_action_drives_a_joint_beyond_its_limits(env, direction):
    robot = env.robot
    # Start half a radian from the limit, so that every joint is at full speed when it gets there.
    near = (robot.position_upper - 0.5) if direction > 0 else (robot.position_lower + 0.5)
    env.reset(seed=0, options={"start": near, "goal": np.array([0.5, 0.0, 0.4])})
    positions, commands = [], []
    for _ in range(150):
        _, _, _, _, info = env.step(np.full(len(robot.joints), direction, np.float32))
        positions.append(info["measured"][0])
        commands.append(info["command"])
    positions, noise = np.array(positions), 5 * env.config.position_noise
    assert (positions <= robot.position_upper + noise).all() and (positions >= robot.position_lower - noise).all()
    # It was a run against the limit: each joint came near and its command came to rest.
    end = robot.position_upper if direction > 0 else robot.position_lower
    reached = np.abs(positions[-50:] - end).min(0)
    assert (reached < 0.2).all()
    assert (np.abs(np.array(commands)[-1]) < 0.1).all()


def test_the_noise_has_the_declared_strength_and_spares_the_truth(env):
    quiet = ArmEnv(env.robot, sensor_noise=False)
    noise, n = [], len(env.robot.joints)
    still = np.zeros(n, np.float32)
    for seed in range(4):
        for environment in (env, quiet):
            environment.reset(seed=seed)
        for _ in range(150):
            noisy, clean = env.step(still)[4], quiet.step(still)[4]
            assert np.array_equal(clean["measured"][1], clean["joint_velocity"])
            noise.append(np.concatenate([noisy["measured"][0] - clean["measured"][0],
                                         noisy["measured"][1] - noisy["joint_velocity"]]))
    quiet.close()
    noise = np.array(noise)
    # 600 samples of 6 or 7 joints: the standard error of a deviation is 1.2 %.
    assert noise[:, :n].std() == pytest.approx(0.002, rel=0.05)
    assert noise[:, n:].std() == pytest.approx(0.02, rel=0.05)
    assert np.abs(noise.mean(0)[:n]).max() < 4 * 0.002 / 600**0.5
    # White: neighbours in time and joints among each other are uncorrelated (standard error 0.015).
    flat = noise / noise.std(0)
    assert abs(np.mean(flat[1:] * flat[:-1])) < 0.06
    correlation = np.corrcoef(flat.T) - np.eye(2 * n)
    assert np.abs(correlation).max() < 0.2


def test_the_time_limit_truncates_and_never_terminates(env):
    for _ in range(2):
        env.reset(seed=1)
        ends = [env.step(np.zeros(len(env.robot.joints), np.float32))[2:4] for _ in range(150)]
        assert ends == [(False, False)] * 149 + [(False, True)]


@pytest.mark.parametrize(("away", "success"), [(0.0, True), (0.029, True), (0.031, False), (0.2, False)])
def test_success_is_being_within_30_mm(env, away, success):
    oracle = _LinkOracle(env.robot)
    goal = oracle.tool(env.robot.home) + np.array([0.0, 0.0, away])
    oracle.close()
    env.reset(seed=0, options={"start": env.robot.home, "goal": goal})
    _, _, _, _, info = env.step(np.zeros(len(env.robot.joints), np.float32))
    assert info["distance"] == pytest.approx(away, abs=5e-4)
    assert info["is_success"] is success


def test_the_previous_action_is_the_unlimited_one(panda):
    observation, _ = panda.reset(seed=0)
    assert np.array_equal(observation[28:35], np.zeros(7))  # behind the joints' positions and three velocities
    observation, _, _, _, info = panda.step(np.ones(7, np.float32))
    assert np.array_equal(observation[28:35], np.ones(7))
    assert (info["command"] < panda.robot.policy_velocity).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused(panda, bad):
    panda.reset(seed=0)
    action = np.zeros(7, np.float32)
    action[3] = bad
    with pytest.raises(ValueError, match="not finite"):
        panda.step(action)


def test_the_fingers_stay_where_they_are(panda):
    arm = PyBulletArm(panda.robot, 200.0)
    assert arm.other_joint_names == ("panda_finger_joint1", "panda_finger_joint2")
    for k in range(200):
        arm.step(np.full(7, 0.5 * (-1) ** (k // 20)))
    assert np.abs(arm.other_state()[0]).max() < 1e-3
    arm.close()

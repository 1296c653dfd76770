# SPDX-License-Identifier: Apache-2.0
"""A policy of 50 Hz whose commands come at 200 Hz: the same in training's environment and in the runner on the robot,
at each of the four commands of a period; and the curve that a drive gets of it."""

import dataclasses

import numpy as np
import pytest

from qgf_core.bundle import load_bundle
from qgf_core.errors import BundleError, ConfigError
from qgf_core.manifest import parse_manifest
from qgf_policy.joint_state import JointState
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings
from qgf_sim.env import ArmEnv
from qgf_sim.perturb import load_perturbation
from qgf_trainer.config import load_train_config
from qgf_trainer.evaluation import run_episode
from qgf_trainer.export import export_bundle
from qgf_trainer.td3 import TD3

PERIOD = 5_000_000  # [ns] of the commands


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Untrained, and moving vigorously."""
    config, env = load_train_config("reach_interpolated"), ArmEnv("panda", "reach_interpolated")
    agent = TD3(env.observation_space.shape[0], env.action_space.shape[0], config.learner, config.field, seed=3)
    for parameter in agent.actor_target.net[-2].parameters():
        parameter.data *= 12.0
    episode = run_episode(env, agent.deployed().act, 10_000)
    path = tmp_path_factory.mktemp("interpolated") / "bundle.pt"
    export_bundle(path, agent.deployed(), env, config, 0, {"success": 0.0}, [episode])
    env.close()
    return load_bundle(path)


class Watched:
    """The environment's limiter, and what went through it."""

    def __init__(self, limiter):
        self.limiter, self.wanted, self.measured, self.commands = limiter, [], [], []

    def __getattr__(self, name):
        return getattr(self.limiter, name)

    def step(self, wanted, measured):
        self.wanted.append(wanted)
        self.measured.append(measured)
        self.commands.append(self.limiter.step(wanted, measured))
        return self.commands[-1]


def episode_of(bundle, perturbation=None):
    """All commands of an episode, four to an action."""
    env = ArmEnv("panda", "reach_interpolated", perturbation=perturbation)
    watched = env._limiter = Watched(env._limiter)
    velocities, sense = [], env._sense

    def sensed(elapsed):
        sense(elapsed)
        velocities.append(env._measured[1])

    env._sense = sensed
    observation, _ = env.reset(seed=10_001)
    actions = []
    for _ in range(env.config.episode_steps):
        actions.append(bundle.act(observation))
        observation = env.step(actions[-1])[0]
    env.close()
    return env, watched, np.array(velocities[:-1]), np.array(actions)


@pytest.mark.parametrize("perturb", [None, "train"])
def test_the_runner_repeats_every_command_of_the_environment_bit_for_bit(bundle, perturb):
    env, watched, velocities, actions = episode_of(bundle, perturb and load_perturbation(perturb))
    runner = PolicyRunner(bundle, RunnerSettings(ramp_duration=0.0, tracking_limit=0.0))
    assert runner.substeps == 4 and runner.command_period == PERIOD
    given, sent = [], []
    for k, (position, velocity) in enumerate(zip(watched.measured, velocities, strict=True)):
        now = k * PERIOD
        state = JointState(position, velocity, np.full(7, now, np.int64), now)
        if k == 0:
            runner.activate(state, now)
            runner.set_goal(env.goal, "panda_link0", now, now)
        command, _ = runner.step(state, now)
        sent.append(command.values)
        if command.inference:
            given.append(command.raw_action)
    assert np.array_equal(given, actions) and np.abs(np.diff(actions, axis=0)).max() > 0.01
    assert np.array_equal(sent, [command.velocity * env.robot.signs for command in watched.commands])
    # On straight lines: within a period all wishes are equally far apart, and the last is the action's.
    wanted = np.array(watched.wanted).reshape(-1, 4, 7)
    steps = np.diff(wanted, axis=1)
    assert np.abs(steps - steps[:, :1]).max() < 1e-12
    assert wanted[:, -1] == pytest.approx(np.clip(actions, -1, 1) * env.robot.policy_velocity)


def test_at_a_higher_rate_the_arm_gets_the_same_curve_finer(bundle):
    """Commanded 1000 times a second, the wishes pass through those of 200 Hz, and nothing jumps by more than a step."""
    robot = bundle.manifest.robot
    commands = {}
    for rate in (200.0, 1000.0):
        runner = PolicyRunner(bundle, RunnerSettings(ramp_duration=0.0, tracking_limit=0.0, command_rate=rate))
        period, values = round(1e9 / rate), []
        for k in range(round(rate)):
            state = JointState(robot.home, np.zeros(7), np.full(7, k * period, np.int64), k * period)
            if k == 0:
                runner.activate(state, 0)
                runner.set_goal((0.5, 0.1, 0.4), robot.base_frame, 0, 0)
            values.append(runner.step(state, k * period)[0].values)
        commands[rate] = np.array(values)
    coarse, fine = commands[200.0], commands[1000.0][4::5]
    assert np.abs(coarse[3::4] - fine[3::4]).max() < 0.12 * np.abs(coarse).max(), "the limiters differ a little"
    assert np.abs(np.diff(commands[1000.0], axis=0)).max() <= robot.acceleration_limit.max() / 1000.0 + 1e-9


def test_a_stop_and_a_new_start_do_not_jump(bundle):
    robot, runner = bundle.manifest.robot, PolicyRunner(bundle, RunnerSettings(ramp_duration=0.0, tracking_limit=0.0))
    values, k = [], 0
    for phase, stale in ((60, False), (40, True), (60, False)):
        for _ in range(phase):
            k += 1
            sampled = (k - 100 if stale else k) * PERIOD
            state = JointState(robot.home, np.zeros(7), np.full(7, sampled, np.int64), sampled)
            if k == 1:
                runner.activate(state, k * PERIOD)
                runner.set_goal((0.5, 0.1, 0.4), robot.base_frame, 0, k * PERIOD)
            values.append(runner.step(state, k * PERIOD)[0].values)
    values = np.array(values)
    assert runner.counters.faults_stale_state and np.abs(values[99]).max() < np.abs(values[59]).max()
    assert np.abs(np.diff(values, axis=0)).max() <= robot.acceleration_limit.max() * 0.005 + 1e-9


def test_the_lag_is_declared_and_checked(bundle):
    manifest = bundle.manifest
    assert manifest.command_rate == 200.0 and manifest.interpolation_lag == pytest.approx(0.0075)  # 20 ms * 3 / 8
    text = manifest.to_json()
    assert '"interpolation_lag": 0.0075' in text
    assert parse_manifest(text, manifest.urdf, "here") == manifest
    with pytest.raises(BundleError, match=r"interpolation_lag 0\.001 s is not that of its rates, 0\.0075 s"):
        parse_manifest(text.replace('"interpolation_lag": 0.0075', '"interpolation_lag": 0.001'), manifest.urdf, "here")
    with pytest.raises(BundleError, match="command_rate 120 Hz is no multiple of the control rate 50 Hz"):
        parse_manifest(text.replace('"command_rate": 200.0', '"command_rate": 120.0'), manifest.urdf, "here")


def test_a_policy_that_knows_no_lines_gets_none_and_does_not_take_the_place_of_one_that_does(bundle):
    stranger = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, command_rate=0.0))
    runner = PolicyRunner(stranger, RunnerSettings(ramp_duration=0.0, command_rate=200.0))
    assert runner.substeps == 4 and runner._interpolator is None
    assert PolicyRunner(stranger, RunnerSettings()).substeps == 1
    with pytest.raises(ConfigError, match="its command_rate is not that of the running policy"):
        runner.replace(bundle, 0)

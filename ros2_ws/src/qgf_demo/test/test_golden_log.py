# SPDX-License-Identifier: Apache-2.0
"""One observation builder, decoder and limiter: a golden joint log gives the same actions and commands in training's
environment and in the runner on the robot."""

import dataclasses

import numpy as np
import pytest

from qgf_demo.golden import record
from qgf_policy.golden import load_golden_log, replay


@pytest.fixture(scope="module", params=[
    "panda reach", "iiwa reach", "ur5e reach", "iiwa reach_chain", "panda reach_pose", "panda track",
    "panda track joint_position", "ur5e track joint_position_delta"])
def golden(request, tmp_path_factory):
    """An untrained policy that moves vigorously, as a bundle, and an episode of it in the environment."""
    folder = tmp_path_factory.mktemp("golden")
    robot, *more = request.param.split()
    bundle, env, log = record(robot, folder / "bundle.pt", *more)
    log.save(folder / "log.npz")
    return bundle, env, load_golden_log(folder / "log.npz")


def test_the_runner_repeats_the_environment_bit_for_bit(golden):
    bundle, _, log = golden
    assert np.abs(log.action).max() > 0.5 and np.abs(np.diff(log.action, axis=0)).max() > 0.01
    ours, sent = replay(bundle, log)
    assert np.array_equal(ours, log.action)
    assert np.array_equal(sent, log.command)


def test_the_log_is_sensitive_to_a_permuted_joint(golden):
    bundle, _, log = golden
    order = [1, 0, *range(2, log.position.shape[1])]
    ours, _ = replay(bundle, dataclasses.replace(log, position=log.position[:, order]))
    assert not np.allclose(ours, log.action, atol=1e-3)


def test_limits_were_at_work(golden):
    _, env, log = golden
    velocity = log.command
    if env.config.action.interface == "position":
        velocity = np.diff(velocity, axis=0) * env.config.control_rate
    change = np.abs(np.diff(velocity, axis=0)) * env.config.control_rate
    assert change.max() <= env.robot.acceleration_limit.max() + 1e-9
    assert (change >= 0.99 * env.robot.acceleration_limit).any()

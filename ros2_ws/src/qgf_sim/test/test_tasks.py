# SPDX-License-Identifier: Apache-2.0
"""The tasks over their one contract: what they draw, reward and call success; chains; several processes."""

import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import yaml

from qgf_core.config import find_config, load_yaml
from qgf_core.errors import ConfigError
from qgf_core.rotation import angle_between, rotation_between
from qgf_sim.env import ArmEnv
from qgf_sim.tasks import KINDS, kind_of, load_task

NAMES = ["reach", "reach_pose", "reach_chain", "track", "hold"]


@pytest.fixture(scope="module")
def made():
    """One environment of each task, without noise."""
    envs = {name: ArmEnv("panda", name, sensor_noise=False) for name in NAMES}
    yield envs
    for env in envs.values():
        env.close()


def seconds(env, steps):
    return steps / env.config.control_rate


@pytest.mark.parametrize("name", NAMES)
def test_reward_terms_are_named_and_their_sum_is_the_reward(made, name):
    env = made[name]
    env.reset(seed=1)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 7)).astype(np.float32):
        _, reward, _, _, info = env.step(action)
        terms = info["reward_terms"]
        assert set(terms) == {field.name for field in dataclasses.fields(env.config.reward)}
        assert reward == sum(terms.values()) and all(math.isfinite(value) for value in terms.values())
        assert info["is_success"] == (info["distance"] <= env.task.tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_draws_the_same_again_and_a_given_start_changes_nothing_else(made, name):
    env = made[name]
    first, again = env.reset(seed=5)[1], env.reset(seed=5)[1]
    reference = env.reference
    other = env.reset(seed=5, options={"start": env.robot.home})[1]
    assert np.array_equal(first["start"], again["start"]) and np.array_equal(first["goal"], again["goal"])
    assert np.array_equal(other["start"], env.robot.home) and np.array_equal(other["goal"], first["goal"])
    assert env.np_random.random() == (env.reset(seed=5), env.np_random.random())[1]
    if reference is not None:
        np.testing.assert_array_equal(reference.at(0.0)[0], first["start"])
        assert other.get("reference_kind") == first.get("reference_kind") and other.get("pushes") == first.get("pushes")


# ---- reach with orientation -----------------------------------------------------------------------------------------


def test_a_pose_counts_distance_and_angle(made):
    env = made["reach_pose"]
    point, matrix = env.task.kinematics.tool_pose(env.robot.home)
    turn = np.array([0.0, math.sin(0.1), 0.0, math.cos(0.1)])  # 0.2 rad about y
    goal = np.concatenate([point + np.array([0.0, 0.0, 0.01]), turn])
    _, info = env.reset(seed=0, options={"start": env.robot.home, "goal": goal})
    angle = np.linalg.norm(rotation_between(matrix, turn))
    assert info["distance"] == pytest.approx(0.01 + 0.3 * angle, abs=1e-9)


def test_goals_are_turned_within_the_spread_and_the_middle_is_home(made):
    env = made["reach_pose"]
    goals = np.array([env.reset(seed=k)[1]["goal"] for k in range(60)])
    region = env.task.fields().goal_orientation
    angles = np.array([angle_between(goal[3:], region.centre) for goal in goals])
    assert angles.max() <= 0.4 + 1e-9 and angles.max() > 0.35 and angles.min() < 0.1
    np.testing.assert_allclose(rotation_between(env.task.kinematics.tool_pose(env.robot.home)[1], region.centre), 0.0,
                               atol=1e-9)
    assert all(env.config.goal_region.contains(goal[:3]) for goal in goals)


# ---- track ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("robot", ["panda", "iiwa", "ur5e"])
def test_references_of_every_kind_keep_the_limits_and_begin_at_rest_at_the_start(robot):
    env = ArmEnv(robot, "track", sensor_noise=False)
    kinds = {}
    for seed in range(30):
        generator = np.random.default_rng(seed)
        drawn = env.task.draw(generator, None)
        kinds[drawn.told["reference_kind"]] = drawn.reference
        position, velocity = drawn.reference.at(0.0)
        np.testing.assert_allclose(position, drawn.start, atol=1e-12)
        np.testing.assert_allclose(velocity, 0.0, atol=1e-12)
        drawn.reference.check(env.robot, 0.6 * env.robot.policy_velocity)
        assert np.abs(drawn.reference.positions - drawn.start).max() <= 0.4 + 1e-9
    env.close()
    assert set(kinds) == {"spline", "chirp", "step"}
    # Each is really moving, and a chirp turns round ever more often.
    assert all(reference.extremes()[2].max() > 0.3 for reference in kinds.values())
    signs = np.sign(np.array([kinds["chirp"].at(t)[1][0] for t in np.linspace(0.0, 4.0, 400)]))
    turns = np.flatnonzero(np.diff(signs) != 0)
    assert (turns > 200).sum() > (turns < 200).sum()


def test_tracking_well_is_rewarded_and_a_second_behind_is_not(made):
    """By a hand law: the reference's velocity a little ahead, and a pull to where it is."""
    env = made["track"]
    scores = {}
    for lag in (-0.06, 1.0):
        env.reset(seed=3)
        total = []
        for k in range(env.config.episode_steps):
            wanted, speed = env.reference.at(max(0.0, seconds(env, k) - lag))
            action = (speed + 3.0 * (wanted - env.joint_position)) / env.robot.policy_velocity
            _, reward, _, _, info = env.step(np.clip(action, -1, 1).astype(np.float32))
            total.append((reward, info["distance"]))
        scores[lag] = np.mean(total, axis=0)
    assert scores[-0.06][0] > scores[1.0][0] + 0.2
    assert scores[-0.06][1] < 0.03 < scores[1.0][1]


# ---- hold -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["pybullet", "mujoco"])
def test_pushes_drive_the_arm_away_when_they_act_and_only_then(engine):
    env = ArmEnv("panda", "hold", sensor_noise=False, engine=engine)
    info = env.reset(seed=2)[1]
    pushes, moved = info["pushes"], []
    assert pushes and all(10.0 <= np.linalg.norm(p["force"]) <= 40.0 for p in pushes)
    for _ in range(env.config.episode_steps):
        moved.append(np.abs(env.step(np.zeros(7, np.float32))[4]["joint_velocity"]).max())
    env.close()
    times = np.arange(len(moved)) / 50.0
    during = np.array([any(p["from"] + 0.02 <= t < p["to"] - 0.02 for p in pushes) for t in times])
    quiet = np.array([all(not p["from"] - 0.05 <= t < p["to"] + 0.25 for p in pushes) for t in times])
    assert np.mean(np.array(moved)[during]) > 0.02
    assert np.max(np.array(moved)[quiet]) < 0.005
    assert env.task.fields().goal_region is None


def test_a_stronger_push_drives_it_further(made):
    task = dataclasses.replace(load_task("hold"), force=(80.0, 80.0), pause=(0.2, 0.2), duration=(0.3, 0.3))
    strong = ArmEnv("panda", task, sensor_noise=False)
    weak = ArmEnv("panda", dataclasses.replace(task, force=(20.0, 20.0)), sensor_noise=False)
    errors = []
    for env in (weak, strong):
        env.reset(seed=4)
        errors.append(max(env.step(np.zeros(7, np.float32))[4]["distance"] for _ in range(40)))
        env.close()
    assert errors[1] == pytest.approx(4.0 * errors[0], rel=0.25)  # the servo yields in proportion


# ---- difficulty, chains, processes ----------------------------------------------------------------------------------


def test_a_lower_difficulty_narrows_what_is_drawn():
    spans = {}
    for name in ("reach", "track", "hold"):
        env = ArmEnv("panda", name, sensor_noise=False)
        for level in (0.2, 1.0):
            env.task.difficulty = level
            episodes = [env.task.draw(np.random.default_rng(k), None) for k in range(40)]
            starts = np.abs(np.array([e.start for e in episodes]) - env.robot.home).max()
            assert starts <= level * env.config.start_spread + 1e-12
            if name == "reach":
                spans[level] = np.ptp([e.goal for e in episodes], axis=0)
            elif name == "track":
                assert max(e.reference.extremes()[2].max() for e in episodes) <= level * 0.6 * 1.5 + 1e-9
            else:
                forces = [np.linalg.norm(p["force"]) for e in episodes for p in e.told["pushes"]]
                assert max(forces) <= 40.0 * level
        env.close()
    assert (spans[0.2] < 0.25 * spans[1.0]).all()


def test_an_episode_may_go_on_from_where_the_arm_is(made):
    env = made["reach"]
    env.reset(seed=1)
    for _ in range(20):
        observation, _, _, _, info = env.step(np.full(7, 0.5, np.float32))
    velocity = info["joint_velocity"]
    following, told = env.reset(seed=9, options={"continue": True})
    # Position, last action and velocity are those of the moving arm; what was the newest velocity is the second now.
    assert np.array_equal(following[:14], observation[:14]) and np.array_equal(following[14:28], observation[7:21])
    assert np.array_equal(following[28:35], observation[28:35])
    assert not np.array_equal(following[35:], observation[35:]) and np.array_equal(told["goal"], env.goal)
    _, _, _, _, info = env.step(np.full(7, 0.5, np.float32))
    assert np.abs(info["joint_velocity"]).max() > 0.5 * np.abs(velocity).max() > 0.0
    assert np.array_equal(told["goal"], env.reset(seed=9)[1]["goal"])


def test_vectorised_over_processes_each_is_bit_equal_to_one_of_its_own():
    made = gymnasium.make_vec("QGF/Track-Panda-v0", num_envs=2, vectorization_mode="async")
    observation, _ = made.reset(seed=[3, 4])
    actions = np.random.default_rng(0).uniform(-1, 1, (25, 2, 7)).astype(np.float32)
    together = [np.array(observation)]
    rewards = []
    for action in actions:
        observation, reward, *_ = made.step(action)
        together.append(np.array(observation))
        rewards.append(np.array(reward))
    made.close()
    env = ArmEnv("panda", "track")
    for i in range(2):
        assert np.array_equal(env.reset(seed=3 + i)[0], together[0][i])
        for k, action in enumerate(actions):
            observation, reward, *_ = env.step(action[i])
            assert np.array_equal(observation, together[k + 1][i]) and reward == rewards[k][i]
    env.close()


# ---- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_yaml_names_its_kind(name):
    assert kind_of(load_task(name)) == load_yaml(find_config("tasks", name)).get("kind", "reach") and len(KINDS) == 4


@pytest.mark.parametrize(("name", "key", "value", "words"), [
    ("track", "kind", "follow", "'follow' is not known; choose one of: reach, reach_pose, track, hold"),
    ("track", "kind", ["track"], "choose one of: reach"),
    ("track", "speed", 1.5, "speed 1.5 lies outside 0 .. 1"),
    ("track", "spacing", [1.0, 0.5], r"spacing \[1.0, 0.5\] must be"),
    ("track", "shares", {"spline": 0.0, "chirp": 0.0, "step": 0.0}, "must not be negative, nor all 0"),
    ("hold", "force", [20.0, 10.0], r"force \[20.0, 10.0\] must be"),
    ("hold", "goal_region", {"lower": [0, 0, 0], "upper": [1, 1, 1]}, "goal_region: unknown key"),
    ("reach_pose", "orientation_spread", 0.0, "orientation_spread 0.0 must be positive"),
])
def test_a_bad_task_is_one_line_with_its_place(tmp_path, name, key, value, words):
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(load_yaml(find_config("tasks", name)) | {key: value}))
    with pytest.raises(ConfigError, match=words) as caught:
        load_task(str(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)

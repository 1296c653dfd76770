# SPDX-License-Identifier: Apache-2.0
"""Gymnasium tasks: scaling by hand, seeds, true ends against time limits, resuming after SIGKILL, evaluation."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from safetensors.numpy import load_file

from qgf_core import smoothness
from qgf_core.errors import QgfError
from qgf_trainer.cli import evaluate_main, train_main
from qgf_trainer.config import TrainConfig, is_arm_task, load_train_config, settings_of, with_form
from qgf_trainer.evaluation import EvaluationConfig, evaluate_task
from qgf_trainer.gymnasium_task import GymnasiumTask, gymnasium_id
from qgf_trainer.policy_file import load_policy
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.sac import SACConfig
from qgf_trainer.td3 import TD3Config
from qgf_trainer.training import train


class Walk(gymnasium.Env):
    """A point moved by two actions of different ranges; it leaves the field early, or its time runs out."""

    def __init__(self, edge=2.0):
        self.edge = edge
        self.action_space = spaces.Box(np.float32([[-2.0], [0.0]]), np.float32([[6.0], [1.0]]))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2, 2), np.float64)
        self.received = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=4)
        return self.place.reshape(2, 2), {}

    def step(self, action):
        self.received = action
        self.place = self.place + self.np_random.normal(0.0, 0.3, 4)
        self.place[0] += 0.1 * float(action[0, 0])
        return self.place.reshape(2, 2), -abs(float(self.place[0])), bool(abs(self.place[0]) > self.edge), False, {}


class Discrete(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(2)


class Unbounded(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-np.inf, np.inf, (1,))


gymnasium.register("QgfWalk-v0", entry_point=Walk, max_episode_steps=12)
gymnasium.register("QgfEndless-v0", entry_point=Walk, kwargs={"edge": np.inf})
gymnasium.register("QgfDiscrete-v0", entry_point=Discrete)
gymnasium.register("QgfUnbounded-v0", entry_point=Unbounded)


def test_actions_are_scaled_and_observations_flat():
    env = GymnasiumTask("QgfWalk-v0")
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32) and env.observation_space.shape == (4,)
    observation, _ = env.reset(seed=3)
    assert observation.shape == (4,) and observation.dtype == np.float32
    # -2 .. 6 and 0 .. 1
    for action, expected in (([-1, 1], [-2, 1]), ([1, -1], [6, 0]), ([0, 0], [2, 0.5]), ([0.5, -0.5], [4, 0.25])):
        env.step(np.float32(action))
        assert env._env.unwrapped.received.ravel().tolist() == expected
    assert env._env.unwrapped.received.shape == (2, 1) and env._env.unwrapped.received.dtype == np.float32


@pytest.mark.parametrize("file", ["ant", "hopper", "inverted_double_pendulum", "pendulum", "reacher", "walker2d"])
def test_the_tasks_of_our_settings_run_after_set_up(file):
    """LunarLander alone wants a library that we do not install: Box2D has no wheel for every Python."""
    env = GymnasiumTask(load_train_config(file).task)
    observation, _ = env.reset(seed=0)
    assert np.isfinite(observation).all()
    moved = env.step(env.action_space.sample())
    assert np.isfinite(moved[0]).all() and np.isfinite(moved[1])
    env.close()


def test_an_endless_episode_is_cut_off_and_that_is_no_true_end(monkeypatch):
    monkeypatch.setattr("qgf_trainer.gymnasium_task.LONGEST_EPISODE", 30)
    env = GymnasiumTask("QgfEndless-v0")
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(30)]
    assert ends[:-1] == [(False, False)] * 29 and ends[-1] == (False, True)


def test_an_episode_follows_from_its_seed_and_the_next_from_the_generator():
    one, other = GymnasiumTask("QgfWalk-v0"), GymnasiumTask("QgfWalk-v0")
    assert np.array_equal(one.reset(seed=5)[0], gymnasium.make("QgfWalk-v0").reset(seed=5)[0].ravel().astype("f4"))
    one.step(np.zeros(2, np.float32))
    other.reset(seed=99)
    other.np_random.bit_generator.state = one.np_random.bit_generator.state  # what a checkpoint holds
    first = one.reset()[0]
    assert np.array_equal(first, other.reset()[0]) and not np.array_equal(first, one.reset()[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("QgfDiscrete-v0", "its actions are Discrete, not Box"),
        ("QgfUnbounded-v0", "no finite range"),
        ("gymnasium:Nowhere-v0", "Nowhere"),
        ("gymnasium:no_such_module:X-v0", "No module named 'no_such_module'"),
        ("HalfCheetah-v2", "not installed"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(tmp_path, capsys, name, words):
    with pytest.raises(QgfError, match=words):
        GymnasiumTask(name)
    assert train_main(["--task", name, "--out", str(tmp_path / "out")]) == 2
    complaint = capsys.readouterr().err.strip()
    assert words in complaint and "\n" not in complaint and not (tmp_path / "out").exists()


def test_an_arm_and_a_gymnasium_task_do_not_mix(tmp_path, capsys):
    assert train_main(["--task", "Pendulum-v1", "--robot", "panda", "--out", str(tmp_path / "out")]) == 2
    assert "Pendulum-v1 has no arm" in capsys.readouterr().err
    assert is_arm_task("reach") and not is_arm_task("Pendulum-v1")
    assert gymnasium_id("gymnasium:Pendulum-v1") == gymnasium_id("Pendulum-v1") == "Pendulum-v1"
    assert gymnasium_id("reach") is None


def test_settings_are_found_by_task():
    found = [settings_of(task) for task in ("reach", "Pendulum-v1", "gymnasium:Ant-v5", "MountainCarContinuous-v0")]
    assert found == ["reach", "pendulum", "ant", "gymnasium"]
    assert [settings_of(task, "sac-plain") for task in ("reach", "Pendulum-v1")] == ["reach_sac", "pendulum"]
    assert load_train_config("reach_sac").field.smoothness < load_train_config("reach").field.smoothness
    with pytest.raises(QgfError, match="unknown task"):
        settings_of("dance")


@pytest.mark.parametrize(
    ("name", "td3", "sac"),
    [
        # Of the paper's table
        ("pendulum", (2.0, 0.005, 2.0), (0.1, 0.005, 0.5)),
        ("lunarlander", (0.1, 0.1, 0.01), (0.1, 0.5, 0.05)),
        ("reacher", (0.1, 0.1, 0.01), (0.1, 0.0005, 1.0)),
        ("ant", (0.1, 0.005, 0.5), (0.1, 0.0005, 1.0)),
        ("hopper", (0.1, 0.005, 0.5), (2.0, 0.0005, 3.0)),
        ("walker2d", (0.1, 0.1, 0.01), (2.0, 0.005, 2.0)),
    ],
)
def test_the_papers_form_has_the_papers_weights(name, td3, sac):
    for algorithm, weights in (("td3", td3), ("sac", sac)):
        field = with_form(load_train_config(name, algorithm=algorithm), "paper").field
        assert (field.mixed_partial, field.field_consistency, field.curvature) == weights
        assert (field.form, field.every, field.rows, field.margin, field.noise) == ("paper", 1, 0, 1.0, 0.01)
        plain = with_form(load_train_config(name, algorithm=f"{algorithm}-plain"), "paper").field
        assert plain.form == "none"


def small(algorithm, task="QgfWalk-v0", **more):
    return TrainConfig(
        **{
            "task": task,
            "algorithm": algorithm,
            "steps": 500,
            "environments": 3,
            "steps_per_update": 2,
            "batch_size": 32,
            "warmup_steps": 60,
            "warmup_hold": 1,
            "checkpoint_steps": 100,
            "continue_share": 0.0,
            "learner": TD3Config(hidden=(16, 16)),
            "sac": SACConfig(hidden=(16, 16)),
            "field": FieldConfig(form="none" if algorithm.endswith("-plain") else "scale_free", rows=16),
            **more,
        }
    )


class Crash(Exception):
    """Stands for the power cord."""


@pytest.mark.parametrize("algorithm", ["td3", "td3-plain", "sac", "sac-plain"])
def test_episodes_of_any_length_and_resuming_bit_for_bit(tmp_path, algorithm, monkeypatch):
    config = small(algorithm)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    result = train(config, whole)
    assert result.steps >= 500 and not result.interrupted
    monkeypatch.setattr("qgf_trainer.recorder._REPORT_EVERY", 0.0)

    def crash(progress):
        if progress.step > 333:
            raise Crash

    with pytest.raises(Crash):
        train(config, killed, report=crash)
    reached = []
    train(config, killed, resume=True, report=lambda progress: reached.append(progress.step))
    assert 100 <= reached[0] <= 333
    one, other = load_file(whole / "checkpoint.safetensors"), load_file(killed / "checkpoint.safetensors")
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=True), name
    share = one["buffer.terminal"].mean()
    assert 0.02 < share < 1 / 4, "true ends are terminal"
    # Every transition belongs to an episode: where none ends, the next observation of the same environment follows.
    assert len(one["buffer.reward"]) == result.steps


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
@pytest.mark.parametrize("form", ["scale_free", "paper"])
def test_both_forms_train(algorithm, form):
    more = ["steps=300", "warmup_steps=100", "batch_size=32", "learner.hidden=[16, 16]", "sac.hidden=[16, 16]"]
    agent = train(with_form(load_train_config("pendulum", more, algorithm=algorithm), form)).agent
    assert agent.updates == 201 and agent.stabiliser.config.form == form
    assert agent.stabiliser.latest["mixed_partial"] > 0 and agent.stabiliser.latest["curvature"] > 0
    assert agent.stabiliser.terms == (51 if form == "scale_free" else 0), "G is kept where it is needed"


def test_a_time_limit_is_no_end(tmp_path):
    train(small("td3-plain", "Pendulum-v1", steps=420, environments=1), tmp_path)
    stored = load_file(tmp_path / "checkpoint.safetensors")
    assert len(stored["buffer.reward"]) == 420 and not stored["buffer.terminal"].any()
    following, observation = stored["buffer.next_observation"], stored["buffer.observation"]
    jumps = [i for i in range(419) if not np.array_equal(following[i], observation[i + 1])]
    assert jumps == [199, 399], "episodes of 200 steps, in order"


def test_updates_follow_the_ratio():
    for per, at_once, expected in ((1, 1, 100), (50, 50, 100), (4, 2, 50)):
        config = small("td3-plain", environments=1, steps=160, steps_per_update=per, updates_at_once=at_once)
        assert train(config).agent.updates == pytest.approx(expected, abs=at_once + 1)


def test_figures_by_hand():
    """A policy of known actions on Pendulum: return from a second implementation, smoothness from the formulas."""
    env = GymnasiumTask("Pendulum-v1")
    assert env.rate == pytest.approx(20.0)  # dt = 0.05 s

    def policy(observation):
        return np.float32([np.clip(observation[2] / 8.0, -1.0, 1.0)])

    figures = evaluate_task(env, policy, EvaluationConfig(first_seed=10_000, episodes=2))
    returns, sm, delta = [], [], []
    for seed in (10_000, 10_001):
        raw = gymnasium.make("Pendulum-v1")
        observation, total, actions = raw.reset(seed=seed)[0], 0.0, []
        for _ in range(200):
            actions.append(policy(observation).astype(np.float64))
            observation, reward, *_ = raw.step(np.float32(2.0 * actions[-1]))
            total += float(reward)
        returns.append(total)
        sm.append(smoothness.paper_smoothness(np.array(actions)))
        delta.append(np.abs(np.diff(np.array(actions), axis=0)).mean())
    assert figures["return"] == pytest.approx(np.mean(returns), rel=1e-6)
    assert figures["sm"] == pytest.approx(np.mean(sm), rel=1e-9)
    assert figures["sm_task_units"] == pytest.approx(2.0 * np.mean(sm), rel=1e-9)  # of torques in -2 .. 2 N m
    assert figures["mean_abs_delta"] == pytest.approx(np.mean(delta), rel=1e-9)
    assert (figures["length"], figures["smoothness_episodes"], figures["rate"]) == (200.0, 2.0, 20.0)


def test_episodes_too_short_for_a_spectrum_do_not_count():
    figures = evaluate_task(GymnasiumTask("QgfWalk-v0"), lambda _: np.zeros(2), EvaluationConfig(episodes=3))
    assert figures["smoothness_episodes"] == 0.0 and figures["sm"] == figures["high_frequency_ratio"] == -1.0
    assert figures["length"] <= 12.0 and json.loads(json.dumps(figures)) == figures


def test_a_rival_takes_the_place_of_the_fields_losses(tmp_path, capsys):
    folder = tmp_path / "caps"
    line = ["--task", "gymnasium:Pendulum-v1", "--rival", "caps", "--form", "paper", "--steps", "250", "--progress"]
    more = ["--override", "warmup_steps=200", "--override", "learner.hidden=[16, 16]"]
    assert train_main([*line, "none", "--out", str(folder), "--override", "rival.caps.sigma=0.3", *more]) == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["rival"]["kind"] == "caps" and config["field"]["form"] == "none" and config["robot"] == ""
    assert config["rival"]["caps"] == {"temporal": 1.0, "spatial": 5.0, "sigma": 0.3}  # as pendulum.yaml has it
    assert "no bundle: Pendulum-v1 has no robot" in capsys.readouterr().out and not (folder / "bundle.pt").exists()


SETTINGS = [
    *("--override", "learner.hidden=[32, 32]", "--override", "sac.hidden=[32, 32]"),
    *("--override", "warmup_steps=200", "--override", "checkpoint_steps=300", "--override", "batch_size=32"),
]


def command(folder, *more):
    line = [sys.executable, "-m", "qgf_trainer.cli", "train", "--task", "Pendulum-v1", "--steps", "1000"]
    return [*line, "--out", str(folder), "--progress", "json", *SETTINGS, *more]


def environment():
    paths = [str(Path(__file__).parents[2] / name) for name in ("qgf_core", "qgf_sim", "qgf_trainer")]
    path = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_sigkill_on_pendulum_and_resume_gives_the_same_result(tmp_path, algorithm, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    line = ["--algo", algorithm]
    assert train_main([*command(whole, *line)[4:]]) == 0
    told = [json.loads(text) for text in capsys.readouterr().out.splitlines()][-1]
    with subprocess.Popen(command(killed, *line), env=environment(), stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (killed / "checkpoint.safetensors").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert not (killed / "policy.safetensors").exists()
    assert train_main([*command(killed, *line)[4:], "--resume"]) == 0
    capsys.readouterr()
    one, other = load_file(whole / "checkpoint.safetensors"), load_file(killed / "checkpoint.safetensors")
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=True), name
    a, b = (json.loads((f / "evaluation.json").read_text()) for f in (whole, killed))
    assert a == told["figures"] and told["policy"] == str(whole / "policy.safetensors")
    assert {k: v for k, v in a.items() if k != "training_time_s"} == {k: b[k] for k in a if k != "training_time_s"}

    assert evaluate_main([str(whole / "policy.safetensors"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["task"] == "Pendulum-v1" and again["return"] == a["return"] and again["sm"] == a["sm"]
    stored = load_policy(whole / "policy.safetensors")
    assert stored.training["config"]["algorithm"] == algorithm and stored.evaluation == a


def test_a_file_that_is_no_policy_is_refused(tmp_path, capsys):
    train(small("td3-plain", steps=30, warmup_steps=30), tmp_path)
    for path, words in ((tmp_path / "checkpoint.safetensors", "holds no policy"), (tmp_path / "no", "cannot be read")):
        assert evaluate_main([str(path.with_suffix(".safetensors"))]) == 2
        complaint = capsys.readouterr().err.strip()
        assert words in complaint and "\n" not in complaint and "policy.safetensors" in complaint

# SPDX-License-Identifier: Apache-2.0
"""Judging a live run: hand-worked numbers, and the same figures as the evaluation in simulation gives."""

import dataclasses
import math

import numpy as np
import pytest

from qgf_core.errors import QgfError
from qgf_core.robot import load_robot
from qgf_demo.judge import judge_live, judge_timing, live_episodes
from qgf_demo.recording import Commands, JointSamples, Recording, load_recording
from qgf_sim.env import ArmEnv
from qgf_trainer.evaluation import EvaluationConfig, judge, run_episode

EVALUATION = EvaluationConfig(episodes=1)
EPOCH = 1_700_000_000_000_000_000
STEPS = 12


def along_x(seconds):
    """0.2 m/s towards x = 0 from x = 0.1."""
    return np.column_stack([0.1 - 0.2 * seconds, np.zeros_like(seconds), np.zeros_like(seconds)])


@pytest.fixture
def chatter():
    """+-0.5 in the first joint, nothing in the second, a constant in the third."""
    action = np.zeros((1, STEPS, 3))
    action[0, :, 0] = 0.5 * (-1.0) ** np.arange(STEPS)
    action[0, :, 2] = 0.25
    return action


def test_hand_worked_episode(make_recording, robot, kinematics, task, chatter):
    recording = make_recording(robot, [(0.0, 0.0, 0.0)], STEPS, chatter, along_x)
    (live,) = live_episodes(recording, robot, kinematics, task)
    # One period after the command stamped 0.02 k s the tool stands at 0.1 - 0.2 * 0.02 (k + 1).
    distance = [0.1 - 0.004 * (k + 1) for k in range(STEPS)]
    np.testing.assert_allclose(live.episode.distance, distance, atol=1e-12)
    np.testing.assert_allclose(live.episode.joint_velocity, np.tile([-0.2, 0.0, 0.0], (STEPS, 1)), atol=1e-9)
    np.testing.assert_allclose(live.episode.command, 0.5 * chatter[0], atol=1e-12)
    # Progress telescopes to 40 times the 0.048 m made good; effort is 0.05 times (0.5^2 + 0.25^2) / 3 each period.
    by_hand = (
        40 * 0.048 - sum(distance) + sum(math.exp(-((d / 0.04) ** 2)) for d in distance) - STEPS * 0.05 * 0.3125 / 3
    )
    assert live.episode.reward == pytest.approx(by_hand, abs=1e-9)

    figures = judge_live(recording, [live], robot, task, EVALUATION)
    assert figures["return"] == live.episode.reward
    assert figures["success"] == 0.0  # 52 mm at the end
    assert figures["final_distance_mm"] == pytest.approx(np.mean(distance[-10:]) * 1e3)
    assert figures["hold_rms"] == -1.0
    assert figures["mean_abs_delta"] == pytest.approx((1.0 + 0.0 + 0.0) / 3)
    assert figures["command_mean_abs_delta"] == pytest.approx(0.5 / 3)
    assert figures["sign_flip_index"] == pytest.approx(1.0 / 3)
    assert figures["state_age_ms"] == pytest.approx(3.0)
    for name in ("late10", "skipped", "lost", "overruns", "held_periods", "beyond_limits", "out_of_order"):
        assert figures[name] == 0.0, name


def test_distance_counts_where_the_tool_is_after_the_period(make_recording, robot, kinematics, task, chatter):
    """It crosses the tolerance between the last command and the end of its period."""
    recording = make_recording(robot, [(0.0, 0.0, 0.0)], STEPS, chatter, lambda t: along_x(t + 0.11))
    (live,) = live_episodes(recording, robot, kinematics, task)
    assert live.episode.distance[-1] == pytest.approx(0.1 - 0.2 * (0.11 + 0.24))
    assert live.episode.distance[-2] > task.goal_tolerance >= live.episode.distance[-1]
    assert judge_live(recording, [live], robot, task, EVALUATION)["success"] == 1.0


def test_each_goal_has_exactly_its_first_commands(make_recording, robot, kinematics, task):
    actions = np.stack([np.full((STEPS, 3), 0.1), np.full((STEPS, 3), -0.2)])
    goals = [(0.1, 0.0, 0.0), (-0.3, 0.0, 0.0)]
    recording = make_recording(robot, goals, STEPS, actions, along_x, gap=3)
    first, second = live_episodes(recording, robot, kinematics, task)
    np.testing.assert_array_equal(first.indices, np.arange(STEPS))
    np.testing.assert_array_equal(second.indices, STEPS + 3 + np.arange(STEPS))
    np.testing.assert_array_equal(second.episode.raw_action, actions[1])
    assert second.episode.distance[0] == pytest.approx(0.1 - 0.2 * 0.02 * (STEPS + 4) + 0.3)


def test_held_periods_are_counted_and_their_jump_is_part_of_the_action(make_recording, robot, kinematics, task):
    recording = make_recording(robot, [(0.0, 0.0, 0.0)], STEPS, np.full((1, STEPS, 3), 0.6), along_x)
    recording.commands.raw_action[4:6] = np.nan
    (live,) = live_episodes(recording, robot, kinematics, task)
    figures = judge_live(recording, [live], robot, task, EVALUATION)
    assert figures["held_periods"] == 2.0
    assert figures["mean_abs_delta"] == pytest.approx(2 * 0.6 / (STEPS - 1))


def test_what_must_never_happen_is_counted(make_recording, robot, kinematics, task, chatter):
    recording = make_recording(robot, [(0.0, 0.0, 0.0)], STEPS, chatter, along_x)
    commands = recording.commands
    commands.command[3, 1] = 1.01 * robot.velocity_limit[1]
    commands.state_stamp[7] = commands.stamp[7] + 1  # from the future
    commands.state_stamp[9] = commands.state_stamp[8] - 1  # back in time; the next one is good again
    (live,) = live_episodes(recording, robot, kinematics, task)
    figures = judge_live(dataclasses.replace(recording, commands=commands), [live], robot, task, EVALUATION)
    assert figures["beyond_limits"] == 1.0
    assert figures["out_of_order"] == 2.0


def test_timing_by_hand():
    # Periods of 20, 20, 23, 17, 40 and 21 ms, and one of 40 ms in which a message was lost.
    stamp = EPOCH + 1_000_000 * np.cumsum([0, 20, 20, 23, 17, 40, 21, 40])
    sequence = np.array([5, 6, 7, 8, 9, 10, 11, 13])
    figures = judge_timing(stamp, sequence, 0.02)
    # Seven deadlines (40 ms span two): that of 23 ms is late, that of 40 ms too, and one was skipped.
    assert figures["late10"] == pytest.approx(3 / 7)
    assert figures["skipped"] == 1.0
    assert figures["lost"] == 1.0
    assert figures["overruns"] == 1.0
    assert figures["period_jitter_max_ms"] == pytest.approx(20.0)
    assert figures["period_jitter_rms_ms"] == pytest.approx(math.sqrt((9 + 9 + 400 + 1) / 6))


def test_incomplete_recordings_are_refused(make_recording, robot, kinematics, task, chatter):
    recording = make_recording(robot, [(0.0, 0.0, 0.0)], STEPS, chatter, along_x)
    longer = dataclasses.replace(task, episode_steps=40)
    with pytest.raises(QgfError, match="goal 0 has 14 of 40 commands"):
        live_episodes(recording, robot, kinematics, longer)
    short = dataclasses.replace(recording, truth=JointSamples(*(a[:30] for a in dataclasses.astuple(recording.truth))))
    with pytest.raises(QgfError, match="does not span"):
        live_episodes(short, robot, kinematics, task)


def test_recording_survives_its_file(make_recording, robot, task, chatter, tmp_path):
    recording = make_recording(robot, [(0.0, 0.0, 0.0)], STEPS, chatter, along_x)
    recording.commands.raw_action[3] = np.nan
    recording.reports.update(source=np.array(["command", "raw_action"]), band_rms=np.array([[1.0, 2.0, 3.0]] * 2))
    recording.save(tmp_path / "recording.npz")
    again = load_recording(tmp_path / "recording.npz")
    assert again.period == recording.period
    for name in ("commands", "truth", "measured"):
        for field in dataclasses.fields(getattr(recording, name)):
            old, new = (getattr(getattr(r, name), field.name) for r in (recording, again))
            assert old.dtype == new.dtype
            np.testing.assert_array_equal(old, new)
    assert again.reports["source"].tolist() == ["command", "raw_action"]


def test_no_recording_is_an_error(tmp_path):
    (tmp_path / "recording.npz").write_bytes(b"PK\x03\x04 cut short")
    for name in ("recording.npz", "none.npz"):
        with pytest.raises(QgfError, match=name):
            load_recording(tmp_path / name)


def test_same_figures_as_the_evaluation_in_simulation():
    """An episode of the environment, put into the shape of a recording, is judged as the environment judged it."""
    env = ArmEnv("panda")
    task, robot, period = env.config, load_robot("panda"), 20_000_000
    states = []

    def policy(observation):
        states.append(env._true)
        return np.tanh(np.sin(np.arange(7.0) + 3.0 * observation[:7]) + 0.3 * observation[7:14]).astype(np.float32)

    episode = run_episode(env, policy, seed=10_003)
    states.append(env._true)
    stamp = EPOCH + period * np.arange(len(states))
    truth = JointSamples(stamp, np.array([s[0] for s in states]), np.array([s[1] for s in states]))
    steps = task.episode_steps
    commands = Commands(
        stamp[:-1], stamp[:-1], np.full(steps, EPOCH - 1), np.arange(steps), episode.raw_action, episode.command,
        episode.observation, np.full(steps, ""),
    )  # fmt: skip
    recording = Recording(
        np.array(robot.joint_names), 0.02, episode.goal[None], np.array([EPOCH - 1]), commands, truth, truth, {}, {}
    )
    kinematics = env._kinematics
    figures = judge_live(recording, live_episodes(recording, robot, kinematics, task), robot, task, EVALUATION)
    env.close()
    for name, value in judge([episode], 50.0, task.goal_tolerance, EVALUATION).items():
        assert figures[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name

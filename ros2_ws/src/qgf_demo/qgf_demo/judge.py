# SPDX-License-Identifier: Apache-2.0
"""Judges what was recorded live by the definitions of the evaluation in simulation, and how the loop kept its time."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qgf_core import smoothness
from qgf_core.errors import QgfError
from qgf_core.kinematics import Kinematics
from qgf_core.robot import RobotSpec
from qgf_demo.recording import Recording
from qgf_sim.reach import ReachConfig, reward_terms
from qgf_trainer.evaluation import Episode, EvaluationConfig, judge

LATE = 0.1
"""A period is late when it is longer than nominal by more than this share."""


@dataclasses.dataclass(frozen=True)
class LiveEpisode:
    """An episode as the evaluation knows it, and where it lies in the recording."""

    episode: Episode
    indices: NDArray[np.int64]
    """(T,) of its commands."""


def live_episodes(
    recording: Recording, robot: RobotSpec, kinematics: Kinematics, config: ReachConfig
) -> list[LiveEpisode]:
    """One episode for each goal: its first `episode_steps` commands.

    As in the environment, distance and joint velocity are the true ones one period after a command's stamp (linear
    between the samples of the ground truth). Where the policy was not asked because the node held the arm, the action
    counts as 0, the rest that was commanded in its stead: the jump there and back is part of what the arm was told.

    :raises QgfError: commands or ground truth are missing.
    """
    commands, truth = recording.commands, recording.truth
    if len(truth.stamp) < 2:
        raise QgfError(f"recording: {len(truth.stamp)} samples of the ground truth; the simulation has not answered")
    episodes = []
    for number, (goal, stamp) in enumerate(zip(recording.goal, recording.goal_stamp, strict=True)):
        indices = np.flatnonzero(commands.goal_stamp == stamp)[: config.episode_steps]
        if len(indices) < config.episode_steps:
            raise QgfError(
                f"recording: goal {number} has {len(indices)} of {config.episode_steps} commands; run the demo again"
            )
        begun = commands.stamp[indices]
        after = begun + round(1e9 * recording.period)
        if begun[0] < truth.stamp[0] or after[-1] > truth.stamp[-1]:
            raise QgfError(
                f"recording: the ground truth does not span the commands of goal {number}; run the demo again"
            )
        position = robot.signs * _interpolate(truth.stamp, truth.position, np.append(begun[:1], after))
        distance = np.array([np.linalg.norm(kinematics.tool_position(q) - goal) for q in position])
        action = np.nan_to_num(commands.raw_action[indices], nan=0.0)
        reward = sum(
            sum(reward_terms(config, now, before, taken).values())
            for before, now, taken in zip(distance[:-1], distance[1:], action, strict=True)
        )
        velocity = robot.signs * _interpolate(truth.stamp, truth.velocity, after)
        episodes.append(
            LiveEpisode(
                Episode(
                    goal,
                    commands.observation[indices],
                    action,
                    robot.signs * commands.command[indices],
                    velocity,
                    distance[1:],
                    float(reward),
                ),
                indices,
            )
        )
    return episodes


def _interpolate(stamp: NDArray[np.int64], values: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """`values` (M, n), sampled at `stamp` (M,) [ns], at other stamps (T,) [ns]: (T, n)."""
    # Differences first: seconds since 1970 leave float64 a quarter of a microsecond.
    known, wanted = 1e-9 * (stamp - stamp[0]), 1e-9 * (at - stamp[0])
    return np.column_stack([np.interp(wanted, known, column) for column in values.T])


def judge_live(
    recording: Recording,
    episodes: list[LiveEpisode],
    robot: RobotSpec,
    config: ReachConfig,
    evaluation: EvaluationConfig,
) -> dict[str, float]:
    """The figures of `qgf_trainer.evaluation.judge`, those of `judge_timing`, and what must never happen, as counts.

    held_periods: without the policy's action; beyond_limits: commands beyond the velocity limits; out_of_order: stamps
    of commands that do not rise, of states that fall, and commands built from a state of the future.
    """
    figures = judge([e.episode for e in episodes], 1.0 / recording.period, config.goal_tolerance, evaluation)
    used = np.concatenate([e.indices for e in episodes])
    commands = recording.commands
    span = slice(used[0], used[-1] + 1)
    figures |= judge_timing(commands.stamp[span], commands.sequence[span], recording.period)
    disorder = (
        np.sum(np.diff(commands.stamp[span]) <= 0)
        + np.sum(np.diff(commands.state_stamp[span]) < 0)
        + np.sum(commands.state_stamp[span] > commands.stamp[span])
    )
    return figures | {
        "held_periods": float(np.sum(np.isnan(commands.raw_action[used]).any(axis=1))),
        "beyond_limits": float(
            np.sum(np.any(~(np.abs(commands.command[span]) <= robot.velocity_limit * (1 + 1e-9)), axis=1))
        ),
        "out_of_order": float(disorder),
        "state_age_ms": float(1e-6 * np.mean(commands.stamp[used] - commands.state_stamp[used])),
    }


def periods_and_deadlines(
    stamp: NDArray[np.int64], sequence: NDArray[np.int64], period: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lengths [s] of the periods between consecutive commands, and how many deadlines each spans: 1, more if some were
    skipped.

    Periods within which a message was lost on its way to the recorder, a gap in the sequence, are left out.

    :param stamp: (K,) [ns]. :param sequence: (K,). :param period: nominal [s].
    """
    lengths = 1e-9 * np.diff(stamp)[np.diff(sequence) == 1]
    return lengths, np.maximum(1, np.round(lengths / period)).astype(np.int64)


def judge_timing(stamp: NDArray[np.int64], sequence: NDArray[np.int64], period: float) -> dict[str, float]:
    """How the loop kept its period, by the stamps of its commands (K,) [ns].

    late10: share of deadlines that were skipped, or with which a period ended that was longer than nominal by more than
    10 %; lost: messages that the recorder missed; overruns: periods longer than 1.5 times nominal.

    :raises QgfError: not two commands in a row.
    """
    lengths, deadlines = periods_and_deadlines(stamp, sequence, period)
    if not len(lengths):
        raise QgfError("recording: no two commands in a row; run the demo again")
    late = np.sum(lengths > (1.0 + LATE) * period)
    jitter = smoothness.period_jitter(np.append(0.0, np.cumsum(lengths)), period)
    return {
        "late10": float((late + np.sum(deadlines - 1)) / np.sum(deadlines)),
        "skipped": float(np.sum(deadlines - 1)),
        "lost": float(np.sum(np.maximum(np.diff(sequence) - 1, 0))),  # it begins anew with each activation
        "overruns": float(jitter.overruns),
        "period_jitter_rms_ms": 1e3 * jitter.rms,
        "period_jitter_p99_ms": 1e3 * jitter.p99,
        "period_jitter_max_ms": 1e3 * jitter.maximum,
    }

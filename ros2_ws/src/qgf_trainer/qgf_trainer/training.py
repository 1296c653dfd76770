# SPDX-License-Identifier: Apache-2.0
"""The training loop, in one function, with a recorder beside it."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from qgf_core.errors import QgfError
from qgf_core.robot import load_robot
from qgf_sim.env import ArmEnv
from qgf_sim.perturb import load_perturbation
from qgf_sim.tasks import load_task
from qgf_trainer.agent import Agent
from qgf_trainer.auto_dial import AutoDial
from qgf_trainer.checkpoint import previous_of
from qgf_trainer.config import TrainConfig, has_reward_unit, is_arm_task, learning_rate_factor
from qgf_trainer.curriculum import Curriculum
from qgf_trainer.geometry import glance
from qgf_trainer.gymnasium_task import GymnasiumTask
from qgf_trainer.memory import keep_freed_memory
from qgf_trainer.recorder import Progress, Recorder
from qgf_trainer.replay import ReplayBuffer
from qgf_trainer.resume_point import Environment, Progressed, ResumePoint, restore
from qgf_trainer.sac import SAC
from qgf_trainer.td3 import TD3

_LOG = logging.getLogger("qgf")
_GEOMETRY_EVERY = 1000  # updates between looks at the critic's geometry
_GEOMETRY_ROWS = 64
_STATISTICS_EVERY = 500  # updates between refreshes of the observations' and rewards' deviations
_POINT_EVERY = 1.0  # [s]: at the first end of all episodes after so long it is noted what to go on from
_WRITTEN = (
    "checkpoint.safetensors",
    "checkpoint.previous.safetensors",
    "bundle.pt",
    "policy.safetensors",
    "progress.csv",
    "evaluation.json",
    "config.json",
    "dial.json",
)


def prepare_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Make the output folder. :raises QgfError: it exists with content and neither resume nor overwrite is set, or
    cannot be made."""
    try:
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if occupied and not (resume or overwrite):
            raise QgfError(
                f"{folder}: exists already; choose another folder, or --resume to continue it, or --overwrite"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite and not resume:
            for name in _WRITTEN:
                (folder / name).unlink(missing_ok=True)
            for events in (folder / "tensorboard").glob("events.*"):
                events.unlink()
        if not os.access(folder, os.W_OK):
            raise QgfError(f"{folder}: cannot be written; choose another folder")
    except OSError as error:
        raise QgfError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


def make_environments(config: TrainConfig, number: int) -> Sequence[Environment]:
    """The task's environments, all alike. :raises QgfError: unknown robot or task, a missing library."""
    if not is_arm_task(config.task):
        return [GymnasiumTask(config.task) for _ in range(number)]
    robot, task = load_robot(config.robot), load_task(config.task)
    perturbation = load_perturbation(config.perturb) if config.perturb else None
    return [ArmEnv(robot, task, perturbation=perturbation) for _ in range(number)]


def make_agent(config: TrainConfig, n_obs: int, n_act: int) -> Agent:
    """The untrained agent of the configured algorithm."""
    if config.algorithm in ("sac", "sac-plain"):
        return SAC(n_obs, n_act, config.sac, config.field, config.seed, config.rival)
    return TD3(n_obs, n_act, config.learner, config.field, config.seed, config.rival)


@dataclasses.dataclass
class TrainingResult:
    """The trained agent and what it was trained on."""

    agent: Agent
    env: Environment
    steps: int
    interrupted: bool
    training_time: float
    """[s]"""
    dial: AutoDial | None = None
    """Of `smoothness: auto`."""


def train(
    config: TrainConfig,
    folder: Path | None = None,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    time_limit: float = math.inf,
) -> TrainingResult:
    """Train until `config.steps`, or until `should_stop`, or for `time_limit` [s] and to the end of the episodes.

    The environments begin their episodes together, and one whose episode has ended waits for the others. Where all
    have ended nothing of the physics has to be remembered, and that is where checkpoints are taken: a run killed at
    any time and resumed gives the same result as one never killed. One that is asked to stop does so at once and saves
    what it was when its episodes last began, a second or two ago; without a folder it ends its episodes.

    :param folder: for checkpoints, progress.csv and TensorBoard events; None keeps nothing.
    :param resume: continue from the folder's checkpoint; from the start if there is none.
    :raises QgfError: configuration, checkpoint or disk; FloatingPointError-like divergence ends the run with a
    diagnosis.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    envs = make_environments(config, config.environments)
    n_obs, n_act = envs[0].observation_space.shape[0], envs[0].action_space.shape[0]  # type: ignore[index]
    agent = make_agent(config, n_obs, n_act)
    if isinstance(envs[0], ArmEnv):
        agent.stabiliser.set_terms(envs[0].observation_terms)
    capacity = min(config.buffer_size, config.steps + config.environments)
    buffer = ReplayBuffer(capacity, n_obs, n_act, config.rival.needs_previous)
    noise = np.random.default_rng(config.seed)
    for index, env in enumerate(envs):
        env.reset(seed=config.seed * 1000 + index)  # training seeds; evaluation has its own
    begin = Progressed(0, 0.0, torch.ones(n_obs), 1.0, np.full((len(envs), n_act), np.nan))
    curriculum, dial = Curriculum(config.curriculum), make_dial(config, agent)
    path, last_checkpoint = None if folder is None else folder / "checkpoint.safetensors", -1
    if resume and path is not None and (path.exists() or previous_of(path).exists()):
        begin = restore(path, config, agent, buffer, noise, envs, curriculum, dial)
        last_checkpoint = begin.step
    step, observation_std, reward_std, poses = begin.step, begin.observation_std, begin.reward_std, begin.poses
    recorder = Recorder(config, folder, report, step, time_limit)
    begun = time.monotonic()
    started, first_update = begun - begin.trained, agent.updates
    stopping, late, last_try = False, False, begin.step
    geometry: dict[str, float] = {}
    point: ResumePoint | None = None
    noted = -math.inf

    def here() -> ResumePoint:
        trained = time.monotonic() - started
        progressed = Progressed(step, trained, observation_std, reward_std, poses)
        return ResumePoint(config, agent, noise, envs, curriculum, dial, progressed)

    try:
        while step < config.steps and not (stopping or late):
            if path is not None and time.monotonic() - noted >= _POINT_EVERY:
                point, noted = here(), time.monotonic()
                buffer.mark()
            _set_level(envs, curriculum.level)
            observations = np.stack([_start(env, poses[i], noise, config) for i, env in enumerate(envs)])
            totals, actions, period = np.zeros(len(envs)), [[] for _ in envs], 0  # type: ignore[var-annotated]
            held, previous = np.zeros((len(envs), n_act), np.float32), observations
            running = np.ones(len(envs), bool)
            while running.any() and step < config.steps:
                if point is not None and should_stop():
                    stopping = True
                    break
                if step < config.warmup_steps:
                    if period % config.warmup_hold == 0:
                        held = np.float32(noise.uniform(-1.0, 1.0, held.shape))
                    action = held
                else:
                    action = agent.explore(observations, noise, config.exploration_noise)
                before, period, following = step, period + 1, observations.copy()
                for index in map(int, np.flatnonzero(running)):
                    following[index], reward, terminated, truncated, _ = envs[index].step(action[index])
                    learned = config.reward_scale * reward
                    transition = (observations[index], action[index], learned, following[index], terminated)
                    buffer.add(*transition, previous[index])
                    totals[index] += reward
                    actions[index].append(action[index])
                    running[index] = not (terminated or truncated)
                    step += 1
                previous, observations = observations, following
                if before < config.warmup_steps <= step and config.normalise_observations:
                    agent.set_normaliser(*buffer.observation_statistics())
                if before < config.warmup_steps <= step and has_reward_unit(config):
                    _set_reward_unit(agent, buffer.reward_rms(), config)
                if step >= config.warmup_steps:
                    agent.set_learning_rate(learning_rate_factor(config, step))
                    due = step // config.steps_per_update - before // config.steps_per_update
                    for _ in range(due * config.updates_at_once):
                        if agent.updates % _STATISTICS_EVERY == 0:
                            observation_std, reward_std = buffer.observation_statistics()[1], buffer.reward_std()
                        batch = buffer.sample(config.batch_size, agent.generator)
                        agent.update(batch, observation_std, reward_std)
                        if agent.updates % _GEOMETRY_EVERY == 0:
                            seen = batch.observation[:_GEOMETRY_ROWS]
                            chosen = torch.from_numpy(agent.act(seen.numpy()))
                            geometry = glance(agent.critic.first, (seen - agent.mean) / agent.std, chosen)
                recorder.step(
                    step,
                    agent.updates - first_update,
                    agent.latest | geometry | {"level": curriculum.level},
                    "warmup" if step < config.warmup_steps else "training",
                )
            if path is not None and point is not None and stopping:
                step = max(point.step, last_checkpoint)
                if point.step > last_checkpoint:
                    buffer.go_back()
                    point.save(path, buffer)
                break
            for index, env in enumerate(envs):
                success = float(env.succeeded) if isinstance(env, ArmEnv) else float("nan")
                recorder.episode(float(totals[index]), success, np.array(actions[index]))
                if isinstance(env, ArmEnv):
                    curriculum.add(env.succeeded)
                    if env.succeeded:
                        poses[index] = env.joint_position
            _check_finite(agent, step)
            stopping, late = should_stop(), time.monotonic() - begun >= time_limit
            if dial is not None:
                dial.after_episodes(step, late)
            overdue = config.checkpoint_steps > 0 and step - last_try >= config.checkpoint_steps
            if path is not None and (overdue or stopping or late or step >= config.steps):
                last_try = step
                try:
                    here().save(path, buffer)
                    last_checkpoint = step
                except QgfError as error:
                    if stopping:
                        raise  # nobody trains on: whoever stopped it has to know
                    _LOG.warning("qgf: warning: %s; training goes on, the checkpoint before stays", error)
        ended = "interrupted" if stopping else "trained"
        latest = agent.latest | geometry | {"level": curriculum.level}
        recorder.step(step, agent.updates - first_update, latest, ended, force=True)
    finally:
        recorder.close()
        for env in envs[1:]:
            env.close()
        if dial is not None:
            dial.close()
    evaluated = envs[0]
    _set_level(envs, 1.0)
    if isinstance(evaluated, ArmEnv):
        evaluated.without_perturbation()  # evaluated on the robot as it is described
    return TrainingResult(agent, evaluated, step, stopping and step < config.steps, time.monotonic() - started, dial)


def make_dial(config: TrainConfig, agent: Agent) -> AutoDial | None:
    """What moves the agent's dial, if it is on `auto`."""
    if config.field.form != "scale_free" or config.field.smoothness != "auto":
        return None
    return AutoDial(config.auto, agent, make_environments(config, 1)[0], config.steps, config.warmup_steps)


def _set_level(envs: Sequence[Environment], level: float) -> None:
    for env in envs:
        if isinstance(env, ArmEnv):
            env.task.difficulty = level


def _start(
    env: Environment, pose: NDArray[np.float64], noise: np.random.Generator, config: TrainConfig
) -> NDArray[np.float32]:
    """Begin an episode; an arm's near home or where its last success ended. Returns the observation."""
    goes_on = noise.random() < config.continue_share and np.isfinite(pose).all()
    return env.reset(options={"start": pose} if goes_on else None)[0]


def _set_reward_unit(agent: Agent, found: float, config: TrainConfig) -> None:
    """:raises QgfError: the task's rewards are not finite."""
    if not math.isfinite(found):
        raise QgfError(f"{config.task}: rewards of the warm-up are not finite; mend the task or reward_scale")
    agent.set_reward_unit(found / config.reward_rms)


def _check_finite(agent: Agent, step: int) -> None:
    """:raises QgfError: the training has diverged."""
    for name, value in agent.latest.items():
        if not np.isfinite(value) or (name == "q_mean" and abs(value) > 1e6):
            raise QgfError(
                f"training diverged at step {step}: {name} is {value:.3g}; lower field.smoothness "
                "or learner.learning_rate, and resume from the last checkpoint"
            )

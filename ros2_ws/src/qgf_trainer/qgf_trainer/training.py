# SPDX-License-Identifier: Apache-2.0
"""The training loop, in one function, with a recorder beside it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qgf_core import smoothness
from qgf_core.errors import QgfError
from qgf_core.robot import load_robot
from qgf_sim.env import ArmEnv
from qgf_sim.perturb import load_perturbation
from qgf_sim.tasks import load_task
from qgf_trainer.agent import Agent
from qgf_trainer.auto_dial import AutoDial
from qgf_trainer.checkpoint import previous_of
from qgf_trainer.config import TrainConfig, is_arm_task, learning_rate_factor
from qgf_trainer.curriculum import Curriculum
from qgf_trainer.gymnasium_task import GymnasiumTask
from qgf_trainer.memory import keep_freed_memory
from qgf_trainer.replay import ReplayBuffer
from qgf_trainer.resume_point import Environment, Progressed, ResumePoint, restore
from qgf_trainer.sac import SAC
from qgf_trainer.td3 import TD3

_LOG = logging.getLogger("qgf")
_STATISTICS_EVERY = 500  # updates between refreshes of the observations' and rewards' deviations
_REPORT_EVERY = 1.0  # [s]
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


@dataclasses.dataclass(frozen=True)
class Progress:
    """A glance at a running training; means over the last 40 episodes, NaN before the first has ended."""

    step: int
    steps_total: int
    episode_return: float
    success: float
    mean_absolute_delta: float
    paper_smoothness: float
    steps_per_second: float
    updates_per_second: float
    eta: float
    """[s]"""
    phase: str


class Recorder:
    """Keeps recent episodes, writes progress.csv and TensorBoard events, reports about once a second.

    :param folder: None writes nothing.
    """

    _COLUMNS = (
        "step",
        "time",
        "episode_return",
        "success",
        "mean_absolute_delta",
        "paper_smoothness",
        "steps_per_second",
        "updates_per_second",
        "td_loss",
        "q_mean",
        "mixed_partial",
        "field_consistency",
        "curvature",
        "field_scale",
        "smoothness_dial",
        "temperature",
        "level",
    )

    def __init__(
        self,
        config: TrainConfig,
        folder: Path | None,
        report: Callable[[Progress], None] | None,
        resumed_at: int,
        time_limit: float = math.inf,
    ) -> None:
        self._time_limit = time_limit
        self._config, self._report, self._started, self._first_step = config, report, time.monotonic(), resumed_at
        self._episodes: deque[tuple[float, float, float, float]] = deque(maxlen=40)
        self._last = 0.0
        self._csv = None
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # costs seconds to import, and a folder only training has

            self._writer = SummaryWriter(str(folder / "tensorboard"))
            path = folder / "progress.csv"
            rows = _rows_before(path, resumed_at)
            self._stream = path.open("w", newline="", encoding="utf-8")
            self._csv = csv.DictWriter(self._stream, self._COLUMNS)
            self._csv.writeheader()
            self._csv.writerows(rows)

    def episode(self, total: float, success: float, actions: NDArray[np.float32]) -> None:
        """Note an episode: its return, success (0, 1, NaN: the task knows none) and explored actions (T, n)."""
        if len(actions) < 2:
            return  # an end at once says nothing of smoothness
        self._episodes.append(
            (
                total,
                success,
                float(np.mean(smoothness.mean_absolute_delta(actions))),
                smoothness.paper_smoothness(actions),
            )
        )

    def step(self, step: int, updates: int, latest: dict[str, float], phase: str, force: bool = False) -> None:
        """Write and report if it is time."""
        now = time.monotonic()
        if not force and now - self._last < _REPORT_EVERY:
            return
        self._last = now
        elapsed = max(now - self._started, 1e-6)
        rate = (step - self._first_step) / elapsed
        total, success, delta, sm = np.mean(self._episodes, axis=0) if self._episodes else [float("nan")] * 4
        eta = (self._config.steps - step) / rate if rate > 0 else 0.0
        eta = max(0.0, min(eta, self._time_limit - elapsed))
        progress = Progress(
            step,
            self._config.steps,
            float(total),
            float(success),
            float(delta),
            float(sm),
            rate,
            updates / elapsed,
            eta,
            phase,
        )
        if self._csv is not None and self._writer is not None and self._episodes:
            values = {k: v for k, v in dataclasses.asdict(progress).items() if k in self._COLUMNS} | latest
            row = {"time": round(elapsed, 2), **{k: values.get(k, "") for k in self._COLUMNS if k != "time"}}
            try:
                self._csv.writerow(row)
                self._stream.flush()
                for name, value in values.items():
                    self._writer.add_scalar(f"train/{name}", value, step)
            except OSError as error:  # a full disk must not cost the run
                self._csv = None
                _LOG.warning("qgf: warning: %s: the curves end here (%s)", self._stream.name, error.strerror)
        if self._report is not None:
            self._report(progress)

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            for file in (self._writer, self._stream):
                with contextlib.suppress(OSError):  # what a full disk did not take was told already
                    file.close()


def _rows_before(path: Path, step: int) -> list[dict[str, Any]]:
    """Rows of an earlier progress.csv up to the step that is resumed from."""
    if step == 0 or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            row
            for row in csv.DictReader(stream)
            if None not in row and (row["step"] or "").isdigit() and int(row["step"]) <= step
        ]


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
    stopping = late = False
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
                if step >= config.warmup_steps:
                    agent.set_learning_rate(learning_rate_factor(config, step))
                    due = step // config.steps_per_update - before // config.steps_per_update
                    for _ in range(due * config.updates_at_once):
                        if agent.updates % _STATISTICS_EVERY == 0:
                            observation_std, reward_std = buffer.observation_statistics()[1], buffer.reward_std()
                        agent.update(buffer.sample(config.batch_size, agent.generator), observation_std, reward_std)
                recorder.step(
                    step,
                    agent.updates - first_update,
                    agent.latest | {"level": curriculum.level},
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
            if dial is not None:
                dial.after_episodes(step)
            stopping, late = should_stop(), time.monotonic() - begun >= time_limit
            overdue = config.checkpoint_steps > 0 and step - max(last_checkpoint, begin.step) >= config.checkpoint_steps
            if path is not None and (overdue or stopping or late or step >= config.steps):
                try:
                    here().save(path, buffer)
                except QgfError as error:
                    if stopping:
                        raise  # nobody trains on: whoever stopped it has to know
                    _LOG.warning("qgf: warning: %s; training goes on, the checkpoint before stays", error)
                last_checkpoint = step
        ended = "interrupted" if stopping else "trained"
        latest = agent.latest | {"level": curriculum.level}
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


def _check_finite(agent: Agent, step: int) -> None:
    """:raises QgfError: the training has diverged."""
    for name, value in agent.latest.items():
        if not np.isfinite(value) or (name == "q_mean" and abs(value) > 1e6):
            raise QgfError(
                f"training diverged at step {step}: {name} is {value:.3g}; lower field.smoothness "
                "or learner.learning_rate, and resume from the last checkpoint"
            )

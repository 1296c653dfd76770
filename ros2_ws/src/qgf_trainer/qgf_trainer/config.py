# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run: config/train/*.yaml, with overrides from the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import yaml

from qgf_core.config import config_root, find_config, from_mapping, load_yaml, to_mapping
from qgf_core.errors import ConfigError
from qgf_trainer.curriculum import CurriculumConfig
from qgf_trainer.dial_search import AutoConfig
from qgf_trainer.gymnasium_task import gymnasium_id
from qgf_trainer.q_gradient_field import FieldConfig, paper_form
from qgf_trainer.rivals import RivalConfig
from qgf_trainer.sac import SACConfig
from qgf_trainer.td3 import TD3Config

Algorithm = Literal["td3", "td3-plain", "sac", "sac-plain"]


@dataclasses.dataclass(frozen=True)
class PaperWeights:
    """What `--form paper` sets: (l_MPR, l_VFC, l_Curv) of arXiv:2601.22970 for this task."""

    td3: tuple[float, float, float] = (2.0, 0.005, 2.0)
    """By default those that suit the reach task."""
    sac: tuple[float, float, float] = (1.0, 0.0025, 1.0)
    """By default TD3's halved, as SAC's TD loss is half of TD3's."""

    def __post_init__(self) -> None:
        if min(*self.td3, *self.sac) < 0:
            raise ValueError(f"the paper's weights td3 {list(self.td3)}, sac {list(self.sac)} must not be negative")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run; every field can stand in a YAML file of config/train."""

    robot: str = "panda"
    """Name in config/robots, or a YAML file; a Gymnasium task has none."""
    task: str = "reach"
    """Name in config/tasks, or a YAML file, or the id of a Gymnasium task with Box spaces, such as Pendulum-v1."""
    perturb: str = ""
    """Name in config/perturb, or a YAML file: how the arm differs in each episode; empty: not at all."""
    algorithm: Algorithm = "td3"
    """td3, sac: with the stabilised critic; td3-plain, sac-plain: without."""
    steps: int = 60_000
    """Control steps over all environments."""
    seed: int = 0
    """Of weights, noise and training goals."""
    environments: int = 4
    """Environments stepped in turn; they begin their episodes together."""
    steps_per_update: int = 4
    """Control steps from one gradient update to the next."""
    updates_at_once: int = 1
    """Gradient updates each time; the update-to-data ratio is updates_at_once / steps_per_update."""
    batch_size: int = 128
    """Transitions per gradient update."""
    buffer_size: int = 200_000
    """Transitions kept."""
    warmup_steps: int = 3000
    """First steps, with random actions."""
    warmup_hold: int = 10
    """A random action is held for this many control periods."""
    exploration_noise: float = 0.3
    """Standard deviation of the Gaussian noise on the action."""
    continue_share: float = 0.25
    """Share of the episodes that start where the arm's last success ended, as on an arm that goes from goal to goal."""
    curriculum: CurriculumConfig = dataclasses.field(default_factory=CurriculumConfig)
    """From a narrow task to the whole one; off unless curriculum.start is below 1."""
    decay_from: float = 1.0
    """Share of the run from which on the learning rate falls linearly to a tenth; 1: never."""
    reward_scale: float = 1.0
    """What the learner sees is the reward times this; returns are told without it."""
    reward_rms: float = 0.0
    """With the field's scale-free form: what the learner sees is scaled to this root mean square, taken over the
    rewards of the warm-up that are not 0 and frozen then, so that all that is learned is the same whatever unit the
    reward comes in; 0: rewards as they are, as suits the arms' tasks, and one whose first rewards are but traces."""
    normalise_observations: bool = False
    """Normalise by mean and deviation of the first steps, frozen then; the reach task's observation is scaled
    already."""
    checkpoint_steps: int = 12_000
    """A checkpoint at the first end of an episode after so many steps; 0: only when interrupted and at the end."""
    learner: TD3Config = dataclasses.field(default_factory=TD3Config)
    """Of TD3."""
    sac: SACConfig = dataclasses.field(default_factory=SACConfig)
    """Of SAC."""
    paper: PaperWeights = dataclasses.field(default_factory=PaperWeights)
    rival: RivalConfig = dataclasses.field(default_factory=RivalConfig)
    """A policy-side method for comparison; it takes the place of the field's losses."""
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    auto: AutoConfig = dataclasses.field(default_factory=AutoConfig)
    """Of field.smoothness=auto."""

    def __post_init__(self) -> None:
        positive = ("steps", "environments", "steps_per_update", "updates_at_once", "batch_size", "buffer_size")
        for name in (*positive, "warmup_hold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("seed", "warmup_steps", "exploration_noise", "checkpoint_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if not 0.0 <= self.reward_rms < math.inf:
            raise ValueError(f"reward_rms {self.reward_rms} must be 0 or positive, and finite")
        if self.reward_rms > 0.0 and self.warmup_steps == 0:
            raise ValueError(f"reward_rms {self.reward_rms} needs a warm-up to measure rewards: warmup_steps is 0")
        if self.reward_scale <= 0:
            raise ValueError(f"reward_scale {self.reward_scale} must be positive")
        for name in ("decay_from", "continue_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} {getattr(self, name)} must lie in [0, 1]")


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Share of the configured learning rate at a control step."""
    if config.decay_from >= 1.0:
        return 1.0
    done = (step / config.steps - config.decay_from) / (1.0 - config.decay_from)
    return 1.0 - 0.9 * min(max(done, 0.0), 1.0)


def has_reward_unit(config: TrainConfig) -> bool:
    """Whether the learner sees rewards in a unit of their own. Not with the published form, a plain critic or a rival:
    their weights are relative to the reward as it is."""
    return config.reward_rms > 0.0 and config.field.form == "scale_free" and config.field.smoothness != 0.0


def has_plain_critic(config: TrainConfig) -> bool:
    """Whether the critic is trained without the field's losses: by the algorithm's name, or for a rival's sake."""
    return config.algorithm.endswith("-plain") or config.rival.kind != "none"


def load_train_config(name: str, overrides: Sequence[str] = (), **fields: Any) -> TrainConfig:
    """config/train/<name>.yaml or a YAML file, then `fields` that are not None, then `key.sub=value` overrides.

    :raises ConfigError: unknown file, key or value.
    """
    path = find_config("train", name)
    data = load_yaml(path)
    data.update({key: value for key, value in fields.items() if value is not None})
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError("--override", override, "is not of the form key=value", "write for example field.every=1")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError("--override", key, f"{text!r} is not a YAML value", "quote it") from error
        target = data
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError("--override", key, f"'{parent}' holds no keys", "see train --help for the keys")
        target[last] = value
    config = from_mapping(TrainConfig, data, path)
    if has_plain_critic(config):
        return dataclasses.replace(config, field=dataclasses.replace(config.field, form="none"))
    return config


def with_form(config: TrainConfig, form: Literal["scale_free", "paper"] | None) -> TrainConfig:
    """The config with the paper's exact form and weights, or the scale-free form; None leaves it as it is."""
    if form is None or has_plain_critic(config):
        return config
    weights = config.paper.sac if config.algorithm == "sac" else config.paper.td3
    field = paper_form(config.field, weights) if form == "paper" else dataclasses.replace(config.field, form=form)
    return dataclasses.replace(config, field=field)


def is_arm_task(task: str) -> bool:
    """Whether a task is one of config/tasks, or a YAML file, and not Gymnasium's."""
    return task.endswith((".yaml", ".yml")) or (config_root() / "tasks" / f"{task}.yaml").is_file()


def settings_of(task: str, algorithm: str = "td3") -> str:
    """Name in config/train of a task's settings; of SAC's own, <name>_sac, where there are such.

    :raises ConfigError: it is neither a task of config/tasks nor known to Gymnasium.
    """
    folder = config_root() / "train"
    if is_arm_task(task):
        stem = task if (folder / f"{task}.yaml").is_file() else "reach"
        own = f"{stem}_sac"
        return own if algorithm.startswith("sac") and (folder / f"{own}.yaml").is_file() else stem
    name = gymnasium_id(task)
    if name is None:
        known = ", ".join(sorted(p.stem for p in (config_root() / "tasks").glob("*.yaml")))
        raise ConfigError(
            "--task", task, "unknown task", f"choose one of: {known}, or a Gymnasium id such as Pendulum-v1"
        )
    for path in sorted(folder.glob("*.yaml")):
        if load_yaml(path).get("task") == name:
            return path.stem
    return "gymnasium"


def describe(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values."""
    mapping = to_mapping(config)
    assert isinstance(mapping, dict)
    return mapping

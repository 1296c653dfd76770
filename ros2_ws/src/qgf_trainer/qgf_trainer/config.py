# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run: config/train/*.yaml, with overrides from the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import yaml

from qgf_core.config import find_config, from_mapping, load_yaml, to_mapping
from qgf_core.errors import ConfigError
from qgf_trainer.q_gradient_field import FieldConfig, paper_form
from qgf_trainer.td3 import TD3Config

Algorithm = Literal["td3", "td3-plain"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run; every field can stand in a YAML file of config/train."""

    robot: str = "panda"
    """Name in config/robots, or a YAML file."""
    task: str = "reach"
    """Name in config/tasks, or a YAML file."""
    perturb: str = ""
    """Name in config/perturb, or a YAML file: how the arm differs in each episode; empty: not at all."""
    algorithm: Algorithm = "td3"
    """td3: with the stabilised critic; td3-plain: without."""
    steps: int = 60_000
    """Control steps over all environments."""
    seed: int = 0
    environments: int = 4
    """Arms stepped in turn."""
    steps_per_update: int = 4
    """Control steps per gradient update."""
    batch_size: int = 128
    buffer_size: int = 200_000
    """Transitions kept."""
    warmup_steps: int = 3000
    """First steps, with random actions."""
    warmup_hold: int = 10
    """A random action is held for this many control periods."""
    exploration_noise: float = 0.3
    """Standard deviation of the Gaussian noise on the action."""
    continue_share: float = 0.5
    """Share of the episodes that start where the arm's last success ended, as on an arm that goes from goal to goal."""
    decay_from: float = 0.6
    """Share of the run from which on the learning rate falls linearly to a tenth; 1: never."""
    normalise_observations: bool = False
    """Normalise by mean and deviation of the first steps, frozen then; the reach task's observation is scaled
    already."""
    checkpoint_steps: int = 12_000
    """A checkpoint at the first end of an episode after so many steps; 0: only when interrupted and at the end."""
    learner: TD3Config = dataclasses.field(default_factory=TD3Config)
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "environments", "steps_per_update", "batch_size", "buffer_size", "warmup_hold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("seed", "warmup_steps", "exploration_noise", "checkpoint_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        for name in ("decay_from", "continue_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} {getattr(self, name)} must lie in [0, 1]")


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Share of the configured learning rate at a control step."""
    if config.decay_from >= 1.0:
        return 1.0
    done = (step / config.steps - config.decay_from) / (1.0 - config.decay_from)
    return 1.0 - 0.9 * min(max(done, 0.0), 1.0)


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
    if config.algorithm == "td3-plain":
        return dataclasses.replace(config, field=dataclasses.replace(config.field, form="none"))
    return config


def with_form(config: TrainConfig, form: str | None) -> TrainConfig:
    """The config with the paper's exact form and weights, or the scale-free form; None leaves it as it is."""
    if form is None or config.algorithm == "td3-plain":
        return config
    return dataclasses.replace(
        config,
        field=paper_form(config.field) if form == "paper" else dataclasses.replace(config.field, form="scale_free"),
    )


def describe(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values."""
    mapping = to_mapping(config)
    assert isinstance(mapping, dict)
    return mapping

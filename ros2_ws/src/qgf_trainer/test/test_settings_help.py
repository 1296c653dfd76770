# SPDX-License-Identifier: Apache-2.0
"""--help lists every setting that a YAML file may hold, with its default and what it means."""

import dataclasses

import yaml

from qgf_core.config import to_mapping
from qgf_trainer.config import TrainConfig, load_train_config
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.settings_help import descriptions, settings, settings_help
from qgf_trainer.td3 import TD3Config


def flat(mapping, prefix=""):
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_setting_is_listed_with_its_default():
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value, _ in settings(TrainConfig)}
    assert listed == dict(flat(to_mapping(TrainConfig())))
    assert {"learner.gamma", "sac.temperature", "rival.caps.sigma", "paper.td3", "field.cap"} <= listed.keys()


def test_each_can_be_given_as_an_override():
    for key, value, _ in settings(TrainConfig):
        text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
        load_train_config("reach", [f"{key}={text.splitlines()[0]}"])


def test_descriptions_are_those_below_the_fields():
    assert descriptions(TD3Config)["gamma"] == "Discount per control period."  # of the base class
    assert descriptions(TD3Config)["policy_delay"] == "Critic updates per actor update."
    assert descriptions(FieldConfig)["form"].startswith("none: a plain critic.")
    undescribed = [key for key, _, text in settings(TrainConfig) if not text]
    assert not undescribed

    @dataclasses.dataclass(frozen=True)
    class Bare:
        """No words about its field."""

        one: int = 1

    assert descriptions(Bare) == {}


def test_the_table_fits_a_wide_terminal():
    lines = settings_help(TrainConfig).splitlines()
    assert max(map(len, lines)) <= 120
    assert any(
        line.startswith("  learner.gamma=0.9") and line.endswith("Discount per control period.") for line in lines
    )
    assert "  learner.hidden=[256, 256]" in settings_help(TrainConfig)

# SPDX-License-Identifier: Apache-2.0
"""Every YAML of the project is read through its dataclass; one that no loader is known for fails here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from qgf_core.config import config_root
from qgf_core.errors import ConfigError
from qgf_core.robot import load_robot
from qgf_monitor.config import load_config
from qgf_monitor.governor import load_governor_config
from qgf_sim.perturb import load_perturbation
from qgf_sim.tasks import load_task
from qgf_trainer.config import load_train_config
from qgf_trainer.evaluation import load_evaluation

LOADERS: dict[str, Callable[[str], Any]] = {
    "robots": load_robot,
    "tasks": load_task,
    "train": load_train_config,
    "eval": load_evaluation,
    "perturb": load_perturbation,
    "governor.yaml": load_governor_config,
    "monitor.yaml": load_config,
}
"""By folder of config/, or by name for a file that stands there itself."""
FOREIGN = {"nodes", "controllers", "gazebo"}
"""Folders whose YAML ROS itself reads: test_launch.py and test_arms.py look at these."""
FILES = sorted(path for path in (found.relative_to(config_root()) for found in config_root().rglob("*.y*ml"))
               if path.parts[0] not in FOREIGN)


def loader(file: Path) -> Callable[[str], Any]:
    assert file.parts[0] in LOADERS, f"config/{file}: no loader is known; add its folder to LOADERS in {__file__}"
    return LOADERS[file.parts[0]]


def test_there_are_configurations_of_every_kind():
    assert {file.parts[0] for file in FILES} == set(LOADERS)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_each_is_read_through_its_dataclass(file):
    assert file.suffix == ".yaml", "the loaders look for .yaml"
    loader(file)(str(config_root() / file))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_an_unknown_key_is_an_error_in_each(file, tmp_path):
    """So that the loader above cannot be one that looks at nothing."""
    copy = tmp_path / file.name
    copy.write_text((config_root() / file).read_text() + "\nno_such_key: 1\n")
    with pytest.raises(ConfigError) as caught:
        loader(file)(str(copy))
    assert str(caught.value).startswith(f"{copy}: no_such_key: unknown key; known keys: ")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_number_of_each_is_checked_for_its_type(file, tmp_path):
    data = yaml.safe_load((config_root() / file).read_text())
    numbers = [key for key, value in data.items() if type(value) in (int, float)]
    for key in numbers:
        copy = tmp_path / file.name
        copy.write_text(yaml.safe_dump(data | {key: "a word"}))
        with pytest.raises(ConfigError, match=f"{key}: expected (int|float), got 'a word'"):
            loader(file)(str(copy))

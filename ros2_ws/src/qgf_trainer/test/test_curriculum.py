# SPDX-License-Identifier: Apache-2.0
"""The curriculum: when it widens, what it narrows, and that a resumed training goes on with it bit for bit."""

import csv
import dataclasses

import numpy as np
import pytest

from qgf_core.errors import ConfigError
from qgf_trainer.checkpoint import load_checkpoint
from qgf_trainer.config import load_train_config
from qgf_trainer.curriculum import Curriculum, CurriculumConfig
from qgf_trainer.training import train


def test_it_widens_while_success_holds_and_judges_each_level_anew():
    curriculum = Curriculum(CurriculumConfig(start=0.4, step=0.25, widen_at=0.75, window=4))
    assert [curriculum.add(success) for success in (True, True, True, False)] == [False, False, False, True]
    assert curriculum.level == pytest.approx(0.65)
    assert not any(curriculum.add(True) for _ in range(3)) and curriculum.add(True)
    assert not any(curriculum.add(False) for _ in range(9))  # failure keeps the level
    assert not curriculum.add(True) and not curriculum.add(True) and curriculum.add(True)  # three of the last four
    assert curriculum.level == 1.0 and not curriculum.add(True)


def test_it_is_off_by_default():
    assert Curriculum(load_train_config("reach").curriculum).level == 1.0


def test_what_it_remembers_goes_on_the_same():
    first, second = (Curriculum(CurriculumConfig(start=0.1, window=5)) for _ in range(2))
    successes = np.random.default_rng(0).random(300) < 0.85
    for success in successes[:137]:
        first.add(bool(success))
    second.restore(first.state())
    assert [first.add(bool(s)) for s in successes[137:]] == [second.add(bool(s)) for s in successes[137:]]
    assert first.state() == second.state() and first.level > 0.3


@pytest.mark.parametrize(("override", "words"), [
    ("curriculum.start=0", "start 0.0 lies outside"), ("curriculum.widen_at=1.5", "widen_at 1.5 lies outside"),
    ("curriculum.window=0", "window 0 must be at least 1")])
def test_a_bad_setting_is_named(override, words):
    with pytest.raises(ConfigError, match=words):
        load_train_config("reach", [override])


def test_a_training_with_it_widens_tells_its_level_and_resumes_bit_for_bit(tmp_path):
    """Success is made easy by a tolerance of a metre, so that every second round of episodes widens."""
    text = (tmp_path / "easy.yaml")
    text.write_text("""
kind: reach
episode_steps: 20
goal_region: {lower: [0.42, -0.25, 0.30], upper: [0.67, 0.25, 0.60]}
goal_tolerance: 1.0
observation: [{name: joint_position}, {name: tool_position_error}]
""")
    overrides = ["learner.hidden=[16, 16]", "warmup_steps=40", "checkpoint_steps=40", "environments=2", "batch_size=16",
                 "curriculum={start: 0.1, step: 0.2, window: 2}", "perturb=train"]
    config = load_train_config("reach", overrides, task=str(text), steps=240)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = train(config, tmp_path / "whole")
    train(dataclasses.replace(config, steps=120), tmp_path / "parts")
    middle = load_checkpoint(tmp_path / "parts" / "checkpoint.safetensors")[1]["curriculum"]
    assert 0.1 < middle["level"] < 1.0
    resumed = train(config, tmp_path / "parts", resume=True)
    assert whole.env.task.difficulty == 1.0  # evaluated on the whole task
    ours, theirs = whole.agent.state()[0], resumed.agent.state()[0]
    assert ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())
    for result in (whole, resumed):
        result.env.close()
    tensors = [load_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")]
    assert tensors[0][1]["curriculum"] == tensors[1][1]["curriculum"]
    assert all(value.equal(tensors[1][0][key]) for key, value in tensors[0][0].items())
    with (tmp_path / "whole" / "progress.csv").open() as stream:
        assert float(list(csv.DictReader(stream))[-1]["level"]) > 0.5

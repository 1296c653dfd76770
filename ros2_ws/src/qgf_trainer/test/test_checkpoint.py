# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disks that fail: damage of every kind is noticed, the one before takes over, a full disk costs no
run."""

import resource

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from qgf_core.errors import QgfError
from qgf_trainer import training
from qgf_trainer.checkpoint import load_checkpoint, load_last_checkpoint, previous_of, save_checkpoint
from qgf_trainer.config import load_train_config
from qgf_trainer.training import train


def write(path, step):
    tensors = {"a": torch.full((1000,), float(step)), "b": torch.arange(7), "empty": torch.zeros(0, 3)}
    save_checkpoint(path, tensors, {"step": step}, keep_previous=True)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(bytes(data))


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "emptied": lambda path: path.write_bytes(b""),
    "a bit of a tensor": lambda path: flip(path, -1000),
    "a digit of the settings": lambda path: path.write_bytes(path.read_bytes().replace(b'step\\": 2', b'step\\": 3')),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_one_before_takes_over(tmp_path, damage):
    path, told = tmp_path / "checkpoint.safetensors", []
    write(path, 1)
    write(path, 2)
    assert load_last_checkpoint(path, told.append)[1] == {"step": 2} and not told
    before = path.read_bytes()
    DAMAGE[damage](path)
    assert not path.exists() or path.read_bytes() != before, "nothing was damaged"
    with pytest.raises(QgfError, match="cannot be resumed from"):
        load_checkpoint(path)
    tensors, values = load_last_checkpoint(path, told.append)
    assert values == {"step": 1} and float(tensors["a"][0]) == 1.0
    (line,) = told
    assert "checkpoint.safetensors" in line and "checkpoint.previous.safetensors, which is of step 1" in line
    flip(previous_of(path), -1000)
    with pytest.raises(QgfError, match=r"checkpoint\.safetensors: cannot be resumed from"):
        load_last_checkpoint(path, told.append)


def config(**changes):
    small = ["learner.hidden=[8, 8]", "batch_size=32", "warmup_steps=200", "steps_per_update=4", "checkpoint_steps=200"]
    return load_train_config("pendulum", small, **{"steps": 1000, **changes})


def test_a_run_with_a_damaged_checkpoint_ends_as_if_nothing_had_been(tmp_path, caplog):
    for name in ("whole", "damaged"):
        (tmp_path / name).mkdir()
    train(config(), tmp_path / "whole")
    train(config(steps=800), tmp_path / "damaged")
    flip(tmp_path / "damaged" / "checkpoint.safetensors", -1000)
    train(config(), tmp_path / "damaged", resume=True)
    assert "going on from checkpoint.previous.safetensors, which is of step 600" in caplog.text
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "damaged"))
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=True), name


@pytest.fixture
def full_disk():
    """From the call on, no file of this process grows beyond so many bytes: what a full disk or a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_full_disk_costs_no_run(tmp_path, full_disk, caplog, monkeypatch):
    monkeypatch.setattr(training, "_POINT_EVERY", 0.0)
    stops = iter([False] * 500 + [True])  # asked at every step: in the third episode

    def stop():
        if (tmp_path / "checkpoint.safetensors").exists():
            full_disk(100)
        return next(stops)

    with pytest.raises(QgfError, match="cannot be written"):  # stopped, and what was trained since is not kept
        train(config(), tmp_path, should_stop=stop)
    assert "training goes on, the checkpoint before stays" in caplog.text
    full_disk(resource.RLIM_INFINITY)
    assert load_checkpoint(tmp_path / "checkpoint.safetensors")[1]["step"] == 200
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], "something half written stays"
    result = train(config(), tmp_path, resume=True)
    assert result.steps == 1000

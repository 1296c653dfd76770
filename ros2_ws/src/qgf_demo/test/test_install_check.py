# SPDX-License-Identifier: Apache-2.0
"""A robot's set-up, made from nothing and put to work: `./qgf install-check`, minutes and more than a gigabyte."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.slow
@pytest.mark.ros
def test_a_robots_set_up_works_without_simulator_and_trainer(tmp_path):
    done = subprocess.run([ROOT / "qgf", "install-check"], env=os.environ | {"TMPDIR": str(tmp_path)},
                          capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("fail")]
    for words in ("not installed: pybullet, gymnasium, mujoco", "built: qgf_bringup, qgf_core, qgf_monitor, qgf_msgs, "
                  "qgf_policy", "actions and commands identical", "policy_node: active", "monitor_node: ",
                  "with codes [0, 0, 0]"):
        assert any(words in line for line in lines), (words, lines)
    assert re.search(r"set-up in \d+ s, \d+ MB on disk", lines[-1])
    assert not list(tmp_path.glob("qgf-install-check.*")), "the folder is taken away again"


def qgf(folder, *arguments):
    return subprocess.run([folder / "qgf", *arguments], capture_output=True, text=True, timeout=60)


def test_a_robots_checkout_says_what_it_cannot_do_and_how_to_add_it(tmp_path):
    """By the mark of the set-up alone, which comes before anything is installed."""
    for name in ("qgf", "scripts", "requirements"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    (tmp_path / "ros2_ws/src").mkdir(parents=True)
    for name in ("launch", "config", ".venv"):
        (tmp_path / name).mkdir()
    (tmp_path / ".venv/.qgf-scope").write_text("robot\n")
    for command in ("train", "demo", "test", "bench", "dashboard", "install-check"):
        done = qgf(tmp_path, command)
        assert done.returncode == 2 and done.stderr.splitlines()[-1] == (
            f"qgf: error: '{command}' needs the simulator and the trainer, and this checkout is set up for a robot's "
            "computer; ./qgf setup --full adds them"), done
    (tmp_path / ".venv/.qgf-scope").write_text("full\n")
    done = qgf(tmp_path, "setup", "--robot-only")
    assert done.returncode == 2 and "rm -r .venv" in done.stderr
    done = qgf(tmp_path, "setup", "--robots")
    assert done.returncode == 2 and "setup does not know '--robots'" in done.stderr

# SPDX-License-Identifier: Apache-2.0
"""`./qgf bench sim` as a process: its keys, figures that can be true, and a user's error in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[4] / "benchmarks" / "sim.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=120,
                          env=environment)


def test_it_prints_flat_figures():
    done = run("--robot", "iiwa", "--seconds", "0.2", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == {f"iiwa.{name}" for name in (
        "bare_steps_per_s", "calls_steps_per_s", "steps_per_s", "share_of_bare", "share_of_calls", "two_processes")}
    assert 0.02 < figures["iiwa.share_of_bare"] < 1.0 and figures["iiwa.two_processes"] > 0.1
    assert figures["iiwa.bare_steps_per_s"] > figures["iiwa.calls_steps_per_s"] > figures["iiwa.steps_per_s"] > 50.0


def test_a_users_error_is_one_line():
    done = run("--robot", "hexapod")
    assert done.returncode == 2 and "unknown robot 'hexapod'" in done.stderr and "Traceback" not in done.stderr

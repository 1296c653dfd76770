# SPDX-License-Identifier: Apache-2.0
"""What a full training promises, over three seeds. Takes about ten minutes on two cores: ./qgf test --slow -k
reach_quality"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["panda"])
def test_three_seeds(robot, tmp_path):
    out = Path(os.environ.get("QGF_REACH_RUNS", tmp_path)) / robot
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "reach.py"), "--robot", robot, "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    median = json.loads(done.stdout.splitlines()[-1])
    assert median["plain.mean_abs_delta"] >= 0.2, "the plain policy is expected to chatter"
    assert median["stabilised.success"] >= 19 / 20
    assert median["stabilised.final_distance_mm"] <= 12.0
    assert median["ratio.return"] >= 0.95
    assert median["ratio.sm"] <= 0.35
    assert median["ratio.mean_abs_delta"] <= 0.25
    assert median["ratio.hold_rms"] <= 0.3

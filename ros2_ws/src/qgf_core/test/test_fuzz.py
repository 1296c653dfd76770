# SPDX-License-Identifier: Apache-2.0
"""The first cases of `./qgf bench fuzz`: changed copies of a good bundle, refused before torch sees them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qgf_core.bundle import save_bundle
from qgf_core.errors import BundleError

BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks"
COUNTS = {"bytes": 100, "resealed": 60, "repacked": 40, "weight": 60, "wrong_key": 40, "manifest": 200, "script": 100,
          "pickle": 30, "archive": 40}


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory, manifest, probes):
    """Cases of a small bundle."""
    folder = tmp_path_factory.mktemp("fuzz")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.SiLU(), torch.nn.Linear(8, 7), torch.nn.Tanh())
    save_bundle(folder / "bundle.pt", module, manifest, probes)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from bundle_fuzz.cases import KINDS, Fuzz
        assert set(KINDS) == set(COUNTS) and sum(KINDS.values()) == 100
        return Fuzz(folder / "bundle.pt", folder)


@pytest.mark.parametrize("kind", COUNTS)
def test_changed_copies_are_refused_before_torch_sees_them(fuzz, kind):
    cases = [fuzz.draw(kind, seed) for seed in range(COUNTS[kind])]
    assert len({case.data for case in cases}) > 0.4 * len(cases)  # some faults have few forms
    missed = [(seed, case.what, happened) for seed, case in enumerate(cases) if (happened := fuzz.judge(case))]
    assert not missed


def test_the_judge_sees_what_gets_through(fuzz, monkeypatch):
    """So that a miss would be told: the good bundle, a robot that asks for no signature, a check that fails."""
    fuzz.still_good()
    good = fuzz.draw("weight", 0)
    assert fuzz.judge(dataclasses.replace(good, data=fuzz.signed)) == "seen by torch"
    unsigned = next(case for seed in range(50) if b" key=" not in (case := fuzz.draw("weight", seed)).data[-250:])
    assert fuzz.judge(unsigned) == "" and fuzz.judge(dataclasses.replace(unsigned, trusting=False)) == "seen by torch"
    monkeypatch.setattr("qgf_core.bundle.parse_manifest", lambda *a: 1 / 0)
    assert fuzz.judge(dataclasses.replace(good, data=fuzz.signed)).startswith("crashed: ZeroDivisionError")
    monkeypatch.setattr("qgf_core.bundle.parse_manifest", lambda *a: (_ for _ in ()).throw(BundleError("no file")))
    assert fuzz.judge(dataclasses.replace(good, data=fuzz.signed)).startswith("refused, but not in one line")


@pytest.mark.slow
@pytest.mark.ros
def test_ten_thousand_cases():
    """./qgf bench fuzz: all of them, in one process that lives to the end."""
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "fuzz.py"), "--cases", "10000", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert sum(v for k, v in found.items() if k.endswith(".cases")) >= 10_000
    assert not any(v for k, v in found.items() if k.endswith(".seen_by_torch"))

# SPDX-License-Identifier: Apache-2.0
"""`./qgf test` itself, on a tree of a few tests: two passes that leave nothing out, domains, exit codes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SETTINGS = """
[tool.pytest.ini_options]
addopts = "--import-mode=importlib --strict-markers -m 'not slow'"
testpaths = ["tests"]
markers = ["ros: .", "alone: .", "slow: ."]
"""
# Each test writes down that it ran, where and in which domain; the one that BAD names fails.
HEAD = """
import os, time, pytest

@pytest.fixture(autouse=True)
def note(request):
    with open(os.environ["NOTES"], "a") as notes:
        worker, domain = os.environ.get("PYTEST_XDIST_WORKER", "main"), os.environ["ROS_DOMAIN_ID"]
        notes.write(f"{request.node.name} {worker} {domain}\\n")
    assert request.node.name != os.environ.get("BAD")
"""
FILES = {
    "test_a.py": "def test_plain(): time.sleep(0.5)\n@pytest.mark.alone\ndef test_timing(): pass",
    "test_b.py": "@pytest.mark.alone\ndef test_whole_machine(): pass\n@pytest.mark.slow\ndef test_hours(): pass",
    "test_c.py": "@pytest.mark.ros\ndef test_nodes(): time.sleep(0.5)",
}
TOGETHER, ALONE = ["test_nodes", "test_plain"], ["test_timing", "test_whole_machine"]
# The real command with its real pytest; the set-up is there, and the checks of style end as they are told.
SCRIPT = """
set -euo pipefail
. "$CODE/scripts/common.sh"; . "$CODE/scripts/domain.sh"; . "$CODE/scripts/commands/test.sh"
prepare() { REST=("$@"); }
command_test "$@"
"""


@pytest.fixture
def run(tmp_path):
    """`run(argument, ..., variable=value)` -> exit code, [(test, worker, domain), ...] as they ran, what was said."""
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "tests").mkdir()
    for name, text in FILES.items():
        (tmp_path / "tests" / name).write_text(f"{HEAD}\n{text}\n")
    shutil.copy(ROOT / "ros2_ws/src/conftest.py", tmp_path / "tests")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ncase $2 in ruff | mypy) exit ${{STYLE:-0}} ;; esac\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ROS_DOMAIN_ID"))}
    kept["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # as it is under a ROS distribution
    kept |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ROOT": str(tmp_path), "CODE": str(ROOT)}

    def begin(*arguments, **variables):
        notes = tmp_path / "notes"
        notes.write_text("")
        done = subprocess.run(["bash", "-c", SCRIPT, "qgf", *arguments], env=kept | {"NOTES": str(notes)} | variables,
                              cwd=tmp_path, capture_output=True, text=True, timeout=120)
        ran = [tuple(line.split()) for line in notes.read_text().splitlines()]
        return done.returncode, ran, done.stdout + done.stderr

    return begin


def names(ran):
    return [name for name, *_ in ran]


def test_all_run_once_those_alone_after_the_others_and_each_worker_has_its_domain(run):
    code, ran, said = run()
    assert code == 0, said
    assert sorted(names(ran)[:2]) == TOGETHER and names(ran)[2:] == ALONE
    assert {worker for _, worker, _ in ran[:2]} == {"gw0", "gw1"} and {worker for _, worker, _ in ran[2:]} == {"main"}
    domains = {worker: domain for _, worker, domain in ran}
    assert domains["gw0"] == domains["main"] != domains["gw1"]


@pytest.mark.parametrize(("arguments", "variables", "code", "expected"), [
    ([], {"BAD": "test_nodes"}, 1, [*TOGETHER, *ALONE]),  # the second pass runs all the same
    (["-x"], {"BAD": "test_nodes"}, 2, None),  # and here it does not
    (["-k", "timing"], {"BAD": "test_timing"}, 1, ["test_timing"]),
    (["--slow"], {"STYLE": "1"}, 1, ["test_hours"]),
    (["tests/test_c.py"], {"PYTEST_ADDOPTS": "-k nobody"}, 5, []),
], ids=["together fails", "-x", "alone fails", "slow and style fails", "none chosen"])
def test_choices_and_exit_codes(run, arguments, variables, code, expected):
    got, ran, said = run(*arguments, **variables)
    assert got == code, said
    if expected is None:
        assert "test_nodes" in names(ran) and not set(names(ran)) & set(ALONE), said
    else:
        assert sorted(names(ran)) == sorted(expected), said


def test_a_pass_that_finds_other_tests_than_were_left_for_it_fails(run, tmp_path):
    (tmp_path / "left").write_text("3\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "--pass=alone", f"--left={tmp_path / 'left'}"],
                          cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == 4 and "this pass has 2 tests, but 3 were left for it" in done.stdout + done.stderr

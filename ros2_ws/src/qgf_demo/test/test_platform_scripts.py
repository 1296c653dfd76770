# SPDX-License-Identifier: Apache-2.0
"""The parts of ``./qgf`` one by one, on made-up machines: other ROS distributions, missing tools, paths with spaces."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
TOOLS = (
    "awk bash cat chmod cp cut date dirname env find flock grep head id ls mkdir mv readlink rm sed sh sha256sum sleep "
    "sort tail tr uname xargs"
)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout in a path with spaces, with the scripts of this one; beside it a bin folder with few tools."""
    checkout = tmp_path / "a check out"
    (checkout / "ros2_ws/src").mkdir(parents=True)
    for name in ("launch", "config", "../bin"):
        (checkout / name).mkdir()
    shutil.copytree(ROOT / "scripts", checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "requirements", checkout / "requirements")
    shutil.copy(ROOT / "qgf", checkout / "qgf")
    for tool in TOOLS.split():
        path = shutil.which(tool)
        assert path is not None, tool
        (tmp_path / "bin" / tool).symlink_to(path)
    return checkout


def program(machine: Path, name: str, text: str) -> None:
    path = machine.parent / "bin" / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def bash(machine: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs ``script`` with every part of ./qgf sourced, on the made-up machine."""
    preamble = (
        f"set -euo pipefail; ROOT='{machine}' ASSUME_YES='' TORCH_INDEX=''; "
        'for part in common ros setup domain commands commands/env; do . "$ROOT/scripts/$part.sh"; done\n'
        "ROS_MODE=wheels ROS_PREFIX=\n"
    )
    environment = {"PATH": str(machine.parent / "bin"), "HOME": str(machine), **variables}
    return subprocess.run(
        ["/bin/bash", "-c", preamble + script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def python_3(machine: Path, name: str, answers: str = "exit 0") -> None:
    """An interpreter that says yes to every question."""
    program(machine, name, answers + "\n")


# --------------------------------------------------------------------------------------------- which interpreter


def test_an_interpreter_that_does_not_run_is_passed_over(machine: Path) -> None:
    program(machine, "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127\n")
    python_3(machine, "python3")
    python_3(machine, "python3.12")
    assert bash(machine, 'choose_python; echo "$PYTHON"').stdout.strip() == str(machine.parent / "bin/python3")


def test_the_versions_that_pybullet_has_wheels_for_come_first(machine: Path) -> None:
    python_3(machine, "python3")
    python_3(machine, "python3.10")
    assert bash(machine, 'choose_python; echo "$PYTHON"').stdout.strip() == str(machine.parent / "bin/python3.10")


def test_an_interpreter_that_was_asked_for_and_does_not_run_is_an_error(machine: Path) -> None:
    python_3(machine, "python3")
    shown = bash(machine, "choose_python", QGF_PYTHON="/no/such/python")
    assert shown.returncode == 2
    assert "QGF_PYTHON=/no/such/python" in shown.stderr


# ------------------------------------------------------------------------------------------------ missing tools


def test_what_is_missing_is_named_by_its_debian_package(machine: Path) -> None:
    python_3(machine, "python3")
    shown = bash(machine, "choose_python; missing_packages")
    assert shown.stdout == "g++ cmake make"


def test_without_python_it_is_asked_for_with_its_headers(machine: Path) -> None:
    for name in ("g++", "cmake", "make"):
        program(machine, name, "exit 0\n")
    shown = bash(machine, "choose_python; missing_packages")
    assert shown.stdout == "python3 python3-venv python3-dev"


def test_a_missing_compiler_where_nothing_can_be_installed_is_one_line(machine: Path) -> None:
    python_3(machine, "python3")
    shown = bash(machine, "ensure_system_packages")
    assert shown.returncode == 2
    assert shown.stderr == (
        "qgf: error: missing: g++ cmake make (Debian's names); "
        "install them with this system's package manager and run ./qgf setup again\n"
    )


def test_missing_packages_are_installed_where_that_is_allowed(machine: Path) -> None:
    python_3(machine, "python3")
    program(machine, "sudo", '[ "$1" = -v ] || exec "$@"\n')
    # An apt-get that "installs" by making the commands appear.
    program(
        machine,
        "apt-get",
        'echo "apt-get $*" >>"$HOME/apt"; [ "$1" = install ] || exit 0\n'
        'for name in g++ cmake make; do cp "$HOME/../bin/python3" "$HOME/../bin/$name"; done\n',
    )
    # As the administrator it needs no --yes; as anybody else it takes --yes and sudo.
    shown = bash(machine, "ASSUME_YES=$((EUID != 0 ? 1 : 0)); ensure_system_packages; echo ready")
    assert shown.stdout == "ready\n", shown.stderr
    assert (machine / "apt").read_text().splitlines() == [
        "apt-get update -q",
        "apt-get install -y -q --no-install-recommends g++ cmake make",
    ]


def test_no_network_at_the_first_setup_is_told_with_a_remedy(machine: Path) -> None:
    for name in ("g++", "cmake", "make"):
        program(machine, name, "exit 0\n")
    # A python whose venv works and whose pip finds no network.
    python_3(
        machine,
        "python3",
        'case "$*" in *"-m venv"*) for last; do :; done; mkdir -p "$last/bin" "$last/lib/python3.11/site-packages"; '
        'cp "$0" "$last/bin/python" ;; *"-m pip install"*) echo "NewConnectionError: no"; exit 1 ;; '
        '*version_info*) echo cp311 ;; esac',
    )
    shown = bash(machine, "ensure_setup")
    assert shown.returncode == 2, shown.stderr
    last = shown.stderr.splitlines()[-1]
    assert last.startswith("qgf: error: no network: the Python package index cannot be reached; ")
    assert not (machine / ".venv/.qgf-packages").exists()


# ------------------------------------------------------------------------------------------- other ROS distributions


def distribution(folder: Path) -> Path:
    marker = folder / "share/ament_index/resource_index/packages/rclpy"
    marker.parent.mkdir(parents=True)
    marker.touch()
    return folder


def sourced(prefix: Path, name: str) -> dict[str, str]:
    return {
        "ROS_DISTRO": name,
        "AMENT_PREFIX_PATH": f"{prefix}",
        "PYTHONPATH": f"{prefix}/lib/python3.10/site-packages:/mine",
        "LD_LIBRARY_PATH": f"{prefix}/lib:{prefix}/opt/vendor/lib:/mine/lib",
    }


@pytest.mark.parametrize("name", ["jazzy", "kilted"])
def test_a_supported_distribution_is_used(machine: Path, name: str) -> None:
    prefix = distribution(machine / "opt" / name)
    shown = bash(machine, 'find_ros; echo "$ROS_MODE $ROS_PREFIX"; echo "$PYTHONPATH"', **sourced(prefix, name))
    assert shown.stdout.splitlines() == [f"{name} {prefix}", f"{prefix}/lib/python3.10/site-packages:/mine"]
    assert shown.stderr == ""


def test_another_distribution_is_ignored_with_one_line_and_scrubbed(machine: Path) -> None:
    prefix = distribution(machine / "opt/humble")
    script = """find_ros
        echo "$ROS_MODE|$PYTHONPATH|$LD_LIBRARY_PATH|${AMENT_PREFIX_PATH-gone}|${ROS_DISTRO-gone}"
        find_ros"""
    shown = bash(machine, script, **sourced(prefix, "humble"))
    assert shown.stdout == "wheels|/mine|/mine/lib|gone|gone\n"
    assert shown.stderr == (
        "qgf: ignoring the sourced ROS humble: only jazzy and kilted are used, otherwise the ROS wheels\n"
    )


def test_the_wheels_own_environment_is_no_distribution(machine: Path) -> None:
    prefix = distribution(machine / ".venv")
    (prefix / "pyvenv.cfg").touch()
    variables = {**sourced(prefix, "kilted"), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    shown = bash(machine, 'find_ros; echo "$ROS_MODE"', **variables)
    assert (shown.stdout, shown.stderr) == ("wheels\n", "")


def test_a_forgotten_source_does_not_cost_a_new_setup(machine: Path) -> None:
    (machine / ".venv").mkdir()
    (machine / ".venv/.qgf-origin").write_text(f"jazzy\n/opt/ros/jazzy\n{machine}\n")
    shown = bash(machine, "find_ros; ensure_setup")
    assert shown.returncode == 2
    assert "source /opt/ros/jazzy/setup.bash first" in shown.stderr
    assert (machine / ".venv/.qgf-origin").exists()


# -------------------------------------------------------------------------------------------------- small parts


def test_without_drops_folders_empty_entries_and_repetitions(machine: Path) -> None:
    shown = bash(machine, "without '/a/b::/a/bc:/x *:/a/b/c:/x *' '/a/b:/d'")
    assert shown.stdout == "/a/bc:/x *"


def test_a_script_starts_where_the_path_of_its_python_holds_spaces(machine: Path) -> None:
    real = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or shutil.which("python3")
    (machine / "python3 here").symlink_to(str(real))
    script = machine / "ros2_ws/install/lib/qgf_sim/sim_node"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!"{machine}/python3 here"\nimport sys\nprint(sys.argv[1:])\n')
    script.chmod(0o755)
    assert bash(machine, "mend_first_lines").returncode == 0
    shown = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True)
    assert shown.stdout == "['a b', 'c']\n"
    once = script.read_bytes()
    bash(machine, "mend_first_lines")
    assert script.read_bytes() == once


def test_two_runs_get_different_ros_domains(machine: Path) -> None:
    script = 'claim_domain; first=$ROS_DOMAIN_ID; unset ROS_DOMAIN_ID; claim_domain; echo "$first $ROS_DOMAIN_ID"'
    shown = bash(machine, script, TMPDIR=str(machine))
    first, second = (int(word) for word in shown.stdout.split())
    assert first != second
    assert {first, second} <= set(range(1, 102))


def test_a_ros_domain_is_held_through_exec_and_free_afterwards(machine: Path) -> None:
    # This shell holds all domains but one; a child holds the last one by exec; then there is none, until it ends.
    script = """
        file() { echo "$TMPDIR/qgf-domain-$1.lock"; }
        for id in {1..100}; do : >"$(file $id)"; exec {fd}<"$(file $id)"; flock -n "$fd"; done
        (claim_domain; echo "$ROS_DOMAIN_ID"; exec sleep 30) & child=$!
        until [[ -e $(file 101) ]] && ! flock -n "$(file 101)" true; do sleep 0.02; done
        (claim_domain) || echo "refused with $?"
        kill "$child"; wait "$child" || :
        (claim_domain; echo "$ROS_DOMAIN_ID")
    """
    shown = bash(machine, script, TMPDIR=str(machine))
    assert shown.stdout.splitlines() == ["101", "refused with 2", "101"], shown.stderr
    assert "all ROS domains from 1 to 101 are held" in shown.stderr


def test_a_ros_domain_of_the_user_is_kept(machine: Path) -> None:
    shown = bash(machine, 'claim_domain; echo "$ROS_DOMAIN_ID"', TMPDIR=str(machine), ROS_DOMAIN_ID="0")
    assert shown.stdout == "0\n"


def test_an_interrupted_step_ends_with_all_it_has_started(machine: Path) -> None:
    script = """
        logged "a long step" 60 sh -c 'sleep 300 & echo $! >"$HOME/child"; wait'
    """
    pid_file = machine / "child"
    preamble = f"set -euo pipefail; ROOT='{machine}'; . \"$ROOT/scripts/common.sh\"\n"
    process = subprocess.Popen(
        ["/bin/bash", "-c", preamble + script],
        env={"PATH": str(machine.parent / "bin"), "HOME": str(machine)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
    child = int(pid_file.read_text())
    process.terminate()
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "interrupted" in said
    wait_for(lambda: not running(child))


def wait_for(condition: Callable[[], bool], limit: float = 10.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------------------------ mending the wheels


def mend_ros_wheels():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("mend_ros_wheels", ROOT / "scripts/mend_ros_wheels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_builders_paths_are_replaced(tmp_path: Path) -> None:
    module = mend_ros_wheels()
    text = 'set(I "/opt/python/cp311-cp311/include/python3.11;/opt/python/cp311-cp311/include") # /opt/python/other'
    mended = 'set(I "/py/include;/my venv/include") # /opt/python/other'
    assert module.mend_text(text, "/py/include", "/my venv") == mended
    file = tmp_path / "share/x/cmake/x.cmake"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert module.mend_tree(tmp_path, "/py/include", "/my venv") == 1
    assert module.mend_tree(tmp_path, "/py/include", "/my venv") == 0
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [("x.cmake", mended)]

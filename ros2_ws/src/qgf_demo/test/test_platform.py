# SPDX-License-Identifier: Apache-2.0
"""The platform: interfaces, package files, requirements, what tracked files say, and ``./qgf`` as a user sees it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from catkin_pkg.package import Package, parse_package

ROOT = Path(__file__).resolve().parents[4]
SOURCES = ROOT / "ros2_ws/src"
QGF = ROOT / "qgf"
COMMANDS = ("setup", "build", "env", "run", "train", "evaluate", "demo", "bench", "test", "doctor")
PACKAGES = sorted(path.parent for path in SOURCES.glob("*/package.xml"))
INTERFACES = sorted(path for kind in ("msg", "srv", "action") for path in (SOURCES / "qgf_msgs").glob(f"*/*.{kind}"))


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]


def tracked_files() -> list[Path]:
    listing = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


# ---------------------------------------------------------------------------------------------------- interfaces

FIELD = re.compile(r"^(?P<type>[\w/]+)(?P<array>\[\])?\s+(?P<name>\w+)(?P<constant>=\S+)?$")
UNIT = re.compile(r"\[[^\]]+\]|0\.\.1|dimensionless|action units|before its normaliser")


def undocumented_fields(text: str) -> list[str]:
    """Names of the fields without a comment line above them, and of numbers whose comment tells no unit."""
    found = []
    comment = ""
    for line in text.splitlines():
        if line.startswith("#"):
            comment += line
            continue
        field = FIELD.match(line)
        if field is not None:
            if not comment or (field["type"].startswith("float") and not UNIT.search(comment)):
                found.append(field["name"])
        elif line not in ("", "---"):
            found.append(f"not understood: {line}")
        comment = ""
    return found


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_tells_meaning_and_unit(path: Path) -> None:
    assert undocumented_fields(path.read_text()) == []


def test_undocumented_fields_are_seen() -> None:
    text = "# A message.\n\nfloat64 bare\n# A length.\nfloat64 length\n# Length [m].\nfloat64 good\nuint8 lone\n"
    assert undocumented_fields(text) == ["bare", "length", "lone"]


def test_interfaces_are_all_built() -> None:
    listed = set(re.findall(r'"(\w+/\w+\.\w+)"', (SOURCES / "qgf_msgs/CMakeLists.txt").read_text()))
    assert listed == {f"{path.parent.name}/{path.name}" for path in INTERFACES}
    assert len(listed) == 7


# ------------------------------------------------------------------------------------------------- package files


def parsed(folder: Path) -> tuple[Package, list[str]]:
    warnings: list[str] = []
    package = parse_package(str(folder / "package.xml"), warnings=warnings)
    return package, warnings


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_package_xml(folder: Path) -> None:
    package, warnings = parsed(folder)
    package.validate()
    assert warnings == []
    assert package.package_format == 3
    assert package.name == folder.name
    assert package.version == "0.1.0"
    assert package.licenses == ["Apache-2.0"]
    assert [(person.name, person.email) for person in package.maintainers] == [
        ("QGF developers", "qgf@users.noreply.github.com")
    ]


# --------------------------------------------------------------------------------------- requirements and tracked files


def test_every_requirement_is_pinned() -> None:
    files = sorted((ROOT / "requirements").glob("*.txt"))
    assert {path.stem for path in files} == {"build", "dev", "gui", "numpy", "numpy-1", "robot", "ros", "train"}
    for path in files:
        for line in path.read_text().splitlines():
            requirement = line.split("#")[0].strip()
            if requirement:
                assert re.fullmatch(r"[\w.-]+==[\w.]+(; python_version (<|>=) \"3\.\d+\")?", requirement), line


# Folders of the machines that this was written on, and names that are no part of the project. In halves, so that this
# file passes its own test.
MACHINE_PATH = re.compile(r"(?<![\w.$}~<-])/(?:" + "|".join(("work", "farm", "root", "home/(?!qgf/)")) + r")(?:/|\b)")
FOREIGN = (("clau", "de"), ("anthro", "pic"), ("chat", "gpt"), ("pypi", r"\.org"))
FOREIGN_WORDS = re.compile("|".join(first + second for first, second in FOREIGN), re.IGNORECASE)


def test_tracked_files_speak_of_the_project_alone() -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            if MACHINE_PATH.search(line) or FOREIGN_WORDS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize("line", ["see " + "/" + "work/main", "'/" + "root/.cache'", "PATH=/" + "home/joe/x"])
def test_machine_paths_are_seen(line: str) -> None:
    assert MACHINE_PATH.search(line)


# ------------------------------------------------------------------------------------------------------- ./qgf


def test_help_lists_every_command() -> None:
    shown = run(QGF, "help")
    assert shown.returncode == 0
    assert shown.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"\./qgf {command}\b", shown.stdout), command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_on_a_command(command: str) -> None:
    shown = run(QGF, command, "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"./qgf {command}" in shown.stdout
    assert len(shown.stdout.splitlines()) >= 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fly"], "unknown command 'fly'"),
        (["help", "fly"], "unknown command 'fly'"),
        (["env", "now"], "env does not know 'now'"),
        (["setup", "--torch-index"], "--torch-index needs a URL"),
        (["bench", "../qgf"], "no benchmark '../qgf'"),
        (["run", "qgf_policy", "no_node"], "no executable no_node in package qgf_policy"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], complaint: str) -> None:
    shown = run(QGF, *arguments)
    assert shown.returncode == 2
    assert shown.stdout == ""
    # Another set-up of this checkout may be under way: then a line about that stands before.
    errors = [line for line in shown.stderr.splitlines() if line.startswith("qgf: error: ")]
    assert len(errors) == 1 and complaint in errors[0]
    assert all(line.startswith("qgf: ") for line in shown.stderr.splitlines())


def test_env_enters_the_environment_from_an_empty_one() -> None:
    script = f"""set -euo pipefail
        eval "$('{QGF}' env)"
        python -c 'import sys; print(sys.prefix)'
        echo "$OMP_NUM_THREADS $FASTDDS_BUILTIN_TRANSPORTS $ROS_AUTOMATIC_DISCOVERY_RANGE"
        python -c 'import rclpy, qgf_core, qgf_msgs.msg; print(qgf_core.__file__)'
        once=$('{QGF}' env); [[ $once == "$('{QGF}' env)" ]] && echo same"""
    shown = run("env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "bash", "-c", script)
    assert shown.returncode == 0, shown.stderr
    prefix, values, module, same = shown.stdout.splitlines()
    assert Path(prefix) == ROOT / ".venv"
    assert values == "1 UDPv4 LOCALHOST"
    assert Path(module).resolve() == SOURCES / "qgf_core/qgf_core/__init__.py"
    assert same == "same"


@pytest.mark.alone
def test_setup_is_quick_when_nothing_has_changed() -> None:
    begun = time.monotonic()
    shown = run(QGF, "setup")
    assert shown.returncode == 0
    assert shown.stderr.splitlines()[-1].startswith("qgf: ready")
    assert time.monotonic() - begun < 2.0

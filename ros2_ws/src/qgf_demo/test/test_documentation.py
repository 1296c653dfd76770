# SPDX-License-Identifier: Apache-2.0
"""The documentation: builds without a warning, its links lead somewhere, its commands exist, its reference is up to
date. That the shell blocks do what they say is tried by test_documented_commands.py, which takes minutes."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shell_blocks import ROOT, Block, blocks, pages

sys.path.insert(0, str(ROOT / "scripts"))
import docs_hooks
import reference

LINK = re.compile(r"\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<text>.*?) *#*$", re.MULTILINE)
BLOCKS = [block for path in pages() for block in blocks(path)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and Python-Markdown make them."""
    found = set()
    for match in HEADING.finditer(path.read_text()):
        text = re.sub(r"[`*]", "", match["text"]).strip().lower()
        found.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", text)))
    return found


@pytest.mark.parametrize("path", pages(), ids=name)
def test_links_lead_somewhere(path):
    for match in LINK.finditer(path.read_text()):
        target, _, anchor = match["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            assert target.startswith("https://"), f"{name(path)}: {target}"
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{name(path)}: no {target}"
        assert file.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(file), f"{name(path)}: no heading {anchor} in {target}"


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
                          cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").is_file()
    for path in (ROOT / "docs").rglob("*.md"):
        assert (tmp_path / path.relative_to(ROOT / "docs")).with_suffix(".html").is_file()
    assert 'href="site.css"' in (tmp_path / "index.html").read_text() and (tmp_path / "site.css").is_file()


def test_a_dead_link_stops_the_build(tmp_path):
    """With --quiet, for one, mkdocs counts no warnings."""
    for entry in ("scripts", "docs", *docs_hooks.OUTSIDE):
        source = ROOT / entry
        target = tmp_path / entry
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    page = tmp_path / "docs/index.md"
    page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode != 0 and "nowhere.md" in done.stderr


@pytest.mark.parametrize("page", [page for page in reference.PAGES if page != "nodes.md"])
def test_the_reference_is_what_the_code_says(page):
    assert reference.outdated([page]) == [], f"docs/reference/{page} is out of date: ./qgf docs --update"


@pytest.mark.ros
def test_the_reference_of_the_nodes_is_what_they_answer():
    assert reference.outdated(["nodes.md"]) == [], "docs/reference/nodes.md is out of date: ./qgf docs --update"


# ------------------------------------------------------------------------------------------------- shell blocks


def place(block: Block) -> str:
    return block.place


def test_there_are_shell_blocks():
    assert len(BLOCKS) > 30
    assert {"README.md", "docs/your_arm.md"} <= {block.page for block in BLOCKS}


@pytest.mark.parametrize("block", BLOCKS, ids=place)
def test_a_shell_block_is_one(block):
    done = subprocess.run(["bash", "-n"], input=block.short(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def known_options():
    page = (ROOT / "docs/reference/commands.md").read_text()
    parts = re.split(r"^## ([\w-]+)$", page, flags=re.MULTILINE)
    return {command: set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) | {"--yes", "--torch-index", "--help"}
            for command, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("block", BLOCKS, ids=place)
def test_its_commands_and_options_exist(block, known_options):
    for words in block.commands():
        for at, word in enumerate(words):
            if word.endswith("./qgf") and at + 1 < len(words):
                check_qgf(block, words[at + 1 :], known_options)
            elif word == "ros2" and words[at + 1 : at + 2] == ["launch"] and words[at + 2] == "qgf_bringup":
                check_launch(block, words[at + 3 :])


def check_qgf(block, words, known_options):
    command, rest = words[0], words[1:]
    if command.startswith("-") or command.isupper() or command == "help":
        return
    assert command in known_options, f"{block.place}: ./qgf {command}"
    if command == "bench" and rest and not rest[0].isupper():
        assert (ROOT / f"benchmarks/{rest[0]}.py").is_file(), f"{block.place}: no benchmark {rest[0]}"
    elif command == "run" and len(rest) >= 2 and not rest[0].isupper():
        assert (rest[0], rest[1]) in {(p, e) for p, e, _ in reference.executables()}, f"{block.place}: {rest[:2]}"
        check_parameters(block, rest[1], rest)
    elif command not in ("test", "bench", "run"):
        for word in rest:
            if word == "--ros-args":
                break
            if word.startswith("--"):
                assert word.partition("=")[0] in known_options[command], f"{block.place}: ./qgf {command} {word}"


def check_parameters(block, executable, words):
    """Parameters that are given to a node are parameters that it has."""
    if "--ros-args" not in words:
        return
    page = (ROOT / "docs/reference/nodes.md").read_text()
    text = re.search(rf"^## {executable}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if text is None:
        return
    for flag, value in itertools.pairwise(words):
        if flag == "-p" and not value.startswith("qos_overrides"):
            parameter = value.partition(":=")[0]
            assert f"`{parameter}`" in text[1] or parameter == "use_sim_time", f"{block.place}: no {parameter}"


def launch_arguments(text):
    """Names of the arguments that a launch file declares; read, not run: launch is not everywhere."""
    declared = set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text))
    declared |= {called or name for name, called in re.findall(
        r'\bargument\(\s*"\w+", "\w+", "(\w+)"(?:[^()]*?called="(\w+)")?', text)}
    if "policy_arguments(" in text:
        helpers = (ROOT / "launch/qgf_launch/arguments.py").read_text()
        policy = re.search(r"^POLICY = \((.*?)^\)", helpers, re.MULTILINE | re.DOTALL)
        declared |= {"bundle", *re.findall(r'"(\w+)"', policy[1])}
    declared |= {"namespace"} if "NAMESPACE" in text else set()
    return declared | ({"parameters"} if "parameters_argument(" in text else set())


def check_launch(block, words):
    if words[0].isupper():
        return
    file = ROOT / "launch" / words[0]
    assert file.is_file(), f"{block.place}: no launch/{words[0]}"
    declared = launch_arguments(file.read_text())
    for included in re.findall(r'"(\w+\.launch\.py)"', file.read_text()):
        declared |= launch_arguments((ROOT / "launch" / included).read_text())
    for word in words[1:]:
        if ":=" in word:
            assert word.partition(":=")[0] in declared, f"{block.place}: {words[0]} takes no {word}"


def test_a_block_that_is_wrong_is_seen(known_options, tmp_path):
    for text in ("./qgf fly", "./qgf train --wings 2", "./qgf bench wings", "./qgf run qgf_sim wing_node",
                 "./qgf run qgf_sim sim_node --ros-args -p wings:=2", "ros2 launch qgf_bringup sim.launch.py wings:=2"):
        with pytest.raises(AssertionError):
            test_its_commands_and_options_exist(Block("page", 1, text), known_options)


def test_every_command_that_is_a_module_is_an_executable_for_ros2_run_too():
    modules = {match[1] for path in (ROOT / "scripts/commands").glob("*.sh")
               for match in re.finditer(r'exec "\$VENV/bin/python" -m (qgf_[\w.]+)', path.read_text())}
    assert {"qgf_trainer.cli", "qgf_sim.identify_node", "qgf_core.signing_cli"} <= modules
    assert modules <= {module for _, _, module in reference.executables()}

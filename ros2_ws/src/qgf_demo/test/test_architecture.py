# SPDX-License-Identifier: Apache-2.0
"""The arrows between the packages and the habits of the code, read from every source file."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SOURCES = ROOT / "ros2_ws" / "src"

MAY_IMPORT: dict[str, set[str]] = {
    "qgf_core": set(),
    "qgf_sim": {"qgf_core"},
    "qgf_trainer": {"qgf_core", "qgf_sim"},
    "qgf_policy": {"qgf_core"},
    "qgf_monitor": {"qgf_core"},
    "qgf_demo": {"qgf_core", "qgf_sim", "qgf_trainer", "qgf_policy", "qgf_monitor"},
    "rqt_qgf": set(),
}
"""Arrows from package to package. qgf_msgs, and all else of ROS, is for the files below only."""

ROS_FILES: dict[str, set[str]] = {
    "qgf_sim": {"sim_node.py", "identify_node.py", "camera_node.py", "run_node.py"},
    "qgf_trainer": {"trainer_node.py"},
    "qgf_policy": {"policy_node.py", "preflight_node.py", "session.py", "ros_port.py",
                   "node_parameters.py", "goal_frames.py"},
    "qgf_monitor": {"governor_node.py", "monitor_node.py", "run_node.py"},
    "qgf_demo": {"demo_node.py", "listeners.py", "send_goal.py"},
    "rqt_qgf": {"dashboard_node.py", "link_node.py"},
}
"""The only files that import rclpy: nodes, and their wiring."""
MESSAGE_FILES: dict[str, set[str]] = {"qgf_policy": {"conversions.py"}}
"""Files that import message types, but not rclpy."""

FOREIGN_TO: dict[str, set[str]] = {
    "qgf_core": {"pybullet", "pybullet_data", "gymnasium", "mujoco", "matplotlib", "tensorboard", "tqdm"},
    "qgf_policy": {"pybullet", "pybullet_data", "gymnasium", "mujoco", "matplotlib", "tensorboard"},
    "qgf_monitor": {"pybullet", "pybullet_data", "gymnasium", "mujoco", "torch"},
    "qgf_sim": {"torch"},
}
"""What a robot's computer, or a package's task, does not need."""
TORCH_IN_CORE = {"bundle.py", "network.py"}
LONGEST = 450


def sources(*folders: Path) -> list[Path]:
    """Python files, without what tools make."""
    skipped = {"build", "install", "log", "__pycache__", ".venv"}
    return sorted(path for folder in folders for path in folder.rglob("*.py")
                  if not skipped & set(path.relative_to(ROOT).parts))


def packages() -> list[str]:
    return sorted(path.parent.name for path in SOURCES.glob("*/setup.py"))


def modules(package: str) -> list[Path]:
    """What is installed of a package."""
    return sources(SOURCES / package / package)


SHIPPED = [path for package in packages() for path in modules(package)]
TOOLS = sources(ROOT / "scripts", ROOT / "benchmarks", ROOT / "launch")
EVERYTHING = sources(SOURCES, ROOT / "scripts", ROOT / "benchmarks", ROOT / "launch")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules that a file imports anywhere in it, and where."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: a relative import"
            yield node.module or "", node.lineno
        elif isinstance(node, ast.Call) and dotted(node.func) in ("importlib.import_module", "__import__"):
            argument = node.args[0]
            if path in SHIPPED:
                assert isinstance(argument, ast.Constant), f"{name(path)}:{node.lineno}: imports what nobody can see"
            if isinstance(argument, ast.Constant):
                yield str(argument.value), node.lineno


def top_level_imports(path: Path) -> set[str]:
    return {module.partition(".")[0] for module, _ in imports(path)}


def dotted(expression: ast.expr) -> str:
    """"a.b.c" for such an expression, else ""."""
    if isinstance(expression, ast.Name):
        return expression.id
    if isinstance(expression, ast.Attribute):
        inner = dotted(expression.value)
        return f"{inner}.{expression.attr}" if inner else ""
    return ""


def is_ros(module: str) -> bool:
    return (module in ("rclpy", "launch", "launch_ros", "ament_index_python", "rosidl_runtime_py", "builtin_interfaces",
                       "rcl_interfaces", "std_srvs", "tf2_ros") or module.endswith("_msgs"))


def test_every_package_is_known():
    """A package that is added must take its place in the tables above."""
    assert set(packages()) == set(MAY_IMPORT)
    assert len(SHIPPED) > 50 and len(EVERYTHING) > len(SHIPPED) + len(TOOLS)


@pytest.mark.parametrize("package", packages())
def test_arrows(package):
    for path in modules(package):
        for module, line in imports(path):
            other = module.partition(".")[0]
            if other in MAY_IMPORT and other != package:
                assert other in MAY_IMPORT[package], f"{name(path)}:{line}: {package} must not import {other}"
            assert other not in FOREIGN_TO.get(package, ()), f"{name(path)}:{line}: {package} must not import {other}"


def test_the_arrows_have_no_cycle_and_nothing_imports_the_demo():
    order = ["qgf_core", "qgf_sim", "qgf_trainer", "qgf_policy", "qgf_monitor", "rqt_qgf", "qgf_demo"]
    for package, others in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(package) for other in others)
        assert "qgf_demo" not in others
    assert "qgf_trainer" not in MAY_IMPORT["qgf_policy"] and "qgf_policy" not in MAY_IMPORT["qgf_trainer"]


@pytest.mark.parametrize("package", packages())
def test_ros_is_imported_in_named_files_only(package):
    rclpy = {path.name for path in modules(package) if "rclpy" in top_level_imports(path)}
    assert rclpy == ROS_FILES.get(package, set())
    ros = {path.name for path in modules(package) if any(map(is_ros, top_level_imports(path)))}
    assert ros == rclpy | MESSAGE_FILES.get(package, set())


def test_torch_is_imported_in_named_files_of_the_core():
    assert {path.name for path in modules("qgf_core") if "torch" in top_level_imports(path)} == TORCH_IN_CORE


def test_kernels_stand_alone():
    """The machine code of a kernel is kept by its own file's date: what it calls must be in that file as well."""
    kernels = [path for path in SHIPPED if path.name.endswith("_kernel.py")]
    assert len(kernels) >= 2
    for path in kernels:
        allowed = {"__future__", "math", "numpy", "numpy.typing", "qgf_core.compiled"}
        assert {module for module, _ in imports(path)} <= allowed, name(path)
    for path in SHIPPED:
        if path not in kernels and path.name != "compiled.py":
            assert not {"numba", "qgf_core.compiled"} & {module for module, _ in imports(path)}, name(path)


def test_the_core_by_work_in_a_fresh_interpreter():
    """Every module of it is imported; nothing of the other packages comes with them, torch only with the bundle."""
    code = """
        import importlib, pkgutil, sys
        import qgf_core
        names = sorted(m.name for m in pkgutil.iter_modules(qgf_core.__path__))
        for name in names:
            if name not in ("bundle", "network"):
                importlib.import_module(f"qgf_core.{name}")
        assert "torch" not in sys.modules and len(names) > 15
        importlib.import_module("qgf_core.bundle")
        strange = [m for m in sys.modules if m.partition(".")[0] in
                   ("pybullet", "gymnasium", "mujoco", "rclpy", "tensorboard") or
                   (m.startswith("qgf_") and not m.startswith("qgf_core"))]
        assert not strange, strange
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(SOURCES / "qgf_core")}, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", packages())
def test_package_xml_declares_the_packages_that_are_imported(package):
    root = ElementTree.parse(SOURCES / package / "package.xml").getroot()
    declared = {element.text for kind in ("depend", "exec_depend") for element in root.findall(kind)}
    used = {module for path in modules(package) for module in top_level_imports(path) if module != package
            and (module.startswith("qgf_") or is_ros(module))}
    used = {{"tf2_ros": "tf2_ros_py"}.get(module, module) for module in used}
    assert used <= declared, f"{package}/package.xml lacks {sorted(used - declared)}"
    allowed = MAY_IMPORT[package] | {"qgf_msgs", "qgf_bringup"}
    assert {d for d in declared if d and d.startswith("qgf_")} <= allowed


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "torch.load", "yaml.unsafe_load",
                   "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"}
LOADS_YAML = {"ros2_ws/src/qgf_core/qgf_core/config.py": "_UniqueKeyLoader"}


@pytest.mark.parametrize("path", SHIPPED + TOOLS, ids=name)
def test_nothing_runs_what_it_reads(path):
    for module, line in imports(path):
        assert module.partition(".")[0] not in FORBIDDEN_MODULES, f"{name(path)}:{line}: imports {module}"
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        place, function = f"{name(path)}:{node.lineno}", dotted(node.func)
        assert function not in FORBIDDEN_CALLS, f"{place}: calls {function}"
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if function in ("yaml.load", "load"):
            loader = dotted(keywords.get("Loader", ast.Constant(None)))
            assert loader and loader == LOADS_YAML.get(name(path)), f"{place}: use yaml.safe_load or qgf_core.config"
        for dangerous in ("shell", "allow_pickle"):
            value = keywords.get(dangerous, ast.Constant(False))
            assert isinstance(value, ast.Constant) and value.value is False, f"{place}: {dangerous} is not False"


def test_the_yaml_loader_is_a_safe_one():
    import yaml

    from qgf_core import config
    assert issubclass(config._UniqueKeyLoader, yaml.SafeLoader)


OUTLIVES_ALL = "ros2_ws/src/qgf_monitor/qgf_monitor/mishaps.py"
"""It is there to tell of errors that nobody foresaw, and to go on."""


@pytest.mark.parametrize("path", [path for path in SHIPPED + TOOLS if name(path) != OUTLIVES_ALL], ids=name)
def test_errors_are_caught_by_name(path):
    """A handler of all errors is allowed only where it also raises them again, but for the one file above."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
            broad = any(error is None or dotted(error) in ("Exception", "BaseException") for error in caught)
            raised = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert not broad or raised, f"{name(path)}:{node.lineno}: catches everything"
        elif isinstance(node, ast.Call) and dotted(node.func) in ("contextlib.suppress", "suppress"):
            suppressed = {dotted(error) for error in node.args}
            assert not suppressed & {"Exception", "BaseException"}, f"{name(path)}:{node.lineno}: suppresses everything"


LICENSED = [*EVERYTHING, *(path for pattern in ("*.msg", "*.srv", "*.action", "CMakeLists.txt")
                           for path in sorted(SOURCES.glob(f"*/**/{pattern}"))),
            ROOT / "qgf", *sorted((ROOT / "scripts").glob("*.sh"))]


@pytest.mark.parametrize("path", LICENSED, ids=name)
def test_the_license_stands_on_the_first_line(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    first = lines[1] if lines[0].startswith("#!") else lines[0]
    assert first == "# SPDX-License-Identifier: Apache-2.0"


@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_files_fit_on_a_few_screens(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < LONGEST


def test_no_room_for_odds_and_ends():
    assert not [name(path) for path in SHIPPED if path.stem in ("utils", "util", "helpers", "misc", "common")]


@pytest.mark.parametrize("path", [path for path in SHIPPED if "rclpy" not in top_level_imports(path)], ids=name)
def test_public_names_are_described(path):
    """Every module, and every public class and function in it; node files are wiring, named by what they connect."""
    assert path.name == "__init__.py" or ast.get_docstring(tree(path)), f"{name(path)}: no docstring"
    for node in tree(path).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name(path)}:{node.lineno}: {node.name} has no docstring"

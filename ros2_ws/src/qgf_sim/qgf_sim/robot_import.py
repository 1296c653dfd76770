# SPDX-License-Identifier: Apache-2.0
"""A robot's YAML from its URDF: what the URDF tells is taken over, what it lacks is asked for or set with a comment."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgf_core.config import config_root, from_mapping, parse_yaml
from qgf_core.errors import ConfigError, RobotError
from qgf_core.files import write_atomic
from qgf_core.robot import (
    CommandInterface,
    JointSpec,
    RobotSpec,
    ToolSpec,
    check_against_urdf,
    strip_meshes,
)
from qgf_sim.urdf_check import Urdf, UrdfJoint

_FULL_TURN = 6.2832
"""Limit to each side of a joint that has none [rad]."""
_MOST_ACCELERATION = 15.0
"""That is set where none is told [rad/s^2]."""
_WIDTH = 120


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """What the user adds to a URDF; one number for all joints, or one per joint."""

    name: str = ""
    """Of the robot; empty: the URDF's."""
    tool: str = ""
    """Link; empty: the end of the tree, if there is only one."""
    tool_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """[m]"""
    home: tuple[float, ...] = ()
    """[rad]"""
    velocity: tuple[float, ...] = ()
    """Limit [rad/s]; needed where the URDF has none."""
    effort: tuple[float, ...] = ()
    """Limit [N m]; needed where the URDF has none."""
    acceleration: tuple[float, ...] = ()
    """Limit [rad/s^2]; URDFs have none."""
    jerk: tuple[float, ...] = ()
    """Limit [rad/s^3]; URDFs have none."""
    command_interface: CommandInterface = "velocity"
    state_rate: float = 200.0
    """[Hz]"""
    position_margin: float = 0.05
    """[rad]"""
    without_meshes: bool = False
    """Whether to use a copy of the URDF without meshes, written beside the YAML."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """A robot that is ready to be written."""

    robot: RobotSpec
    urdf: Urdf
    notes: dict[str, str]
    """What was set and not read, by joint."""
    remarks: list[str]
    """What the user should know."""


def import_robot(path: Path, options: ImportOptions) -> Imported:
    """The robot in a URDF. Nothing is written.

    :raises RobotError: the URDF cannot be used; the message names joint or link, value and remedy.
    :raises ConfigError: an option does not fit.
    """
    urdf = Urdf(path)
    if not options.without_meshes:
        urdf.demand_meshes()
    name = options.name or urdf.name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise RobotError(path, "robot", f"the name '{name}' has other signs than letters, digits, - and _",
                         "give --name, such as --name my_arm")
    tool = options.tool or urdf.likely_tool()
    driven = urdf.driven(tool)
    remarks = urdf.check_inertia(driven)
    spread = {key: _per_joint(key, getattr(options, key), len(driven))
              for key in ("home", "velocity", "effort", "acceleration", "jerk")}
    joints, notes = [], {}
    for i, joint in enumerate(driven):
        given = {key: values[i] for key, values in spread.items() if values}
        spec, note = _joint(joint, given, options.position_margin, path)
        joints.append(spec)
        notes[spec.name] = note
    others = [f"{joint.name} ({joint.kind})" for joint in urdf.joints if joint.kind != "fixed" and joint not in driven]
    if others:
        remarks.append(f"not driven, held where they are: {', '.join(others)}")
    try:
        robot = RobotSpec(name, str(path), urdf.base, ToolSpec(tool, options.tool_offset), tuple(joints),
                          options.command_interface, state_rate=options.state_rate, stop_time=_stop_time(joints),
                          position_margin=options.position_margin)
    except ValueError as error:
        raise ConfigError(path, "", str(error), "correct the option") from error
    check_against_urdf(robot, urdf.text, path)
    return Imported(robot, urdf, notes, remarks)


def _per_joint(key: str, values: Sequence[float], n: int) -> tuple[float, ...]:
    if len(values) == 1 and key != "home":
        return tuple(values) * n
    if values and len(values) != n:
        raise ConfigError(f"--{key}", "", f"{len(values)} values for {n} joints",
                          "give one per joint, from base to tool")
    return tuple(values)


def _joint(joint: UrdfJoint, given: dict[str, float], margin: float, path: Path) -> tuple[JointSpec, str]:
    """The joint's spec and a note on what is no value of the URDF's."""
    place, notes = f"joint '{joint.name}'", []
    lower, upper = joint.lower, joint.upper
    if joint.kind == "continuous":
        lower, upper = -_FULL_TURN, _FULL_TURN
        notes.append("position: a continuous joint, one turn to each side")
    elif math.isnan(lower) and math.isnan(upper):
        raise RobotError(path, place, "is revolute and has no position limits", "add <limit lower upper> [rad]")
    else:  # URDF: what is left out is 0
        lower, upper = (0.0 if math.isnan(end) else end for end in (lower, upper))
    if not lower < upper:
        raise RobotError(path, place, f"position limits {lower:g}, {upper:g} rad leave no room", "correct the limits")
    if max(abs(lower), abs(upper)) > 4 * math.pi:
        raise RobotError(path, place, f"position limits {lower:g}, {upper:g} look like degrees", "give rad")
    limits = {}
    for key, unit in (("velocity", "rad/s"), ("effort", "N m")):
        limits[key] = given.get(key, getattr(joint, key))
        if key in given:
            notes.append(f"{key}: given")
        elif math.isnan(limits[key]) or limits[key] <= 0.0:
            told = "no" if math.isnan(limits[key]) else f"{limits[key]:g} as"
            raise RobotError(path, place, f"has {told} {key} limit", f"correct the URDF, or give --{key} [{unit}]")
    # Full speed within 0.2 s, full acceleration within 10 ms: what small and middle-sized arms do without complaint.
    acceleration = given.get("acceleration", round(min(5.0 * limits["velocity"], _MOST_ACCELERATION), 3))
    jerk = given.get("jerk", round(100.0 * acceleration, 3))
    untold = [key for key in ("acceleration", "jerk") if key not in given]
    if untold:
        notes.append(f"{', '.join(untold)}: no URDF tells them, cautious")
    home = given.get("home")
    if home is None:
        # Zero where that is well inside; else the middle. Rounded into the limits.
        inside = lower + 2 * margin < 0.0 < upper - 2 * margin
        home = 0.0 if inside else round(0.5 * (lower + upper), 4)
        notes.append("home: set")
    try:
        spec = JointSpec(joint.name, (_inwards(lower), _inwards(upper)), limits["velocity"], acceleration, jerk,
                         limits["effort"], home, round(min(1.2, 0.6 * limits["velocity"]), 3))
    except ValueError as error:
        raise RobotError(path, "", str(error), "correct the option or the URDF") from error
    return spec, "; ".join(notes)


def _inwards(limit: float) -> float:
    """Rounded to 1e-4 towards zero, so that it never passes the URDF's."""
    return math.trunc(limit * 1e4) / 1e4


def _stop_time(joints: Sequence[JointSpec]) -> float:
    """In which the slowest of the joints halts from full speed, with half as much again [s]."""
    slowest = max(joint.velocity / joint.acceleration + joint.acceleration / joint.jerk for joint in joints)
    return max(0.5, round(1.5 * slowest, 2))


# ---- the YAML --------------------------------------------------------------------------------------------------------


def field_docs(cls: type) -> dict[str, str]:
    """What the source says below each field of a dataclass, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs, name = {}, ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[name] = " ".join(str(node.value.value).split()).removesuffix(".")
            name = ""
    return docs


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w/.:-]*[\w/]", value) and value not in _YAML_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)  # JSON is YAML


_YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "True", "False", "Yes", "No", "On", "Off", "Null"}


def _lines(value: Any, indent: str = "") -> list[str]:
    """A dataclass as YAML, a field a line with what it means; nested ones are indented."""
    docs, lines = field_docs(type(value)), []
    for field in dataclasses.fields(value):
        entry = getattr(value, field.name)
        comment = f"# {docs[field.name]}"
        if dataclasses.is_dataclass(entry):
            lines += [f"{indent}{field.name}:", *_lines(entry, indent + "  ")]
        elif field.name == "joints":
            lines += ["joints:", *(f"  # {line}" for line in textwrap.wrap(_joint_legend(), _WIDTH - 4)), *_JOINTS_HERE]
        else:
            line = f"{indent}{field.name}: {_scalar(entry)}"
            fits = len(line) + 2 + len(comment) <= _WIDTH
            lines += [f"{line}  {comment}"] if fits else [f"{indent}{comment}", line]
    return lines


_JOINTS_HERE = ["<joints>"]


def _joint_legend() -> str:
    docs = field_docs(JointSpec)
    return "; ".join(f"{name}: {docs[name]}" for name in docs)


def to_yaml(imported: Imported, source: str) -> str:
    """The text of the robot's YAML, every field with a comment.

    :param source: path or name of the URDF as the YAML is to name it.
    """
    robot = dataclasses.replace(imported.robot, urdf=source)
    name = imported.urdf.path.name
    header = [f"# {robot.name}, imported from {name}. What is called set or cautious is no data of it:",
              "# compare it with the manufacturer's. drive holds defaults, until ./qgf identify measures the arm."]
    lines = _lines(robot)
    at = lines.index(_JOINTS_HERE[0])
    joints = []
    for joint in robot.joints:
        if imported.notes[joint.name]:
            joints.append(f"  # {imported.notes[joint.name]}")
        fields = (f"{field.name}: {_scalar(getattr(joint, field.name))}" for field in dataclasses.fields(joint))
        joints.append(f"  - {{{', '.join(fields)}}}")
    lines[at:at + 1] = joints
    return "\n".join([*header, *lines]) + "\n"


def write_robot(imported: Imported, out: Path, without_meshes: bool) -> None:
    """Write the YAML, and the URDF without meshes where that is asked for.

    :raises RobotError: what would be written cannot be read back as the same robot; nothing is written then.
    """
    urdf = imported.urdf.path
    if without_meshes:
        urdf = out.with_suffix(".urdf")
        if urdf.resolve() == imported.urdf.path.resolve():
            raise ConfigError(urdf, "", "would be overwritten by its copy without meshes", "choose another --out")
    text = to_yaml(imported, _reference(urdf, out))
    again = from_mapping(RobotSpec, parse_yaml(text, out), out)
    if dataclasses.replace(again, urdf=imported.robot.urdf) != imported.robot:
        raise RobotError(out, "", "the YAML does not read back as the same robot", "report this with the URDF")
    if without_meshes:
        write_atomic(urdf, strip_meshes(imported.urdf.text).encode())
    write_atomic(out, text.encode())


def _reference(urdf: Path, out: Path) -> str:
    """The URDF as the YAML names it: by its Python package, relative where it lies near, else absolute."""
    target, folder = urdf.resolve(), out.resolve().parent
    for path in map(Path, filter(None, sys.path)):
        if target.is_relative_to(path.resolve()) and path.name in ("site-packages", "dist-packages"):
            package, *rest = target.relative_to(path.resolve()).parts
            return f"{package}:{'/'.join(rest)}"
    relative = os.path.relpath(target, folder)
    return str(target) if relative.count("..") > 2 else relative


def default_path(robot: RobotSpec) -> Path:
    """Where robots are looked for by name."""
    return config_root() / "robots" / f"{robot.name}.yaml"

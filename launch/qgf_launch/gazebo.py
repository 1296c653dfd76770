# SPDX-License-Identifier: Apache-2.0
"""The arm as Gazebo takes it: config/gazebo/arm.urdf.xacro, expanded for a robot."""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from qgf_core.config import config_root, find_config
from qgf_core.errors import QgfError, RobotError
from qgf_core.robot import RobotSpec, load_robot, parse_urdf, read_urdf

FOLDER = "gazebo"
_SCHEMES = ("package://", "model://", "file://")


def controllers_of(robot: str) -> Path:
    """config/controllers/<robot>.yaml. :raises QgfError: there is none."""
    path = config_root() / "controllers" / f"{robot}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise QgfError(f"{path}: no such file; write it after generic.yaml (there are: {known})")
    return path


def gazebo_urdf(name: str, namespace: str = "") -> str:
    """The URDF of a robot in config/robots, or of a YAML file, with gz_ros2_control.

    :raises QgfError: xacro is not installed, a mesh is missing, or the driver counts a joint the other way round.
    """
    try:
        import xacro  # comes with a ROS distribution, or from PyPI; nothing else needs it
    except ImportError as error:
        raise QgfError("xacro is not installed; apt-get install ros-$ROS_DISTRO-xacro, or pip install xacro") from error
    robot = load_robot(name)
    for joint in robot.joints:
        if joint.sign != 1:
            raise RobotError(name, f"joint '{joint.name}'", "sign -1: Gazebo counts it as the URDF does",
                             "use a copy of the YAML with sign 1 in Gazebo")
    with tempfile.TemporaryDirectory() as folder:
        urdf = Path(folder) / "arm.urdf"
        urdf.write_text(_with_absolute_meshes(robot), encoding="utf-8")
        mappings = {"name": robot.name, "urdf": str(urdf), "robot": str(find_config("robots", name)),
                    "controllers": str(controllers_of(robot.name)), "namespace": namespace.strip("/")}
        document = xacro.process_file(str(config_root() / FOLDER / "arm.urdf.xacro"), mappings=mappings)
    return str(document.toprettyxml(indent="  "))


def _with_absolute_meshes(robot: RobotSpec) -> str:
    root = parse_urdf(read_urdf(robot), robot.urdf)
    for element in list(root.iter()):  # without drake:... and the like, whose prefix nobody declares
        for child in [child for child in element if ":" in child.tag]:
            element.remove(child)
        for key in [key for key in element.attrib if ":" in key and not key.startswith("xmlns:")]:
            del element.attrib[key]
    for link in root.findall("link"):
        for mesh in link.iter("mesh"):
            found = _find_mesh(mesh.get("filename", ""), Path(robot.urdf))
            if found is None:
                raise RobotError(robot.urdf, f"link '{link.get('name')}'", f"there is no mesh '{mesh.get('filename')}'",
                                 "put it below the URDF's folder or one above it")
            mesh.set("filename", f"file://{found}")
    return ElementTree.tostring(root, encoding="unicode")


def _find_mesh(name: str, urdf: Path) -> Path | None:
    """As PyBullet looks: below the URDF's folder and every folder above it."""
    for scheme in _SCHEMES:
        name = name.removeprefix(scheme)
    parent = Path(os.path.abspath(urdf)).parent
    return next((folder / name for folder in (parent, *parent.parents) if name and (folder / name).is_file()), None)

# SPDX-License-Identifier: Apache-2.0
"""What of a URDF would fail, or quietly go wrong, in simulation or on the way to the arm."""

from __future__ import annotations

import dataclasses
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qgf_core.errors import RobotError
from qgf_core.robot import parse_urdf, root_link

_TURNING = ("revolute", "continuous")
_LEAST_MASS = 1e-6
"""Below it the physics of a link that a joint moves is no physics [kg]."""


@dataclasses.dataclass(frozen=True)
class UrdfJoint:
    """A joint of a URDF; what the file leaves out is NaN."""

    name: str
    kind: str
    parent: str
    child: str
    lower: float
    """[rad]"""
    upper: float
    """[rad]"""
    velocity: float
    """[rad/s]"""
    effort: float
    """[N m]"""
    mimics: str
    """The joint that this one follows; empty: none."""


class Urdf:
    """A URDF that is a tree, with the questions that an import asks.

    :raises RobotError: unreadable, no tree, a name with a space, or a number that is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RobotError(path, "", f"cannot be read ({error})", "correct the path") from error
        self.root = parse_urdf(self.text, path)
        self.name = self.root.get("name", "")
        if "{http://www.ros.org/wiki/xacro}" in self.text or "<xacro:" in self.text:
            raise RobotError(path, "", "it is a xacro file", f"expand it: xacro {path.name} > robot.urdf")
        for kind in ("link", "joint"):
            for element in self.root.findall(kind):
                name = element.get("name", "")
                if not name or name != "".join(name.split()):
                    raise RobotError(path, f"{kind} '{name}'", "its name is empty or holds a space", "rename it")
        self.base = root_link(self.root, str(path))
        self.joints = [self._joint(element) for element in self.root.findall("joint")]
        self.links = [link.get("name", "") for link in self.root.findall("link")]

    def _joint(self, element: ElementTree.Element) -> UrdfJoint:
        name = element.get("name", "")
        limit, mimic = element.find("limit"), element.find("mimic")
        numbers = {}
        for key in ("lower", "upper", "velocity", "effort"):
            text = None if limit is None else limit.get(key)
            try:
                numbers[key] = math.nan if text is None else float(text)
            except ValueError as error:
                raise RobotError(self.path, f"joint '{name}'", f"limit {key} '{text}' is no number",
                                 "mend the URDF") from error
            if text is not None and not math.isfinite(numbers[key]):
                raise RobotError(self.path, f"joint '{name}'", f"limit {key} {text} is not finite", "mend the URDF")
        parent, child = (end.get("link", "") if end is not None else ""
                         for end in (element.find("parent"), element.find("child")))
        return UrdfJoint(name, element.get("type", ""), parent, child, numbers["lower"], numbers["upper"],
                         numbers["velocity"], numbers["effort"], "" if mimic is None else mimic.get("joint", "?"))

    def chain(self, tool: str) -> list[UrdfJoint]:
        """The joints from the base to the link `tool`, fixed ones too. :raises RobotError: there is no such link."""
        if tool not in self.links:
            raise RobotError(self.path, f"tool '{tool}'", "there is no such link",
                             f"choose one of: {', '.join(self.links)}")
        above = {joint.child: joint for joint in self.joints}
        joints: list[UrdfJoint] = []
        while tool in above:
            joints.insert(0, above[tool])
            tool = above[tool].parent
        return joints

    def likely_tool(self) -> str:
        """The one link at an end of the tree to which the most joints turn, and nothing else moves.

        :raises RobotError: there are several, and the user must say.
        """
        parents = {joint.parent for joint in self.joints}
        ends: dict[str, int] = {}
        for link in self.links:
            kinds = [joint.kind for joint in self.chain(link) if joint.kind != "fixed"]
            if link not in parents and all(kind in _TURNING for kind in kinds):
                ends[link] = len(kinds)
        best = [link for link, turning in ends.items() if turning == max(ends.values()) > 0]
        if len(best) == 1:
            return best[0]
        problem = "no end of the tree is moved by turning joints alone" if not best else "several links may be the tool"
        raise RobotError(self.path, "", problem, f"give --tool, one of: {', '.join(best or self.links)}")

    def driven(self, tool: str) -> list[UrdfJoint]:
        """The joints that a policy drives, from the base to the tool.

        :raises RobotError: one of the chain cannot be driven by angle: prismatic, floating, planar, or a mimic.
        """
        moving = [joint for joint in self.chain(tool) if joint.kind != "fixed"]
        for joint in moving:
            if joint.kind not in _TURNING:
                raise RobotError(self.path, f"joint '{joint.name}'", f"is {joint.kind or 'of no type'}: "
                                 "only revolute and continuous joints can be driven",
                                 f"make it fixed, or choose a --tool before it, such as {joint.parent}")
            if joint.mimics:
                raise RobotError(self.path, f"joint '{joint.name}'", f"mimics '{joint.mimics}' and cannot be driven by "
                                 "itself", f"make it fixed, or choose a --tool before it, such as {joint.parent}")
        if not moving:
            raise RobotError(self.path, f"tool '{tool}'", "no joint moves it", "choose another --tool")
        return moving

    def check_inertia(self, driven: Sequence[UrdfJoint]) -> list[str]:
        """Remarks on the inertias. :raises RobotError: what a driven joint moves has no mass, or an impossible inertia.
        """
        remarks = []
        for link in self.root.findall("link"):
            inertial = link.find("inertial")
            if inertial is not None:
                remarks += self._check_inertial(link.get("name", ""), inertial)
        for joint in driven:
            # Until the next joint that moves: a massless frame is normal where a body is fixed to it.
            rigid, ahead = set[str](), [joint.child]
            while ahead:
                rigid.add(ahead[-1])
                at = ahead.pop()
                ahead += [other.child for other in self.joints if other.parent == at and other.kind == "fixed"]
            if sum(self._mass(link) for link in rigid) < _LEAST_MASS:
                raise RobotError(self.path, f"joint '{joint.name}'", f"link '{joint.child}', which it moves, has no "
                                 "mass", "give the link an <inertial> with mass and inertia")
        return remarks

    def _number(self, element: ElementTree.Element | None, key: str, link: str) -> float:
        text = "0" if element is None else element.get(key, "0")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise RobotError(self.path, f"link '{link}'", f"inertial {key} '{text}' is no finite number",
                             "mend the URDF")
        return number

    def _mass(self, name: str) -> float:
        link = next(link for link in self.root.findall("link") if link.get("name") == name)
        return self._number(link.find("inertial/mass"), "value", name)

    def _check_inertial(self, link: str, inertial: ElementTree.Element) -> list[str]:
        mass = self._number(inertial.find("mass"), "value", link)
        ixx, ixy, ixz, iyy, iyz, izz = (self._number(inertial.find("inertia"), key, link)
                                        for key in ("ixx", "ixy", "ixz", "iyy", "iyz", "izz"))
        moments = np.linalg.eigvalsh([[ixx, ixy, ixz], [ixy, iyy, iyz], [ixz, iyz, izz]])
        if mass < 0 or moments[0] < -1e-12 or (mass > _LEAST_MASS and moments[2] <= 0):
            raise RobotError(self.path, f"link '{link}'", f"mass {mass:g} kg with principal moments "
                             f"{moments.round(9).tolist()} kg m^2 is no body",
                             "take mass and inertia from the CAD model, both positive")
        if moments[2] > (moments[0] + moments[1]) * (1.0 + 1e-6):
            return [f"link '{link}': principal moments {moments.round(9).tolist()} kg m^2 break the triangle "
                    "inequality; MuJoCo takes their mean instead"]
        return []

    def missing_meshes(self) -> list[tuple[str, str]]:
        """(link, file name) of every mesh that PyBullet would not find."""
        return [(link.get("name", ""), name) for link in self.root.findall("link") for mesh in link.iter("mesh")
                if not self._finds(name := mesh.get("filename", ""))]

    def _finds(self, name: str) -> bool:
        # As PyBullet looks: the name as it is, then below the URDF's folder and every folder above it.
        relative = name.removeprefix("package://").removeprefix("model://").removeprefix("file://")
        folders = [Path(os.path.abspath(self.path)).parent]
        return bool(relative) and any((folder / relative).is_file() for folder in (*folders, *folders[0].parents))

    def demand_meshes(self) -> None:
        """:raises RobotError: a mesh is missing."""
        missing = self.missing_meshes()
        if missing:
            link, name = missing[0]
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            remedy = "import it with --without-meshes"
            if name.startswith("package://"):
                package = name.removeprefix("package://").partition("/")[0]
                remedy = f"put the folder '{package}' beside the URDF's or in a folder above it, or {remedy}"
            raise RobotError(self.path, f"link '{link}'", f"there is no mesh '{name}'{more}", remedy)

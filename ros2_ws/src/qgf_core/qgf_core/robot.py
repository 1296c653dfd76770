# SPDX-License-Identifier: Apache-2.0
"""RobotSpec: everything that is known of an arm, from one YAML file and its URDF."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
import xml.etree.ElementTree as ElementTree
import xml.parsers.expat as expat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qgf_core.config import find_config, from_mapping, load_yaml
from qgf_core.errors import ConfigError, RobotError
from qgf_core.robot_identified import IdentifiedSpec

Vector = NDArray[np.float64]
CommandInterface = Literal["position", "velocity", "effort", "joint_trajectory"]
_TURNING = ("revolute", "continuous")


def _demand_finite(spec: Any, name: str) -> None:
    """:raises ValueError: a field of the dataclass `spec` holds a number that is not finite."""
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not math.isfinite(number):
                raise ValueError(f"{name}: {field.name} {number} is not finite")


@dataclasses.dataclass(frozen=True)
class JointSpec:
    """One joint: its name in the driver's joint_states, where home is, and how far, fast and hard it may go."""

    name: str
    """As in the URDF and in the driver's joint_states."""
    position: tuple[float, float]
    """Lower and upper limit [rad]."""
    velocity: float
    """Largest speed of a command [rad/s]."""
    acceleration: float
    """Largest acceleration of a command [rad/s^2]."""
    jerk: float
    """Largest jerk of a command [rad/s^3]."""
    effort: float
    """Largest torque [N m]."""
    home: float = 0.0
    """Reference pose of the observations [rad]."""
    policy_velocity: float = 1.0
    """Speed that an action of 1 asks for [rad/s]."""
    sign: Literal[1, -1] = 1
    """-1 where the driver counts the joint the other way round than the URDF."""

    def __post_init__(self) -> None:
        name = f"joint '{self.name}'"
        _demand_finite(self, name)
        lower, upper = self.position
        if not lower < upper:
            raise ValueError(f"{name}: lower position limit {lower} is not below the upper {upper}")
        if max(abs(lower), abs(upper)) > 4 * math.pi:
            raise ValueError(f"{name}: position limits {lower}, {upper} look like degrees; give rad")
        if not lower < self.home < upper:
            raise ValueError(f"{name}: home {self.home} rad lies outside its limits {lower}, {upper}")
        for field in ("velocity", "acceleration", "jerk", "effort", "policy_velocity"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{name}: {field} {getattr(self, field)} must be positive")
        if self.policy_velocity > self.velocity:
            raise ValueError(f"{name}: policy_velocity {self.policy_velocity} exceeds velocity {self.velocity}")


@dataclasses.dataclass(frozen=True)
class Box:
    """An axis-aligned box in the base frame [m]."""

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"box: lower {list(self.lower)} must be below upper {list(self.upper)}")

    def contains(self, point: Any, tolerance: float = 0.0) -> bool:
        """Whether a point (3,) [m] lies inside, widened by `tolerance` [m]."""
        p = np.asarray(point)
        return bool(np.all(p >= np.array(self.lower) - tolerance) and np.all(p <= np.array(self.upper) + tolerance))


@dataclasses.dataclass(frozen=True)
class ToolSpec:
    """The point that tasks speak of."""

    link: str
    """Link of the URDF that it is fixed to."""
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Position of the tool point in the link's frame [m]."""

    def __post_init__(self) -> None:
        _demand_finite(self, "tool")


@dataclasses.dataclass(frozen=True)
class DriveSpec:
    """How the arm answers a command; the simulation plays it and the limiter allows for it."""

    latency: float = 0.02
    """From a command's arrival to its effect [s]."""
    time_constant: float = 0.04
    """First-order lag of the servo [s]."""
    joint_damping: float = 0.5
    """Viscous friction in the simulation [N m s/rad]."""
    damping_ratio: float = 0.0
    """Of a servo of second order, whose 1/omega is then time_constant; 0: it is of first order."""
    gain: float = 1.0
    """Speed reached by speed asked for."""
    coulomb: float = 0.0
    """Dry friction that a velocity servo of 50 N m s/rad sees [N m]."""

    def __post_init__(self) -> None:
        _demand_finite(self, "drive")
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"drive: {field.name} {getattr(self, field.name)} must not be negative")
        if self.gain == 0:
            raise ValueError("drive: gain 0 would never move; give a positive number")


@dataclasses.dataclass(frozen=True)
class TopicsSpec:
    """Names of the arm's topics, relative, so that namespaces work."""

    joint_states: str = "joint_states"
    """What the driver tells of the joints."""
    position: str = "forward_position_controller/commands"
    """Where the driver takes positions."""
    velocity: str = "forward_velocity_controller/commands"
    """Where the driver takes velocities."""
    effort: str = "forward_effort_controller/commands"
    """Where the driver takes torques."""
    joint_trajectory: str = "joint_trajectory_controller/joint_trajectory"
    """Where the driver takes trajectories."""


@dataclasses.dataclass(frozen=True)
class RobotSpec:
    """One arm. Arrays are in the order of `joints`; that order is the policy's."""

    name: str
    """What the arm is called; bundles carry it."""
    urdf: str
    """URDF file: absolute, relative to the YAML, or `package:path` for a file that a Python package ships."""
    base_frame: str
    """Root link of the URDF: goals and boxes are given in its frame."""
    tool: ToolSpec
    """The point that tasks speak of."""
    joints: tuple[JointSpec, ...]
    """From the base to the tool."""
    command_interface: CommandInterface = "velocity"
    """What the driver takes: velocity, position, effort or joint_trajectory."""
    command_rate: float = 0.0
    """Rate of the commands to the driver [Hz]; 0 means the policy's control rate."""
    command_timeout: float = 0.0
    """The driver's velocity controller stops the arm after this long without a command [s]; 0: never, as
    forward_command_controller, which has no timeout."""
    state_rate: float = 200.0
    """Rate of the driver's joint_states [Hz]."""
    stop_time: float = 0.5
    """A halt from any allowed motion ends within this time [s]."""
    position_margin: float = 0.05
    """Distance kept from the position limits [rad]."""
    drive: DriveSpec = DriveSpec()
    """How the arm answers a command."""
    identified: IdentifiedSpec | None = None
    """What `./qgf identify` measured on the arm; takes the place of what drive says."""
    topics: TopicsSpec = TopicsSpec()
    """Names of the arm's topics, relative, so that namespaces work."""
    workspace: Box | None = None
    """Where the tool point may be [m]; the policy node stops the arm before it leaves."""
    keep_out: tuple[Box, ...] = ()
    """Where the tool point must not be [m]: a table, a fixture, a person's seat."""

    def __post_init__(self) -> None:
        _demand_finite(self, f"robot '{self.name}'")
        if not self.joints:
            raise ValueError("joints: at least one joint is needed")
        names = [joint.name for joint in self.joints]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"joints: '{name}' is listed twice")
        for name in self.identified.joints if self.identified else ():
            if name not in names:
                raise ValueError(f"identified: there is no joint '{name}'")
        for field in ("stop_time", "state_rate"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{field} {getattr(self, field)} must be positive")
        for box in (*self.keep_out, *((self.workspace,) if self.workspace else ())):
            _demand_finite(box, "workspace or keep_out")
        if min(self.command_rate, self.command_timeout, self.position_margin) < 0:
            raise ValueError("command_rate, command_timeout and position_margin must not be negative")
        for joint in self.joints:
            if not joint.position[0] + self.position_margin < joint.home < joint.position[1] - self.position_margin:
                raise ValueError(f"joint '{joint.name}': home {joint.home} rad lies within position_margin "
                                 f"{self.position_margin} rad of its limits {list(joint.position)}")

    def runs_on(self, interface: str) -> bool:
        """Whether the arm would keep moving without commands. forward_command_controller has no timeout: a velocity
        stays in force until the next, for ever; a position or a short trajectory comes to its end."""
        return interface == "velocity" and not self.command_timeout

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names in the policy's order."""
        return tuple(joint.name for joint in self.joints)

    def _array(self, field: str) -> Vector:
        return np.array([getattr(joint, field) for joint in self.joints], dtype=np.float64)

    @functools.cached_property
    def home(self) -> Vector:
        """Reference pose (n,) [rad]."""
        return self._array("home")

    @functools.cached_property
    def position_lower(self) -> Vector:
        """Lower position limits (n,) [rad]."""
        return self._array("position")[:, 0]

    @functools.cached_property
    def position_upper(self) -> Vector:
        """Upper position limits (n,) [rad]."""
        return self._array("position")[:, 1]

    @functools.cached_property
    def velocity_limit(self) -> Vector:
        """Velocity limits (n,) [rad/s]."""
        return self._array("velocity")

    @functools.cached_property
    def acceleration_limit(self) -> Vector:
        """Acceleration limits (n,) [rad/s^2]."""
        return self._array("acceleration")

    @functools.cached_property
    def jerk_limit(self) -> Vector:
        """Jerk limits (n,) [rad/s^3]."""
        return self._array("jerk")

    @functools.cached_property
    def effort_limit(self) -> Vector:
        """Torque limits (n,) [N m]."""
        return self._array("effort")

    @functools.cached_property
    def policy_velocity(self) -> Vector:
        """Speed of a full action (n,) [rad/s]."""
        return self._array("policy_velocity")

    @functools.cached_property
    def signs(self) -> Vector:
        """+1 or -1 per joint (n,): URDF value = sign * driver value."""
        return self._array("sign")


def load_robot(name: str) -> RobotSpec:
    """The arm `config/robots/<name>.yaml`, or the one in the YAML file `name`.

    :raises ConfigError: unknown robot, unknown key, wrong type.
    :raises RobotError: the YAML contradicts its URDF.
    """
    path = find_config("robots", name)
    spec = from_mapping(RobotSpec, load_yaml(path), path)
    spec = dataclasses.replace(spec, urdf=str(resolve_urdf(spec.urdf, path)))
    check_against_urdf(spec, read_urdf(spec), path)
    if spec.identified is not None:
        spec = dataclasses.replace(spec, drive=dataclasses.replace(spec.drive, **spec.identified.drive()))
    return spec


def resolve_urdf(urdf: str, yaml_path: Path) -> Path:
    """Path of the URDF that a robot YAML names. :raises ConfigError: if there is none."""
    package, separator, relative = urdf.partition(":")
    if separator and not Path(urdf).is_absolute():
        try:
            module = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # a name that is none, or a missing parent package
            module = None
        if module is None or not module.submodule_search_locations:
            problem = f"the Python package '{package}' is not installed"
            raise ConfigError(yaml_path, "urdf", problem, "install it, or correct the name")
        path = Path(next(iter(module.submodule_search_locations))) / relative
    else:
        path = (yaml_path.parent / urdf).resolve()
    if not path.is_file():
        raise ConfigError(yaml_path, "urdf", f"no such file: {path}", "correct the path")
    return path


def read_urdf(spec: RobotSpec) -> str:
    """The URDF's text. :raises RobotError: unreadable."""
    try:
        return Path(spec.urdf).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RobotError(spec.urdf, "", f"cannot be read ({error})", "correct the path") from error


def parse_urdf(urdf_text: str, source: object) -> ElementTree.Element:
    """The <robot> element of a URDF read from `source`. :raises RobotError: not XML, or no URDF."""
    # Without namespaces, as the robotics world reads URDFs: some carry prefixes, such as drake:, that nobody declares.
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(urdf_text, True)
        root = builder.close()
    except (expat.ExpatError, ValueError) as error:
        raise RobotError(source, "", f"not well-formed XML ({error})", "mend the URDF") from error
    if root.tag != "robot":
        raise RobotError(source, "", f"its root element is <{root.tag}>, not <robot>", "give a URDF")
    return root


def strip_meshes(urdf_text: str) -> str:
    """The URDF without `visual` and `collision`: links, inertias and joints remain, and no file is needed to read it.

    :raises RobotError: not XML, or no URDF.
    """
    root = parse_urdf(urdf_text, "URDF")
    for link in root.iter("link"):
        for kind in ("visual", "collision"):
            for element in link.findall(kind):
                link.remove(element)
    return ElementTree.tostring(root, encoding="unicode")


def links_without_inertia(urdf_text: str) -> frozenset[str]:
    """Links that have no <inertial>, such as a tool's frame: massless by the URDF's rules.

    :raises RobotError: not XML, or no URDF.
    """
    links = parse_urdf(urdf_text, "URDF").findall("link")
    return frozenset(link.get("name", "") for link in links if link.find("inertial") is None)


def check_against_urdf(spec: RobotSpec, urdf_text: str, source: object) -> None:
    """Whether the spec, read from `source`, and its URDF agree.

    :raises RobotError: the URDF is no tree, lacks a joint or link that the spec names, roots in another base frame, has
        a joint that cannot turn, or limits narrower than the spec's.
    """
    root = parse_urdf(urdf_text, spec.urdf)
    base = root_link(root, spec.urdf)
    links = [link.get("name", "") for link in root.findall("link")]
    if spec.tool.link not in links:
        remedy = f"choose one of: {', '.join(links)}"
        raise RobotError(source, "tool.link", f"the URDF has no link '{spec.tool.link}'", remedy)
    if spec.base_frame != base:  # the kinematics gives positions in the root link's frame
        raise RobotError(source, "base_frame", f"'{spec.base_frame}' is not the URDF's root link", f"write '{base}'")
    elements = {joint.get("name", ""): joint for joint in root.findall("joint")}
    for joint in spec.joints:
        element = elements.get(joint.name)
        if element is None:
            movable = [name for name, other in elements.items() if other.get("type") in _TURNING]
            raise RobotError(source, f"joints.{joint.name}", "the URDF has no such joint",
                             f"its joints that turn: {', '.join(movable) or 'none'}")
        _check_joint(joint, element, spec.urdf, source)


def root_link(root: ElementTree.Element, urdf: str) -> str:
    """The one link without a parent, all others being reached from it. :raises RobotError: the URDF is no such tree."""
    links = [link.get("name", "") for link in root.findall("link")]
    children: dict[str, list[str]] = {link: [] for link in links}
    parent_of: dict[str, str] = {}
    for joint in root.findall("joint"):
        name = joint.get("name", "")
        ends = [end.get("link", "") if end is not None else "" for end in (joint.find("parent"), joint.find("child"))]
        for end, role in zip(ends, ("parent", "child"), strict=True):
            if end not in children:
                raise RobotError(urdf, f"joint '{name}'", f"there is no {role} link '{end}'", "mend the URDF")
        if ends[1] in parent_of:
            raise RobotError(urdf, f"joint '{name}'", f"link '{ends[1]}' has two parents", "mend the URDF")
        parent_of[ends[1]] = ends[0]
        children[ends[0]].append(ends[1])
    roots = [link for link in links if link not in parent_of]
    if len(roots) != 1:
        raise RobotError(urdf, "", f"it has {len(roots)} root links {roots}, not one", "join them by fixed joints")
    reached, ahead = set[str](), [roots[0]]
    while ahead:
        link = ahead.pop()
        reached.add(link)
        ahead += children[link]
    if reached != set(links):
        raise RobotError(urdf, "", f"links {sorted(set(links) - reached)} form a loop", "mend the URDF")
    return roots[0]


def _check_joint(joint: JointSpec, element: ElementTree.Element, urdf: str, source: object) -> None:
    """:raises RobotError: the URDF's joint cannot turn, has broken limits, or narrower ones than the spec's."""
    key, place, kind = f"joints.{joint.name}", f"joint '{joint.name}'", element.get("type")
    if kind not in _TURNING:
        raise RobotError(source, key, f"is of type '{kind}'", "only revolute and continuous joints can be driven")
    limit = element.find("limit")
    if limit is None:
        if kind == "revolute":
            raise RobotError(urdf, place, "is revolute and has no <limit>", "add it")
        return
    number: dict[str, float] = {}
    for name in ("lower", "upper", "velocity", "effort"):
        text = limit.get(name, "0")
        try:
            number[name] = float(text)
        except ValueError as error:
            raise RobotError(urdf, place, f"limit {name} '{text}' is no number", "mend the URDF") from error
    if kind == "revolute":
        lower, upper = number["lower"], number["upper"]
        if not lower < upper:
            raise RobotError(urdf, place, f"lower limit {lower} is not below the upper {upper}", "swap them")
        if joint.position[0] < lower - 1e-3 or joint.position[1] > upper + 1e-3:
            raise RobotError(source, f"{key}.position",
                             f"{list(joint.position)} rad is wider than the URDF's [{lower}, {upper}]", "narrow it")
    for name in ("velocity", "effort"):  # many URDFs leave them at 0, which means unknown
        ours, theirs = getattr(joint, name), number[name]
        if 0.0 < theirs * (1.0 + 1e-6) < ours:
            raise RobotError(source, f"{key}.{name}", f"{ours} is more than the URDF's {theirs}", "lower it")

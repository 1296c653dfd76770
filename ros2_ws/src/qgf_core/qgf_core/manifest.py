# SPDX-License-Identifier: Apache-2.0
"""The manifest: everything a robot must know of a policy before it runs it. It travels inside the bundle as JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
import reprlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qgf_core.action import ActionDecoder, ActionSpec
from qgf_core.archive import open_sealed, read_archive
from qgf_core.baseline import Baseline
from qgf_core.config import from_mapping, to_mapping
from qgf_core.errors import BundleError, ConfigError
from qgf_core.interpolator import interpolation_lag, substeps_of
from qgf_core.kinematics import Kinematics
from qgf_core.limiter import Limiter
from qgf_core.observation import UNITS, Aim, ObservationBuilder, ObservationTerm, aim_of
from qgf_core.robot import Box, RobotSpec, strip_meshes
from qgf_core.rotation import Vector, angle_between, unit_quaternion

SCHEMA_VERSION = 2
"""Version 1 knew joint_velocity actions without posture and tool positions as goals only; such bundles are read as
they are."""
_READABLE = (1, 2)
URDF_IN_BUNDLE = "robot.urdf"


@dataclasses.dataclass(frozen=True)
class OrientationRegion:
    """Tool orientations round a middle one."""

    centre: tuple[float, float, float, float]
    """Quaternion x y z w in the base frame."""
    spread: float
    """Greatest angle away from it [rad]."""

    def __post_init__(self) -> None:
        unit_quaternion(self.centre)
        if not 0.0 <= self.spread <= np.pi:
            raise ValueError(f"orientation spread {self.spread} rad lies outside 0 .. pi")

    def contains(self, quaternion: Vector, tolerance: float = 0.0) -> bool:
        """Whether an orientation (4,) is no further from the middle one, but for a tolerance [rad]."""
        return angle_between(quaternion, self.centre) <= self.spread + tolerance


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contract of a policy."""

    task: str
    robot: RobotSpec
    observation: tuple[ObservationTerm, ...]
    action: ActionSpec
    control_rate: float
    """Inference rate that the policy was trained at [Hz]."""
    delay_range: tuple[float, float]
    """Smallest and largest command delay trained on [s]."""
    goal_region: Box | None
    """Goals trained on; others are refused. None for a policy that follows a reference."""
    training: dict[str, Any]
    """Algorithm, losses, seeds, steps, versions."""
    evaluation: dict[str, Any]
    """Figures of the evaluation in simulation: success, return, every smoothness metric."""
    baseline: dict[str, Baseline] = dataclasses.field(default_factory=dict)
    """How smooth the policy was in that evaluation, by signal ("raw_action", "command", "joint_position",
    "joint_velocity") and joint; empty in bundles that do not tell."""
    goal_orientation: OrientationRegion | None = None
    """Orientations of goals trained on; of a policy that is told a pose."""
    command_rate: float = 0.0
    """Rate of the commands that it was trained with [Hz], a multiple of control_rate, on straight lines from action to
    action; 0: that of the control rate, without lines. What the lines cost is told in the JSON as interpolation_lag."""
    reference_speed: float = 1.0
    """Speed of the references trained on as a share of policy_velocity; faster ones are refused."""
    urdf: str = dataclasses.field(default="", repr=False, compare=False)
    """Mesh-free URDF; an entry of its own in the bundle, not part of the JSON."""
    schema_version: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if not 1.0 <= self.control_rate <= 10_000.0:
            raise ValueError(f"control_rate {self.control_rate} Hz lies outside 1..10000")
        if len(self.action.scale) != len(self.robot.joints):
            raise ValueError(f"action has {len(self.action.scale)} entries for {len(self.robot.joints)} joints")
        if not self.observation:
            raise ValueError("observation: at least one term is needed")
        if not 0.0 <= self.delay_range[0] <= self.delay_range[1]:
            raise ValueError(f"delay_range {list(self.delay_range)} must be 0 <= smallest <= largest")
        aim = self.aim
        if (self.goal_region is None) != (aim == "reference"):
            raise ValueError("goal_region: needed by a policy that is told a goal, and by no other; this one is told a "
                             f"{aim}")
        if (self.goal_orientation is None) != (aim != "pose"):
            raise ValueError("goal_orientation: needed by a policy that is told a pose, and by no other; this one is "
                             f"told a {aim}")
        substeps_of(self.control_rate, self.command_rate)
        if not 0.0 < self.reference_speed <= 1.0:
            raise ValueError(f"reference_speed {self.reference_speed} lies outside 0 .. 1")

    @functools.cached_property
    def aim(self) -> Aim:
        """What the policy must be told."""
        return aim_of(self.observation)

    def kinematics(self) -> Kinematics:
        """Forward kinematics of the embedded URDF. :raises RobotError: the URDF does not fit."""
        return Kinematics(self.urdf, self.robot.joint_names, self.robot.tool)

    def observation_builder(self) -> ObservationBuilder:
        """The builder of the declared terms."""
        return ObservationBuilder(self.observation, self.robot, self.kinematics())

    def action_decoder(self) -> ActionDecoder:
        """The decoder of the declared action."""
        return ActionDecoder(self.action, self.robot, self.kinematics(), 1.0 / self.control_rate)

    def velocity_limiter(self) -> Limiter:
        """The limiter of a velocity interface that training used."""
        drive, rate = self.robot.drive, self.control_rate * substeps_of(self.control_rate, self.command_rate)
        return Limiter(self.robot, 1.0 / rate, drive.latency + drive.time_constant)

    @property
    def interpolation_lag(self) -> float:
        """How much later than a staircase of actions the commands of the training came [s]."""
        return interpolation_lag(self.control_rate, self.command_rate)

    def to_json(self) -> str:
        """The manifest without the URDF. :raises BundleError: a value JSON cannot hold."""
        data = to_mapping(self)
        del data["urdf"]
        data["robot"]["urdf"] = URDF_IN_BUNDLE
        data["interpolation_lag"] = self.interpolation_lag
        for term in data["observation"]:
            term["unit"] = UNITS[term["name"]]
        try:
            return json.dumps(data, indent=2, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BundleError(f"manifest: {error}; give finite numbers, strings, lists and mappings only") from error


def make_manifest(**fields: Any) -> Manifest:
    """A manifest whose URDF is stripped of its meshes; arguments are the fields of Manifest."""
    fields["urdf"] = strip_meshes(fields["urdf"])
    return Manifest(**fields)


def parse_manifest(text: str, urdf: str, source: object) -> Manifest:
    """The manifest from its JSON.

    :raises BundleError: not JSON, another schema, unknown or missing fields, bad values.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source}: manifest is not JSON ({error}); export the bundle again") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or version not in _READABLE:
        known = " or ".join(map(str, _READABLE))
        raise BundleError(f"{source}: manifest schema {reprlib.repr(version)} is not {known}; "
                          "export the bundle with this version")
    _take_units(data, source)
    lag = data.pop("interpolation_lag", 0.0)
    try:
        manifest = dataclasses.replace(from_mapping(Manifest, data, source), urdf=urdf)
    except ConfigError as error:
        raise BundleError(f"{error}; the bundle does not keep its contract: export it again") from error
    if type(lag) not in (int, float) or not abs(lag - manifest.interpolation_lag) <= 1e-9:
        raise BundleError(f"{source}: interpolation_lag {reprlib.repr(lag)} s is not that of its rates, "
                          f"{manifest.interpolation_lag:g} s; export the bundle again")
    return manifest


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a bundle whose seal and archive are good; nothing in it is run, torch is not needed.

    :raises BundleError: any defect.
    """
    texts = open_sealed(read_archive(path), path)
    return parse_manifest(texts["manifest.json"], texts["robot.urdf"], path)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _take_units(data: dict[str, Any], source: object) -> None:
    """Takes the units, written for human readers, out of the observation terms. :raises BundleError: they differ."""
    terms = data.get("observation")
    for term in terms if isinstance(terms, list) else ():
        if not isinstance(term, dict):
            continue
        unit, name = term.pop("unit", None), str(term.get("name"))
        if unit != UNITS.get(name):
            raise BundleError(f"{source}: observation term '{name}' has unit {unit!r}, this version knows "
                              f"{UNITS.get(name)!r}; export the bundle with this version")


def check_robot(manifest: Manifest, robot: RobotSpec, urdf: str, source: object) -> None:
    """Whether the policy was made for this arm.

    :param robot: the arm as its own YAML describes it.
    :param urdf: its URDF text.
    :raises BundleError: other joints or order, wider limits, another base frame or tool, other kinematics.
    """
    theirs = manifest.robot
    if theirs.joint_names != robot.joint_names:
        raise BundleError(f"{source}: made for joints {list(theirs.joint_names)} of '{theirs.name}', the robot "
                          f"'{robot.name}' has {list(robot.joint_names)}; choose a bundle for this robot")
    for mine, other in zip(robot.joints, theirs.joints, strict=True):
        if mine.sign != other.sign or abs(mine.home - other.home) > 1e-9:
            raise BundleError(f"{source}: sign or home of joint '{mine.name}' differs from the robot's; "
                              "train with this robot's YAML")
    for limit in ("position_lower", "position_upper", "velocity_limit", "acceleration_limit", "jerk_limit",
                  "effort_limit"):
        ours, bundled = getattr(robot, limit), getattr(theirs, limit)
        outwards = -1.0 if limit == "position_lower" else 1.0
        if limit.startswith("position"):  # the limiter stays the margin away from it
            ours, bundled = ours - outwards * robot.position_margin, bundled - outwards * theirs.position_margin
        wider = np.flatnonzero(outwards * (bundled - ours) > 1e-9)
        if len(wider):
            i = int(wider[0])
            raise BundleError(f"{source}: {limit} {bundled[i]:g} of joint '{robot.joint_names[i]}' is wider than the "
                              f"robot's {ours[i]:g}; train with this robot's YAML")
    if theirs.base_frame != robot.base_frame or theirs.tool != robot.tool:
        raise BundleError(f"{source}: base frame or tool differs ({theirs.base_frame}, {theirs.tool.link} against "
                          f"{robot.base_frame}, {robot.tool.link}); train with this robot's YAML")
    here, there = Kinematics(urdf, robot.joint_names, robot.tool), manifest.kinematics()
    generator = np.random.default_rng(0)
    for _ in range(5):
        q = generator.uniform(robot.position_lower, robot.position_upper)
        distance = float(np.linalg.norm(here.tool_position(q) - there.tool_position(q)))
        if not distance <= 1e-4:  # written so that NaN fails
            raise BundleError(f"{source}: its URDF puts the tool {1e3 * distance:.1f} mm away from where the robot's "
                              "does; train with this robot's URDF")

# SPDX-License-Identifier: Apache-2.0
"""The small interface that environments and the simulation node need of a physics engine, and what all share."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from qgf_core.kinematics import Kinematics
from qgf_core.robot import RobotSpec, ToolSpec, parse_urdf, read_urdf, strip_meshes
from qgf_sim.drive import ActuatorSpec, Drive, actuator_of

Vector = NDArray[np.float64]
Interface = Literal["velocity", "position", "effort", "brake"]
"""What a command to the drives means: [rad/s], [rad], [N m] with the motors off, or nothing: they stop at once."""
PAYLOAD_LINK = "qgf_payload"
POSITION_GAIN = 0.3
"""Share of a position error that the servo makes up for in one physics period."""


class Push(NamedTuple):
    """A force on the arm from outside."""

    joint: str
    """The link that this joint moves is pushed, at the origin of its frame."""
    force: Vector
    """(3,) in the base frame [N]"""


@dataclasses.dataclass(frozen=True)
class PhysicsSpec:
    """What may differ between two arms of the same URDF."""

    mass_factor: float = 1.0
    """Of every link's mass and inertia."""
    inertia_factor: float = 1.0
    """Of every link's inertia about its centre of mass, on top of mass_factor."""
    centre_of_mass: tuple[tuple[float, float, float], ...] = ()
    """Shift of the centre of mass in its link's frame [m], one for each of `massive_links`; empty: none."""
    payload: float = 0.0
    """Point mass at the tool [kg]."""
    joint_damping: float = 0.5
    """[N m s/rad]"""
    effort_factor: float = 1.0
    """Of the torque limits."""
    gravity: tuple[float, float, float] = (0.0, 0.0, -9.81)
    """In the base frame [m/s^2]."""

    def __post_init__(self) -> None:
        for name in ("mass_factor", "inertia_factor", "effort_factor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"physics: {name} {getattr(self, name)} must be positive")
        for name in ("payload", "joint_damping"):
            if getattr(self, name) < 0:
                raise ValueError(f"physics: {name} {getattr(self, name)} must not be negative")


def urdf_with_payload(robot: RobotSpec, urdf: str | None = None) -> str:
    """The robot's URDF without meshes, with a massless link PAYLOAD_LINK at the tool point that a payload can fill.

    :param urdf: in place of the robot's own, and without meshes.
    """
    position = " ".join(f"{value:.9g}" for value in robot.tool.offset)
    link = (f'<link name="{PAYLOAD_LINK}"><inertial><mass value="0"/>'
            '<inertia ixx="0" ixy="0" ixz="0" iyy="0" iyz="0" izz="0"/></inertial></link>')
    joint = (f'<joint name="{PAYLOAD_LINK}_mount" type="fixed"><origin xyz="{position}"/>'
             f'<parent link="{robot.tool.link}"/><child link="{PAYLOAD_LINK}"/></joint>')
    return (urdf or strip_meshes(read_urdf(robot))).replace("</robot>", f"{link}{joint}</robot>")


def massive_links(urdf_text: str) -> tuple[str, ...]:
    """Links that have an <inertial>, in the URDF's order."""
    links = parse_urdf(urdf_text, "URDF").findall("link")
    return tuple(link.get("name", "") for link in links if link.find("inertial") is not None)


def with_shifted_masses(urdf_text: str, shifts: Sequence[tuple[float, float, float]]) -> str:
    """The URDF with the centres of mass of its `massive_links` shifted (k, 3) [m] in their links' frames."""
    root = parse_urdf(urdf_text, "URDF")
    inertials = [found for link in root.findall("link") if (found := link.find("inertial")) is not None]
    for inertial, shift in zip(inertials, shifts, strict=True):
        origin = inertial.find("origin")
        if origin is None:
            origin = ElementTree.SubElement(inertial, "origin")
        place = [float(value) for value in origin.get("xyz", "0 0 0").split()]
        origin.set("xyz", " ".join(f"{a + b:.9g}" for a, b in zip(place, shift, strict=True)))
    return ElementTree.tostring(root, encoding="unicode")


def moved_link(urdf_text: str, joint: str) -> str:
    """The link that a joint moves."""
    found = parse_urdf(urdf_text, "URDF").find(f"joint[@name='{joint}']/child")
    assert found is not None  # the robot was checked against its URDF
    return found.get("link", "")


class SimulatedArm(abc.ABC):
    """One fixed-base arm whose drives follow commands as ActuatorSpec tells.

    Engines fill in the methods below the line; joints are in the robot's order.

    :param robot: which URDF and joints, and how the drives answer.
    :param physics_rate: simulation steps per second [Hz].
    """

    other_joint_names: tuple[str, ...]
    """Movable joints of the URDF that the robot does not name, such as fingers; they are held where they are."""

    def __init__(self, robot: RobotSpec, physics_rate: float) -> None:
        self.robot, self.period = robot, 1.0 / physics_rate
        self._push: Push | None = None
        self._levers: dict[str, tuple[str, Kinematics]] = {}
        self._make_drives(actuator_of(robot.drive))

    def _make_drives(self, actuator: ActuatorSpec) -> None:
        n = len(self.robot.joints)
        self._velocity, self._position, self._effort = (
            Drive(actuator, self.period, n, "velocity"),
            Drive(actuator, self.period, n, "position"),
            Drive(actuator, self.period, n, "effort"),
        )

    def configure(self, actuator: ActuatorSpec, physics: PhysicsSpec) -> None:
        """Other drives and physics, from the next `reset` on, which must follow."""
        self._make_drives(actuator)
        self._set_physics(physics)

    def push(self, push: Push | None) -> None:
        """Push the arm from the next `step` on, until told otherwise, or `reset`."""
        self._push = push

    def _pushed(self, push: Push) -> Vector:
        """Lets a push act in the coming physics step. Returns how far it drives the servos off their speed
        (n,) [rad/s]: its torque by their stiffness, as a servo without integral answers it."""
        joint, force = push
        if joint not in self._levers:
            urdf = strip_meshes(read_urdf(self.robot))
            link = moved_link(urdf, joint)
            self._levers[joint] = link, Kinematics(urdf, self.robot.joint_names, ToolSpec(link))
        link, kinematics = self._levers[joint]
        self._apply_force(link, force)
        return np.asarray(kinematics.tool_jacobian(self.state()[0]).T @ force / self._velocity.spec.stiffness)

    def reset(self, position: Vector) -> None:
        """Put the arm at rest at joint positions (n,) [rad]; forget all commands."""
        self._push = None
        self._place(np.asarray(position, dtype=np.float64))
        self._rest(np.asarray(position))

    def _rest(self, position: Vector) -> None:
        """The drives forget what they were told and stand at `position` (n,) [rad]."""
        for drive in (self._velocity, self._effort):
            drive.reset(np.zeros(len(self.robot.joints)))
        self._braked_periods = self._effort.delay_periods
        self._position.reset(position)
        self._last_position_target = np.array(position, dtype=np.float64)

    def step(
        self, command: Vector, interface: Interface = "velocity", steps: int = 1, period: float | None = None
    ) -> None:
        """Simulate `steps` physics periods with a constant command (n,) to the drives, see `Interface`.

        Efforts are cut to the robot's limits and act against gravity, which nobody compensates.

        :param period: of these steps [s], where it is not the usual one.
        """
        h = self.period if period is None else period
        nanoseconds = None if period is None else round(period * 1e9)
        if interface == "velocity":
            wanted: list[list[float]] = self._velocity.run(command, steps, nanoseconds).tolist()
            if self._push is None:
                self._follow(wanted, h)
            else:
                for velocity in wanted:
                    self._drive_velocity(self._yielding(velocity), h)
                    self._simulate(h)
        elif interface == "position":
            targets = self._position.run(command, steps, nanoseconds)
            # Feeding the target's velocity forward keeps the servo's lag at the drive's own.
            velocities = np.diff(targets, axis=0, prepend=self._last_position_target[None]) / h
            self._last_position_target = targets[-1]
            for target, velocity in zip(targets.tolist(), velocities.tolist(), strict=True):
                self._drive_position(target, self._yielding(velocity), h)
                self._simulate(h)
        elif interface == "effort":
            limit = self.robot.effort_limit
            for torque in np.clip(self._effort.run(command, steps, nanoseconds), -limit, limit):
                if self._push is not None:
                    self._pushed(self._push)
                if self._braked_periods > 0:  # the brakes are released when the first torque takes effect, not before
                    self._braked_periods -= 1
                    self._drive_velocity([0.0] * torque.size, h)
                else:
                    self._drive_torque((torque - self._friction_torque()).tolist())
                self._simulate(h)
        else:
            for _ in range(steps):
                if self._push is not None:
                    self._pushed(self._push)
                self._drive_velocity([0.0] * len(self.robot.joints), h)
                self._simulate(h)
                self._rest(self.state()[0])

    def _yielding(self, velocity: list[float]) -> list[float]:
        """The speeds (n,) [rad/s] of servos that are asked for `velocity`, in a physics step with the present push."""
        if self._push is None:
            return velocity
        pushed: list[float] = (velocity + self._pushed(self._push)).tolist()
        return pushed

    def _follow(self, velocities: list[list[float]], period: float) -> None:
        """Simulate as many periods [s] as there are velocities (n,) [rad/s] to reach in them."""
        for velocity in velocities:
            self._drive_velocity(velocity, period)
            self._simulate(period)

    def _friction_torque(self) -> Vector | float:
        spec = self._effort.spec
        return self._effort.friction_torque(self.state()[1]) if spec.coulomb or spec.viscous else 0.0

    @abc.abstractmethod
    def state(self) -> tuple[Vector, Vector]:
        """True joint positions (n,) [rad] and velocities (n,) [rad/s]."""

    @abc.abstractmethod
    def other_state(self) -> tuple[Vector, Vector]:
        """The same of the joints that nobody drives, such as fingers: (m,) [rad or m] and [rad/s or m/s]."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the engine's memory back."""

    # ---- what an engine fills in -------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _place(self, position: Vector) -> None:
        """All joints at rest, the robot's at `position` (n,) [rad]."""

    @abc.abstractmethod
    def _set_physics(self, physics: PhysicsSpec) -> None: ...

    @abc.abstractmethod
    def _apply_force(self, link: str, force: Vector) -> None:
        """A force (3,) [N] in the base frame on the origin of a link's frame, in the coming physics step only."""

    @abc.abstractmethod
    def _drive_velocity(self, velocity: list[float], period: float) -> None:
        """Reach `velocity` (n,) [rad/s] by the end of the coming period [s], as far as the efforts suffice."""

    @abc.abstractmethod
    def _drive_position(self, position: list[float], velocity: list[float], period: float) -> None:
        """The same for `velocity` plus POSITION_GAIN of the distance to `position` (n,) [rad] per period."""

    @abc.abstractmethod
    def _drive_torque(self, torque: list[float]) -> None:
        """Apply `torque` (n,) [N m] in the coming period."""

    @abc.abstractmethod
    def _simulate(self, period: float) -> None:
        """One physics step [s]."""

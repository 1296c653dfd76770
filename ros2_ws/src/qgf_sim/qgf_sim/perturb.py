# SPDX-License-Identifier: Apache-2.0
"""Differences between the simulated arm and a real one, drawn anew for each episode."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from qgf_core.config import find_config, from_mapping, load_yaml
from qgf_core.robot import RobotSpec, read_urdf
from qgf_sim.drive import ActuatorSpec, actuator_of
from qgf_sim.engine import PhysicsSpec, massive_links
from qgf_sim.sensors import SensorSpec

_GRAVITY = 9.81
_LEAST_FACTOR = 0.01


def evenly(generator: np.random.Generator, lower: float, upper: float) -> float:
    """What `generator.uniform(lower, upper)` draws, to the bit, at a third of its cost."""
    return lower + (upper - lower) * generator.random()


@dataclasses.dataclass(frozen=True)
class Distribution:
    """One of these; in YAML as `{uniform: [0.0, 0.04]}`."""

    uniform: tuple[float, float] | None = None
    """From, to."""
    log_uniform: tuple[float, float] | None = None
    """From, to, both positive; as often in each doubling."""
    normal: tuple[float, float] | None = None
    """Mean, standard deviation."""
    fixed: float | None = None
    """Always this."""

    def __post_init__(self) -> None:
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of uniform, log_uniform, normal, fixed, not {' and '.join(given) or 'none'}")
        for name in ("uniform", "log_uniform"):
            ends = getattr(self, name)
            if ends is not None and not ends[0] <= ends[1]:
                raise ValueError(f"{name}: {ends[0]} is above {ends[1]}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform: {self.log_uniform[0]} must be positive")
        if self.normal is not None and self.normal[1] < 0:
            raise ValueError(f"normal: standard deviation {self.normal[1]} must not be negative")

    def draw(self, generator: np.random.Generator) -> float:
        """One value; a fixed one draws nothing."""
        if self.uniform is not None:
            return evenly(generator, *self.uniform)
        if self.log_uniform is not None:
            return math.exp(evenly(generator, math.log(self.log_uniform[0]), math.log(self.log_uniform[1])))
        if self.normal is not None:
            return float(generator.normal(*self.normal))
        assert self.fixed is not None  # by __post_init__
        return self.fixed


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Every field of config/perturb/*.yaml; what is left out stays as the robot and the task have it.

    Values that make no sense, such as a negative delay from a normal distribution, are cut to the nearest that does.
    """

    delay: Distribution | None = None
    """Added to the drives' latency [s]."""
    time_constant: Distribution | None = None
    """Factor on the servo's."""
    damping_ratio: Distribution | None = None
    """Makes the servo one of second order."""
    gain: Distribution | None = None
    """Speed reached by speed asked for."""
    coulomb: Distribution | None = None
    """Dry friction [N m]."""
    viscous: Distribution | None = None
    """Friction by speed that the servo sees [N m s/rad]."""
    stiffness: Distribution | None = None
    """Torque of the servo by error of speed [N m s/rad], see ActuatorSpec."""
    backlash: Distribution | None = None
    """Play of the gears [rad]."""
    top_speed: Distribution | None = None
    """Where the servo's speed saturates [rad/s]."""
    effort_factor: Distribution | None = None
    """Of the torque limits."""
    mass_factor: Distribution | None = None
    """Of every link's mass and inertia."""
    inertia_factor: Distribution | None = None
    """Of every link's inertia about its centre of mass, on top of mass_factor."""
    centre_of_mass: Distribution | None = None
    """Shift of each link's centre of mass along each axis of its frame [m], drawn for each."""
    payload: Distribution | None = None
    """Point mass at the tool [kg]."""
    joint_damping: Distribution | None = None
    """Factor on the simulated one."""
    gravity_tilt: Distribution | None = None
    """Angle between gravity and the base's z axis [rad], towards a direction that is drawn evenly."""
    noise: Distribution | None = None
    """Factor on the noise of positions and velocities."""
    position_bias: Distribution | None = None
    """Constant error of each encoder [rad], drawn per joint."""
    position_quantum: Distribution | None = None
    """Step of the encoders [rad]."""
    velocity_filter: Distribution | None = None
    """Time constant of the driver's low-pass on velocities [s]."""
    state_delay: Distribution | None = None
    """Age of a state when it is read [s]."""
    dropout: Distribution | None = None
    """Share of states that never arrive."""
    period_jitter: Distribution | None = None
    """Each control period is longer or shorter by up to this share of it, drawn evenly."""


class Drawn(NamedTuple):
    """One episode's arm."""

    actuator: ActuatorSpec
    physics: PhysicsSpec
    sensor: SensorSpec
    period_jitter: float
    values: dict[str, float | list[float]]
    """What was drawn, by the names of Perturbation."""


def load_perturbation(name: str) -> Perturbation:
    """config/perturb/<name>.yaml or a YAML file. :raises ConfigError: unknown name, key or value."""
    path = find_config("perturb", name)
    return from_mapping(Perturbation, load_yaml(path), path)


def draw(
    perturbation: Perturbation, robot: RobotSpec, sensor: SensorSpec, generator: np.random.Generator, share: float = 1.0
) -> Drawn:
    """An episode's arm: `robot` with the task's `sensor`, and what `perturbation` changes of both.

    :param share: how far from the robot's own value towards the drawn one; a curriculum begins below 1.
    """
    values: dict[str, float | list[float]] = {}

    def shared(drawn: float, nominal: float) -> float:
        return drawn if share == 1.0 or math.isinf(nominal) else nominal + share * (drawn - nominal)

    def value(name: str, otherwise: float, least: float = 0.0, most: float = math.inf) -> float:
        distribution: Distribution | None = getattr(perturbation, name)
        if distribution is None:
            return otherwise
        values[name] = drawn = min(max(shared(distribution.draw(generator), otherwise), least), most)
        return drawn

    nominal = actuator_of(robot.drive)
    actuator = ActuatorSpec(
        delay=nominal.delay + value("delay", 0.0, -nominal.delay),
        time_constant=nominal.time_constant * value("time_constant", 1.0),
        damping_ratio=value("damping_ratio", nominal.damping_ratio),
        gain=value("gain", nominal.gain, _LEAST_FACTOR),
        coulomb=value("coulomb", nominal.coulomb),
        viscous=value("viscous", nominal.viscous),
        stiffness=value("stiffness", nominal.stiffness, _LEAST_FACTOR),
        backlash=value("backlash", nominal.backlash),
        top_speed=value("top_speed", nominal.top_speed, _LEAST_FACTOR),
    )
    physics = PhysicsSpec(
        mass_factor=value("mass_factor", 1.0, _LEAST_FACTOR),
        inertia_factor=value("inertia_factor", 1.0, _LEAST_FACTOR),
        payload=value("payload", 0.0),
        joint_damping=robot.drive.joint_damping * value("joint_damping", 1.0),
        effort_factor=value("effort_factor", 1.0, _LEAST_FACTOR),
    )
    if perturbation.centre_of_mass is not None:
        links = massive_links(read_urdf(robot))
        flat = [shared(perturbation.centre_of_mass.draw(generator), 0.0) for _ in range(3 * len(links))]
        values["centre_of_mass"] = flat
        shifts = tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3))
        physics = dataclasses.replace(physics, centre_of_mass=shifts)
    if perturbation.gravity_tilt is not None:
        tilt, towards = value("gravity_tilt", 0.0, -math.pi), float(generator.uniform(-math.pi, math.pi))
        values["gravity_direction"] = towards
        physics = dataclasses.replace(physics, gravity=(
            _GRAVITY * math.sin(tilt) * math.cos(towards), _GRAVITY * math.sin(tilt) * math.sin(towards),
            -_GRAVITY * math.cos(tilt)))
    factor = value("noise", 1.0)
    bias: tuple[float, ...] = ()
    if perturbation.position_bias is not None:
        bias = tuple(shared(perturbation.position_bias.draw(generator), 0.0) for _ in robot.joints)
        values["position_bias"] = list(bias)
    position_noise, velocity_noise = sensor.position_noise, sensor.velocity_noise
    if robot.identified is not None and position_noise > 0.0:  # what was measured takes the place of the task's guess
        position_noise, velocity_noise = map(robot.identified.typical, ("position_noise", "velocity_noise"))
    sensor = SensorSpec(
        position_noise=factor * position_noise,
        velocity_noise=factor * velocity_noise,
        position_bias=bias,
        position_quantum=value("position_quantum", 0.0),
        velocity_filter=value("velocity_filter", 0.0),
        delay=value("state_delay", 0.0),
        dropout=value("dropout", 0.0, 0.0, 0.99),
    )
    return Drawn(actuator, physics, sensor, value("period_jitter", 0.0, 0.0, 0.9), values)

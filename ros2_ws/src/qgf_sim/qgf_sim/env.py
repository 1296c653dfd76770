# SPDX-License-Identifier: Apache-2.0
"""A task as a Gymnasium environment: the same observation, decoder and limiter as on the robot, over simulated
physics."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from qgf_core.action import ActionDecoder
from qgf_core.interpolator import Interpolator
from qgf_core.kinematics import Kinematics
from qgf_core.limiter import LimitedCommand, Limiter
from qgf_core.observation import ObservationBuilder
from qgf_core.reference import JointReference
from qgf_core.robot import RobotSpec, load_robot, read_urdf, strip_meshes
from qgf_sim.drive import actuator_of
from qgf_sim.effort import following_torque
from qgf_sim.engine import PhysicsSpec
from qgf_sim.engines import Engine, make_arm
from qgf_sim.perturb import Perturbation, draw, evenly
from qgf_sim.sensors import SensorSpec, StateSensor
from qgf_sim.task import TaskConfig
from qgf_sim.tasks import load_task, make_task


class ArmEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """An arm with a task.

    An action in [-1, 1]^n means what the task's `action` says, by default a share of policy_velocity. It takes effect
    after the drive's latency. The measured state carries noise; reward and success come from the true one.

    :param robot: name, YAML path or RobotSpec.
    :param config: task, or its name in config/tasks.
    :param sensor_noise: whether the measured state carries noise.
    :param engine: the physics, see qgf_sim.engines.
    :param perturbation: what differs from the robot's own drives, physics and sensors; drawn for each episode, and told
        in the `info` of `reset` as `perturbation`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        robot: str | RobotSpec = "panda",
        config: TaskConfig | str = "reach",
        sensor_noise: bool = True,
        gui: bool = False,
        engine: Engine = "pybullet",
        perturbation: Perturbation | None = None,
    ) -> None:
        self.robot = load_robot(robot) if isinstance(robot, str) else robot
        self.config = load_task(config) if isinstance(config, str) else config
        noise = (self.config.position_noise, self.config.velocity_noise) if sensor_noise else (0.0, 0.0)
        self._sensor_spec = SensorSpec(*noise)
        self._sensor = StateSensor(self._sensor_spec)
        self._perturbation, self._period_jitter = perturbation, 0.0
        self.urdf = read_urdf(self.robot)
        self._kinematics = Kinematics(strip_meshes(self.urdf), self.robot.joint_names, self.robot.tool)
        self.task = make_task(self.config, self.robot, self._kinematics)
        self._builder = ObservationBuilder(self.config.observation, self.robot, self._kinematics)
        rate, period = self.config.control_rate, 1.0 / self.config.control_rate
        self.action_spec = self.config.action.spec(self.robot, rate, self.task.posture_task)
        self._decoder = ActionDecoder(self.action_spec, self.robot, self._kinematics, period)
        self._interface = self.config.action.interface
        drive = self.robot.drive
        # As the runner does it: positions are limited by what was commanded, velocities by what is measured.
        self._closed_loop = self._interface == "velocity"
        commands = self.config.commands
        response = drive.latency + drive.time_constant if self._closed_loop else 0.0
        self._limiter = Limiter(self.robot, 1.0 / (rate * commands), response)
        self._interpolator = Interpolator(len(self.robot.joints), commands)
        payload = perturbation is not None and perturbation.payload is not None
        self._arm = make_arm(engine, self.robot, self.config.stepped_rate, gui, payload)
        n = len(self.robot.joints)
        self.observation_space = spaces.Box(-100.0, 100.0, (self._builder.size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (n,), np.float32)
        self.goal = np.zeros(3)
        self.reference: JointReference | None = None
        self._previous_action = np.zeros(n)
        self._measured = (np.zeros(n), np.zeros(n))
        self._distance = 0.0
        self._steps = self._time = 0
        self._control_period, self._period = period, round(1e9 * period)
        self._substeps, self._last_step = self.config.substeps // commands, self.config.episode_steps

    @property
    def observation_terms(self) -> list[tuple[int, int]]:
        """Numbers in a sample, and samples, of each part of the observation, in its order."""
        return [(term.width(len(self.robot.joints)), term.history) for term in self._builder.terms]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode. `options` may hold `start` (n,) [rad] and `goal` (3,) [m], or (7,) with a quaternion, or
        `reference` in place of drawn ones; `continue: True` leaves the arm as it is, in the middle of its motion, and
        only draws what it is to do next."""
        super().reset(seed=seed)
        given = options or {}
        goes_on = bool(given.get("continue"))
        start = self._true[0] if goes_on else given.get("start")
        episode = self.task.draw(self.np_random, None if start is None else np.asarray(start, dtype=np.float64))
        if "goal" in given:
            episode = episode._replace(goal=np.asarray(given["goal"], dtype=np.float64))
        if "reference" in given:
            episode = episode._replace(reference=given["reference"])
        self.goal, self.reference = episode.goal, episode.reference
        drawn: dict[str, float | list[float]] = {}
        self._steps = self._time = 0
        if goes_on:
            observation = self._build()
        else:
            drawn = self._draw_arm()
            self._arm.reset(episode.start)
            self._sensor.reset()
            self._builder.reset()
            self._previous_action = np.zeros(len(self.robot.joints))
            observation = self._observe()
            self._limiter.reset(self._measured[0])
            self._interpolator.restart(self._limiter.velocity)
        self._distance = self.task.begin(episode, self._true[0])
        return observation, {
            "goal": self.goal.copy(),
            "start": episode.start,
            "distance": self._distance,
            "measured": self._measured,
            "perturbation": drawn,
            **episode.told,
        }

    def _draw_arm(self) -> dict[str, float | list[float]]:
        """The arm of this episode; returns what was drawn. After goal and start, which stay those of the seed."""
        if self._perturbation is None:
            return {}
        drawn = draw(self._perturbation, self.robot, self._sensor_spec, self.np_random, self.task.difficulty)
        self._arm.configure(drawn.actuator, drawn.physics)
        self._sensor = StateSensor(drawn.sensor)
        self._period_jitter = drawn.period_jitter
        return drawn.values

    def without_perturbation(self) -> None:
        """From the next `reset` on, the robot's own arm."""
        if self._perturbation is not None:
            drive = self.robot.drive
            self._arm.configure(actuator_of(drive), PhysicsSpec(joint_damping=drive.joint_damping))
            self._sensor = StateSensor(self._sensor_spec)
            self._perturbation, self._period_jitter = None, 0.0

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One control period.

        `info`: distance (the task's error [m or rad]), is_success, reward_terms, the last limited command [rad/s], what
        the drives were sent (the same, or [rad] or [N m]), the measured state and the true joint velocity [rad/s].
        """
        taken = np.array(action, dtype=np.float64)
        if not all(map(math.isfinite, taken.tolist())):
            raise ValueError(f"action {action} is not finite")
        base = self._measured[0] if self._closed_loop else self._limiter.position
        last = self._limiter.velocity if self._interface == "effort" else None
        self._interpolator.aim(self._decoder.decode(taken, base, last))
        period, elapsed = None, self._control_period
        if self._period_jitter > 0.0:
            stretch = 1.0 + evenly(self.np_random, -self._period_jitter, self._period_jitter)
            period, elapsed = stretch * self._arm.period, stretch * elapsed
        self._arm.push(self.task.push(1e-9 * self._time))
        commands = self._interpolator.substeps
        for k in range(commands):
            if k:  # the limiter goes by the state at each command, as on the arm
                self._sense(elapsed / commands)
            command = self._limiter.step(self._interpolator.step(), self._measured[0] if self._closed_loop else None)
            sent = command.velocity if self._closed_loop else self._sent(command)
            self._arm.step(sent, self._interface, self._substeps, period)
        self._time += self._period if period is None else round(1e9 * elapsed)
        self._previous_action = taken
        self._sense(elapsed / commands)
        observation = self._build()
        self._distance, terms = self.task.measure(self._true[0], taken, 1e-9 * self._time)
        self._steps += 1
        info = {
            "distance": self._distance,
            "is_success": self.succeeded,
            "reward_terms": terms,
            "command": command.velocity,
            "sent": sent,
            "measured": self._measured,
            "joint_velocity": self._true[1],
        }
        return observation, sum(terms.values()), False, self._steps >= self._last_step, info

    def _sent(self, command: LimitedCommand) -> NDArray[np.float64]:
        """What drives that do not follow velocities get (n,)."""
        if self._interface == "position":
            return command.position
        return following_torque(self._kinematics, command, *self._measured, self.robot.drive.joint_damping)

    def _sense(self, elapsed: float) -> None:
        self._true = self._arm.state()
        self._measured = self._sensor.measure(*self._true, elapsed, self.np_random)

    def _observe(self, elapsed: float = 0.0) -> NDArray[np.float32]:
        self._sense(elapsed)
        return self._build()

    def _build(self) -> NDArray[np.float32]:
        return self._builder.build(
            *self._measured, self._previous_action, self.goal, self.reference, 1e-9 * self._time)

    @property
    def joint_position(self) -> NDArray[np.float64]:
        """True joint positions (n,) [rad] now."""
        return self._true[0].copy()

    @property
    def succeeded(self) -> bool:
        """Whether the error is within the task's tolerance now."""
        return self._distance <= self.task.tolerance

    def close(self) -> None:
        """Leave the physics client."""
        self._arm.close()

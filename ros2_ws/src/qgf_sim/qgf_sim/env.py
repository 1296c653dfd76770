# SPDX-License-Identifier: Apache-2.0
"""The reach task as a Gymnasium environment: the same observation, decoder and limiter as on the robot, over
PyBullet."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from qgf_core.action import ActionDecoder, ActionSpec
from qgf_core.kinematics import Kinematics
from qgf_core.limiter import Limiter
from qgf_core.observation import ObservationBuilder
from qgf_core.robot import RobotSpec, load_robot, read_urdf, strip_meshes
from qgf_sim.drive import actuator_of
from qgf_sim.engine import PhysicsSpec
from qgf_sim.engines import Engine, make_arm
from qgf_sim.perturb import Perturbation, draw
from qgf_sim.reach import ReachConfig, draw_episode, load_reach, reward_terms
from qgf_sim.sensors import SensorSpec, StateSensor


class ReachEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Bring the tool to a goal with joint velocity commands.

    An action in [-1, 1]^n is a share of policy_velocity. It takes effect after the drive's latency. The measured state
    carries noise; reward and success come from the true one.

    :param robot: name, YAML path or RobotSpec.
    :param config: task; by default config/tasks/reach.yaml.
    :param sensor_noise: whether the measured state carries noise.
    :param engine: the physics, see qgf_sim.engines.
    :param perturbation: what differs from the robot's own drives, physics and sensors; drawn for each episode, and told
        in the `info` of `reset` as `perturbation`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        robot: str | RobotSpec = "panda",
        config: ReachConfig | None = None,
        sensor_noise: bool = True,
        gui: bool = False,
        engine: Engine = "pybullet",
        perturbation: Perturbation | None = None,
    ) -> None:
        self.robot = load_robot(robot) if isinstance(robot, str) else robot
        self.config = load_reach() if config is None else config
        noise = (self.config.position_noise, self.config.velocity_noise) if sensor_noise else (0.0, 0.0)
        self._sensor_spec = SensorSpec(*noise)
        self._sensor = StateSensor(self._sensor_spec)
        self._perturbation, self._period_jitter = perturbation, 0.0
        self.urdf = read_urdf(self.robot)
        self._kinematics = Kinematics(strip_meshes(self.urdf), self.robot.joint_names, self.robot.tool)
        self._builder = ObservationBuilder(self.config.observation, self.robot, self._kinematics)
        self.action_spec = ActionSpec("joint_velocity", tuple(self.robot.policy_velocity))
        self._decoder = ActionDecoder(self.action_spec)
        drive = self.robot.drive
        self._limiter = Limiter(self.robot, 1.0 / self.config.control_rate, drive.latency + drive.time_constant)
        payload = perturbation is not None and perturbation.payload is not None
        self._arm = make_arm(engine, self.robot, self.config.physics_rate, gui, payload)
        n = len(self.robot.joints)
        self.observation_space = spaces.Box(-100.0, 100.0, (self._builder.size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (n,), np.float32)
        self.goal = np.zeros(3)
        self._previous_action = np.zeros(n)
        self._measured = (np.zeros(n), np.zeros(n))
        self._distance = 0.0
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode. `options` may hold `start` (n,) [rad] and `goal` (3,) [m] in place of drawn ones."""
        super().reset(seed=seed)
        given = options or {}
        drawn_start, drawn_goal = draw_episode(self.config, self.robot, self.np_random)
        start = np.asarray(given.get("start", drawn_start), dtype=np.float64)
        self.goal = np.asarray(given.get("goal", drawn_goal), dtype=np.float64)
        drawn = self._draw_arm()
        self._arm.reset(start)
        self._sensor.reset()
        self._builder.reset()
        self._previous_action = np.zeros(len(self.robot.joints))
        self._steps = 0
        observation = self._observe()
        self._limiter.reset(self._measured[0])
        self._distance = self._true_distance()
        return observation, {
            "goal": self.goal.copy(),
            "start": start,
            "distance": self._distance,
            "measured": self._measured,
            "perturbation": drawn,
        }

    def _draw_arm(self) -> dict[str, float | list[float]]:
        """The arm of this episode; returns what was drawn. After goal and start, which stay those of the seed."""
        if self._perturbation is None:
            return {}
        drawn = draw(self._perturbation, self.robot, self._sensor_spec, self.np_random)
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
        """One control period. `info`: distance [m], is_success, reward_terms, the limited command [rad/s], the
        measured state and the true joint velocity [rad/s]."""
        if not np.isfinite(action).all():
            raise ValueError(f"action {action} is not finite")
        command = self._limiter.step(self._decoder.decode(action), self._measured[0])
        period, elapsed = None, 1.0 / self.config.control_rate
        if self._period_jitter > 0.0:
            stretch = 1.0 + self.np_random.uniform(-self._period_jitter, self._period_jitter)
            period, elapsed = stretch * self._arm.period, stretch * elapsed
        self._arm.step(command.velocity, steps=self.config.substeps, period=period)
        self._previous_action = np.asarray(action, dtype=np.float64)
        observation = self._observe(elapsed)
        previous, self._distance = self._distance, self._true_distance()
        terms = reward_terms(self.config, self._distance, previous, action)
        self._steps += 1
        truncated = self._steps >= self.config.episode_steps
        info = {
            "distance": self._distance,
            "is_success": self.succeeded,
            "reward_terms": terms,
            "command": command.velocity,
            "measured": self._measured,
            "joint_velocity": self._true[1],
        }
        return observation, sum(terms.values()), False, truncated, info

    def _observe(self, elapsed: float = 0.0) -> NDArray[np.float32]:
        self._true = self._arm.state()
        self._measured = self._sensor.measure(*self._true, elapsed, self.np_random)
        return self._builder.build(*self._measured, self._previous_action, self.goal)

    @property
    def joint_position(self) -> NDArray[np.float64]:
        """True joint positions (n,) [rad] now."""
        return self._true[0].copy()

    @property
    def succeeded(self) -> bool:
        """Whether the tool is within the goal tolerance now."""
        return self._distance <= self.config.goal_tolerance

    def _true_distance(self) -> float:
        return float(np.linalg.norm(self._kinematics.tool_position(self._true[0]) - self.goal))

    def close(self) -> None:
        """Leave the physics client."""
        self._arm.close()

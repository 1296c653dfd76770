# SPDX-License-Identifier: Apache-2.0
"""The reach task: its configuration, goals, reward and what success means. No physics here."""

from __future__ import annotations

import dataclasses

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from qgf_core.config import find_config, from_mapping, load_yaml
from qgf_core.manifest import Box
from qgf_core.observation import ObservationTerm
from qgf_core.robot import RobotSpec

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ReachReward:
    """Weights of the reward terms, by name."""

    progress: float = 40.0
    distance: float = -1.0
    precision: float = 1.0
    effort: float = -0.05


@dataclasses.dataclass(frozen=True)
class ReachConfig:
    """The reach task; every field of config/tasks/reach.yaml."""

    observation: tuple[ObservationTerm, ...]
    goal_region: Box
    control_rate: float = 50.0
    """[Hz]"""
    physics_rate: float = 200.0
    """[Hz]"""
    episode_steps: int = 150
    start_spread: float = 0.2
    """[rad]"""
    position_noise: float = 0.002
    """[rad]"""
    velocity_noise: float = 0.02
    """[rad/s]"""
    goal_tolerance: float = 0.03
    """[m]"""
    reward: ReachReward = ReachReward()
    precision_width: float = 0.04
    """[m]"""

    def __post_init__(self) -> None:
        for name in ("control_rate", "physics_rate", "episode_steps", "goal_tolerance", "precision_width"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")
        for name in ("start_spread", "position_noise", "velocity_noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        ratio = self.physics_rate / self.control_rate
        if ratio < 1 or abs(ratio - round(ratio)) > 1e-9:
            raise ValueError(
                f"physics_rate {self.physics_rate} Hz must be a multiple of control_rate {self.control_rate} Hz"
            )

    @property
    def substeps(self) -> int:
        """Physics steps in a control step."""
        return round(self.physics_rate / self.control_rate)


def load_reach(name: str = "reach") -> ReachConfig:
    """The task in config/tasks/<name>.yaml or a YAML file. :raises ConfigError: unknown task, key or value."""
    path = find_config("tasks", name)
    return from_mapping(ReachConfig, load_yaml(path), path)


def draw_episode(config: ReachConfig, robot: RobotSpec, generator: np.random.Generator) -> tuple[Vector, Vector]:
    """Start pose (n,) [rad] round home and goal (3,) [m] in the base frame of one episode."""
    start = robot.home + generator.uniform(-config.start_spread, config.start_spread, len(robot.joints))
    start = np.clip(start, robot.position_lower + robot.position_margin, robot.position_upper - robot.position_margin)
    return start, generator.uniform(config.goal_region.lower, config.goal_region.upper)


def seeded_episode(config: ReachConfig, robot: RobotSpec, seed: int) -> tuple[Vector, Vector]:
    """The start pose and goal of the episode that `env.reset(seed=seed)` begins."""
    return draw_episode(config, robot, seeding.np_random(seed)[0])


def reward_terms(
    config: ReachConfig, distance: float, previous_distance: float, action: NDArray[np.floating]
) -> dict[str, float]:
    """The reward's terms by name; the reward is their sum. Distances [m], action (n,) in [-1, 1]."""
    weights = config.reward
    return {
        "progress": weights.progress * (previous_distance - distance),
        "distance": weights.distance * distance,
        "precision": weights.precision * float(np.exp(-((distance / config.precision_width) ** 2))),
        "effort": weights.effort * float(np.mean(np.square(action))),
    }

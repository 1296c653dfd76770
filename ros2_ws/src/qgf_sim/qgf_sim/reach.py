# SPDX-License-Identifier: Apache-2.0
"""The reach task: its configuration, goals, reward and what success means. No physics here."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from qgf_core.config import find_config, from_mapping, load_yaml
from qgf_core.errors import ConfigError
from qgf_core.manifest import Box
from qgf_core.robot import RobotSpec
from qgf_sim.task import Drawn, ManifestFields, Task, TaskConfig, draw_start

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ReachReward:
    """Weights of the reward terms, by name."""

    progress: float = 40.0
    distance: float = -1.0
    precision: float = 1.0
    effort: float = -0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReachConfig(TaskConfig):
    """The reach task; every field of config/tasks/reach.yaml."""

    goal_region: Box
    goal_tolerance: float = 0.03
    """[m]"""
    reward: ReachReward = ReachReward()
    precision_width: float = 0.04
    """[m]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.demand("be positive", "goal_tolerance", "precision_width")


class ReachTask(Task):
    """Bring the tool to a position."""

    error_figure = "final_distance_mm"
    config: ReachConfig

    @property
    def tolerance(self) -> float:  # type: ignore[override]
        """[m]"""
        return self.config.goal_tolerance

    def draw(self, generator: np.random.Generator, start: Vector | None) -> Drawn:
        """Start and goal."""
        drawn_start, goal = draw_episode(self.config, self.robot, generator, self.difficulty)
        return Drawn(drawn_start if start is None else start, goal)

    def begin(self, drawn: Drawn, position: Vector) -> float:
        """Distance to the goal [m]."""
        self._goal = drawn.goal
        self._distance = self.error(position)
        return self._distance

    def measure(self, position: Vector, action: NDArray[np.floating], time: float) -> tuple[float, dict[str, float]]:
        """Distance to the goal [m], and reward terms."""
        previous, self._distance = self._distance, self.error(position)
        return self._distance, reward_terms(self.config, self._distance, previous, action)

    def fields(self) -> ManifestFields:
        """Where goals lie."""
        return ManifestFields(self.config.goal_region)

    def error(self, position: Vector) -> float:
        """Distance to the goal [m] from joint positions (n,) [rad]."""
        return self.kinematics.tool_distance(position, self._goal)


def load_reach(name: str = "reach") -> ReachConfig:
    """The task in config/tasks/<name>.yaml or a YAML file. :raises ConfigError: unknown task, key or value."""
    path = find_config("tasks", name)
    data = load_yaml(path)
    kind = data.pop("kind", "reach")
    if kind != "reach":
        raise ConfigError(path, "kind", f"'{kind}' is not reach", "choose a task of that kind")
    return from_mapping(ReachConfig, data, path)


def draw_in_box(box: Box, generator: np.random.Generator, share: float = 1.0) -> Vector:
    """A point (3,) in a box; with a `share` below 1 in the box shrunk to that size about its middle."""
    if share == 1.0:
        return np.asarray(generator.uniform(box.lower, box.upper))
    middle, half = 0.5 * np.add(box.lower, box.upper), 0.5 * share * np.subtract(box.upper, box.lower)
    return np.asarray(generator.uniform(middle - half, middle + half))


def draw_episode(
    config: ReachConfig, robot: RobotSpec, generator: np.random.Generator, share: float = 1.0
) -> tuple[Vector, Vector]:
    """Start pose (n,) [rad] round home and goal (3,) [m] in the base frame of one episode.

    :param share: of the start's spread and of the goal region's size.
    """
    start = draw_start(config, robot, generator, share)
    return start, draw_in_box(config.goal_region, generator, share)


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
        "precision": weights.precision * math.exp(-((distance / config.precision_width) ** 2)),
        "effort": weights.effort * float(action.dot(action)) / action.size,
    }

# SPDX-License-Identifier: Apache-2.0
"""The tasks by name."""

from __future__ import annotations

from typing import NamedTuple

from qgf_core.config import find_config, from_mapping, load_yaml
from qgf_core.errors import ConfigError
from qgf_core.kinematics import Kinematics
from qgf_core.robot import RobotSpec
from qgf_sim.hold import HoldConfig, HoldTask
from qgf_sim.reach import ReachConfig, ReachTask
from qgf_sim.reach_pose import ReachPoseConfig, ReachPoseTask
from qgf_sim.task import Task, TaskConfig
from qgf_sim.track import TrackConfig, TrackTask


class TaskKind(NamedTuple):
    """The two classes of a task."""

    config: type[TaskConfig]
    task: type[Task]


KINDS: dict[str, TaskKind] = {
    "reach": TaskKind(ReachConfig, ReachTask),
    "reach_pose": TaskKind(ReachPoseConfig, ReachPoseTask),
    "track": TaskKind(TrackConfig, TrackTask),
    "hold": TaskKind(HoldConfig, HoldTask),
}
"""By the word `kind` of a task's YAML; without one it is reach."""


def load_task(name: str) -> TaskConfig:
    """The task in config/tasks/<name>.yaml or a YAML file. :raises ConfigError: unknown task, kind, key or value."""
    path = find_config("tasks", name)
    data = load_yaml(path)
    kind = data.pop("kind", "reach")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(path, "kind", f"'{kind}' is not known", f"choose one of: {', '.join(KINDS)}")
    return from_mapping(KINDS[kind].config, data, path)


def kind_of(config: TaskConfig) -> str:
    """The word for a task's kind."""
    return next(name for name, kind in KINDS.items() if type(config) is kind.config)


def make_task(config: TaskConfig, robot: RobotSpec, kinematics: Kinematics) -> Task:
    """The task that a configuration describes, on an arm."""
    return KINDS[kind_of(config)].task(config, robot, kinematics)

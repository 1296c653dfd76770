# SPDX-License-Identifier: Apache-2.0
"""The hold task: keep the pose while something pushes the arm."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qgf_core.reference import constant_reference
from qgf_sim.engine import Push
from qgf_sim.joint_task import JointTask, JointTaskConfig
from qgf_sim.task import Drawn, draw_start

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HoldConfig(JointTaskConfig):
    """The hold task; every field of config/tasks/hold.yaml."""

    force: tuple[float, float] = (10.0, 40.0)
    """Strength of a push, drawn between these [N], in a direction drawn evenly."""
    duration: tuple[float, float] = (0.1, 0.5)
    """How long a push lasts [s]."""
    pause: tuple[float, float] = (0.3, 1.0)
    """From the end of a push to the next, and before the first [s]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("force", "duration", "pause"):
            least, most = getattr(self, name)
            if not 0.0 <= least <= most:
                raise ValueError(f"{name} {[least, most]} must be 0 <= smallest <= largest")
        if self.duration[1] + self.pause[1] <= 0.0:
            raise ValueError("duration and pause must not both be 0")


class HoldTask(JointTask):
    """Stay where the episode began; links from the third joint's on are pushed where their frame is."""

    config: HoldConfig

    def draw(self, generator: np.random.Generator, start: Vector | None) -> Drawn:
        """A start, and pushes for a whole episode."""
        own = draw_start(self.config, self.robot, generator, self.difficulty)
        begin = own if start is None else np.asarray(start, dtype=np.float64)
        joints, end = len(self.robot.joints), self.config.episode_steps / self.config.control_rate
        self._pushes: list[tuple[float, float, Push]] = []
        time = generator.uniform(*self.config.pause)
        while time < end:
            lasting, direction = generator.uniform(*self.config.duration), generator.normal(size=3)
            strength = self.difficulty * generator.uniform(*self.config.force)
            joint = int(generator.integers(min(2, joints - 1), joints))
            force = strength * direction / np.linalg.norm(direction)
            self._pushes.append((time, time + lasting, Push(self.robot.joint_names[joint], force)))
            time += lasting + generator.uniform(*self.config.pause)
        pushes = [{"from": t, "to": until, "joint": p.joint, "force": p.force.tolist()} for t, until, p in self._pushes]
        return Drawn(begin, np.zeros(0), constant_reference(begin), {"pushes": pushes})

    def push(self, time: float) -> Push | None:
        """The push at `time` [s]."""
        return next((push for begin, end, push in self._pushes if begin <= time < end), None)

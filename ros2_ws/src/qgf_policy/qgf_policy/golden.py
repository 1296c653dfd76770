# SPDX-License-Identifier: Apache-2.0
"""A golden joint log: what an arm measured, and what the policy is to do about it, bit for bit, on every machine."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qgf_core.action import INTERFACES
from qgf_core.bundle import Bundle
from qgf_core.errors import ConfigError
from qgf_policy.joint_state import JointState
from qgf_policy.references import ReferenceMessage
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings


@dataclasses.dataclass(frozen=True)
class GoldenLog:
    """N control periods of an n-joint arm."""

    goal: NDArray[np.float64]
    """Position (3,) [m] in the base frame, with a quaternion (7,), or (0,) where there is a reference."""
    position: NDArray[np.float64]
    """Measured (N, n) [rad]."""
    velocity: NDArray[np.float64]
    """Measured (N, n) [rad/s]."""
    action: NDArray[np.float32]
    """Raw (N, n) in [-1, 1], as the environment of the training saw it."""
    command: NDArray[np.float64]
    """Limited velocities [rad/s], or positions [rad], (N, n) in the robot's signs, as the environment sent them."""
    reference: NDArray[np.float64]
    """Times [ns], positions [rad] and velocities [rad/s] of a joint reference (k, 1 + 2 n) in the robot's signs; (0, 0)
    without one."""

    def save(self, path: Path) -> None:
        """Write it as .npz."""
        np.savez(path, **dataclasses.asdict(self))


def load_golden_log(path: Path) -> GoldenLog:
    """Read it. :raises ConfigError: it is none."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return GoldenLog(**{field.name: data[field.name] for field in dataclasses.fields(GoldenLog)})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(path, "", f"no golden log ({error})", "record one: python -m qgf_demo.golden") from error


def replay(bundle: Bundle, log: GoldenLog) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Step the runner over the log's measured positions and velocities.

    :returns: raw actions and commands [rad/s, or rad of a policy trained on positions], both (N, n).
    """
    interface = INTERFACES[bundle.manifest.action.kind]
    # The log's arm may be another, and a policy that is shown another's state may be stuck.
    settings = RunnerSettings(interface, ramp_duration=0.0, tracking_limit=0.0, saturation_time=0.0)
    runner = PolicyRunner(bundle, settings)
    period = round(1e9 / bundle.manifest.control_rate)
    actions, commands = [], []
    for k, (q, dq) in enumerate(zip(log.position, log.velocity, strict=True)):
        now = k * period
        state = JointState(q, dq, np.full(len(q), now, np.int64), now)
        if k == 0:
            runner.activate(state, now)
            robot = bundle.manifest.robot
            if len(log.reference):
                times, positions, velocities = np.split(log.reference, [1, 1 + len(q)], axis=1)
                points = ReferenceMessage(
                    robot.joint_names, [round(t) for t in times[:, 0]], positions.tolist(), velocities.tolist(), 0, now)
                runner.set_reference(points, state, now)
            else:
                runner.set_goal(log.goal[:3], robot.base_frame, now, now, orientation=log.goal[3:])
        command, _ = runner.step(state, now)
        assert command is not None and command.raw_action is not None
        actions.append(command.raw_action)
        commands.append(command.values)
    return np.array(actions), np.array(commands)

# SPDX-License-Identifier: Apache-2.0
"""A real bundle for the Panda, stand-ins for a policy, and a rig that steps a runner on a virtual clock."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from qgf_core.action import ActionSpec
from qgf_core.bundle import Bundle, load_bundle, save_bundle
from qgf_core.clocks import VirtualClock
from qgf_core.manifest import Box, Manifest, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import RobotSpec, load_robot, read_urdf
from qgf_policy.joint_state import JointState
from qgf_policy.realtime import ask
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RealtimeSettings, RunnerSettings
from qgf_policy.status import Command, RunnerStatus

GOAL = (0.5, 0.1, 0.4)


@pytest.fixture(scope="session")
def in_thread() -> Callable[[Callable[[int], Any]], Any]:
    """Gives the result of `job(native id)` in a thread of its own, whose scheduling ends with it."""

    def run(job: Callable[[int], Any]) -> Any:
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(job(threading.get_native_id())))
        thread.start()
        thread.join()
        return results[0]

    return run


@pytest.fixture
def granted(in_thread: Callable[[Callable[[int], Any]], Any]) -> None:
    """Only where real-time rights are there."""
    if in_thread(lambda thread: ask(RealtimeSettings(1), thread)):
        pytest.skip("no right to SCHED_FIFO here: give this user an rtprio limit")


def panda_manifest(control_rate: float = 100.0, robot: RobotSpec | None = None) -> Manifest:
    """A manifest as the trainer writes it, with a history that makes the order of calls matter."""
    robot = robot or load_robot("panda")
    return make_manifest(
        task="reach",
        robot=robot,
        observation=(
            ObservationTerm("joint_position", history=2),
            ObservationTerm("joint_velocity"),
            ObservationTerm("previous_action"),
            ObservationTerm("tool_position_error", scale=5.0),
        ),
        action=ActionSpec("joint_velocity", tuple(robot.policy_velocity.tolist())),
        control_rate=control_rate,
        delay_range=(0.0, 0.02),
        goal_region=Box((0.42, -0.25, 0.30), (0.67, 0.25, 0.60)),
        training={},
        evaluation={},
        urdf=read_urdf(robot),
    )


class Actor(torch.nn.Module):
    """A small random policy; previous_action and the velocity enter, so that any slip in them shows."""

    def __init__(self, observation_size: int, joints: int) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(observation_size, 32), torch.nn.SiLU(), torch.nn.Linear(32, joints), torch.nn.Tanh()
        )
        with torch.no_grad():
            self.layers[2].weight.mul_(3.0)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.layers(observation)


class Reacher(torch.nn.Module):
    """A policy that really goes to the goal: the Jacobian's pseudo-inverse at home, and in its null space back home."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        robot, size = manifest.robot, manifest.observation_builder().size
        jacobian = manifest.kinematics().tool_jacobian(robot.home)
        inverse = np.linalg.pinv(jacobian)
        weight = np.zeros((len(robot.joints), size))
        weight[:, :7] = -0.5 * (np.eye(7) - inverse @ jacobian)
        weight[:, -3:] = -2.0 * inverse / 5.0  # 5 is the scale of the term tool_position_error
        self.linear = torch.nn.Linear(size, len(robot.joints), bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(weight / robot.policy_velocity[:, None]))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(observation))


def make_bundle(
    path: Path, control_rate: float = 100.0, robot: RobotSpec | None = None, reaching: bool = False
) -> Path:
    """Export a policy for the Panda."""
    manifest = panda_manifest(control_rate, robot)
    size = manifest.observation_builder().size
    probes = np.random.default_rng(0).normal(size=(8, size))
    module = Reacher(manifest) if reaching else Actor(size, len(manifest.robot.joints))
    save_bundle(path, module, manifest, probes)
    return path


@dataclasses.dataclass
class ScriptedPolicy:
    """A stand-in whose actions the test chooses."""

    manifest: Manifest
    rule: Callable[[np.ndarray], np.ndarray]
    observations: list[np.ndarray] = dataclasses.field(default_factory=list)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action (n,) that the rule gives."""
        self.observations.append(np.array(observation))
        return np.asarray(self.rule(observation), dtype=np.float32)


class Rig:
    """Steps a runner on a virtual clock; the arm follows commands at once, unless `stuck`."""

    def __init__(self, policy: object, settings: RunnerSettings, position: np.ndarray | None = None) -> None:
        self.clock = VirtualClock(10**9)
        self.policy = policy
        self.stuck = False
        self.runner = PolicyRunner(policy, settings)  # type: ignore[arg-type]
        self.robot = self.runner.manifest.robot
        self.position = self.robot.home.copy() if position is None else position
        self.velocity = np.zeros(len(self.robot.joints))
        self.frozen_at: int | None = None

    def state(self, **changes: object) -> JointState:
        """The arm's state now, or as it was when the test froze it."""
        sampled = np.full(len(self.position), self.clock.now() if self.frozen_at is None else self.frozen_at)
        state = JointState(self.position.copy(), self.velocity.copy(), sampled, int(sampled[0]) + 5)
        return dataclasses.replace(state, **changes)  # type: ignore[arg-type]

    def activate(self, goal: tuple[float, float, float] | None = GOAL) -> None:
        """Give a goal and activate."""
        if goal is not None:
            self.runner.set_goal(goal, self.robot.base_frame, 77, self.clock.now())
        self.runner.activate(self.state(), self.clock.now())

    def step(self, state: JointState | None = None) -> tuple[Command | None, RunnerStatus]:
        """One command period."""
        command, status = self.runner.step(state or self.state(), self.clock.now())
        if command is not None and not self.stuck:
            h = 1e-9 * self.runner.command_period
            if self.runner.settings.command_interface == "velocity":
                self.velocity = command.values * self.robot.signs
                self.position = self.position + self.velocity * h
            else:
                position = command.values * self.robot.signs
                self.position, self.velocity = position, (position - self.position) / h
        self.clock.advance(self.runner.command_period)
        return command, status

    def run(self, periods: int) -> list[Command]:
        """Commands of several periods; every one must come."""
        commands = []
        for _ in range(periods):
            command, _ = self.step()
            assert command is not None
            commands.append(command)
        return commands


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle at 100 Hz."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle.pt")


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    """The same, loaded."""
    return load_bundle(bundle_path)


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """A manifest at 100 Hz."""
    return panda_manifest()


@pytest.fixture
def rig(manifest: Manifest) -> Callable[..., Rig]:
    """Makes a rig round a scripted policy: `rig(rule or constant action, robot or manifest, **settings)`."""

    def make(
        rule: object = 0.5, robot: RobotSpec | None = None, contract: Manifest | None = None, **settings: object
    ) -> Rig:
        used = contract or (manifest if robot is None else panda_manifest(100.0, robot))
        joints = len(used.robot.joints)
        function = rule if callable(rule) else (lambda observation: np.full(joints, rule))
        return Rig(ScriptedPolicy(used, function), RunnerSettings(**settings))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_rig(manifest: Manifest) -> Callable[..., Rig]:
    """Makes a rig from a rule, settings and a start position, for property tests (which want no per-test fixture)."""
    return lambda rule, settings, start=None: Rig(ScriptedPolicy(manifest, rule), settings, start)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports further bundles: `export(control_rate, robot, reaching)`."""
    folder = tmp_path_factory.mktemp("exports")
    count = iter(range(1000))
    return lambda **arguments: make_bundle(folder / f"{next(count)}.pt", **arguments)


# -------------------------------------------------------------------------------------- processes, for tests over DDS


@pytest.fixture(scope="module")
def operator(harness: ModuleType, domain: int) -> Iterator[Any]:
    """Hears all and asks."""
    operator = harness.Operator(domain)
    yield operator
    operator.close()


@pytest.fixture(scope="module")
def arm(harness: ModuleType, domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """fake_arm.py as a process."""
    child = harness.Child(harness.ARM, domain, tmp_path_factory.mktemp("arm") / "stderr")
    yield child
    child.end()


@pytest.fixture(scope="module")
def reaching_bundle(export: Callable[..., Path]) -> Path:
    """A policy that reaches, at 100 Hz."""
    return export(reaching=True)

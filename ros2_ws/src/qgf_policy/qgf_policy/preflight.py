# SPDX-License-Identifier: Apache-2.0
"""What is checked before a policy may run: the bundle, the robot and the settings against each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from qgf_core.bundle import Bundle, load_bundle
from qgf_core.errors import BundleError, ConfigError
from qgf_core.manifest import check_robot
from qgf_core.robot import RobotSpec, load_robot, read_urdf
from qgf_core.signing import load_trusted_keys
from qgf_policy.interfaces import choose_interface
from qgf_policy.parameters import PolicyParameters
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings
from qgf_policy.supervision import Space

WATCH_TIME = 0.3
"""An arm's joint states are watched for so long before an activation [s]."""
WARM_UP = 100
"""Inferences before the first that counts: the first ones compile, the next ones fill caches."""


@dataclasses.dataclass(frozen=True)
class Preflight:
    """Everything that passed the checks."""

    path: Path
    bundle: Bundle
    robot: RobotSpec
    """The arm: names and topics. The limits that count are the bundle's, which are never wider."""
    settings: RunnerSettings
    runner: PolicyRunner


def prepare(parameters: PolicyParameters) -> Preflight:
    """Load and check a policy.

    :raises QgfError: what is wrong, in one sentence.
    """
    if not parameters.bundle:
        raise ConfigError(
            "policy_node", "bundle", "no bundle is given", "set the parameter to the path of a bundle.pt"
        )
    path = Path(parameters.bundle).expanduser()
    bundle = load_bundle(path, load_trusted_keys(parameters.trusted_keys) if parameters.trusted_keys else None)
    manifest = bundle.manifest
    robot = manifest.robot
    if parameters.robot:
        robot = load_robot(parameters.robot)
        check_robot(manifest, robot, read_urdf(robot), path)
    if (
        parameters.control_rate
        and abs(parameters.control_rate - manifest.control_rate) > 1e-9 * manifest.control_rate
    ):
        raise ConfigError(
            "policy_node",
            "control_rate",
            f"{parameters.control_rate:g} Hz is not the {manifest.control_rate:g} Hz that "
            f"{path} was trained at",
            "leave it at 0 or train at this rate",
        )
    interface = choose_interface(parameters, robot)
    if parameters.state_age_from not in ("stamp", "arrival"):
        raise ConfigError(
            "policy_node",
            "state_age_from",
            f"'{parameters.state_age_from}' is not known",
            "choose stamp or arrival",
        )
    try:
        settings = RunnerSettings(
            command_interface=interface,
            stamped_commands=parameters.stamped_commands,
            command_rate=parameters.command_rate or robot.command_rate,
            speed_scale=parameters.speed_scale,
            ramp_duration=parameters.ramp_duration,
            stale_periods=parameters.stale_periods,
            state_timeout=parameters.state_timeout,
            goal_timeout=parameters.goal_timeout,
            # In a dry run nothing is sent, and an arm that does not move has no fault.
            tracking_limit=0.0 if parameters.dry_run else parameters.tracking_limit,
            saturation_time=parameters.saturation_time,
            home_limit=parameters.home_limit,
            watch_time=WATCH_TIME,
            governor_lag=parameters.governor_lag,
            space=Space(robot.workspace, robot.keep_out),
        )
    except ValueError as error:
        raise ConfigError("policy_node", "parameters", str(error), "correct the value") from error
    runner = PolicyRunner(bundle, settings)
    _check_times(runner, robot)
    return Preflight(path, bundle, robot, settings, runner)


def _check_times(runner: PolicyRunner, robot: RobotSpec) -> None:
    limit = 1e-9 * runner.state_limit
    if limit < 1.0 / robot.state_rate:
        raise ConfigError(
            "policy_node",
            "stale_periods",
            f"a joint state counts as stale after {1e3 * limit:.1f} ms, but the robot sends "
            f"one every {1e3 / robot.state_rate:.1f} ms",
            "raise stale_periods, or set state_timeout",
        )
    limits = runner.manifest.robot
    # From full speed: the acceleration limit, and one jerk-limited change of acceleration.
    halt = float(
        np.max(
            limits.velocity_limit / limits.acceleration_limit + limits.acceleration_limit / limits.jerk_limit
        )
    )
    halt += 2e-9 * runner.command_period
    if halt > robot.stop_time:
        raise ConfigError(
            "policy_node",
            "robot",
            f"a halt within the limits takes up to {halt:.2f} s, stop_time is {robot.stop_time:g} s",
            "raise stop_time in the robot's YAML or lower its velocity limits",
        )


def warm_up(bundle: Bundle) -> None:
    """Run the policy, in the thread that will run it, until it is quick. :raises BundleError: it fails."""
    torch.set_num_threads(1)  # counts for the calling thread only; a pool would stall the loop for milliseconds
    observation = np.zeros(bundle.observation_size, dtype=np.float32)
    try:
        for _ in range(WARM_UP):
            bundle.act(observation)
    except RuntimeError as error:
        raise BundleError(
            f"the policy cannot be run ({str(error).strip().splitlines()[-1]}); export it again"
        ) from error


def inside(folder: Path, requested: str) -> Path:
    """Path of a bundle asked for by service. :raises BundleError: it lies outside the folder, links followed."""
    path = (folder / requested).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BundleError(f"{requested}: lies outside {folder}; only bundles in that folder may be loaded")
    return path

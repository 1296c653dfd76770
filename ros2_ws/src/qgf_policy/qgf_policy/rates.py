# SPDX-License-Identifier: Apache-2.0
"""How a policy's rate and the commands' fit together, and the limiter between them."""

from __future__ import annotations

from qgf_core.errors import ConfigError
from qgf_core.interpolator import Interpolator, substeps_of
from qgf_core.limiter import Limiter
from qgf_core.manifest import Manifest
from qgf_policy.settings import RunnerSettings


def command_rate(manifest: Manifest, settings: RunnerSettings) -> tuple[float, int]:
    """Commands per second [Hz], and per control period.

    :raises ConfigError: a command interface or rate that cannot be used.
    """
    if settings.command_interface == "effort":
        raise ConfigError(
            "policy_node",
            "command_interface",
            "'effort' is refused: holding an arm by effort needs gravity "
            "compensation, which no robot declares",
            "choose velocity, position or joint_trajectory",
        )
    try:
        substeps = substeps_of(manifest.control_rate, settings.command_rate or manifest.command_rate)
    except ValueError as error:
        remedy = "give an integer multiple of it, or 0 for the rate that the policy was trained with"
        raise ConfigError("policy_node", "command_rate", str(error), remedy) from error
    return manifest.control_rate * substeps, substeps


def limiter_of(manifest: Manifest, rate: float, closed_loop: bool) -> Limiter:
    """The limiter of commands at `rate` [Hz]; at that of the training it is the very one of training.

    :param closed_loop: whether it goes by the measured position, as velocities need.
    """
    drive = manifest.robot.drive
    return Limiter(manifest.robot, 1.0 / rate, drive.latency + drive.time_constant if closed_loop else 0.0)


def interpolator_of(manifest: Manifest, substeps: int) -> Interpolator | None:
    """Straight lines from action to action, where the policy was trained with them: their lag is none that it knows."""
    return Interpolator(len(manifest.robot.joints), substeps) if manifest.command_rate > 0.0 else None

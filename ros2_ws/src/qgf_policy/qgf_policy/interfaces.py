# SPDX-License-Identifier: Apache-2.0
"""Which way of commanding an arm may be used, and why another is refused."""

from __future__ import annotations

from typing import cast, get_args

from qgf_core.errors import ConfigError
from qgf_core.robot import CommandInterface, RobotSpec
from qgf_policy.parameters import PolicyParameters

REMEDY = (
    "choose joint_trajectory, state the controller's own command_timeout in the robot's YAML, "
    "or set allow_controller_without_timeout"
)


def choose_interface(parameters: PolicyParameters, robot: RobotSpec) -> CommandInterface:
    """The command interface that is asked for, or else the robot's own.

    :raises ConfigError: it is not known, or it would leave a moving arm without a commander.
    """
    interface = parameters.command_interface or robot.command_interface
    if interface not in get_args(CommandInterface):
        problem, known = f"'{interface}' is not known", ", ".join(get_args(CommandInterface))
        raise ConfigError("policy_node", "command_interface", problem, f"choose one of: {known}")
    if parameters.stamped_commands and interface == "joint_trajectory":
        problem = "in a trajectory a stamp is when it begins, and each of these begins at once"
        raise ConfigError("policy_node", "stamped_commands", problem, "set it to false, or command another interface")
    if robot.runs_on(interface) and not (parameters.allow_controller_without_timeout or parameters.dry_run):
        raise ConfigError(
            "policy_node",
            "command_interface",
            f"the arm runs on at its last velocity if this node dies: {robot.topics.velocity} has no timeout",
            REMEDY,
        )
    return cast(CommandInterface, interface)

# SPDX-License-Identifier: Apache-2.0
"""Launch arguments: their defaults come from config/nodes, what a parameter means from where its node declares it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext
from qgf_core.config import config_root, load_yaml
from qgf_core.errors import QgfError
from qgf_policy.parameters import PARAMETERS

BOOLEAN = ["true", "false"]
POLICY = (
    "robot", "command_interface", "control_rate", "command_rate", "speed_scale", "dry_run",
    "allow_controller_without_timeout", "realtime_priority", "lock_memory", "stay_awake", "governor_lag",
    "bundle_folder", "trusted_keys",
)  # fmt: skip
"""Parameters of policy_node that are launch arguments too; bundle, which has no default, is one as well."""
NAMESPACE = DeclareLaunchArgument(
    "namespace", default_value="", description="Namespace of all nodes and topics; two arms need two of them.")


def parameter_file(job: str) -> Path:
    """config/nodes/<job>.yaml. :raises ConfigError: there is no configuration folder."""
    return config_root() / "nodes" / f"{job}.yaml"


def values_of(path: Path, node: str) -> dict[str, Any]:
    """What a ROS parameter file says of a node, in whatever namespace. :raises ConfigError: it cannot be read."""
    return dict(load_yaml(path).get(f"/**/{node}", {}).get("ros__parameters", {}))


def as_text(value: Any) -> str:
    """A parameter's value as launch writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def argument(
    job: str, node: str, name: str, description: str, choices: Sequence[str] = (), called: str = ""
) -> DeclareLaunchArgument:
    """The argument of a parameter, with the default that config/nodes/<job>.yaml has.

    :param called: the argument's name where it is another than the parameter's.
    """
    value = values_of(parameter_file(job), node)[name]
    allowed = BOOLEAN if isinstance(value, bool) else list(choices)
    return DeclareLaunchArgument(
        called or name, default_value=as_text(value), description=description, choices=allowed or None)


def policy_arguments(job: str) -> list[DeclareLaunchArgument]:
    """The arguments of policy_node, described as it describes its parameters."""
    specs = {spec.name: spec for spec in PARAMETERS}
    bundle = DeclareLaunchArgument("bundle", description=specs["bundle"].description)
    return [bundle, *(argument(job, "policy_node", name, specs[name].description, specs[name].choices)
                      for name in POLICY)]


def parameters_argument(job: str) -> DeclareLaunchArgument:
    """The argument that names the ROS parameter file."""
    return DeclareLaunchArgument(
        "parameters", default_value=str(parameter_file(job)),
        description="ROS parameter file for what is no argument here; arguments go before it.")


def chosen(context: LaunchContext, name: str) -> str:
    """The value of an argument."""
    return LaunchConfiguration(name).perform(context)


def typed(context: LaunchContext, names: dict[str, Any]) -> dict[str, Any]:
    """Values of arguments as parameters, each of the type of the value that stands beside its name.

    :raises QgfError: a word that is no such value; it is named.
    """
    return {name: _typed(name, chosen(context, name), like) for name, like in names.items()}


def _typed(name: str, text: str, like: Any) -> Any:
    if isinstance(like, bool):
        return text == "true"
    try:
        return type(like)(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[type(like)]
        raise QgfError(f"{name}:={text} is not {wanted}; --show-args tells what it means") from None


def existing(context: LaunchContext, name: str) -> Path:
    """The file that an argument names. :raises QgfError: there is none."""
    path = Path(chosen(context, name)).expanduser()
    if not path.is_file():
        raise QgfError(f"{name}:={path}: no such file; check the path")
    return path


def include(name: str, arguments: dict[str, Any], switch: str = "") -> IncludeLaunchDescription:
    """Another launch file of this folder.

    :param arguments: handed over to it; it sees all others too.
    :param switch: argument that must be true for it.
    """
    path = Path(__file__).resolve().parents[1] / name
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(path)), launch_arguments=list(arguments.items()),
        condition=IfCondition(LaunchConfiguration(switch)) if switch else None)

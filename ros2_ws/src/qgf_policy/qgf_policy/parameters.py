# SPDX-License-Identifier: Apache-2.0
"""Every parameter of policy_node, once: name, type, default, range, meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from qgf_core.errors import ConfigError
from qgf_policy.command_filter import COMMAND_MODES
from qgf_policy.settings import ANY, CHOSEN


@dataclasses.dataclass(frozen=True)
class ParameterSpec:
    """One ROS parameter."""

    name: str
    default: str | bool | int | float
    description: str
    minimum: float | None = None
    maximum: float | None = None
    counts: Literal["start", "configure", "at once"] = "configure"
    """When a value counts: only that given at the start (read-only), at the next configure, or at once."""
    choices: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        """The description, with when a change counts."""
        when = {"start": "Fixed at the start", "configure": "Changes only while unconfigured",
                "at once": "A change counts at once"}
        return f"{self.description} {when[self.counts]}."


@dataclasses.dataclass(frozen=True)
class PolicyParameters:
    """Values of all parameters; fields as in PARAMETERS."""

    bundle: str
    robot: str
    control_rate: float
    command_rate: float
    command_interface: str
    stamped_commands: bool
    allow_controller_without_timeout: bool
    autostart: bool
    dry_run: bool
    speed_scale: float
    ramp_duration: float
    stale_periods: float
    state_timeout: float
    state_age_from: str
    goal_timeout: float
    transform_goals: bool
    tracking_limit: float
    saturation_time: float
    home_limit: float
    governor_lag: float
    command_mode: str
    overrun_share: float
    send_delay: float
    bundle_folder: str
    trusted_keys: str
    realtime_priority: int
    lock_memory: bool
    cpu: int
    stay_awake: bool


PARAMETERS: tuple[ParameterSpec, ...] = (
    ParameterSpec("bundle", "", "Path of the policy bundle."),
    ParameterSpec(
        "robot",
        "",
        "Robot that the policy is to run on: a name under config/robots or the path of a YAML file; it is "
        "checked against the bundle and names the topics. Empty: the bundle's own.",
    ),
    ParameterSpec(
        "control_rate",
        0.0,
        "Inference rate [Hz]. 0: the bundle's; any other value than the bundle's is refused.",
        0.0,
        10_000.0,
    ),
    ParameterSpec(
        "command_rate",
        0.0,
        "Rate of the commands to the arm [Hz], an integer multiple of the control rate. "
        "0: the robot's own where it names one, else the control rate.",
        0.0,
        10_000.0,
    ),
    ParameterSpec(
        "command_interface",
        "",
        "What is commanded. Empty: as the robot declares. effort is refused.",
        choices=("", "position", "velocity", "effort", "joint_trajectory"),
    ),
    ParameterSpec(
        "stamped_commands",
        False,
        "Send positions or velocities as sensor_msgs/JointState, with a stamp and the joints' names, in place of "
        "std_msgs/Float64MultiArray, on the same topic; ros2_control's forward controllers take the latter only.",
    ),
    ParameterSpec(
        "allow_controller_without_timeout",
        False,
        "Send velocities also where the robot's YAML states no command_timeout: if this node dies, the arm then runs "
        "on at its last velocity. Meant for simulations.",
        counts="start",
    ),
    ParameterSpec(
        "autostart",
        False,
        "Configure and activate at start; activation is tried again until joint states arrive.",
        counts="start",
    ),
    ParameterSpec("dry_run", False, "Compute and report everything, but send nothing to the arm."),
    ParameterSpec(
        "speed_scale",
        1.0,
        "Factor on the velocity that the policy asks for.",
        0.1,
        1.0,
        counts="at once",
    ),
    ParameterSpec(
        "ramp_duration",
        0.5,
        "Time over which the policy is blended in after activation or a hold [s]; 0: no blending.",
        0.0,
        10.0,
    ),
    ParameterSpec(
        "stale_periods",
        3.0,
        "A joint state older than this many control periods is stale: the arm is brought to rest.",
        1.0,
        1000.0,
    ),
    ParameterSpec(
        "state_timeout",
        0.0,
        "The same as a time [s], in place of stale_periods; 0: stale_periods counts.",
        0.0,
        10.0,
    ),
    ParameterSpec(
        "state_age_from",
        "stamp",
        "How a joint state's age is measured: from its stamp (the driver's clock must agree "
        "with this machine's) or from its arrival.",
        choices=("stamp", "arrival"),
    ),
    ParameterSpec(
        "goal_timeout", 0.0, "A goal told, or a reference ended, longer ago than this is stale [s]; 0: never.", 0.0, 1e6
    ),
    ParameterSpec(
        "transform_goals",
        False,
        "Take goals in any frame that /tf leads to; needs tf2_ros, and every message on /tf takes this process's time. "
        "False: goals must be given in the robot's base frame.",
    ),
    ParameterSpec(
        "tracking_limit",
        0.3,
        "A joint further than this from where its commands should have brought it [rad] ends the activation: a "
        "protective stop, an inactive controller, something in the way. 0: not judged.",
        0.0,
        3.0,
    ),
    ParameterSpec(
        "saturation_time",
        3.0,
        "An action that stays at full size for longer than this [s] ends the activation. 0: not judged.",
        0.0,
        60.0,
    ),
    ParameterSpec(
        "home_limit",
        1.5,
        "An activation is refused while a joint is further from home than this [rad], where the policy hardly trained. "
        "0: anywhere.",
        0.0,
        10.0,
    ),
    ParameterSpec(
        "governor_lag",
        0.0,
        "Lag of the command [s] when it is smoothed, see command_mode. 0: it cannot be, and command_mode stays policy.",
        0.0,
        1.0,
    ),
    ParameterSpec(
        "command_mode",
        "policy",
        "What the arm gets: the policy's command, that command smoothed, or a hold. Set by governor_node, or by hand; "
        "a change counts at once and is blended. Needs governor_lag.",
        counts="at once",
        choices=COMMAND_MODES,
    ),
    ParameterSpec(
        "overrun_share",
        0.2,
        "Share of the periods within a second that may be overrun or left out; more end the activation. 1: not judged.",
        0.0,
        1.0,
    ),
    ParameterSpec(
        "send_delay",
        0.0003,
        "From a period's deadline to its command's leaving [s]: commands then come evenly, however long each took to "
        "compute. One that took longer leaves at once; it is never more than 0.4 of a period, and nothing with "
        "use_sim_time. 0: as soon as it is computed.",
        0.0,
        0.01,
    ),
    ParameterSpec(
        "bundle_folder",
        "",
        "Folder that ~/load_policy may load from. Empty: the folder of the parameter bundle.",
        counts="start",
    ),
    ParameterSpec(
        "trusted_keys",
        "",
        "Public keys that a bundle must be signed with: *.pub files and folders of them, separated by ':'; unsigned or "
        "wrongly signed bundles are refused. Empty: signatures are not asked for.",
        counts="start",
    ),
    ParameterSpec(
        "realtime_priority",
        50,
        "SCHED_FIFO priority of the control loop's thread, 1 .. 98; 0: ordinary scheduling. "
        "The middleware's threads get the one below, Python's others 1. Needs the rtprio limit; without it the node "
        "says so and runs with ordinary scheduling.",
        0,
        98,
    ),
    ParameterSpec(
        "cpu",
        CHOSEN,
        "Processor that the control loop's thread is kept on. -1: with real-time priority the fastest and last that no "
        "other policy node of this machine has; -2: any.",
        ANY,
        1023,
    ),
    ParameterSpec(
        "lock_memory",
        False,
        "Keep the process's memory from being paged out; needs the memlock limit.",
        counts="start",
    ),
    ParameterSpec(
        "stay_awake",
        True,
        "Keep the loop's processor from sleeping while it runs with real-time priority, and all of them with cpu -2 or "
        "where /sys/devices/system/cpu/cpuN/power/pm_qos_resume_latency_us may not be written: they then wake in time, "
        "and take more power. Needs the right to write that file or /dev/cpu_dma_latency; without it the node says so.",
    ),
)


def coerce(spec: ParameterSpec, value: Any) -> Any:
    """A value as the parameter's type; an integer will do for a number. :raises ConfigError: it will not do."""
    kind = type(spec.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(
            "policy_node", spec.name, f"{value!r} is no {kind.__name__}", "give a value of that type"
        )
    low, high = spec.minimum, spec.maximum
    if low is not None and high is not None and not low <= float(value) <= high:
        problem = f"{value} lies outside {low:g} .. {high:g}"
        raise ConfigError("policy_node", spec.name, problem, "give a value in that range")
    if spec.choices and value not in spec.choices:
        known = ", ".join(choice or "'' (empty)" for choice in spec.choices)
        raise ConfigError("policy_node", spec.name, f"'{value}' is not known", f"choose one of: {known}")
    return value


def judge_changes(changes: Mapping[str, Any], label: str) -> str:
    """Why changes of parameters, name -> value, must be refused in a lifecycle state; empty if they need not be.

    :param label: of the lifecycle state.
    """
    specs = {spec.name: spec for spec in PARAMETERS}
    for name, value in changes.items():
        spec = specs.get(name)
        try:
            if spec is not None:
                coerce(spec, value)
        except ConfigError as error:
            return str(error)
        late = name == "use_sim_time" if spec is None else spec.counts == "configure"
        if late and label != "unconfigured":
            remedy = "deactivate and clean up first" + (", or call ~/load_policy" if name == "bundle" else "")
            return f"policy_node: {name}: it counts at configure, and the node is {label}; {remedy}"
    return ""


def from_values(values: Mapping[str, Any]) -> PolicyParameters:
    """The parameters from a mapping name -> value; all must be there. :raises ConfigError: a value will not do."""
    parameters = PolicyParameters(**{spec.name: coerce(spec, values[spec.name]) for spec in PARAMETERS})
    if parameters.command_mode != "policy" and parameters.governor_lag == 0.0:
        problem = f"'{parameters.command_mode}' needs a lag that the command may be smoothed with"
        raise ConfigError("policy_node", "command_mode", problem, "start the node with governor_lag, e.g. 0.06")
    return parameters


def defaults() -> PolicyParameters:
    """All defaults."""
    return from_values({spec.name: spec.default for spec in PARAMETERS})

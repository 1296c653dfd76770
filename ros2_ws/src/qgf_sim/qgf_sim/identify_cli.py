# SPDX-License-Identifier: Apache-2.0
"""What `./qgf identify` is asked for, what it says, and what it writes; no ROS here."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from qgf_core.config import find_config, from_mapping, load_yaml, parse_yaml, to_mapping
from qgf_core.errors import ConfigError
from qgf_core.files import write_atomic
from qgf_core.robot import RobotSpec, load_robot
from qgf_core.robot_identified import IdentifiedSpec, with_identified
from qgf_sim.excitation import Excitation, ExcitationSettings


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The command line."""

    robot: str
    joints: tuple[str, ...]
    interface: Literal["velocity", "position"]
    namespace: str
    bag: str
    excitation: ExcitationSettings
    out: str
    """The YAML to write into; empty: the robot's own; "-": none."""
    yes: bool
    json: bool
    quiet: bool


def parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    default = ExcitationSettings()
    result = argparse.ArgumentParser(
        prog="qgf identify", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measures an arm's delay, servo lag, friction and noise, joint by joint, and writes them into its "
        "YAML,\nwhere the simulation and its randomisation take them from.\n\n"
        "THE ARM MOVES: each joint a little to both sides, one after the other, through the limiter. Keep a hand on\n"
        "the emergency stop. Ctrl-C brings it to rest. It halts by itself where a joint is not where it was asked to\n"
        "be, near limits, and without fresh joint states.\n\n"
        "example:  ./qgf identify --robot my_arm\n"
        "          ./qgf identify --robot my_arm --bag my_recording     (commands and joint states, nothing moves)")
    result.add_argument("--robot", required=True, help="name in config/robots, or a YAML file")
    result.add_argument("--joints", nargs="+", default=(), metavar="NAME", help="only these (default: all)")
    result.add_argument("--command-interface", choices=("velocity", "position"), default="",
                        help="what is commanded (default: the robot's)")
    result.add_argument("--allow-controller-without-timeout", action="store_true",
                        help="send velocities also where the robot's YAML states no command_timeout: if this process "
                        "dies, the arm then runs on; meant for simulations")
    result.add_argument("--namespace", default="", help="of the arm's topics")
    result.add_argument("--bag", default="", help="read this bag of ROS 2 instead of moving the arm")
    result.add_argument("--speed", type=float, default=default.speed,
                        help=f"largest [rad/s] (default: {default.speed:g}; never above half the joint's limit)")
    result.add_argument("--reach", type=float, default=default.reach,
                        help=f"furthest to each side [rad] (default: {default.reach:g})")
    result.add_argument("--seconds", type=float, default=default.seconds,
                        help=f"motion of each joint [s] (default: {default.seconds:g})")
    result.add_argument("--rate", type=float, default=default.rate,
                        help=f"of commands [Hz] (default: {default.rate:g})")
    result.add_argument("--seed", type=int, default=default.seed, help="of the motion (default: 0)")
    result.add_argument("--out", default="", help="the YAML to write into (default: the robot's; -: none)")
    result.add_argument("--yes", action="store_true", help="do not ask before the arm moves")
    result.add_argument("--json", action="store_true", help="print one JSON object")
    result.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def parse(arguments: Sequence[str] | None) -> Wanted:
    """The command line; ends the process with code 2 where it is wrong."""
    result = parser()
    options = result.parse_args(arguments)
    try:
        robot = load_robot(options.robot)
        interface = options.command_interface or robot.command_interface
        if interface not in ("velocity", "position"):
            raise ConfigError("identify", "--command-interface", f"'{interface}' cannot be identified",
                              "activate a velocity or position controller and choose that")
        values = {name: getattr(options, name) for name in ("speed", "reach", "seconds", "rate", "seed")}
        excitation = from_mapping(ExcitationSettings, values, "identify")
        joint_indices(robot, tuple(options.joints))
        if robot.runs_on(interface) and not (options.bag or options.allow_controller_without_timeout):
            raise ConfigError(
                "identify", "--command-interface", "the arm runs on at its last velocity if this process dies: "
                f"{robot.topics.velocity} has no timeout",
                "choose position, state the controller's own command_timeout in the robot's YAML, or give "
                "--allow-controller-without-timeout")
    except ConfigError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    return Wanted(options.robot, tuple(options.joints), cast(Literal["velocity", "position"], interface),
                  options.namespace, options.bag, excitation, options.out, options.yes, options.json, options.quiet)


def joint_indices(robot: RobotSpec, names: tuple[str, ...]) -> tuple[int, ...]:
    """Where the joints stand in the robot's order; all without names. :raises ConfigError: an unknown one."""
    for name in names:
        if name not in robot.joint_names:
            raise ConfigError("identify", "--joints", f"there is no joint '{name}'",
                              f"choose of: {', '.join(robot.joint_names)}")
    return tuple(i for i, name in enumerate(robot.joint_names) if not names or name in names)


def plan(excitation: Excitation, topic: str) -> str:
    """What is going to happen."""
    robot = excitation.robot
    span, speed = np.ptp(excitation.position, axis=0), np.abs(excitation.velocity).max(axis=0)
    lines = [f"THE ARM WILL MOVE for {excitation.duration:.0f} s, by commands on {topic}:"]
    lines += [f"  {robot.joints[j].name:24} within {span[j]:.2f} rad, up to {speed[j]:.2f} rad/s"
              for j in excitation.joints]
    return "\n".join([*lines, "Clear its surroundings, keep a hand on the emergency stop. Ctrl-C brings it to rest."])


def agreed(yes: bool) -> bool:
    """Whether the user agrees, asked at the terminal unless that was said already."""
    if yes:
        return True
    if not sys.stdin.isatty():
        return False
    print("Move the arm? [yes/no] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def report(identified: IdentifiedSpec, refused: dict[str, str], note: str, as_json: bool) -> str:
    """A table with the half widths of the 95 % intervals, or JSON."""
    if as_json:
        return json.dumps({"note": note, "refused": refused, **to_mapping(identified)})
    columns = (("delay", 1e3, "delay [ms]"), ("time_constant", 1e3, "lag [ms]"), ("damping_ratio", 1.0, "damping"),
               ("gain", 1.0, "gain"), ("coulomb", 1.0, "friction [N m]"), ("position_noise", 1e3, "noise [mrad]"),
               ("velocity_noise", 1e3, "[mrad/s]"))
    lines = [f"{'joint':24}" + "".join(f"{title:>17}" for _, _, title in columns)]
    for name, joint in identified.joints.items():
        cells = []
        for field, factor, _ in columns:
            value, low, high = (factor * number for number in getattr(joint, field))
            cells.append("first order" if field == "damping_ratio" and value == 0.0
                         else f"{value:.3g} +- {0.5 * (high - low):.2g}")
        lines.append(f"{name:24}" + "".join(f"{cell:>17}" for cell in cells))
    lines += [f"  not identified: {name}: {why}" for name, why in refused.items()]
    return "\n".join([*lines, *([f"  note: {note}"] if note else [])])


def write(wanted: Wanted, identified: IdentifiedSpec) -> None:
    """The block into the YAML, whose other lines stay. :raises ConfigError: the YAML would not be readable any more."""
    if wanted.out == "-":
        return
    path = Path(wanted.out) if wanted.out else find_config("robots", wanted.robot)
    if not path.is_file():
        raise ConfigError(path, "", "no such file", "give the YAML of an arm as --out")
    before = load_yaml(path)
    merged = identified
    old = from_mapping(RobotSpec, before, path).identified
    if old is not None:  # joints that were not moved this time keep what was measured before
        merged = dataclasses.replace(identified, joints={**old.joints, **identified.joints})
    text = with_identified(path.read_text(encoding="utf-8"), merged)
    after = parse_yaml(text, path)
    robot = from_mapping(RobotSpec, after, path)
    if robot.identified is None or {**before, "identified": None} != {**after, "identified": None}:
        raise ConfigError(path, "identified", "the block cannot be put into this YAML", "write its keys in block style")
    write_atomic(path, text.encode())
    print(f"written: identified: in {path}", file=sys.stderr)

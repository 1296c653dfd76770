# SPDX-License-Identifier: Apache-2.0
"""`./qgf robot`: makes the description of an arm from its URDF, and checks one."""

from __future__ import annotations

import argparse
import dataclasses
import io
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import numpy as np

from qgf_core.config import find_config, from_mapping
from qgf_core.errors import ConfigError, QgfError
from qgf_core.files import write_atomic
from qgf_core.kinematics import Kinematics
from qgf_core.robot import RobotSpec, load_robot, read_urdf, strip_meshes
from qgf_sim.camera import Camera
from qgf_sim.engines import make_arm
from qgf_sim.goal_region import likely_goal_region
from qgf_sim.robot_import import ImportOptions, default_path, import_robot, write_robot
from qgf_sim.urdf_check import Urdf

_TRIAL_RATE = 200.0
"""Physics rate of the trial [Hz]."""
_STILL = 0.01
"""An arm that is told to stand still moves less than this [rad]."""


def _picture(robot: RobotSpec) -> bytes:
    """A PNG of the arm at home."""
    with Camera(robot) as camera:
        stream = io.BytesIO()
        matplotlib.image.imsave(stream, camera.image(robot.home, 800, 600), format="png")
        return stream.getvalue()


def try_out(robot: RobotSpec) -> list[str]:
    """Remarks from half a second in PyBullet: whether the drives hold the arm at home against gravity.

    :raises RobotError: PyBullet cannot simulate the arm.
    """
    arm = make_arm("pybullet", robot, _TRIAL_RATE)
    try:
        arm.step(np.zeros(len(robot.joints)), steps=int(0.5 * _TRIAL_RATE))
        moved = np.abs(arm.state()[0] - robot.home)
    finally:
        arm.close()
    return [f"joint '{joint.name}': its effort limit {joint.effort:g} N m does not hold the arm at home"
            for joint, distance in zip(robot.joints, moved, strict=True) if not distance < _STILL]


def _summary(robot: RobotSpec) -> list[str]:
    kinematics = Kinematics(strip_meshes(read_urdf(robot)), robot.joint_names, robot.tool)
    tool = ", ".join(f"{value:.3f}" for value in kinematics.tool_position(robot.home))
    lines = [f"{robot.name}: {len(robot.joints)} joints from {robot.base_frame} to {robot.tool.link}; at home the tool "
             f"is at ({tool}) m", f"  {'joint':24} {'position [rad]':>18} {'rad/s':>7} {'rad/s^2':>8} {'rad/s^3':>8} "
             f"{'N m':>7} {'home':>7}"]
    for joint in robot.joints:
        span = f"{joint.position[0]:.3f} .. {joint.position[1]:.3f}"
        lines.append(f"  {joint.name:24} {span:>18} {joint.velocity:7.3g} {joint.acceleration:8.4g} {joint.jerk:8.5g} "
                     f"{joint.effort:7.4g} {joint.home:7.3f}")
    goals = likely_goal_region(robot)
    if goals is None:
        return [*lines, "  goals: from home the tool reaches no box of a few centimetres; choose another home"]
    box = f"lower: {list(goals.lower)}, upper: {list(goals.upper)}"
    return [*lines, f"  goals that it reaches from home [m], for the goal_region of a task: {box}"]


def _import(options: argparse.Namespace) -> int:
    source = Path(options.urdf)
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(ImportOptions)}
    wanted = from_mapping(ImportOptions, values, "options")
    imported = import_robot(source, wanted)
    out = Path(options.out) if options.out else default_path(imported.robot)
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError("--out", "", f"'{out}' does not end in .yaml", "give such a name")
    if out.exists() and not options.force:
        raise ConfigError(out, "", "exists already", "give --force to overwrite it, or another --out")
    picture = Path(options.picture) if options.picture else out.with_suffix(".png")
    with tempfile.TemporaryDirectory() as folder:
        robot = imported.robot
        if wanted.without_meshes:
            bare = Path(folder) / "bare.urdf"
            bare.write_text(strip_meshes(imported.urdf.text), encoding="utf-8")
            robot = dataclasses.replace(robot, urdf=str(bare))
        remarks = [*imported.remarks, *try_out(robot)]
        png, summary = _picture(robot), _summary(robot)
    write_robot(imported, out, wanted.without_meshes)
    write_atomic(picture, png)
    print("\n".join(summary))
    for note in dict.fromkeys(filter(None, imported.notes.values())):
        joints = [name for name, own in imported.notes.items() if own == note]
        whose = "all joints" if len(joints) == len(imported.notes) else ", ".join(joints)
        print(f"  not read from the URDF: {note} ({whose})")
    for remark in remarks:
        print(f"  note: {remark}")
    print(f"written: {out}; at home the arm looks like this: {picture}")
    # Where the pose is not the user's, it is the first thing to look at.
    if not wanted.home:
        print("next: look at the picture, and give a good --home (elbow bent, tool in front) with --force")
    arm = shlex.quote(str(out)) if options.out else robot.name
    print(f"then: ./qgf train --robot {arm} --task reach --out runs/{robot.name}")
    return 0


def _check(options: argparse.Namespace) -> int:
    robot = load_robot(options.robot)
    urdf = Urdf(Path(robot.urdf))
    urdf.demand_meshes()
    chain = urdf.driven(robot.tool.link)
    remarks = urdf.check_inertia(chain)
    left_out = [joint.name for joint in chain if joint.name not in robot.joint_names]
    if left_out:
        remarks.append(f"joints between base and tool that nobody drives: {', '.join(left_out)}")
    remarks += try_out(robot)
    if options.picture:
        write_atomic(Path(options.picture), _picture(robot))
    print("\n".join(_summary(robot)))
    for remark in remarks:
        print(f"  note: {remark}")
    print(f"ok: {find_config('robots', options.robot)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="qgf robot", description="The description of an arm: config/robots/*.yaml.")
    commands = result.add_subparsers(required=True, metavar="import|check")
    make = commands.add_parser(
        "import", help="write an arm's YAML from its URDF", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Writes an arm's YAML from its URDF, checks both, and draws the arm at home.\n\n"
        "example:  ./qgf robot import my_arm.urdf --tool tool0 --home 0 -0.5 1.2 0 0.8 0\n"
        "What no URDF tells (acceleration, jerk) is set to cautious values, with a comment at each joint.")
    make.add_argument("urdf", help="the URDF (expand a xacro first: xacro my_arm.urdf.xacro > my_arm.urdf)")
    make.add_argument("--out", default="", help="the YAML (default: config/robots/NAME.yaml)")
    make.add_argument("--force", action="store_true", help="overwrite a YAML that exists")
    make.add_argument("--picture", default="", help="the PNG of the arm at home (default: beside the YAML)")
    make.add_argument("--name", default="", help="of the arm (default: the URDF's)")
    make.add_argument("--tool", default="", help="link that carries the tool (default: the only end of the tree)")
    make.add_argument("--tool-offset", type=float, nargs=3, default=(0.0, 0.0, 0.0), metavar=("X", "Y", "Z"),
                      help="the tool point in that link's frame [m]")
    for name, unit, note in (("home", "rad", "one per joint (default: 0, or the middle where 0 is not well inside)"),
                             ("velocity", "rad/s", "limit, where the URDF's is to be replaced"),
                             ("effort", "N m", "limit, where the URDF's is to be replaced"),
                             ("acceleration", "rad/s^2", "limit (default: full speed within 0.2 s)"),
                             ("jerk", "rad/s^3", "limit (default: full acceleration within 10 ms)")):
        one = "" if name == "home" else "; one for all joints or one for each"
        make.add_argument(f"--{name}", type=float, nargs="+", default=(), metavar="X", help=f"[{unit}] {note}{one}")
    make.add_argument("--command-interface", choices=("velocity", "position", "effort", "joint_trajectory"),
                      default="velocity", help="what the driver takes (default: velocity)")
    make.add_argument("--state-rate", type=float, default=200.0,
                      help="of the driver's joint_states [Hz] (default: 200)")
    make.add_argument("--position-margin", type=float, default=0.05,
                      help="distance kept from the position limits [rad] (default: 0.05)")
    make.add_argument("--without-meshes", action="store_true",
                      help="use a copy of the URDF without meshes, written beside the YAML")
    make.set_defaults(run=_import)
    check = commands.add_parser("check", help="check an arm's YAML, its URDF, and both in simulation")
    check.add_argument("robot", help="name in config/robots, or a YAML file")
    check.add_argument("--picture", default="", help="write a PNG of the arm at home here")
    check.set_defaults(run=_check)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 2 for a user's error."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

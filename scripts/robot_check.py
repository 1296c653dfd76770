# SPDX-License-Identifier: Apache-2.0
"""Whether a robot's set-up works: run by `./qgf install-check` in the clean environment that it has made.

    python scripts/robot_check.py GOLDEN    # the folder that `python -m qgf_demo.golden` has written, elsewhere

Loads a signed bundle, steps the runner over a golden joint log, and lets policy_node and monitor_node run an arm over
DDS; prints a line for each, and exits with 1 where one fails.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from qgf_core.bundle import load_bundle
from qgf_core.errors import QgfError
from qgf_core.signing import load_trusted_keys
from qgf_policy.golden import load_golden_log, replay

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"qgf_bringup", "qgf_core", "qgf_monitor", "qgf_msgs", "qgf_policy"}
ABSENT = ("pybullet", "gymnasium", "mujoco", "tensorboard", "stable_baselines3", "matplotlib", "PyQt5", "hypothesis",
          "qgf_sim", "qgf_trainer", "qgf_demo", "rqt_qgf")


def check_absence() -> Iterator[tuple[bool, str]]:
    """Nothing is here that a robot does not need."""
    found = [name for name in ABSENT if importlib.util.find_spec(name) is not None]
    yield not found, f"installed: {', '.join(found)}" if found else f"not installed: {', '.join(ABSENT)}"
    built = {path.name for path in (ROOT / "ros2_ws/install/share/ament_index/resource_index/packages").iterdir()}
    yield built == PACKAGES, f"built: {', '.join(sorted(built))}"
    count = len(list(metadata.distributions()))
    yield True, f"{count} Python packages"


def check_replay(golden: Path) -> Iterator[tuple[bool, str]]:
    """The runner repeats what the environment of the training did, on a computer that has no such environment."""
    bundle = load_bundle(golden / "bundle.pt", load_trusted_keys(str(golden / "trusted")))
    yield bool(bundle.signer), f"loaded a bundle for {bundle.manifest.robot.name}, signed by {bundle.signer}"
    log = load_golden_log(golden / "log.npz")
    actions, commands = replay(bundle, log)
    same = np.array_equal(actions, log.action) and np.array_equal(commands, log.command)
    moved = float(np.abs(log.command).max())
    found = f"golden log: {len(actions)} periods, actions and commands identical, up to {moved:.2f} rad/s"
    yield same and moved > 0.1, found


def check_nodes(golden: Path) -> Iterator[tuple[bool, str]]:
    """policy_node and monitor_node, started as a user starts them, with an arm that is a process too."""
    sys.path.insert(0, str(ROOT / "ros2_ws/src/qgf_policy/test"))
    from ros_harness import ARM, Operator

    from qgf_msgs.msg import PolicyStatus, SmoothnessReport
    options = {"bundle": golden / "bundle.pt", "autostart": "true", "allow_controller_without_timeout": "true",
               "trusted_keys": golden / "trusted", "saturation_time": "0.0"}
    words = [word for name, value in options.items() for word in ("-p", f"{name}:={value}")]
    # The robot as the bundle has it: the Panda's own URDF comes with PyBullet.
    operator = Operator(int(os.environ["ROS_DOMAIN_ID"]), load_bundle(golden / "bundle.pt").manifest.robot)
    reports: list[SmoothnessReport] = []
    operator.node.create_subscription(SmoothnessReport, "/monitor_node/report", reports.append, 10)
    children = [subprocess.Popen(command) for command in (
        [sys.executable, *ARM], [ROOT / "qgf", "run", "qgf_policy", "policy_node", "--ros-args", *words],
        [ROOT / "qgf", "run", "qgf_monitor", "monitor_node"])]
    try:
        operator.reach(PolicyStatus.HOLDING, timeout=60.0)
        operator.send_goal(*load_golden_log(golden / "log.npz").goal.tolist())
        operator.reach(PolicyStatus.ACTIVE)
        operator.until(lambda: len(operator.commands) > 100, "100 commands")
        fastest = max(float(np.abs(command.command).max()) for command in operator.commands)
        yield fastest > 0.05, f"policy_node: active, {len(operator.commands)} commands, up to {fastest:.2f} rad/s"
        operator.until(lambda: any(np.isfinite(list(report.band_rms)).any() for report in reports), "a report", 30.0)
        yield True, f"monitor_node: {len(reports)} reports"
    except AssertionError as error:  # the harness's, with what it waited for
        yield False, str(error)
    finally:
        codes = [end(child) for child in children]
        operator.close()
    yield not any(codes), f"ended by Ctrl-C with codes {codes}"


def end(child: subprocess.Popen[bytes]) -> int:
    """The code that a child ends with upon Ctrl-C; one that does not end is killed."""
    child.send_signal(signal.SIGINT)
    try:
        return child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main() -> int:
    """Entry point."""
    if len(sys.argv) != 2 or not (golden := Path(sys.argv[1])).is_dir():
        print("qgf: error: give the folder that python -m qgf_demo.golden has written", file=sys.stderr)
        return 2
    good = True
    try:
        for check in (check_absence(), check_replay(golden), check_nodes(golden)):
            for passed, text in check:
                print(f"{'ok' if passed else 'fail':<5} {text}", flush=True)
                good &= passed
    except QgfError as error:
        print(f"fail  {error}")
        return 1
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())

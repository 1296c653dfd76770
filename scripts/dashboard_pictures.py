# SPDX-License-Identifier: Apache-2.0
"""Takes the pictures of docs/dashboard.md: the dashboard's own window beside a simulated arm, a policy and a monitor.

python scripts/dashboard_pictures.py BUNDLE [--out docs/images]; on a machine without a display it needs Xvfb, or
QT_QPA_PLATFORM=offscreen.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from qgf_core.bundle import load_bundle
from qgf_demo.domain import Domain

GOALS = ((0.50, 0.10, 0.40), (0.55, -0.15, 0.50), (0.60, 0.20, 0.35), (0.45, 0.00, 0.55))
"""In the demo's goal region [m]."""
PATIENT = ["-p", "autostart:=true", "-p", "allow_controller_without_timeout:=true", "-p", "overrun_share:=1.0",
           "-p", "stale_periods:=20.0"]
"""The policy node's parameters on a machine that is busy with drawing, too."""
SCENES = {
    "dashboard_light": (["--theme", "light", "--source", "command", "--joint", "panda_joint4"], []),
    "dashboard_dark": (["--theme", "dark", "--source", "command", "--joint", "panda_joint6"],
                       ["-p", "fault.noise:=8.0", "-p", "fault.delay_s:=0.04"]),
}
"""Arguments of the dashboard, and faults of the arm, by the picture's name."""


def take(name: str, bundle: Path, frame: str, folder: Path, environment: dict[str, str]) -> None:
    """Run everything until the picture is there. :raises SystemExit: it is not."""
    shown, faults = SCENES[name]
    start = [sys.executable, "-m"]
    nodes = [[*start, "qgf_sim.sim_node", "--ros-args", *faults],
             [*start, "qgf_policy.policy_node", "--ros-args", "-p", f"bundle:={bundle}", *PATIENT],
             [*start, "qgf_monitor.monitor_node"]]
    children = [subprocess.Popen(node, env=environment) for node in nodes]
    try:
        picture = folder / f"{name}.png"
        picture.unlink(missing_ok=True)
        time.sleep(6.0)
        window = subprocess.Popen([*start, "rqt_qgf.dashboard_node", *shown, "--shot", str(picture), "--after", "15"],
                                  env=environment)
        children.append(window)
        for x, y, z in itertools.cycle(GOALS):
            goal = [*start, "qgf_demo.send_goal", str(x), str(y), str(z), "--frame", frame]
            subprocess.run(goal, env=environment, check=False)
            try:
                window.wait(1.5)
                break
            except subprocess.TimeoutExpired:
                continue
        if not picture.is_file():
            sys.exit(f"qgf: error: {picture} was not made; what the dashboard says stands above")
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
    finally:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            try:
                child.wait(10.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a policy for the Panda, e.g. of ./qgf demo")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder (default: %(default)s)")
    parser.add_argument("--only", choices=SCENES, action="append", help="this picture")
    options = parser.parse_args()
    frame = load_bundle(options.bundle).manifest.robot.base_frame
    options.out.mkdir(parents=True, exist_ok=True)
    with Domain() as domain:
        for name in options.only or SCENES:
            take(name, options.bundle.resolve(), frame, options.out, {**os.environ, "ROS_DOMAIN_ID": str(domain.id)})


if __name__ == "__main__":
    main()

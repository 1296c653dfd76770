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

import rclpy
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

from qgf_core.bundle import load_bundle
from qgf_demo.domain import Domain
from qgf_msgs.msg import PolicyStatus

GOALS = ((0.50, 0.10, 0.40), (0.55, -0.15, 0.50), (0.60, 0.20, 0.35), (0.45, 0.00, 0.55))
"""In the demo's goal region [m]."""
PATIENT = ["-p", "autostart:=true", "-p", "allow_controller_without_timeout:=true", "-p", "overrun_share:=1.0",
           "-p", "stale_periods:=20.0"]
"""The policy node's parameters on a machine that is busy with drawing, too."""
SCENES = {
    "dashboard_light": (["--theme", "light", "--joint", "panda_joint4"], {}),
    "dashboard_dark": (["--theme", "dark", "--joint", "panda_joint1"], {"fault.noise": 25.0, "fault.delay_s": 0.03}),
}
"""Arguments of the dashboard, and faults that come over the moving arm, by the picture's name."""


def put(faults: dict[str, float], domain: int) -> None:
    """Set parameters of sim_node. :raises SystemExit: it does not answer."""
    with rclpy.init(domain_id=domain):
        node = rclpy.create_node("faults")
        client = AsyncParameterClient(node, "sim_node")
        if not client.wait_for_services(10.0):
            sys.exit("qgf: error: sim_node does not answer; what it says stands above")
        future = client.set_parameters([Parameter(name, value=value) for name, value in faults.items()])
        rclpy.spin_until_future_complete(node, future, timeout_sec=10.0)
        node.destroy_node()


def await_modes(modes: tuple[int, ...], domain: int, timeout: float = 90.0) -> None:
    """Until the policy is in one of these modes. :raises SystemExit: it is not, in `timeout` [s]."""
    seen: list[int] = []
    with rclpy.init(domain_id=domain):
        node = rclpy.create_node("waiting")
        node.create_subscription(PolicyStatus, "/policy_node/status", lambda m: seen.append(m.mode), 10)
        end = time.monotonic() + timeout
        while not (seen and seen[-1] in modes):
            if time.monotonic() > end:
                sys.exit(f"qgf: error: the policy does not run within {timeout:g} s; what it says stands above")
            rclpy.spin_once(node, timeout_sec=0.1)
        node.destroy_node()


def take(name: str, bundle: Path, frame: str, folder: Path, domain: int) -> None:
    """Run everything until the picture is there. :raises SystemExit: it is not."""
    shown, faults = SCENES[name]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    start = [sys.executable, "-m"]
    nodes = [[*start, "qgf_sim.sim_node"],
             [*start, "qgf_policy.policy_node", "--ros-args", "-p", f"bundle:={bundle}", *PATIENT],
             [*start, "qgf_monitor.monitor_node"]]
    children = [subprocess.Popen(node, env=environment) for node in nodes]
    try:
        picture = folder / f"{name}.png"
        picture.unlink(missing_ok=True)
        await_modes((PolicyStatus.HOLDING, PolicyStatus.RAMPING, PolicyStatus.ACTIVE), domain)
        window = subprocess.Popen([*start, "rqt_qgf.dashboard_node", *shown, "--shot", str(picture), "--after", "15"],
                                  env=environment)
        children.append(window)
        for number, (x, y, z) in enumerate(itertools.cycle(GOALS)):
            goal = [*start, "qgf_demo.send_goal", str(x), str(y), str(z), "--frame", frame]
            subprocess.run(goal, env=environment, check=False)
            if number == 0 and faults:
                await_modes((PolicyStatus.ACTIVE,), domain)
                put(faults, domain)
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
            take(name, options.bundle.resolve(), frame, options.out, domain.id)


if __name__ == "__main__":
    main()

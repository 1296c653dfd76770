# SPDX-License-Identifier: Apache-2.0
"""What a simulated arm does when a process of it is killed with SIGKILL while it moves, over real DDS.

    ./qgf bench kills [--repetitions 5] [--only node_velocity] [--json]

The arm is sim_node, whose controllers behave as ros2_control's do; the policy moves it to and fro at 100 Hz. A second
after the kill, the true state tells how fast the arm still is, and how far it went since. Rows:

  node_velocity       the policy node dies; a forward velocity controller, which keeps the last command for ever
  node_timeout        the same controller with a command_timeout of 0.1 s
  node_position       a forward position controller
  node_trajectory     joint_trajectory_controller
  node_paused         SIGSTOP of the policy node for 2 s, with the timeout of 0.1 s; it is let go again
  states              the joint states stop, the arm does not: what the policy node does
  sim                 the arm itself dies and is started again: what the policy node tells, and whether it goes on

Exits with 1 where an arm moves that should not: every row but node_velocity, which is why velocities go to a real arm
only through a controller that stops by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from fault_injection.arm import ROBOT, export
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from tqdm import tqdm

from qgf_msgs.msg import PolicyStatus

GOALS = ((0.6, 0.2, 0.55), (0.45, -0.2, 0.35))
AT_REST = 0.02
"""Joints slower than this stand [rad/s]: the double's own noise is smaller."""
ROWS: dict[str, tuple[str, float]] = {
    "node_velocity": ("velocity", 0.0),
    "node_timeout": ("velocity", 0.1),
    "node_position": ("position", 0.0),
    "node_trajectory": ("joint_trajectory", 0.0),
    "node_paused": ("velocity", 0.1),
    "states": ("velocity", 0.0),
    "sim": ("velocity", 0.0),
}
"""Command interface, and command_timeout of the arm's controller [s]."""


class Scene:
    """The arm, the policy node, and ears for both."""

    def __init__(self, folder: Path, interface: str, timeout: float) -> None:
        self.folder = folder
        self.node = rclpy.create_node("witness")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.truth: tuple[float, np.ndarray, np.ndarray] | None = None
        self.status: PolicyStatus | None = None
        deep = QoSProfile(depth=200)
        self.node.create_subscription(JointState, "sim_node/ground_truth", self._on_truth, deep)
        self.node.create_subscription(PolicyStatus, "policy_node/status", self._on_status, deep)
        self.goal = self.node.create_publisher(PoseStamped, "policy_node/goal", 10)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._sim = {"robot": ROBOT.name, "command_interface": interface, "command_timeout": timeout}
        self.start_sim()
        policy = {"bundle": folder / "bundle.pt", "autostart": "true", "command_interface": interface,
                  "allow_controller_without_timeout": "true", "home_limit": 0.0}
        self._start("policy_node", "from qgf_policy.start import main; main()", policy)
        self.until(lambda: self.status is not None and self.status.mode == PolicyStatus.HOLDING, "an active node", 60.0)

    def start_sim(self) -> None:
        """The arm, at home."""
        self._start("sim_node", "from qgf_sim.start import main; main()", self._sim)

    def _start(self, name: str, program: str, parameters: dict[str, Any]) -> None:
        words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
        log = (self.folder / f"{name}.log").open("ab")
        command = [sys.executable, "-c", program, "--ros-args", *words]
        self.children[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _on_truth(self, message: JointState) -> None:
        order = [message.name.index(name) for name in ROBOT.joint_names]
        self.truth = time.monotonic(), np.array(message.position)[order], np.array(message.velocity)[order]

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message

    def until(self, condition: Any, what: str, timeout: float = 20.0) -> None:
        """Listen until it holds."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                logs = "".join((self.folder / f"{name}.log").read_text()[-400:] for name in self.children)
                raise SystemExit(f"qgf: error: kills: not within {timeout:g} s: {what}; {logs}")
            self.executor.spin_once(timeout_sec=0.01)

    def listen(self, seconds: float) -> None:
        """Listen for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def move(self, seed: int) -> None:
        """Bring the arm to motion; returns while it moves."""
        for number in (seed, seed + 1):
            message = PoseStamped()
            message.header.frame_id = ROBOT.base_frame
            point = message.pose.position
            point.x, point.y, point.z = GOALS[number % 2]
            self.goal.publish(message)
            self.until(lambda: self.status.mode in (PolicyStatus.ACTIVE, PolicyStatus.RAMPING), "the policy at work")
            self.listen(0.7 if number == seed else 0.0)
        self.until(lambda: np.abs(self.truth[2]).max() > 0.2, "motion")

    def goes_on(self, timeout: float = 10.0) -> bool:
        """Whether the policy goes on to where it was told to go before, from where the new arm stands, or says why not:
        something else than that it hears nothing. It may be a few seconds until the middleware has found the arm."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.listen(0.1)
            fault = self.status.fault
            if self.status.mode == PolicyStatus.ACTIVE or (fault and "ms old" not in fault):
                return True
        return False

    def set_dropout(self, share: float) -> None:
        """Share of joint states that the arm does not send."""
        client = AsyncParameterClient(self.node, "sim_node")
        future = client.set_parameters([Parameter("fault.dropout", value=share)])
        self.until(future.done, "the arm's answer")

    def close(self) -> None:
        """End all processes."""
        for child in self.children.values():
            child.send_signal(signal.SIGCONT)
            child.kill()
            child.wait()
        self.executor.shutdown()
        self.node.destroy_node()


def run(row: str, seed: int) -> dict[str, float]:
    """One repetition: how fast the arm was at the kill and is a second later, and how far it went."""
    interface, timeout = ROWS[row]
    with tempfile.TemporaryDirectory() as name:
        export(Path(name) / "bundle.pt")
        scene = Scene(Path(name), interface, timeout)
        try:
            scene.move(seed)
            _, at, speed = scene.truth
            told = 1.0
            if row.startswith("node_"):
                scene.children["policy_node"].send_signal(signal.SIGSTOP if row == "node_paused" else signal.SIGKILL)
            elif row == "states":
                scene.set_dropout(1.0)
            else:
                scene.children["sim_node"].kill()
                scene.children["sim_node"].wait()
            scene.listen(1.0)
            if row in ("states", "sim"):
                told = float(scene.status.mode == PolicyStatus.HOLDING and "ms old" in scene.status.fault)
            if row == "sim":
                scene.start_sim()
                scene.truth = None
                scene.until(lambda: scene.truth is not None, "the arm's return")
                told *= float(scene.goes_on())
                return {"speed_before": float(np.abs(speed).max()), "told": told}
            _, after, still = scene.truth
            figures = {
                "speed_before": float(np.abs(speed).max()),
                "speed_after": float(np.abs(still).max()),
                "way": float(np.abs(after - at).max()),
            }
            if row == "node_paused":
                scene.listen(1.0)
                scene.children["policy_node"].send_signal(signal.SIGCONT)
                before = scene.status.header.stamp
                scene.until(lambda: scene.status.header.stamp != before, "the node's return")
                scene.listen(0.5)
                told = float(scene.status.mode in (PolicyStatus.ACTIVE, PolicyStatus.RAMPING, PolicyStatus.INACTIVE))
            return figures | {"told": told}
        finally:
            scene.close()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of each row (default: 5)")
    parser.add_argument("--only", help="rows, comma-separated: " + ", ".join(ROWS))
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else list(ROWS)
    if not set(wanted) <= set(ROWS) or options.repetitions < 1:
        parser.error(f"--only: rows are {', '.join(ROWS)}; --repetitions must be at least 1")
    found: dict[str, list[dict[str, float]]] = {row: [] for row in wanted}
    rclpy.init()
    order = [row for _ in range(options.repetitions) for row in wanted]
    for seed, row in enumerate(tqdm(order, unit="kill", disable=None)):
        found[row].append(run(row, seed))
    flat: dict[str, float] = {}
    for row, figures in found.items():
        for key in figures[0]:
            flat[f"{row}.{key}"] = statistics.median(f[key] for f in figures)
        if "speed_after" in figures[0]:
            flat[f"{row}.worst_speed_after"] = max(f["speed_after"] for f in figures)
        flat[f"{row}.told"] = min(f["told"] for f in figures)
        flat[f"{row}.repetitions"] = float(len(figures))
    if options.json:
        print(json.dumps(flat))
    else:
        print(f"{'row':<18}{'speed before':>14}{'a second after':>16}{'worst':>9}{'way [rad]':>11}{'as declared':>13}")
        for row in wanted:
            get = {key.partition(".")[2]: value for key, value in flat.items() if key.startswith(f"{row}.")}
            numbers = [get.get(key, math.nan) for key in ("speed_before", "speed_after", "worst_speed_after", "way")]
            text = "{:14.3f}{:16.3f}{:9.3f}{:11.3f}".format(*numbers)
            print(f"{row:<18}{text}{'yes' if get['told'] else 'NO':>13}")
    good = all(
        flat[f"{row}.told"] and (row in ("node_velocity", "sim") or flat[f"{row}.worst_speed_after"] < AT_REST)
        for row in wanted
    )
    return 0 if good else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)

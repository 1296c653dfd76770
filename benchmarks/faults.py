# SPDX-License-Identifier: Apache-2.0
"""The fault campaign: every fault is injected into a moving arm over real DDS, at random times, and the policy node's
reaction is measured.

    ./qgf bench faults [--repetitions 20] [--only stale,nan] [--seed 0] [--json]

Three processes: the policy node at 100 Hz, an arm that follows commands and fails on request, and this one, which
hears all; once by the steady clock, and for the faults of /clock once more with use_sim_time. A command is unsafe if
it is not finite, beyond a velocity limit, or differs from the one before by more than the acceleration limit allows.
Reaction: from the injection's taking effect (the arm's own stamp, or the moment of asking) until the node's first
message that shows it. Exits with 1 if a command was unsafe, or a fault was missed or late.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from fault_injection.arm import RATE, ROBOT, export
from fault_injection.catalogue import FAULTS, GOAL_TIMEOUT, Fault
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger
from tqdm import tqdm

from qgf_msgs.msg import PolicyCommand, PolicyStatus

ARM, NODE = (Path(__file__).with_name("fault_injection") / name for name in ("arm.py", "raising_node.py"))


# --------------------------------------------------------------------------------------------------- the operator


class Campaign:
    """Hears everything, injects, and judges.

    :param simulated: the arm tells the time on /clock, and the node goes by it.
    """

    def __init__(self, folder: Path, seed: int, simulated: bool) -> None:
        self.folder, self.random, self.simulated = folder, np.random.default_rng(seed), simulated
        self.bundle = folder / "bundle.pt"
        export(self.bundle)
        rclpy.init()
        self.node = rclpy.create_node("operator")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.commands: list[tuple[float, PolicyCommand]] = []
        self.statuses: list[tuple[float, PolicyStatus]] = []
        self.injected: list[str] = []
        self.sent_bad = self.sent = 0
        deep = QoSProfile(depth=1000)
        subscribe = self.node.create_subscription
        subscribe(PolicyCommand, "policy_node/command", self._on_command, deep)
        subscribe(PolicyStatus, "policy_node/status", lambda m: self.statuses.append((time.monotonic(), m)), deep)
        subscribe(String, "arm/injected", lambda m: self.injected.append(m.data), deep)
        subscribe(Float64MultiArray, ROBOT.topics.velocity, self._on_sent, deep)
        subscribe(JointState, ROBOT.topics.joint_states, self._on_state, qos_profile_sensor_data)
        self.state_stamp = 0.0  # of the newest joint state heard [s]
        self.goal = self.node.create_publisher(PoseStamped, "policy_node/goal", 10)
        self.request = self.node.create_publisher(String, "arm/fault", 10)
        self.estop_request = self.node.create_publisher(Bool, "policy_node/estop_request", 10)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.joint_position = ROBOT.home
        self.start_arm(ROBOT.home)
        options = {"bundle": self.bundle, "autostart": "true", "saturation_time": "0.4", "ramp_duration": "0.1",
                   "allow_controller_without_timeout": "true", "goal_timeout": str(GOAL_TIMEOUT),
                   "use_sim_time": str(simulated).lower()}
        parameters = [word for name, value in options.items() for word in ("-p", f"{name}:={value}")]
        self.failing = folder / "failing"
        self.start("policy_node", [sys.executable, str(NODE), str(self.failing), "--ros-args", *parameters])
        self.far = False
        self.rival: Any = None

    def start_arm(self, position: np.ndarray) -> None:
        """An arm that stands at `position` (n,) [rad]."""
        clock = ["--clock"] if self.simulated else []
        self.start("arm", [sys.executable, str(ARM), *clock, "--position", json.dumps(position.tolist())])

    def start(self, name: str, command: list[str]) -> None:
        """A process whose output goes to a file."""
        log = (self.folder / f"{name}.log").open("ab")
        self.children[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def close(self) -> None:
        """End all processes."""
        for child in self.children.values():
            child.send_signal(signal.SIGCONT)
            child.terminate()
        for child in self.children.values():
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def _on_command(self, message: PolicyCommand) -> None:
        self.commands.append((time.monotonic(), message))
        if message.observation:
            self.joint_position = ROBOT.home + np.array(message.observation[:7], dtype=np.float64)

    def _on_state(self, message: JointState) -> None:
        self.state_stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec

    def _on_sent(self, message: Float64MultiArray) -> None:
        self.sent += 1
        values = np.array(message.data)
        if values.shape != (7,) or not np.all(np.abs(values) <= ROBOT.velocity_limit + 1e-9):  # NaN fails too
            self.sent_bad += 1

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 30.0) -> None:
        """Listen until it holds."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                last = [(m.mode, m.fault) for _, m in self.statuses[-1:]]
                raise SystemExit(f"qgf: error: campaign: not within {timeout:g} s: {what}; last status {last}")
            self.executor.spin_once(timeout_sec=0.01)

    def listen(self, seconds: float) -> None:
        """Listen for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def call(self, kind: Any, name: str, request: Any = None) -> Any:
        """The answer of a service of the policy node."""
        client = self.node.create_client(kind, f"policy_node/{name}")
        self.until(client.service_is_ready, f"service {name}")
        future = client.call_async(request or kind.Request())
        self.until(future.done, f"the answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def transition(self, number: int) -> bool:
        """Whether a lifecycle transition succeeded."""
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, "change_state", request).success)

    def send_goal(self, x: float, y: float, z: float) -> None:
        """A goal in the base frame."""
        message = PoseStamped()
        message.header.frame_id = ROBOT.base_frame
        message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
        self.goal.publish(message)

    def mode(self) -> int | None:
        """The mode last told."""
        return self.statuses[-1][1].mode if self.statuses else None

    def bring_to_motion(self) -> None:
        """Active and moving, whatever was before."""
        self.statuses.clear()
        self.until(lambda: self.statuses, "a status")
        if self.mode() == PolicyStatus.ESTOPPED:
            self.call(Trigger, "reset_estop")
            self.statuses.clear()
            self.until(lambda: self.mode() == PolicyStatus.INACTIVE, "the stop unlatched")
        if self.mode() == PolicyStatus.INACTIVE:
            self.request.publish(String(data="home 0.1"))  # the linear policy is good near home only
            self.listen(0.3)  # the node follows its runner
            self.until(lambda: self.transition(Transition.TRANSITION_ACTIVATE), "an activation")
        self.statuses.clear()
        self.far = not self.far
        goal = (0.45, -0.2, 0.35) if self.far else (0.6, 0.2, 0.55)
        self.send_goal(*goal)
        self.until(lambda: self.mode() == PolicyStatus.ACTIVE, "mode ACTIVE")
        self.commands.clear()
        self.send_goal(*((0.6, 0.2, 0.55) if self.far else (0.45, -0.2, 0.35)))
        self.until(lambda: self.commands and np.abs(self.commands[-1][1].command).max() > 0.3, "motion")

    def run(self, fault: Fault) -> dict[str, float]:
        """One repetition: detected, reaction time, unsafe commands, recovered."""
        self.bring_to_motion()
        self.listen(float(self.random.uniform(0.0, 0.2)))
        self.last_status = self.statuses[-1][1]
        self.statuses.clear()
        kept = self.commands[-1:]
        self.commands[:] = kept
        bad_before = self.sent_bad
        if fault.inject is not None:
            effect = fault.inject(self)
        else:
            self.injected.clear()
            self._ask_the_arm(f"{fault.name} {fault.lasts}")
            effect = 1e-9 * float(self.injected[-1].split()[1])
        reacted = self._reaction(fault, effect)
        self.listen(max(0.0, fault.lasts - (time.monotonic() - effect)) + 0.1)
        if fault.mend is not None:
            fault.mend(self)
        recovered = self._recovered(fault)
        self.listen(0.1)
        unsafe = self._unsafe() + self.sent_bad - bad_before
        if reacted is None or not recovered:
            said = [f"{m.mode} {m.fault}" for _, m in self.statuses if m.fault] + [m.fault for _, m in self.commands]
            alike = {re.sub(r"[\d.]+", "0", text): text for text in said if text}  # ages differ in each message
            told = "; ".join(alike.values()) or "nothing"
            print(f"{fault.name}: {reacted=}, {recovered=}, mode {self.mode()}, told {told}", file=sys.stderr)
        return {
            "detected": float(reacted is not None and reacted <= fault.within),
            "reaction": math.nan if reacted is None else reacted,
            "unsafe": float(unsafe),
            "recovered": float(recovered),
        }

    def _ask_the_arm(self, what: str) -> None:
        """Until it is told that it was done: an arm that was started anew may not hear yet."""
        asked = 0.0

        def done() -> bool:
            nonlocal asked
            if time.monotonic() > asked + 1.0:
                asked = time.monotonic()
                self.request.publish(String(data=what))
            return bool(self.injected)

        self.until(done, "the injection")

    def _reaction(self, fault: Fault, effect: float) -> float | None:
        if fault.reaction == "none":
            self.listen(fault.within)
            quiet = all(m.mode == PolicyStatus.ACTIVE for _, m in self.statuses)
            return 0.0 if quiet and all(not m.fault for _, m in self.commands) else None
        if fault.reaction == "tell":
            counted = f"faults_{fault.name}"
            before = getattr(self.last_status, counted)
            self.until(lambda: self.statuses and getattr(self.statuses[-1][1], counted) > before, "the fault counted")
            return self.statuses[-1][0] - effect
        end = max(effect, time.monotonic()) + 4.0 * fault.within + 2.0
        while time.monotonic() < end:
            for at, command in self.commands:
                if fault.words in command.fault and command.fault and at >= effect and fault.reaction != "refuse":
                    return max(at - effect, 0.0)
            for at, status in self.statuses:
                if fault.words in status.fault and status.fault and at >= effect:
                    return max(at - effect, 0.0)
            self.executor.spin_once(timeout_sec=0.005)
        return None

    def _recovered(self, fault: Fault) -> bool:
        """Whether what was declared came about in the end."""
        wanted = {
            "hold": PolicyStatus.ACTIVE,
            "refuse": PolicyStatus.ACTIVE,
            "none": PolicyStatus.ACTIVE,
            "tell": PolicyStatus.ACTIVE,
            "end": PolicyStatus.INACTIVE,
            "latch": PolicyStatus.ESTOPPED,
        }[fault.reaction]
        if fault.reaction == "hold":
            self.send_goal(0.5, 0.1, 0.45)  # the bad goal of some of them is not to be kept
        self.statuses.clear()
        end = time.monotonic() + 3.0
        while time.monotonic() < end and self.mode() != wanted:
            self.executor.spin_once(timeout_sec=0.01)
        self.listen(0.2)
        at_rest = fault.reaction not in ("end", "latch") or not np.any(self.commands[-1][1].command)
        return self.mode() == wanted and at_rest

    def _unsafe(self) -> int:
        """Commands since the injection that are not finite, too fast, or jump."""
        messages = [m for _, m in self.commands]
        values = np.array([m.command for m in messages])
        unsafe = int(np.sum(~np.all(np.abs(values) <= ROBOT.velocity_limit + 1e-9, axis=1)))
        following = np.diff([m.sequence for m in messages]) == 1
        jumps = np.any(np.abs(np.diff(values, axis=0)) > ROBOT.acceleration_limit / RATE + 1e-9, axis=1)
        return unsafe + int(np.sum(jumps & following))


def campaign(
    faults: list[Fault], repetitions: int, seed: int, simulated: bool, rows: dict[str, list[dict[str, float]]]
) -> tuple[int, bool]:
    """Fills the rows; returns how many commands were heard, and whether the node crashed."""
    with tempfile.TemporaryDirectory() as folder:
        operator = Campaign(Path(folder), seed, simulated)
        try:
            operator.until(lambda: operator.mode() == PolicyStatus.HOLDING, "the policy node's start", 60.0)
            for fault in tqdm([f for _ in range(repetitions) for f in faults], unit="fault", disable=None):
                rows[fault.name].append(operator.run(fault))
        finally:
            operator.close()
            log = (Path(folder) / "policy_node.log").read_text(errors="replace")
    return operator.sent, "Traceback" in log


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=20, help="of each fault (default: 20)")
    parser.add_argument("--only", help="names of faults, comma-separated: " + ", ".join(f.name for f in FAULTS))
    parser.add_argument("--seed", type=int, default=0, help="of the random times (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [fault.name for fault in FAULTS]
    unknown = sorted(set(wanted) - {fault.name for fault in FAULTS})
    if unknown or options.repetitions < 1:
        parser.error(f"unknown faults: {', '.join(unknown)}" if unknown else "--repetitions must be at least 1")
    faults = [fault for fault in FAULTS if fault.name in wanted]
    rows: dict[str, list[dict[str, float]]] = {fault.name: [] for fault in faults}
    sent, crashed = 0, False
    for simulated in (False, True):
        group = [fault for fault in faults if fault.simulated == simulated]
        if group:
            more, died = campaign(group, options.repetitions, options.seed, simulated, rows)
            sent, crashed = sent + more, crashed or died
    flat: dict[str, float] = {"commands": float(sent), "node_crashed": float(crashed)}
    for fault in faults:
        found = rows[fault.name]
        reactions = [row["reaction"] for row in found if not math.isnan(row["reaction"])]
        flat |= {
            f"{fault.name}.injected": float(len(found)),
            f"{fault.name}.detected": sum(row["detected"] for row in found),
            f"{fault.name}.recovered": sum(row["recovered"] for row in found),
            f"{fault.name}.worst_reaction_ms": 1e3 * max(reactions) if reactions else -1.0,
            f"{fault.name}.declared_ms": 1e3 * fault.within,
            f"{fault.name}.unsafe_commands": sum(row["unsafe"] for row in found),
        }
    if options.json:
        print(json.dumps(flat))
    else:
        print(f"{'fault':<20}{'reaction':<10}{'injected':>9}{'detected':>9}{'as declared after':>18}"
              f"{'worst [ms]':>11}{'declared':>9}{'unsafe':>7}")
        for fault in faults:
            get = {key.rpartition(".")[2]: value for key, value in flat.items() if key.startswith(f"{fault.name}.")}
            print(
                f"{fault.name:<20}{fault.reaction:<10}{get['injected']:9.0f}{get['detected']:9.0f}"
                f"{get['recovered']:18.0f}{get['worst_reaction_ms']:11.1f}{get['declared_ms']:9.0f}"
                f"{get['unsafe_commands']:7.0f}"
            )
        print(f"{sent} commands heard; the node {'CRASHED' if crashed else 'never crashed'}")
    good = not crashed and all(
        flat[f"{f.name}.detected"] == flat[f"{f.name}.recovered"] == flat[f"{f.name}.injected"]
        and flat[f"{f.name}.unsafe_commands"] == 0
        for f in faults
    )
    return 0 if good else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)

# SPDX-License-Identifier: Apache-2.0
"""How well the control loop keeps time, beside rclpy's own timer doing the same work.

    ./qgf bench loop [--rates 250,500,1000] [--seconds 30] [--runs 3] [--cpu N] [--json]

Joint states of 7 joints come at the same rate from another process; the policy is a 256 x 256 network in a bundle, run
by the policy node itself with all that it does beside: limiter, ~/command, ~/status, /diagnostics, watching. A cycle's
time is taken when publish has returned. A period longer than 1.1 (late10) or 1.5 (late50) times nominal is late, and so
is every deadline that was left out; the shares are of the deadlines due. Latency is from the take of the state to the
return of publish. cpu_us is the whole process's.

  fifo          SCHED_FIFO and mlockall, on the processor that the node chooses for itself (keys absent where the system
                does not permit them)
  plain         ordinary scheduling
  create_timer  the same work in a timer of rclpy with an executor's subscription, ordinary scheduling
  bare          SCHED_FIFO where permitted, and nothing but sleep from deadline to deadline: what the machine allows
"""

from __future__ import annotations

import argparse
import array
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

# The arm of this benchmark stands still, and states may be late without ending what is to be measured.
SETTINGS = {"state_timeout": 1.0, "tracking_limit": 0.0, "saturation_time": 0.0}
GOAL = (0.5, 0.1, 0.4)
"""[m], so that the policy is asked in every period."""
CELLS = ("fifo", "plain", "create_timer", "bare")
SETTLE = 1.0
"""Left out at the beginning [s]: discovery and first calls."""
OVERHEAD = 6.0
"""What a run takes beside its measured time [s], for the estimate alone: start-up, the bundle, settling."""


# ---------------------------------------------------------------------------------------- in the measured processes


def publisher(rate: float) -> None:
    """Joint states of the Panda at home and a goal, until the parent ends this process."""
    import rclpy
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import JointState

    from qgf_core.clocks import Pacer, SteadyClock
    from qgf_core.robot import load_robot
    from qgf_policy.realtime import ask
    from qgf_policy.settings import RealtimeSettings

    robot = load_robot("panda")
    ask(RealtimeSettings(priority=40), 0)
    rclpy.init()
    node = rclpy.create_node("driver")
    states = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    message = JointState(name=list(robot.joint_names))
    message.position, message.velocity = array.array("d", robot.home.tolist()), array.array("d", [0.0] * 7)
    goals, goal = node.create_publisher(PoseStamped, "/policy_node/goal", 1), PoseStamped()
    goal.header.frame_id = robot.base_frame
    goal.pose.position.x, goal.pose.position.y, goal.pose.position.z = GOAL
    pacer = Pacer(SteadyClock(), round(1e9 / rate))
    for number in itertools.count():
        pacer.wait()
        if number % round(rate) == 0:
            goals.publish(goal)
        message.header.stamp = node.get_clock().now().to_msg()
        states.publish(message)


def make_bundle(rate: float, folder: Path):
    """A freshly exported, untrained 256 x 256 policy, loaded from `folder`/bundle.pt."""
    import torch

    from qgf_core.action import ActionSpec
    from qgf_core.bundle import load_bundle, save_bundle
    from qgf_core.manifest import Box, make_manifest
    from qgf_core.observation import ObservationTerm
    from qgf_core.robot import load_robot, read_urdf

    robot = load_robot("panda")
    names = ("joint_position", "joint_velocity", "previous_action", "tool_position_error")
    manifest = make_manifest(
        task="reach",
        robot=robot,
        observation=tuple(ObservationTerm(name) for name in names),
        action=ActionSpec("joint_velocity", tuple(robot.policy_velocity.tolist())),
        control_rate=rate,
        delay_range=(0.0, 0.0),
        goal_region=Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)),
        training={},
        evaluation={},
        urdf=read_urdf(robot),
    )
    torch.manual_seed(0)
    layers = [torch.nn.Linear(24, 256), torch.nn.SiLU(), torch.nn.Linear(256, 256), torch.nn.SiLU()]
    module = torch.nn.Sequential(*layers, torch.nn.Linear(256, 7), torch.nn.Tanh())
    save_bundle(folder / "bundle.pt", module, manifest, np.zeros((4, 24)))
    return load_bundle(folder / "bundle.pt")


def activate(runner, state, now: int) -> None:
    """With the goal, where no node takes one."""
    runner.set_goal(GOAL, runner.manifest.robot.base_frame, 1, now)
    runner.activate(state, now)


class Stamps:
    """When each cycle took the state and when its command was out [ns]."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.out: list[int] = []

    def figures(self, period: int, cpu: float) -> dict[str, float]:
        """The cell's figures; the deadlines left out are those that no cycle stands for."""
        begin = self.out[0] + round(SETTLE * 1e9)
        first = int(np.searchsorted(self.out, begin))
        out, taken = np.array(self.out[first:]), np.array(self.taken[first:])
        periods = np.diff(out)
        left_out = int(np.maximum(np.round(periods / period) - 1, 0).sum())
        due = len(periods) + left_out
        latency = 1e-3 * (out - taken)
        return {
            "late10": (int(np.sum(periods > 1.1 * period)) + left_out) / due,
            "late50": (int(np.sum(periods > 1.5 * period)) + left_out) / due,
            "cpu_us": 1e6 * cpu / len(self.out),
            "latency_p50_us": float(np.percentile(latency, 50)),
            "latency_p99_us": float(np.percentile(latency, 99)),
            "worst_period_us": float(1e-3 * periods.max()),
            "cycles": float(due),
        }


class RunningNode:
    """The policy node, autostarted on a fresh bundle, spun by whoever calls `spin`.

    :param port: stands in for the node's RosPort, so that it can be watched.
    :param cpu: processor that the loop's thread is kept on; -1: as the node chooses.
    """

    def __init__(self, rate: float, fifo: bool, folder: Path, port, cpu: int = -1) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from qgf_policy import session
        from qgf_policy.policy_node import PolicyNode
        from qgf_policy.status import Mode

        session.RosPort = port
        make_bundle(rate, folder)
        values: dict[str, object] = {"bundle": folder / "bundle.pt", "autostart": "true"} | SETTINGS
        values |= {"allow_controller_without_timeout": "true", "cpu": cpu}
        if fifo:
            values |= {"realtime_priority": 50, "lock_memory": "true"}
        arguments = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
        rclpy.init(args=["--ros-args", *arguments])
        self.node = node = PolicyNode()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self.spin(30.0, lambda: node.report is not None and node.report.status.mode == Mode.ACTIVE)
        if node.report is None or node.report.status.mode != Mode.ACTIVE:
            raise SystemExit(f"qgf: error: the policy does not run: {node.report}")

    def spin(self, seconds: float, done=lambda: False) -> None:
        """Let the node do what it does beside the loop."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not done() and self.node.exit_code is None:
            self._executor.spin_once(timeout_sec=0.5)


def own_loop(rate: float, seconds: float, fifo: bool, folder: Path, cpu: int) -> dict[str, float] | None:
    """The policy node itself; None where real-time rights were asked for and not given."""
    from qgf_policy.ros_port import RosPort

    stamps = Stamps()

    class StampedPort(RosPort):
        def take(self, now: int):
            self.began = time.monotonic_ns()
            return super().take(now)

        def send(self, values) -> None:
            super().send(values)
            stamps.out.append(time.monotonic_ns())
            stamps.taken.append(self.began)

    running = RunningNode(rate, fifo, folder, StampedPort, cpu)
    for note in running.node.notes:
        print(note, file=sys.stderr)
    if any(note.startswith(("realtime_priority", "lock_memory", "cpu")) for note in running.node.notes):
        return None
    first, began = len(stamps.out), time.process_time()
    running.spin(seconds + SETTLE)
    used, last, counters = time.process_time() - began, len(stamps.out), running.node.report.status.counters
    running.node.end()
    stamps.out, stamps.taken = stamps.out[first:last], stamps.taken[first:last]
    return stamps.figures(round(1e9 / rate), used) | {"held": float(counters.faults_stale_state)}


def create_timer(rate: float, seconds: float, folder: Path, cpu: int) -> dict[str, float]:
    """The same runner in a timer of rclpy."""
    import rclpy
    import torch
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray

    from qgf_msgs.msg import PolicyCommand
    from qgf_policy.conversions import ArrayCommand, CommandReport, nanoseconds
    from qgf_policy.joint_state import JointStateMerger
    from qgf_policy.runner import PolicyRunner
    from qgf_policy.settings import RunnerSettings

    torch.set_num_threads(1)
    runner = PolicyRunner(make_bundle(rate, folder), RunnerSettings(**SETTINGS))
    robot = runner.manifest.robot
    rclpy.init()
    node = rclpy.create_node("policy_node")
    merger, stamps = JointStateMerger(robot, runner.state_limit), Stamps()
    commands = node.create_publisher(Float64MultiArray, robot.topics.velocity, 1)
    reports = node.create_publisher(PolicyCommand, "~/command", 100)
    array = ArrayCommand(serialize_message)
    report = CommandReport("velocity", list(robot.joint_names), runner.control_period, serialize_message)
    active = threading.Event()

    def on_state(m: JointState) -> None:
        stamp = nanoseconds(m.header.stamp)
        age = node.get_clock().now().nanoseconds - stamp
        merger.add(m.name, m.position, m.velocity, stamp, time.monotonic_ns(), age, len(m.effort))

    def tick() -> None:
        now = time.monotonic_ns()
        state = merger.snapshot()
        if not active.is_set():
            if runner.judge_activation(state, now) is None:
                activate(runner, state, now)
                active.set()
            return
        command, _ = runner.step(state, now)
        commands.publish(array.payload(command.values))
        stamps.out.append(time.monotonic_ns())
        stamps.taken.append(now)
        reports.publish(report.payload(command, node.get_clock().now().nanoseconds))

    node.create_subscription(JointState, "joint_states", on_state, qos_profile_sensor_data)
    node.create_timer(1.0 / rate, tick)
    end = time.monotonic() + 30.0
    while not active.is_set() and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    keep_on(cpu)
    began = time.process_time()
    end = time.monotonic() + seconds + SETTLE
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    return stamps.figures(runner.command_period, time.process_time() - began)


def keep_on(cpu: int) -> None:
    """Keep this thread on a processor; -1 means any."""
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})


def bare(rate: float, seconds: float, cpu: int) -> dict[str, float]:
    """The loop's deadlines, without anything to do at them."""
    import gc

    from qgf_core.clocks import Pacer, SteadyClock
    from qgf_policy.realtime import ask
    from qgf_policy.settings import RealtimeSettings

    for note in ask(RealtimeSettings(priority=50, lock_memory=True), threading.get_native_id()):
        print(note, file=sys.stderr)
    keep_on(cpu)
    gc.disable()
    stamps, pacer = Stamps(), Pacer(SteadyClock(), round(1e9 / rate))
    began, end = time.process_time(), time.monotonic() + seconds + SETTLE
    while time.monotonic() < end:
        pacer.wait()
        now = time.monotonic_ns()
        stamps.taken.append(now)
        stamps.out.append(now)
    return stamps.figures(round(1e9 / rate), time.process_time() - began)


def cell(name: str, rate: float, seconds: float, cpu: int) -> None:
    """Measure one cell and print it as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "create_timer":
            figures: dict[str, float] | None = create_timer(rate, seconds, Path(folder), cpu)
        elif name == "bare":
            figures = bare(rate, seconds, cpu)
        else:
            figures = own_loop(rate, seconds, name == "fifo", Path(folder), cpu)
    print(json.dumps(figures), flush=True)
    os._exit(0)


# ------------------------------------------------------------------------------------------------- in the parent


def measure(name: str, rate: float, seconds: float, cpu: int) -> dict[str, float] | None:
    """One run of one cell, with its driver beside it."""
    base = [sys.executable, str(Path(__file__).resolve())]
    driver = subprocess.Popen([*base, "--publisher", str(rate)])
    try:
        command = [*base, "--cell", name, "--rates", str(rate), "--seconds", str(seconds), "--cpu", str(cpu)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds + 120)
    finally:
        driver.kill()
        driver.wait()
    if done.returncode != 0:
        raise SystemExit(f"qgf: error: the cell {name} at {rate:g} Hz failed; see above")
    figures: dict[str, float] | None = json.loads(done.stdout)
    return figures


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench loop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default="250,500,1000", help="[Hz], comma-separated (default: 250,500,1000)")
    parser.add_argument("--seconds", type=float, default=30.0, help="a run's length (default: 30)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each cell; medians are printed (default: 3)")
    told = "keep the measured loop on this processor, such as one that the kernel's own threads were moved from"
    parser.add_argument("--cpu", type=int, default=-1, help=f"{told} (default: -1, as the node chooses; -2: any)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--cell", choices=CELLS, help=argparse.SUPPRESS)
    parser.add_argument("--publisher", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publisher:
        publisher(options.publisher)
    try:
        rates = [float(rate) for rate in options.rates.split(",")]
    except ValueError:
        parser.error(f"--rates {options.rates}: give numbers, comma-separated")
    if options.seconds <= 0 or options.runs < 1 or min(rates) < 1:
        parser.error("--seconds, --runs and --rates must be positive")
    if options.cpu >= 0 and options.cpu not in os.sched_getaffinity(0):
        parser.error(f"--cpu {options.cpu}: this process may use {sorted(os.sched_getaffinity(0))}")
    if options.cell:
        cell(options.cell, rates[0], options.seconds, options.cpu)
    flat: dict[str, float] = {}
    done, total = 0, len(rates) * options.runs * len(CELLS)
    for rate in rates:
        runs: dict[str, list[dict[str, float]]] = {}
        for number in range(options.runs):  # in turn, so that a drift of the machine meets all alike
            for name in CELLS:
                left, told = total - done, f"{name} at {rate:g} Hz, run {number + 1} of {options.runs}"
                print(f"{told}: about {left * (options.seconds + OVERHEAD) / 60:.0f} min to go", file=sys.stderr)
                figures = measure(name, rate, options.seconds, options.cpu)
                done += 1
                if figures is not None:
                    runs.setdefault(name, []).append(figures)
                    parts = [f"{key} {100 * figures[key]:.3f} %" for key in ("late10", "late50")]
                    parts += [f"{key} {figures[key]:.0f}" for key in ("latency_p99_us", "cpu_us")]
                    print(f"  {', '.join(parts)}", file=sys.stderr)
        for name, found in runs.items():
            for key in found[0]:
                values = [figures[key] for figures in found]
                prefix = f"{name}.{rate:g}.{key}"
                flat |= {prefix: statistics.median(values), f"{prefix}.min": min(values), f"{prefix}.max": max(values)}
    if options.json:
        print(json.dumps(flat))
        return 0
    print(f"{'':>18} {'late10 %':>24} {'late50 %':>24}{'latency p99 us':>16}{'CPU us':>9}{'worst us':>10}")
    for key in [key for key in flat if key.endswith(".late10")]:
        prefix = key[: -len("late10")]
        shares = []
        for share in ("late10", "late50"):
            median, low, high = (100 * flat[prefix + share + end] for end in ("", ".min", ".max"))
            shares.append(f"{median:.3f} ({low:.3f} .. {high:.3f})")
        others = [flat[prefix + k] for k in ("latency_p99_us", "cpu_us", "worst_period_us")]
        print(f"{prefix[:-1]:>18} {shares[0]:>24} {shares[1]:>24}{others[0]:16.0f}{others[1]:9.0f}{others[2]:10.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

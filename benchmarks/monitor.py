# SPDX-License-Identifier: Apache-2.0
"""What the monitor costs, and how old its reports are.

    ./qgf bench monitor [--seconds 30] [--json]
    ./qgf bench monitor --soak 1800      its memory alone, with 7 joints

Two topics at 1 kHz come from another process: joint states with position, velocity and effort, and commands (an array
of numbers), each of N joints. The monitor is the node as shipped, in a process of its own, with reports and spectra at
10 Hz that a third process receives.

  Nx1000.core_share     the monitor's CPU time over wall time
  Nx1000.memory_growth  resident memory at the end over that after 5 s of measuring
  report_age_ms         from the arrival of the newest message in a report to the report's receipt, 99th percentile;
                        making the figures and sending the report are in it; a listener's first second is left out,
                        in which what was sent before it was known comes late
  window_cost_exponent  of the time for one report's figures over the window's samples, from 2,000 to 32,000: n log n
                        has about 1.1 there
  soak.*                resident memory after the first sixth of the time and at the end, the largest in between, and
                        the slope of a straight line through the last five sixths
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RATE = 1000.0
JOINTS = (32, 7)
SETTLE = 5.0
"""Discovery and a full movement window [s]."""
BATCH = 5
"""Messages sent between two sleeps: the sender must leave time to the others on few cores."""
DISCOVERY = 1.0
"""Of a listener [s]."""


# ---------------------------------------------------------------------------------------- in the measured processes


def publish(joints: int) -> None:
    """Joint states and commands until the parent ends this process."""
    import rclpy
    from builtin_interfaces.msg import Time
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray

    rclpy.init()
    node = rclpy.create_node("driver")
    profile = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
    states = node.create_publisher(JointState, "joint_states", profile)
    commands = node.create_publisher(Float64MultiArray, "commands", profile)
    names = [f"joint_{i}" for i in range(joints)]
    rng = np.random.default_rng(0)
    t = np.arange(1000) / RATE
    tones = 0.3 * np.sin(2 * np.pi * (t[:, None] + np.linspace(0, 1, joints)))
    rows = [array.array("d", row.tobytes()) for row in tones + 1e-3 * rng.normal(size=tones.shape)]
    zero, began = node.get_clock().now().nanoseconds, time.monotonic()
    message, command, k = JointState(name=names), Float64MultiArray(), 0
    while True:
        for _ in range(BATCH):
            stamp = zero + k * 1_000_000
            message.header.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
            message.position = message.velocity = message.effort = command.data = rows[k % 1000]
            states.publish(message)
            commands.publish(command)
            k += 1
        time.sleep(max(0.0, began + k / RATE - time.monotonic()))


def listen(seconds: float) -> None:
    """Prints the ages of reports [s] as JSON."""
    import rclpy

    from qgf_msgs.msg import SmoothnessReport, Spectrum

    rclpy.init()
    node = rclpy.create_node("listener")
    ages: list[float] = []
    first = 0.0

    def report(message: SmoothnessReport) -> None:
        nonlocal first
        first = first or time.monotonic()
        sent = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        if time.monotonic() > first + DISCOVERY:
            ages.append(message.message_age + time.time() - sent)

    node.create_subscription(SmoothnessReport, "monitor_node/report", report, 100)
    node.create_subscription(Spectrum, "monitor_node/spectrum", lambda _: None, 100)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(ages))


# ------------------------------------------------------------------------------------------------- in the parent


def usage(process: int) -> tuple[float, int]:
    """CPU time [s] and resident memory [bytes] of a process."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return ticks, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def start(stack: contextlib.ExitStack, command: list[str], **options) -> subprocess.Popen[str]:
    """A process that ends with the stack."""
    process = subprocess.Popen(command, text=True, **options)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


OWN = [sys.executable, str(Path(__file__).resolve())]


def start_monitor(stack: contextlib.ExitStack, joints: int) -> subprocess.Popen[str]:
    """A monitor at work: the node as shipped, its two topics, and time to settle."""
    names = json.dumps([f"joint_{i}" for i in range(joints)])
    monitor = start(stack, [
        sys.executable, "-m", "qgf_monitor.monitor_node", "--ros-args", "-p", "command_topic:=commands", "-p",
        "command_type:=Float64MultiArray", "-p", f"joints:={names}"])
    start(stack, [*OWN, "--publish", str(joints)])
    time.sleep(SETTLE)
    return monitor


def soak(seconds: float) -> dict[str, float]:
    """Resident memory over a long time [MB]."""
    times, resident = [], []
    with contextlib.ExitStack() as stack:
        monitor = start_monitor(stack, 7)
        start(stack, [*OWN, "--listen", str(10.0 * seconds)], stdout=subprocess.DEVNULL)
        (cpu, _), began = usage(monitor.pid), time.monotonic()
        while time.monotonic() < began + seconds:
            time.sleep(min(5.0, seconds / 60.0))
            if monitor.poll() is not None:
                raise SystemExit("qgf: error: the monitor ended; see above")
            times.append(time.monotonic() - began)
            resident.append(usage(monitor.pid)[1] / 2**20)
        share = (usage(monitor.pid)[0] - cpu) / times[-1]
    later = np.array(times) > seconds / 6.0
    t, memory = np.array(times)[later], np.array(resident)[later]
    return {"soak.seconds": times[-1], "soak.core_share": share, "soak.memory_begin_mb": float(memory[0]),
            "soak.memory_end_mb": float(memory[-1]), "soak.memory_largest_mb": float(memory.max()),
            "soak.slope_mb_per_hour": 3600.0 * float(np.polyfit(t, memory, 1)[0])}


def measure(joints: int, seconds: float) -> tuple[dict[str, float], list[float]]:
    """One cell: its figures, and the ages of its reports [s]."""
    with contextlib.ExitStack() as stack:
        monitor = start_monitor(stack, joints)
        listener = start(stack, [*OWN, "--listen", str(seconds)], stdout=subprocess.PIPE)
        time.sleep(SETTLE)
        (cpu, memory), began = usage(monitor.pid), time.monotonic()
        output, _ = listener.communicate(timeout=seconds + 60.0)
        (cpu_end, memory_end), wall = usage(monitor.pid), time.monotonic() - began
        monitor.send_signal(signal.SIGINT)
        if monitor.wait(10.0) != 0:
            raise SystemExit("qgf: error: the monitor failed; see above")
    ages = json.loads(output)
    if len(ages) < 30 * (seconds - 3.0):  # four signals at 10 Hz, less discovery
        raise SystemExit(f"qgf: error: {len(ages)} reports in {seconds:g} s; is the machine too busy?")
    return {f"{joints}x{RATE:.0f}.core_share": (cpu_end - cpu) / wall,
            f"{joints}x{RATE:.0f}.memory_growth": memory_end / memory}, ages


def window_cost() -> dict[str, float]:
    """Time of one report over the window's length, and its exponent."""
    from qgf_core.sliding_window import SlidingWindow
    from qgf_monitor.config import load_config
    from qgf_monitor.recorder import Source
    from qgf_monitor.reports import make_reports

    config, rng, found = load_config(), np.random.default_rng(0), {}
    for samples in (2000, 8000, 32000):
        window = SlidingWindow(samples / RATE, 7, 40000)
        window.extend(np.arange(samples) / RATE, rng.normal(size=(samples, 7)))
        source = Source("joint_position", tuple("abcdefg"), window, 0, 0.0, "position")
        times = []
        for _ in range(7):
            began = time.process_time()
            make_reports([source], None, config, samples / RATE, {}, {})
            times.append(time.process_time() - began)
        found[f"window_{samples}_ms"] = 1e3 * min(times)
    found["window_cost_exponent"] = math.log(found["window_32000_ms"] / found["window_2000_ms"]) / math.log(16.0)
    return found


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench monitor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each measurement (default: 30)")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="watch the memory for this long instead")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listen", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish(options.publish)
    if options.listen:
        listen(options.listen)
        return 0
    if options.seconds <= 0 or (options.soak is not None and options.soak <= 0):
        parser.error("--seconds and --soak must be positive")
    if options.soak is not None:
        print(f"7 joints at {RATE:g} Hz, {options.soak / 60.0:.1f} minutes", file=sys.stderr)
        flat = soak(options.soak)
    else:
        flat, ages = window_cost(), []
        for joints in JOINTS:
            print(f"{joints} joints at {RATE:g} Hz, about {options.seconds + 2 * SETTLE:.0f} s", file=sys.stderr)
            figures, found = measure(joints, options.seconds)
            flat |= figures
            ages += found
        flat["report_age_ms"] = 1e3 * float(np.percentile(ages, 99))
        flat["report_age_ms_median"] = 1e3 * float(np.median(ages))
    if options.json:
        print(json.dumps(flat))
    else:
        for name, value in flat.items():
            print(f"{name:>24} {value:8.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

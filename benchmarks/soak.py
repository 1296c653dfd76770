# SPDX-License-Identifier: Apache-2.0
"""Whether the policy node stays as it is: memory, phase and counters over a long run.

    ./qgf bench soak [--minutes 30] [--rate 500] [--fifo] [--json]

The node of `./qgf bench loop`, and a third process that hears ~/command. Keys:

  rss_slope_mb_per_h, rss_slope_error   line through the resident memory, without the first tenth, and 2 standard errors
  phase_drift_us                        how far the beginning of the cycles moved against the deadlines' grid: median of
                                        the last tenth less that of the first
  due, sent, skipped                    deadlines due, commands sent, and what the node's own counter says was left out
  heard, gaps                           ~/command messages heard from outside, and numbers missing in their sequence
  exact                                 1 where due = sent + skipped, and the sequence and what was heard agree with it

Exits with 1 where memory grows, the phase drifts by more than 20 us, or the counters are not exact.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from loop import RunningNode
from tqdm import tqdm

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE = 2.0
"""Between two looks at the memory [s]."""
DRIFT = 20.0
"""Largest drift of the phase [us]."""


def listener() -> None:
    """Counts ~/command until its input ends, and prints what it heard."""
    import select

    import rclpy
    from rclpy.qos import QoSProfile

    from qgf_msgs.msg import PolicyCommand

    rclpy.init()
    node = rclpy.create_node("listener")
    numbers: list[int] = []
    node.create_subscription(
        PolicyCommand, "/policy_node/command", lambda m: numbers.append(m.sequence), QoSProfile(depth=2000)
    )
    while not select.select([sys.stdin], [], [], 0.0)[0]:
        rclpy.spin_once(node, timeout_sec=0.1)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    first = int(sys.stdin.readline())
    heard = sorted(number for number in numbers if number >= first)
    gaps = heard[-1] - heard[0] + 1 - len(heard) if heard else -1
    print(json.dumps({"last": heard[-1] if heard else -1, "heard": len(heard), "gaps": gaps}), flush=True)
    os._exit(0)


def soak(rate: float, minutes: float, fifo: bool, folder: Path, ears: subprocess.Popen) -> dict[str, float]:
    """Run, and judge."""
    from qgf_policy.ros_port import RosPort

    period = round(1e9 / rate)
    total = round(60 * minutes * rate) + round(5 * rate)
    begun, numbers, left_out_before = np.full((3, total), -1)  # not zeros: their pages would come one by one, as a leak
    count, watched = 0, []

    class CountingPort(RosPort):
        def take(self, now: int):
            self.began = now
            return super().take(now)

        def report(self, command) -> None:
            nonlocal count
            super().report(command)
            if count < total:
                begun[count], numbers[count] = self.began, command.sequence
                if watched:  # told after the report: what was left out before this very cycle is not in it yet
                    left_out_before[count] = watched[0].skipped_cycles
                count += 1

    running = RunningNode(rate, fifo, folder, CountingPort)
    for note in running.node.notes:
        print(note, file=sys.stderr)
    watched.append(running.node._session.runner.counters)  # a report of the node would be up to 0.2 s old
    running.spin(1.0)
    first, began = count, time.monotonic()
    seconds, memory = 60.0 * minutes, []
    with tqdm(total=round(seconds), unit="s", disable=None) as bar:
        while (elapsed := time.monotonic() - began) < seconds:
            running.spin(SAMPLE)
            memory.append((elapsed, int(Path("/proc/self/statm").read_text().split()[1]) * PAGE))
            bar.update(round(time.monotonic() - began) - bar.n)
    session = running.node._session
    session.loop.call(lambda state, now: session.runner.deactivate()).result(5.0)
    running.spin(1.0)
    counters = running.node.report.status.counters
    sent = count - first
    ears.stdin.write(f"{numbers[first]}\n")
    ears.stdin.flush()
    heard = json.loads(ears.stdout.readline())
    running.node.end()
    begun = begun[first:count]
    due = round((begun[-1] - begun[0]) / period) + 1
    phase = 1e-3 * ((begun + period // 2) % period - period // 2)
    tenth = max(1, len(phase) // 10)
    at, size = np.array(memory)[len(memory) // 10 :].T
    (slope, _), covariance = np.polyfit(at / 3600.0, size / 1e6, 1, cov=True)
    left_out = counters.skipped_cycles - int(left_out_before[first + 1])
    numbered = numbers[count - 1] - numbers[first] + 1
    exact = due == sent + left_out and numbered == sent and abs(heard["heard"] - sent) <= 1
    return {
        "rss_mb": float(size[-1] / 1e6),
        "rss_slope_mb_per_h": float(slope),
        "rss_slope_error": 2.0 * float(np.sqrt(covariance[0, 0])),
        "phase_drift_us": float(np.median(phase[-tenth:]) - np.median(phase[:tenth])),
        "due": float(due),
        "sent": float(sent),
        "skipped": float(left_out),
        "heard": float(heard["heard"]),
        "gaps": float(heard["gaps"]),
        "overruns": float(counters.overruns),
        "exact": float(exact),
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the run (default: 30)")
    parser.add_argument("--rate", type=float, default=500.0, help="control rate [Hz] (default: 500)")
    parser.add_argument("--fifo", action="store_true", help="with SCHED_FIFO and mlockall, as on a robot")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--listener", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.listener:
        listener()
    if options.minutes <= 0 or options.rate < 1:
        parser.error("--minutes and --rate must be positive")
    loop = Path(__file__).with_name("loop.py")
    driver = subprocess.Popen([sys.executable, str(loop), "--publisher", str(options.rate)])
    ears = subprocess.Popen(
        [sys.executable, __file__, "--listener"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = soak(options.rate, options.minutes, options.fifo, Path(folder), ears)
    finally:
        driver.kill()
        ears.kill()
    good = (
        figures["rss_slope_mb_per_h"] < max(1.0, figures["rss_slope_error"])
        and abs(figures["phase_drift_us"]) < DRIFT
        and figures["exact"] == 1.0
    )
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>22} {value:14.3f}")
    return 0 if good else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)

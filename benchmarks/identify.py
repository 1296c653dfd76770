# SPDX-License-Identifier: Apache-2.0
"""How well ./qgf identify finds the drives that a sim_node hides, over DDS: several draws, one row each.

    ./qgf bench identify                  three draws, Panda, two joints: about two minutes
    ./qgf bench identify --draws 6 --robot ur5e --seconds 8 --json
    ./qgf bench identify --second-order   servos that swing or creep into place, their damping hidden too
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
import yaml

from qgf_core.robot import load_robot

RATE = 400.0
"""Of the double's physics [Hz]; a command waits up to one period of it, a part of the delay that nobody hides."""

STATE_RATE = 200.0
"""Of its joint states [Hz]."""


def draw(generator: np.random.Generator, latency: float, second_order: bool) -> dict[str, float]:
    """What the double hides: delay beyond the robot's [s], factor on its time constant, gain, dry friction [N m], and
    the damping ratio of a servo of second order."""
    hidden = {"delay": round(float(generator.uniform(-0.5 * latency, 0.03)), 4),
            "time_constant": round(float(np.exp(generator.uniform(np.log(0.5), np.log(2.0)))), 3),
            "gain": round(float(generator.uniform(0.85, 1.1)), 3),
            "coulomb": round(float(generator.uniform(0.0, 0.5)), 3)}
    if second_order:
        hidden["damping_ratio"] = round(float(generator.uniform(0.3, 1.0)), 3)
    return hidden


def measure(robot: str, joints: list[str], hidden: dict[str, float], seconds: float, seed: int) -> dict:
    """Start a double that hides this, identify it, end it. :return: the command's JSON."""
    namespace = f"/bench_identify_{os.getpid()}_{seed}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hidden.yaml"
        path.write_text(yaml.safe_dump({name: {"fixed": value} for name, value in hidden.items()}))
        double = subprocess.Popen(
            [sys.executable, "-c", "from qgf_sim.start import main; main()", "--ros-args", "-r", f"__ns:={namespace}",
             "-p", f"robot:={robot}", "-p", f"perturb:={path}", "-p", f"physics_rate:={RATE}",
             "-p", f"state_rate:={STATE_RATE}", "-p", f"seed:={seed}"], stderr=subprocess.DEVNULL)
        try:
            time.sleep(1.0)
            done = subprocess.run(
                [sys.executable, "-m", "qgf_sim.identify_node", "--robot", robot, "--namespace", namespace, "--yes",
                 "--allow-controller-without-timeout",
                 "--json", "--quiet", "--out", "-", "--seconds", str(seconds), "--seed", str(seed),
                 "--joints", *joints],
                stdout=subprocess.PIPE, check=True)
        finally:
            double.terminate()
            double.wait()
    return dict(json.loads(done.stdout))


def main() -> int:
    """Entry point; returns 0 if every row is within the bounds."""
    parser = argparse.ArgumentParser(prog="qgf bench identify", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="panda")
    parser.add_argument("--joints", type=int, default=2, help="how many, spread over the arm (default: 2)")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="motion of each joint [s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--second-order", action="store_true", help="servos of second order")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    robot = load_robot(options.robot)
    chosen = [robot.joint_names[int(i)] for i in np.linspace(0, len(robot.joints) - 1, options.joints).round()]
    generator, rows = np.random.default_rng(options.seed), []
    half_period = 0.5 / STATE_RATE
    for number in range(options.draws):
        hidden = draw(generator, robot.drive.latency, options.second_order)
        print(f"draw {number + 1} of {options.draws}, about {3 + len(chosen) * (options.seconds + 4):.0f} s: {hidden}",
              file=sys.stderr)
        found = measure(options.robot, chosen, hidden, options.seconds, options.seed + number)
        delay = robot.drive.latency + hidden["delay"]
        lag = robot.drive.time_constant * hidden["time_constant"]
        damping = hidden.get("damping_ratio", 0.0)
        for joint, values in found["joints"].items():
            rows.append({
                "draw": number, "joint": joint, "delay": delay, "found_delay": values["delay"], "time_constant": lag,
                "found_time_constant": values["time_constant"], "gain": hidden["gain"], "found_gain": values["gain"],
                "coulomb": hidden["coulomb"], "found_coulomb": values["coulomb"],
                "damping_ratio": damping, "found_damping_ratio": values["damping_ratio"],
                "delay_ok": abs(values["delay"][0] - delay) <= max(0.1 * delay, half_period),
                "time_constant_ok": abs(values["time_constant"][0] - lag) <= 0.15 * lag,
                "damping_ratio_ok": not damping or abs(values["damping_ratio"][0] - damping) <= 0.15 * damping})
    checks = ("delay_ok", "time_constant_ok", "damping_ratio_ok")
    good = all(row[check] for row in rows for check in checks)
    if options.json:
        print(json.dumps({"rows": rows, "all_within_bounds": good}))
        return int(not good)

    def cell(hidden: float, found: list[float], factor: float) -> str:
        value, low, high = (factor * number for number in found)
        return f"{factor * hidden:.3g} | {value:.3g} +- {0.5 * (high - low):.1g}"

    print("| joint | delay [ms] | found | lag [ms] | found | damping ratio | found | gain | found | friction [N m] "
          "| found | within bounds |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [cell(row[name], row[f"found_{name}"], factor)
                 for name, factor in (("delay", 1e3), ("time_constant", 1e3), ("damping_ratio", 1.0), ("gain", 1.0),
                                      ("coulomb", 1.0))]
        within = "yes" if all(row[check] for check in checks) else "NO"
        print(f"| {row['joint']} | {' | '.join(cells)} | {within} |")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())

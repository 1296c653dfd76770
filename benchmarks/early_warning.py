# SPDX-License-Identifier: Apache-2.0
"""Does the critic on board warn before the arm chatters?

    ./qgf bench early_warning BUNDLE... [--seconds 40] [--seeds 5] [--json]

Bundles of ./qgf train --with-critic run in simulation while one thing slowly gets worse, in 40 s; the monitor hears the
inferences as it does live. What gets worse:

  none      nothing, for comparison: a warning here is a false alarm
  goal      the goal wanders from the middle of the region trained on to twice its half-width beyond it
  delay     actions take effect later and later, up to five control periods
  gain      the drives' speed grows to three times what was asked for

Told are the times at which the field's slope reaches critic_slope's bound over that in simulation, and at which the
high-frequency ratio's alarm on the raw action rises, each by the monitor's own rules [s]; nan: never. A lead above 0
means that the critic came first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import deque
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qgf_core.bundle import load_bundle
from qgf_core.errors import QgfError
from qgf_monitor.config import load_config
from qgf_monitor.health import Level
from qgf_monitor.monitor import Monitor
from qgf_sim.env import ArmEnv

RAMPS = ("none", "goal", "delay", "gain")
CALM = 5.0
"""Before it gets worse [s]."""
LOOKS = 10
"""Control periods between two looks."""
MOST_DELAY, MOST_GAIN, BEYOND = 5, 3.0, 3.0


def watch(path: Path, ramp: str, seconds: float, seed: int) -> dict[str, float]:
    """Times of both alarms [s], and the figures at the beginning and at the end."""
    bundle, monitor = load_bundle(path), Monitor(load_config())
    monitor.use_bundle(str(path))
    if monitor.critic is None:
        raise QgfError(f"{path}: carries no critic; train it with --with-critic")
    manifest = bundle.manifest
    env = ArmEnv(manifest.robot.name, manifest.task)
    low, high = np.array(manifest.goal_region.lower), np.array(manifest.goal_region.upper)
    random = np.random.default_rng(seed)
    direction = random.normal(size=3)
    direction /= np.abs(direction).max()
    observation, _ = env.reset(seed=seed, options={"goal": 0.5 * (low + high)})
    rate, names = manifest.control_rate, manifest.robot.joint_names
    queue: deque[np.ndarray] = deque([np.zeros(len(names))] * (MOST_DELAY + 1), maxlen=MOST_DELAY + 1)
    told = {"critic": math.nan, "chatter": math.nan}
    slopes, ratios = [], []
    for k in range(round(seconds * rate)):
        now = k / rate
        worse = min(1.0, max(0.0, now - CALM) / (seconds - CALM))
        # A small circle, so that it always has somewhere to go.
        around = 0.3 * 0.5 * (high - low) * np.array([math.cos(now), math.sin(now), 0.0])
        wandering = BEYOND * worse * direction if ramp == "goal" else 0.0
        env.goal = 0.5 * (low + high) + 0.5 * (high - low) * wandering + around
        action = bundle.act(observation).astype(np.float64)
        queue.appendleft(action)
        done = queue[round(MOST_DELAY * worse)] if ramp == "delay" else action
        if ramp == "gain":
            done = np.clip((1.0 + (MOST_GAIN - 1.0) * worse) * done, -1.0, 1.0)
        stamp = np.array([10**18 + round(now * 1e9)])
        monitor.recorder.policy_commands(
            names, action[None], done[None], observation[None].astype(np.float64), "velocity",
            np.array([k], np.uint64), 1.0 / rate, "", stamp, stamp, now)
        observation, *_ = env.step(done.astype(np.float32))
        env._previous_action = action  # the policy is told what it wanted, as on the arm
        if k % LOOKS or now < 2.0:
            continue
        visited = monitor.visited(now)
        if visited is not None:
            figures = monitor.critic.field_figures(*visited)
            monitor.take_field(figures, now)
            slopes.append(figures.slope)
        for judgement in monitor.judge(now):
            if judgement.report.source == "raw_action":
                ratios.append(float(judgement.report.baseline_ratio.max()))
                if math.isnan(told["chatter"]) and max(judgement.verdict.joints) >= Level.WARN:
                    told["chatter"] = now
        (entry,) = [entry for entry in monitor.diagnose(now) if entry.name == "critic"]
        if math.isnan(told["critic"]) and Level.WARN <= entry.verdict.level < Level.STALE:
            told["critic"] = now
    env.close()
    usual = float(manifest.evaluation["critic_slope"])
    return {**told, "lead": told["chatter"] - told["critic"], "slope_calm": slopes[0] / usual,
            "slope_largest": max(slopes) / usual, "chatter_calm": ratios[0], "chatter_largest": max(ratios)}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench early_warning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="+", type=Path, help="with a critic")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each run (default: 40)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.seconds <= 2 * CALM or options.seeds < 1:
        parser.error(f"--seconds must be above {2 * CALM:g}, --seeds at least 1")
    found: dict[str, list[dict[str, float]]] = {}
    try:
        for path, ramp in tqdm(list(itertools.product(options.bundle, RAMPS)), unit="case"):
            found[f"{path.parent.name}.{ramp}"] = [watch(path, ramp, options.seconds, seed)
                                                   for seed in range(options.seeds)]
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found).replace("NaN", "null"))
        return 0
    columns = list(next(iter(found.values()))[0])
    print(f"{'':>26}" + "".join(f"{name:>16}" for name in columns))
    for name, rows in found.items():
        for row in rows:
            print(f"{name:>26}" + "".join(f"{value:>16.3g}" for value in row.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

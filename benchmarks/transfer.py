# SPDX-License-Identifier: Apache-2.0
"""What a policy keeps of its skill on an arm and an engine that it never trained on.

    ./qgf bench transfer [--robot panda] [--seeds 3] [--episodes 100] [--live 20] [--out DIR] [--json]

For each seed a policy trained on randomised arms (config/perturb/train.yaml) and one trained on the nominal arm alone,
both in PyBullet. Each is judged on the same goals in PyBullet as trained for, in MuJoCo with config/perturb/harsh.yaml
(one control period more delay, slower and weaker drives, friction, 1 kg, twice the noise, lost states, jitter), and
over ROS topics: policy_node against a sim_node that plays the harsh arm in MuJoCo, in real time.

Prints medians over the seeds, smallest and largest. The folder keeps runs and figures; what is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic
from qgf_core.robot import load_robot
from qgf_demo.domain import Domain
from qgf_demo.judge import judge_live, live_episodes
from qgf_demo.live import LiveRun
from qgf_demo.policies import read_trained
from qgf_demo.processes import Nursery
from qgf_demo.recording import load_recording
from qgf_demo.session import Plan
from qgf_sim.reach import load_reach, seeded_episode
from qgf_trainer.evaluation import load_evaluation
from qgf_trainer.process import TrainingProcess

METHODS = {"randomised": ["--override", "perturb=train"], "nominal": []}
WORLDS = {"trained": [], "harsh": ["--engine", "mujoco", "--perturb", "harsh"]}
SHOWN = ("success", "settled", "final_distance_mm", "return", "hold_rms", "mean_abs_delta")


def train(method: str, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """One run, unless it is there. :raises QgfError: it failed."""
    if (folder / "bundle.pt").exists():
        return
    arguments = ["--robot", options.robot, "--seed", str(seed), "--out", str(folder), "--resume", *METHODS[method]]
    arguments += ["--steps", str(options.steps)] if options.steps else []
    process = TrainingProcess(arguments)
    with tqdm(desc=f"{method} {seed}", unit="step") as bar:
        try:
            while not process.ended:
                event = process.next_event(timeout=0.5)
                if event is not None and event["event"] == "progress":
                    bar.total = event["steps_total"]
                    bar.update(event["step"] - bar.n)
        finally:
            process.stop()
    if not (folder / "bundle.pt").exists():
        raise QgfError(f"{method} with seed {seed}: {process.verdict()}")


def kept(path: Path, make) -> dict[str, float]:
    """Figures from a file, or made and written there."""
    if not path.exists():
        write_atomic(path, json.dumps(make()).encode())
    figures: dict[str, float] = json.loads(path.read_text())
    return figures


def evaluate(bundle: Path, world: str, episodes: int) -> dict[str, float]:
    """By the command that users have. :raises QgfError: it failed."""
    command = [sys.executable, "-m", "qgf_trainer.cli", "evaluate", str(bundle), "--episodes", str(episodes), "--json"]
    done = subprocess.run([*command, *WORLDS[world]], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise QgfError(done.stderr.strip().splitlines()[-1])
    return {key: value for key, value in json.loads(done.stdout).items() if isinstance(value, float)}


def live(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Over ROS topics, with the harsh arm. :raises QgfError: a node died."""
    robot, task, evaluation = load_robot(options.robot), load_reach(), load_evaluation()
    trained = read_trained(folder)
    goals = [seeded_episode(task, robot, evaluation.first_seed + i)[1].tolist() for i in range(options.live)]
    place = folder / "live"
    place.mkdir(exist_ok=True)
    plan = Plan(
        robot.joint_names, robot.base_frame, robot.topics.joint_states, tuple((x, y, z) for x, y, z in goals),
        task.episode_steps, 1.0 / trained.manifest.control_rate, str((place / "recording.npz").absolute()))
    with Domain() as domain, Nursery() as nursery:
        LiveRun(place, options.robot, trained, plan, domain.id, engine="mujoco", perturb="harsh").run(nursery, "live")
    recording = load_recording(Path(plan.recording))
    return judge_live(
        recording, live_episodes(recording, robot, trained.manifest.kinematics(), task), robot, task, evaluation)


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="qgf bench transfer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="panda")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 (default: 3)")
    parser.add_argument("--steps", type=int, help="control steps (default: that of config/train/reach.yaml)")
    parser.add_argument("--episodes", type=int, default=100, help="goals in simulation (default: 100)")
    parser.add_argument("--live", type=int, default=20, help="goals over ROS topics, 3 s each; 0: none (default: 20)")
    parser.add_argument("--out", type=Path, help="keep the runs here (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args()
    if options.seeds < 1 or options.episodes < 1 or options.live < 0:
        parser.error("--seeds and --episodes must be at least 1, --live not negative")
    cells: dict[str, dict[str, list[dict[str, float]]]] = {method: {} for method in METHODS}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.out or Path(temporary)
        jobs = [(method, seed, root / f"{method}-{seed}") for seed in range(options.seeds) for method in METHODS]
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda job: train(*job, options), jobs))
            for method, _, folder in tqdm(jobs, desc="evaluation", unit="policy"):
                for world in WORLDS:
                    path = folder / f"transfer-{world}-{options.episodes}.json"
                    figures = kept(path, lambda f=folder, w=world: evaluate(f / "bundle.pt", w, options.episodes))
                    cells[method].setdefault(world, []).append(figures)
                if options.live:
                    path = folder / f"transfer-live-{options.live}.json"
                    cells[method].setdefault("live", []).append(kept(path, lambda f=folder: live(f, options)))
        except QgfError as error:
            print(f"qgf: error: {error}", file=sys.stderr)
            return 2
    flat: dict[str, float] = {}
    for method, worlds in cells.items():
        for world, runs in worlds.items():
            for name in runs[0]:
                values = [figures[name] for figures in runs]
                key = f"{method}.{world}.{name}"
                flat |= {key: statistics.median(values), f"{key}.min": min(values), f"{key}.max": max(values)}
            holds = [a["hold_rms"] / b["hold_rms"] for a, b in zip(runs, worlds["trained"], strict=True)]
            flat[f"{method}.{world}.hold_ratio"] = statistics.median(holds)
    if options.json:
        print(json.dumps(flat))
        return 0
    columns = [(method, world) for method in METHODS for world in cells[method]]
    print(f"{'':>18}" + "".join(f"{f'{m}, {w}':>32}" for m, w in columns))
    for name in SHOWN:
        row = [[flat[f"{m}.{w}.{name}{end}"] for end in ("", ".min", ".max")] for m, w in columns]
        print(f"{name:>18}" + "".join(f"{f'{a:.3g} ({b:.3g} .. {c:.3g})':>32}" for a, b, c in row))
    print(f"{'hold_ratio':>18}" + "".join(f"{flat[f'{m}.{w}.hold_ratio']:32.2f}" for m, w in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())

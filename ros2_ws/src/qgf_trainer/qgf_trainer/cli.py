# SPDX-License-Identifier: Apache-2.0
"""Command lines of the trainer: train and evaluate."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from qgf_core.bundle import load_bundle
from qgf_core.errors import BundleError, QgfError
from qgf_core.files import write_atomic
from qgf_core.manifest import Manifest, check_robot
from qgf_core.robot import load_robot, read_urdf
from qgf_sim.engines import Engine
from qgf_sim.env import ReachEnv
from qgf_sim.perturb import load_perturbation
from qgf_sim.reach import load_reach
from qgf_trainer.config import TrainConfig, describe, load_train_config, with_form
from qgf_trainer.evaluation import evaluate, load_evaluation
from qgf_trainer.export import export_bundle, versions
from qgf_trainer.q_gradient_field import FieldConfig
from qgf_trainer.reporting import make_reporter
from qgf_trainer.td3 import TD3Config
from qgf_trainer.training import prepare_folder, train

_TABLE = (
    "success",
    "settled",
    "final_distance_mm",
    "return",
    "sm",
    "mean_abs_delta",
    "hold_rms",
    "command_mean_abs_delta",
)


def _settings_help() -> str:
    lines = ["settings for --override and config/train/*.yaml, with their defaults:"]
    for prefix, cls in (("", TrainConfig), ("learner.", TD3Config), ("field.", FieldConfig)):
        for field in dataclasses.fields(cls):
            if not dataclasses.is_dataclass(typing.get_type_hints(cls)[field.name]):
                lines.append(f"  {prefix}{field.name}={field.default}")
    return "\n".join(lines)


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings_help(),
        description="Train a policy in PyBullet and export it as a bundle that a robot can run.\n\n"
        "example:  ./qgf train --robot panda --task reach --algo td3 --steps 60000 --seed 0 --out runs/panda\n"
        "writes:   bundle.pt, evaluation.json, config.json, progress.csv, tensorboard/, checkpoint.safetensors",
    )
    parser.add_argument("--robot", help="name in config/robots or a YAML file (default: panda)")
    parser.add_argument("--task", default="reach", help="name in config/tasks (default: reach)")
    parser.add_argument(
        "--algo",
        choices=["td3", "td3-plain"],
        default="td3",
        help="td3: with the stabilised Q-gradient critic (default); td3-plain: without, for comparison",
    )
    parser.add_argument("--steps", type=int, help="control steps over all environments (default: that of the config)")
    parser.add_argument("--seed", type=int, help="seed of weights, noise and training goals (default: 0)")
    parser.add_argument(
        "--out", type=Path, required=True, help="output folder; must be new unless --resume or --overwrite"
    )
    parser.add_argument(
        "--form",
        choices=["scale_free", "paper"],
        help="form of the critic's losses: scale_free needs no search "
        "(default), paper is the published one with its weights",
    )
    parser.add_argument(
        "--smoothness", type=float, help="dial of the scale-free form: curvature demanded of the critic (default: 5)"
    )
    parser.add_argument(
        "--config", default=None, help="name in config/train or a YAML file (default: that of the task)"
    )
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="any setting below, repeatable"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the folder's checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the folder")
    parser.add_argument(
        "--progress",
        choices=["auto", "bar", "json", "none"],
        default="auto",
        help="a bar with ETA, JSON lines on standard output, or nothing (default: a bar on a terminal)",
    )
    return parser


class _StopRequest:
    """Set by the first SIGINT or SIGTERM; the run then ends at the next end of its episodes. A second signal ends it
    at once."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise SystemExit(128 + number)
        self.signal = number


def _run_training(options: argparse.Namespace) -> int:
    overrides = list(options.override)
    if options.smoothness is not None:
        overrides.append(f"field.smoothness={options.smoothness}")
    config = with_form(
        load_train_config(
            options.config or options.task,
            overrides,
            robot=options.robot,
            task=options.task,
            algorithm=options.algo,
            steps=options.steps,
            seed=options.seed,
        ),
        options.form,
    )
    load_robot(config.robot)  # a mistake in the robot or task must not leave a folder behind
    load_reach(config.task)
    if config.perturb:
        load_perturbation(config.perturb)
    evaluation = load_evaluation()
    folder: Path = options.out
    prepare_folder(folder, options.resume, options.overwrite)
    write_atomic(folder / "config.json", json.dumps({**describe(config), "versions": versions()}, indent=2).encode())
    stop = _StopRequest()
    reporter = make_reporter(options.progress, config.algorithm, config.steps)
    try:
        result = train(
            config, folder, resume=options.resume, report=reporter.progress, should_stop=lambda: bool(stop.signal)
        )
    finally:
        reporter.close()
    if result.interrupted:
        reporter.note("interrupted", step=result.steps)
        print(f"qgf: stopped at step {result.steps}; continue with --resume --out {folder}", file=sys.stderr)
        return 128 + stop.signal
    reporter.note("evaluating", episodes=evaluation.episodes)
    policy = result.agent.deployed()
    figures, episodes = evaluate(result.env, policy.act, evaluation)
    figures["training_time_s"] = result.training_time
    result.env.close()
    bundle = folder / "bundle.pt"
    sha256 = export_bundle(bundle, policy, result.env, config, result.steps, figures, episodes)
    write_atomic(folder / "evaluation.json", json.dumps(figures, indent=2).encode())
    reporter.note("result", bundle=str(bundle), sha256=sha256, figures=figures)
    if options.progress != "json":
        _print_figures(figures)
        print(f"bundle: {bundle}")
    return 0


def _print_figures(figures: dict[str, float]) -> None:
    for name in _TABLE:
        print(f"{name:>24}  {figures[name]:.4g}")


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf evaluate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a bundle in simulation on fixed goals, start poses and noise, and measure success and "
        "smoothness.\n\nexamples: ./qgf evaluate runs/panda/bundle.pt --episodes 20 --json\n"
        "          ./qgf evaluate runs/panda/bundle.pt --engine mujoco --perturb config/perturb/harsh.yaml",
    )
    parser.add_argument("bundle", type=Path, help="the bundle.pt that train wrote")
    parser.add_argument("--robot", help="name in config/robots or a YAML file (default: the bundle's robot)")
    parser.add_argument("--episodes", type=int, help="number of goals (default: that of config/eval/reach.yaml)")
    parser.add_argument(
        "--first-seed", type=int, help="seed of the first episode (default: that of config/eval/reach.yaml)"
    )
    parser.add_argument(
        "--engine",
        choices=typing.get_args(Engine),
        default="pybullet",
        help="physics: pybullet, on which policies are trained (default), or mujoco, which they have never seen",
    )
    parser.add_argument(
        "--perturb",
        help="how the arm differs from the robot's description: a name in config/perturb, such as harsh (delay, lag, "
        "friction, payload, noise, lost states, jitter), or a YAML file (default: not at all)",
    )
    parser.add_argument("--no-noise", action="store_true", help="without sensor noise")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _check_task(manifest: Manifest, env: ReachEnv, path: Path) -> None:
    if manifest.observation != env.config.observation or manifest.control_rate != env.config.control_rate:
        raise BundleError(
            f"{path}: its observation or control rate is not that of config/tasks/{manifest.task}.yaml; "
            "evaluate it with the task that it was trained on"
        )


def _run_evaluation(options: argparse.Namespace) -> int:
    bundle = load_bundle(options.bundle)
    manifest = bundle.manifest
    changes: dict[str, Any] = {"episodes": options.episodes, "first_seed": options.first_seed}
    config = load_evaluation()
    try:
        config = dataclasses.replace(
            config,
            sensor_noise=config.sensor_noise and not options.no_noise,
            **{key: value for key, value in changes.items() if value is not None},
        )
    except ValueError as error:
        raise QgfError(f"--episodes or --first-seed: {error}") from error
    robot = load_robot(options.robot or manifest.robot.name)
    check_robot(manifest, robot, read_urdf(robot), options.bundle)
    task = load_reach(manifest.task)
    perturbation = load_perturbation(options.perturb) if options.perturb else None
    env = ReachEnv(
        robot, task, sensor_noise=config.sensor_noise, engine=options.engine, perturbation=perturbation
    )
    _check_task(manifest, env, options.bundle)
    figures, _ = evaluate(env, bundle.act, config)
    env.close()
    if options.json:
        about = {"bundle": str(options.bundle), "sha256": bundle.sha256, "robot": robot.name, "engine": options.engine}
        about["perturb"] = options.perturb or ""
        print(json.dumps(about | figures))
    else:
        _print_figures(figures)
    return 0


def _guarded(run: Any, options: argparse.Namespace) -> int:
    try:
        return int(run(options))
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `train`; returns the exit code."""
    return _guarded(_run_training, _train_parser().parse_args(arguments))


def evaluate_main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `evaluate`; returns the exit code."""
    return _guarded(_run_evaluation, _evaluate_parser().parse_args(arguments))


def main() -> int:
    """`python -m qgf_trainer.cli train|evaluate ...`."""
    commands = {"train": train_main, "evaluate": evaluate_main}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(
            f"qgf: error: '{' '.join(sys.argv[1:2])}': unknown command; choose one of: {', '.join(commands)}",
            file=sys.stderr,
        )
        return 2
    return commands[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Command lines of the trainer: train and evaluate."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
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
from qgf_sim.env import ArmEnv
from qgf_sim.perturb import load_perturbation
from qgf_sim.tasks import kind_of, load_task
from qgf_trainer.config import (
    TrainConfig,
    describe,
    is_arm_task,
    load_train_config,
    settings_of,
    with_form,
)
from qgf_trainer.evaluation import EvaluationConfig, evaluate, evaluate_task, evaluation_of, load_evaluation
from qgf_trainer.export import export_bundle, versions
from qgf_trainer.gymnasium_task import GymnasiumTask, gymnasium_id
from qgf_trainer.policy_file import load_policy, save_policy
from qgf_trainer.reporting import make_reporter
from qgf_trainer.rivals import RivalName
from qgf_trainer.settings_help import settings_help
from qgf_trainer.training import TrainingResult, make_environments, prepare_folder, train

_LAST_WORDS = 10.0
"""Once its input has ended a run has this long to save [s]."""
_TABLE = (
    "success",
    "settled",
    "final_distance_mm",
    "final_error_mm",
    "final_error_mrad",
    "error_rms_mrad",
    "return",
    "sm",
    "sm_task_units",
    "mean_abs_delta",
    "hold_rms",
    "command_mean_abs_delta",
    "smoothness_dial",
)


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=settings_help(TrainConfig),
        description="Train a policy: of an arm, in PyBullet, exported as a bundle that a robot can run; or of any "
        "Gymnasium task\nwith Box spaces.\n\n"
        "example:  ./qgf train --robot panda --task reach --algo td3 --steps 60000 --seed 0 --out runs/panda\n"
        "          ./qgf train --task Pendulum-v1 --algo sac --out runs/pendulum\n"
        "writes:   bundle.pt (a Gymnasium task: policy.safetensors), evaluation.json, config.json, progress.csv,\n"
        "          tensorboard/, checkpoint.safetensors; dial.json tells how --smoothness auto went",
    )
    parser.add_argument("--robot", help="name in config/robots or a YAML file (default: panda)")
    parser.add_argument("--task", help="name in config/tasks, or a Gymnasium id, also as gymnasium:ID (default: reach)")
    parser.add_argument(
        "--algo",
        choices=["td3", "td3-plain", "sac", "sac-plain"],
        default="td3",
        help="td3, sac: with the stabilised Q-gradient critic (default: td3); td3-plain, sac-plain: without, for "
        "comparison",
    )
    parser.add_argument(
        "--rival",
        choices=[name for name in typing.get_args(RivalName) if name != "none"],
        help="for comparison, a policy-side method in place of the stabilised critic, with its paper's setting",
    )
    parser.add_argument("--steps", type=int, help="control steps over all environments (default: that of the config)")
    parser.add_argument(
        "--minutes", type=float, help="train for at most so long, and then evaluate and export what is there"
    )
    parser.add_argument("--seed", type=int, help="seed of weights, noise and training goals (default: 0)")
    parser.add_argument(
        "--out", type=Path, required=True, help="output folder; must be new unless --resume or --overwrite"
    )
    parser.add_argument(
        "--form",
        choices=["scale_free", "paper"],
        help="form of the critic's losses: scale_free needs no search "
        "(default), paper is the published one with the weights given for the task",
    )
    parser.add_argument(
        "--smoothness",
        metavar="DIAL",
        help="dial of the scale-free form: curvature demanded of the critic, 0 is plain (default: the task's, 5 for "
        "arms); auto: find the smoothest that costs at most auto.budget (5 %%) of the return, in this one run",
    )
    parser.add_argument(
        "--config", default=None, help="name in config/train or a YAML file (default: that of the task)"
    )
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="any setting below, repeatable"
    )
    parser.add_argument(
        "--with-critic",
        action="store_true",
        help="the bundle also carries the critic, whose field the monitor then watches (about 300 kB); with --resume "
        "a finished run is exported again",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the folder's checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the folder")
    parser.add_argument(
        "--progress",
        choices=["auto", "bar", "json", "none"],
        default="auto",
        help="a bar with ETA, JSON lines on standard output, or nothing (default: a bar on a terminal)",
    )
    parser.add_argument(
        "--until-input-ends",
        action="store_true",
        help="stop, as on Ctrl-C, when standard input ends: whoever holds its other end may die in any way",
    )
    return parser


class _StopRequest:
    """Set by the first SIGINT or SIGTERM. While the training loop asks for it, it saves and leaves; before and after
    that there is nothing that a checkpoint does not hold already, and a signal, like any second one, ends the run at
    once."""

    def __init__(self, with_input: bool) -> None:
        self.signal = 0
        self.heeded = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        if with_input:
            threading.Thread(target=self._watch_input, daemon=True).start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal or not self.heeded:
            raise SystemExit(128 + number)
        self.signal = number

    def asked(self) -> bool:
        """Whether to stop; from the training loop."""
        self.heeded = True
        return bool(self.signal)

    def _watch_input(self) -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_WORDS)
        os._exit(128 + signal.SIGTERM)


def _run_training(options: argparse.Namespace) -> int:
    overrides = list(options.override)
    if options.smoothness is not None:
        overrides.append(f"field.smoothness={options.smoothness}")
    if options.rival is not None:
        overrides.append(f"rival.kind={options.rival}")
    task = options.task and (gymnasium_id(options.task) if not is_arm_task(options.task) else options.task)
    config = with_form(
        load_train_config(
            options.config or settings_of(options.task or "reach", options.algo),
            overrides,
            robot=options.robot or None,
            task=task,
            algorithm=options.algo,
            steps=options.steps,
            seed=options.seed,
        ),
        options.form,
    )
    # A mistake in the robot or task must not leave a folder behind.
    if is_arm_task(config.task):
        load_robot(config.robot)
        load_task(config.task)
        if config.perturb:
            load_perturbation(config.perturb)
    elif options.robot:
        raise QgfError(f"--robot {options.robot}: {config.task} has no arm; leave it out")
    elif options.with_critic:
        raise QgfError(f"--with-critic: {config.task} has no arm, so no bundle to carry it; leave it out")
    else:
        make_environments(config, 1)[0].close()
    evaluation = load_evaluation(_evaluation_name(config.task) if is_arm_task(config.task) else "gymnasium")
    if options.minutes is not None and not 0.0 < options.minutes < math.inf:
        raise QgfError(f"--minutes {options.minutes} must be positive")
    folder: Path = options.out
    prepare_folder(folder, options.resume, options.overwrite)
    write_atomic(folder / "config.json", json.dumps({**describe(config), "versions": versions()}, indent=2).encode())
    stop = _StopRequest(options.until_input_ends)
    reporter = make_reporter(options.progress, config.algorithm, config.steps)
    try:
        result = train(
            config,
            folder,
            resume=options.resume,
            report=reporter.progress,
            should_stop=stop.asked,
            time_limit=math.inf if options.minutes is None else 60.0 * options.minutes,
        )
    finally:
        stop.heeded = False
        reporter.close()
    if result.interrupted:
        reporter.note("interrupted", step=result.steps)
        print(f"qgf: stopped at step {result.steps}; continue with --resume --out {folder}", file=sys.stderr)
        return 128 + stop.signal
    reporter.note("evaluating", episodes=evaluation.episodes)
    told, figures = _finish(result, config, evaluation, folder, options.with_critic)
    write_atomic(folder / "evaluation.json", json.dumps(figures, indent=2).encode())
    reporter.note("result", **told, figures=figures)
    if options.progress != "json":
        _print_figures(figures)
        if "bundle" in told:
            print(f"bundle: {told['bundle']}")
        else:
            print(f"policy: {told['policy']} (no bundle: {config.task} has no robot for a manifest to describe)")
    return 0


def _evaluation_name(task: str) -> str:
    return evaluation_of(task, kind_of(load_task(task)))


def _finish(
    result: TrainingResult, config: TrainConfig, evaluation: EvaluationConfig, folder: Path, with_critic: bool
) -> tuple[dict[str, str], dict[str, float]]:
    """Evaluate and write the policy: a bundle for an arm. Returns where it is, and the figures."""
    policy = result.agent.deployed()
    further = {"training_time_s": result.training_time}
    if result.dial is not None:
        further |= result.dial.chosen
        write_atomic(folder / "dial.json", json.dumps(result.dial.trace, indent=1).encode())
    if isinstance(result.env, GymnasiumTask):
        figures = evaluate_task(result.env, policy.act, evaluation)
        figures |= further
        training = {"config": describe(config), "steps": result.steps, "versions": versions()}
        path = folder / "policy.safetensors"
        save_policy(path, policy, config.task, result.agent.learner.hidden, training, figures)
        told = {"policy": str(path)}
    else:
        figures, episodes = evaluate(result.env, policy.act, evaluation)
        figures |= further
        path = folder / "bundle.pt"
        critic = result.agent.critic if with_critic else None
        sha256 = export_bundle(path, policy, result.env, config, result.steps, figures, episodes, critic)
        told = {"bundle": str(path), "sha256": sha256}
    result.env.close()
    return told, figures


def _print_figures(figures: dict[str, float]) -> None:
    for name in (name for name in _TABLE if name in figures):
        print(f"{name:>24}  {figures[name]:.4g}")


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf evaluate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a bundle in simulation on fixed goals, start poses and noise, or a Gymnasium task's policy on "
        "fixed seeds,\nand measure success, return and smoothness.\n\n"
        "example:  ./qgf evaluate runs/panda/bundle.pt --episodes 20 --json\n"
        "          ./qgf evaluate runs/panda/bundle.pt --engine mujoco --perturb harsh\n"
        "          ./qgf evaluate runs/pendulum/policy.safetensors --episodes 100",
    )
    parser.add_argument("bundle", type=Path, help="the bundle.pt or policy.safetensors that train wrote")
    parser.add_argument("--robot", help="name in config/robots or a YAML file (default: the bundle's robot)")
    parser.add_argument("--episodes", type=int, help="number of episodes (default: that of config/eval)")
    parser.add_argument("--first-seed", type=int, help="seed of the first episode (default: that of config/eval)")
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


def _check_task(manifest: Manifest, env: ArmEnv, path: Path) -> None:
    ours = (env.config.observation, env.config.control_rate, env.action_spec)
    if ours != (manifest.observation, manifest.control_rate, manifest.action):
        raise BundleError(
            f"{path}: its observation, action or control rate is not that of config/tasks/{manifest.task}.yaml; "
            "evaluate it with the task that it was trained on"
        )


def _evaluation_config(options: argparse.Namespace, name: str) -> EvaluationConfig:
    changes: dict[str, Any] = {"episodes": options.episodes, "first_seed": options.first_seed}
    config = load_evaluation(name)
    try:
        return dataclasses.replace(
            config,
            sensor_noise=config.sensor_noise and not options.no_noise,
            **{key: value for key, value in changes.items() if value is not None},
        )
    except ValueError as error:
        raise QgfError(f"--episodes or --first-seed: {error}") from error


def _run_evaluation(options: argparse.Namespace) -> int:
    about, figures = (_evaluate_policy if options.bundle.suffix == ".safetensors" else _evaluate_bundle)(options)
    if options.json:
        print(json.dumps({"bundle": str(options.bundle), **about, **figures}))
    else:
        _print_figures(figures)
    return 0


def _evaluate_policy(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, float]]:
    if options.robot:
        raise QgfError(f"--robot {options.robot}: the policy of a Gymnasium task has no arm; leave it out")
    stored = load_policy(options.bundle)
    env = GymnasiumTask(stored.task)
    figures = evaluate_task(env, stored.policy.act, _evaluation_config(options, "gymnasium"))
    env.close()
    return {"task": stored.task}, figures


def _evaluate_bundle(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, float]]:
    bundle = load_bundle(options.bundle)
    manifest = bundle.manifest
    config = _evaluation_config(options, _evaluation_name(manifest.task))
    robot = load_robot(options.robot or manifest.robot.name)
    check_robot(manifest, robot, read_urdf(robot), options.bundle)
    task = load_task(manifest.task)
    perturbation = load_perturbation(options.perturb) if options.perturb else None
    env = ArmEnv(
        robot, task, sensor_noise=config.sensor_noise, engine=options.engine, perturbation=perturbation
    )
    _check_task(manifest, env, options.bundle)
    figures, _ = evaluate(env, bundle.act, config)
    env.close()
    about = {"sha256": bundle.sha256, "robot": robot.name, "engine": options.engine, "perturb": options.perturb or ""}
    return about, figures


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
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # all files are closed; unloading torch piece by piece would take another second

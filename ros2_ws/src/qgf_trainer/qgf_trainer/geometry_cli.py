# SPDX-License-Identifier: Apache-2.0
"""Command line of the geometry: measures the critics of reach runs where their policies go, and draws the field."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qgf_core.config import from_mapping
from qgf_core.errors import QgfError
from qgf_core.files import write_atomic
from qgf_sim.env import ArmEnv
from qgf_sim.tasks import load_task
from qgf_trainer.checkpoint import load_checkpoint
from qgf_trainer.config import TrainConfig
from qgf_trainer.evaluation import load_evaluation, run_episode
from qgf_trainer.geometry import Slice, Trajectory, measure, worst_slice
from qgf_trainer.networks import Actor, DeployedPolicy, TwinCritic


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained critic and the policy that is deployed with it."""

    name: str
    config: TrainConfig
    critic: TwinCritic
    policy: DeployedPolicy
    mean: Tensor  # (n_obs,)
    std: Tensor  # (n_obs,)

    def value(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q (B,) of the critic that the actor climbs, for raw observations (B, n_obs) in float64."""
        return self.critic.first((observation - self.mean) / self.std, action)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_subject(path: Path) -> Subject:
    """Critic and policy of a run's folder or checkpoint.safetensors, in float64.

    :raises QgfError: missing, damaged, or without a critic of ours.
    """
    file = path / "checkpoint.safetensors" if path.is_dir() else path
    tensors, values = load_checkpoint(file)
    try:
        config = from_mapping(TrainConfig, values["config"], file)
        weights = _part(tensors, "critic.")
        inputs, n_act = weights["weights.0"].shape[1], tensors["buffer.action"].shape[1]
        critic = TwinCritic(inputs - n_act, n_act, config.learner.hidden)
        critic.load_state_dict(weights)
        actor = Actor(inputs - n_act, n_act, config.learner.hidden)
        actor.load_state_dict(_part(tensors, "actor_target."))
    except (KeyError, RuntimeError) as error:
        raise QgfError(f"{file}: holds no critic and policy of TD3 ({error}); give a run of ./qgf train") from error
    mean, std = tensors["mean"].double(), tensors["std"].double()
    policy = DeployedPolicy(actor.double(), mean, std).eval()
    name = path.name if path.is_dir() else path.parent.name
    return Subject(name, config, critic.double(), policy, mean, std)


def visit(subject: Subject, episodes: int) -> list[Trajectory]:
    """What the policy meets in the first episodes of the evaluation: its goals, starts and noise."""
    evaluation = load_evaluation()
    env = ArmEnv(subject.config.robot, load_task(subject.config.task), sensor_noise=evaluation.sensor_noise)
    try:
        seeds = range(evaluation.first_seed, evaluation.first_seed + episodes)
        runs = [run_episode(env, lambda o: _act(subject, o), seed) for seed in seeds]
    finally:
        env.close()
    return [
        Trajectory(torch.from_numpy(run.observation).double(), torch.from_numpy(run.raw_action).double())
        for run in runs
    ]


def _act(subject: Subject, observation: Any) -> Any:
    with torch.inference_mode():
        return subject.policy(torch.from_numpy(observation[None]).double())[0].numpy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf geometry",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure the critic of a reach run at every point that its policy visits: how fast the action\n"
        "gradient turns with the state (M, mixed_sup), how sharp the optimum is (mu, sharpness_inf), their ratio,\n"
        "which bounds the policy's slope, and the slope that the policy really has.\n\n"
        "example:  ./qgf geometry runs/plain runs/smooth --plot field.png\n"
        "The plot shows dQ/da over the observation and action entry in which the first run's field turns most: give\n"
        "the plain run first. All runs are drawn at the same point, on the same axes and colours.",
    )
    parser.add_argument(
        "run", nargs="+", type=Path, help="folder that train wrote, or its checkpoint.safetensors; several to compare"
    )
    parser.add_argument("--episodes", type=int, default=5, help="evaluation episodes to visit (default: 5)")
    parser.add_argument("--margin", type=float, default=1.0, help="delta of the concavity rate (default: 1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the field, as .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print one JSON object: run -> figures, and the plane")
    return parser


def _print(figures: dict[str, dict[str, float]]) -> None:
    width = max(12, *(len(name) + 2 for name in figures))
    print(" " * 22 + "".join(f"{name:>{width}}" for name in figures))
    for key in next(iter(figures.values())):
        print(f"{key:>22}" + "".join(f"{found[key]:>{width}.4g}" for found in figures.values()))


def _run(options: argparse.Namespace) -> int:
    if options.episodes < 1:
        raise QgfError(f"--episodes {options.episodes} must be at least 1")
    subjects = [load_subject(path) for path in options.run]
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        names = [str(path) for path in options.run]
    visited = [visit(subject, options.episodes) for subject in subjects]
    figures = {
        name: measure(subject.value, trajectories, margin=options.margin, policy=subject.policy)
        for name, subject, trajectories in zip(names, subjects, visited, strict=True)
    }
    plane: Slice = worst_slice(subjects[0].value, visited[0])
    if options.plot is not None:
        # Costs a second to import, and only a plot needs it.
        from qgf_trainer.geometry_plot import draw_field

        if any(subject.critic.n_obs != subjects[0].critic.n_obs for subject in subjects):
            raise QgfError("--plot: the runs have observations of different sizes; plot runs of one task")
        picture = draw_field([(name, s.value) for name, s in zip(names, subjects, strict=True)], plane, options.plot)
        write_atomic(options.plot, picture)
    if options.json:
        place = {"state_index": plane.state_index, "action_index": plane.action_index, "state_range": plane.state_range}
        finite = {n: {k: v if v != float("inf") else None for k, v in f.items()} for n, f in figures.items()}
        print(json.dumps({"runs": finite, "plane": place}))
    else:
        _print(figures)
        if options.plot is not None:
            print(f"plot: {options.plot}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `geometry`; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""A whole training, side by side: ours as shipped, and the published losses by a straightforward double backward.

    ./qgf bench wall_clock [--task Pendulum-v1] [--steps 20000] [--seed 0] [--override KEY=VALUE] [--json]

Same task, environments, replay and networks, one thread each, both at once where there are two cores; only the update
differs (benchmarks/double_backward, every update, whole batch, the weights of config/train for that task). Told are the
time until the last step, and what the two policies then do from 100 starts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from multiprocessing.connection import Connection

from torch import Tensor

from qgf_core.errors import QgfError
from qgf_trainer.config import TrainConfig, load_train_config, settings_of
from qgf_trainer.q_gradient_field import FieldConfig, paper_form
from qgf_trainer.replay import Batch
from qgf_trainer.td3 import TD3, TD3Config

METHODS = ("default", "double_backward")


def reference_agent(config: TrainConfig, n_obs: int, n_act: int) -> TD3:
    """A TD3 agent that acts, and is updated, by the networks of the double backward."""
    from double_backward.td3 import DoubleBackwardTD3

    class Reference(TD3):
        """Ours, but for the update and the actors that it changes."""

        def __init__(self, learner: TD3Config, field: FieldConfig) -> None:
            super().__init__(n_obs, n_act, learner, FieldConfig(form="none"), config.seed)
            self.reference = DoubleBackwardTD3(n_obs, n_act, learner, field, config.seed)
            self.actor.net, self.actor_target.net = self.reference.actor, self.reference.actor_target

        def update(self, batch: Batch, observation_std: Tensor, reward_std: float) -> None:
            """One update of the double backward."""
            self.reference.update(batch)
            self.updates += 1

    return Reference(config.learner, paper_form(FieldConfig(), config.paper.td3))


def run(method: str, config: TrainConfig, episodes: int, answer: Connection) -> None:
    """Train, evaluate and send the figures; in a process of its own."""
    from qgf_trainer import training
    from qgf_trainer.evaluation import EvaluationConfig, evaluate_task
    from qgf_trainer.gymnasium_task import GymnasiumTask
    from qgf_trainer.reporting import make_reporter

    slower = method == "double_backward"
    if slower:
        training.make_agent = reference_agent
    reporter = make_reporter("auto" if slower else "none", "double backward, the slower of two", config.steps)
    result = training.train(config, report=reporter.progress)
    reporter.close()
    assert isinstance(result.env, GymnasiumTask)
    judged = EvaluationConfig(first_seed=50_000, episodes=episodes)
    figures = evaluate_task(result.env, result.agent.deployed().act, judged)
    result.env.close()
    answer.send(
        {
            "seconds": result.training_time,
            "updates": float(result.agent.updates),
            "return": figures["return"],
            "sm": figures["sm_task_units"],
        }
    )


def side_by_side(config: TrainConfig, episodes: int) -> dict[str, float]:
    """Keys METHOD.FIGURE, and ratio.seconds. :raises QgfError: a training failed."""
    context = multiprocessing.get_context("spawn")
    ends = {}
    for method in METHODS:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(method, config, episodes, theirs))
        process.start()
        theirs.close()
        ends[method] = (process, mine)
    told: dict[str, float] = {}
    for method, (process, mine) in ends.items():
        try:
            told |= {f"{method}.{name}": value for name, value in mine.recv().items()}
        except EOFError:
            raise QgfError(f"{method}: the training process ended without a result; see above") from None
        process.join()
    told["ratio.seconds"] = told["double_backward.seconds"] / told["default.seconds"]
    return told


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="qgf bench wall_clock", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="Pendulum-v1", help="a Gymnasium task (default: Pendulum-v1)")
    parser.add_argument("--steps", type=int, help="control steps (default: that of the task's config)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="as for ./qgf train")
    parser.add_argument("--episodes", type=int, default=100, help="starts on which both are judged (default: 100)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args()
    try:
        fields = {"task": options.task, "algorithm": "td3", "seed": options.seed, "steps": options.steps}
        config = load_train_config(settings_of(options.task), options.override, **fields)
        told = side_by_side(config, options.episodes)
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(told))
        return 0
    print("| | seconds | return | Sm |\n|---|---|---|---|")
    for method in METHODS:
        print(
            f"| {method.replace('_', ' ')} | {told[f'{method}.seconds']:.0f} | {told[f'{method}.return']:.1f} "
            f"| {told[f'{method}.sm']:.3f} |"
        )
    print(f"\nthe double backward took {told['ratio.seconds']:.1f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())

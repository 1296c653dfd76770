# SPDX-License-Identifier: Apache-2.0
"""Updates per second of the learners, one thread, against the straightforward double backward and Stable-Baselines3.

    ./qgf bench update [--only td3.arm.256] [--rounds 15] [--seconds 1.2] [--json]

All paths take turns within each round, so that a busy machine slows all alike; ratios are medians over the rounds of
the ratio within a round. Per learner, size (pendulum 3/1, arm 24/7, ant 105/8) and net (256: 256x256, 400: 400x300):
    .same_maths_ratio   the published losses in our closed form (each update, the whole batch) over the double backward
    .default_ratio      our default settings (lazy terms) over the double backward
    .overhead           time of our default update over that of our plain one
    .X_updates_per_s    of every path X: reference, reference_plain, plain, same_maths, default, sb3_plain
each with .min and .max over the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import gymnasium
import numpy as np
import torch
from double_backward.td3 import DoubleBackwardTD3

from qgf_trainer.memory import keep_freed_memory
from qgf_trainer.q_gradient_field import FieldConfig, paper_form
from qgf_trainer.replay import Batch
from qgf_trainer.td3 import TD3, TD3Config

SIZES = {"pendulum": (3, 1), "arm": (24, 7), "ant": (105, 8)}
NETS = {"256": (256, 256), "400": (400, 300)}
BATCH = 256
PLAIN = FieldConfig(form="none")
PAPER = paper_form(FieldConfig())
DEFAULT = FieldConfig()

Update = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Path:
    """One way of doing the update, ready to be timed."""

    update: Update
    settings: str
    """What its loss is, for the reader."""


def describe(field: FieldConfig) -> str:
    """The loss settings of a path in one line."""
    if field.form == "none":
        return "TD loss alone"
    names = ("form", "mixed_partial", "field_consistency", "curvature", "noise", "every", "rows")
    names += ("margin",) if field.form == "paper" else ("smoothness", "cap")
    return ", ".join(f"{name} {getattr(field, name)}" for name in names)


def make_batch(n_obs: int, n_act: int) -> Batch:
    """A made-up batch; the time of an update does not depend on what is in it."""
    g = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(BATCH, n_obs, generator=g),
        torch.rand(BATCH, n_act, generator=g) * 2 - 1,
        torch.randn(BATCH, generator=g),
        torch.randn(BATCH, n_obs, generator=g),
        torch.zeros(BATCH),
    )


def td3_paths(n_obs: int, n_act: int, hidden: tuple[int, ...]) -> dict[str, Path]:
    """Every way of updating TD3."""
    batch, config = make_batch(n_obs, n_act), TD3Config(hidden=hidden)
    std = torch.ones(n_obs)
    paths: dict[str, Path] = {}
    for name, field in (("plain", PLAIN), ("same_maths", PAPER), ("default", DEFAULT)):
        agent = TD3(n_obs, n_act, config, field, 0)
        paths[name] = Path(lambda agent=agent: agent.update(batch, std, 1.0), describe(field))  # type: ignore[misc]
    for name, field in (("reference", PAPER), ("reference_plain", PLAIN)):
        other = DoubleBackwardTD3(n_obs, n_act, config, field, 0)
        paths[name] = Path(lambda other=other: other.update(batch), describe(field))  # type: ignore[misc]
    theirs = sb3_update("TD3", batch, hidden)
    if theirs is not None:
        paths["sb3_plain"] = Path(theirs, "TD loss alone")
    return paths


LEARNERS: dict[str, Callable[[int, int, tuple[int, ...]], dict[str, Path]]] = {"td3": td3_paths}


class _Spaces(gymnasium.Env):
    """An environment of which only the spaces are looked at."""

    def __init__(self, n_obs: int, n_act: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_obs,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (n_act,), np.float32)


def sb3_update(name: str, batch: Batch, hidden: tuple[int, ...]) -> Update | None:
    """One plain update of Stable-Baselines3's learner on the same batch, or None where it is not installed."""
    try:
        import stable_baselines3
        from stable_baselines3.common.logger import configure
    except ImportError:
        return None
    n_obs, n_act = batch.observation.shape[1], batch.action.shape[1]
    model = getattr(stable_baselines3, name)(
        "MlpPolicy",
        _Spaces(n_obs, n_act),
        batch_size=BATCH,
        buffer_size=1,
        policy_kwargs={"net_arch": list(hidden), "activation_fn": torch.nn.SiLU},
        device="cpu",
        seed=0,
    )
    model.set_logger(configure(None, []))
    samples = SimpleNamespace(
        observations=batch.observation,
        actions=batch.action,
        next_observations=batch.next_observation,
        rewards=batch.reward[:, None],
        dones=batch.terminal[:, None],
        discounts=None,
    )
    model.replay_buffer.sample = lambda *_, **__: samples  # the same prepared batch as everyone's
    return lambda: model.train(gradient_steps=1, batch_size=BATCH)


def time_rounds(paths: dict[str, Path], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Updates per second of every path in every round; the paths take turns."""
    rates: dict[str, list[float]] = {name: [] for name in paths}
    for path in paths.values():
        for _ in range(8):
            path.update()
    order = list(paths)
    for index in range(rounds):
        for name in order if index % 2 == 0 else reversed(order):
            update, count, begun = paths[name].update, 0, time.perf_counter()
            while count % 4 or time.perf_counter() - begun < seconds / len(order):  # whole cycles of the lazy terms
                update()
                count += 1
            rates[name].append(count / (time.perf_counter() - begun))
    return rates


def summarise(prefix: str, rates: dict[str, list[float]]) -> dict[str, float]:
    """Flat keys with median, smallest and largest value over the rounds."""
    series = {f"{name}_updates_per_s": values for name, values in rates.items()}
    for key, over, under in (
        ("same_maths_ratio", "same_maths", "reference"),
        ("default_ratio", "default", "reference"),
        ("overhead", "plain", "default"),
    ):
        series[key] = [a / b for a, b in zip(rates[over], rates[under], strict=True)]
    flat: dict[str, float] = {}
    for name, values in series.items():
        flat[f"{prefix}.{name}"] = statistics.median(values)
        flat |= {f"{prefix}.{name}.min": min(values), f"{prefix}.{name}.max": max(values)}
    return flat


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="qgf bench update", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [".".join(parts) for parts in itertools.product(LEARNERS, SIZES, NETS)]
    parser.add_argument("--only", metavar="PREFIX", default="", help=f"one of {', '.join(names)}, or its beginning")
    parser.add_argument("--rounds", type=int, default=15, help="rounds in which every path has its turn (default: 15)")
    parser.add_argument("--seconds", type=float, default=1.2, help="time of a round [s], shared evenly (default: 1.2)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object; settings go to stderr")
    options = parser.parse_args()
    chosen = [name for name in names if f"{name}.".startswith(f"{options.only.rstrip('.')}." if options.only else "")]
    if not chosen:
        parser.error(f"--only {options.only}: choose one of {', '.join(names)}, or its beginning")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error(f"--rounds {options.rounds} must be at least 1 and --seconds {options.seconds} positive")
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    flat: dict[str, float] = {}
    out = sys.stderr if options.json else sys.stdout
    for name in chosen:
        learner, size, net = name.split(".")
        paths = LEARNERS[learner](*SIZES[size], NETS[net])
        found = summarise(name, time_rounds(paths, options.rounds, options.seconds))
        flat |= found
        print(f"{name}: batch {BATCH}, obs/act {SIZES[size]}, hidden {NETS[net]}, one thread", file=out)
        for key, path in paths.items():
            rate = found[f"{name}.{key}_updates_per_s"]
            print(f"  {key:>15} {rate:8.1f} updates/s   {path.settings}", file=out)
        if "sb3_plain" not in paths:
            print("  sb3_plain: not measured; pip install stable-baselines3", file=out)
        for key in ("same_maths_ratio", "default_ratio", "overhead"):
            whole = f"{name}.{key}"
            spread = f"({flat[whole + '.min']:.2f} .. {flat[whole + '.max']:.2f})"
            print(f"  {key:>16} {flat[whole]:6.2f} {spread}", file=out)
    if options.json:
        print(json.dumps(flat))
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a policy on fixed seeds, apart from training's, with the one set of smoothness formulas: of an arm on
fixed goals or references, start poses and noise, and of Gymnasium tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from qgf_core import smoothness
from qgf_core.config import config_root, find_config, from_mapping, load_yaml
from qgf_sim.env import ArmEnv
from qgf_trainer.gymnasium_task import GymnasiumTask

Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observation (n_obs,) -> action (n_act,)."""


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Every field of config/eval/*.yaml; a Gymnasium task uses the first two."""

    first_seed: int = 10_000
    episodes: int = 20
    sensor_noise: bool = True
    hold_time: float = 1.0
    """[s]"""
    settle_time: float = 0.5
    """[s]"""
    final_time: float = 0.2
    """[s]"""
    chain: int = 1
    """Goals that the arm is given one after the other, from wherever it is then; it starts anew after so many."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.first_seed < 0:
            raise ValueError(
                f"episodes {self.episodes} must be at least 1 and first_seed {self.first_seed} not negative"
            )
        if self.chain < 1:
            raise ValueError(f"chain {self.chain} must be at least 1")
        if min(self.hold_time, self.settle_time, self.final_time) <= 0:
            raise ValueError("hold_time, settle_time and final_time must be positive")


def load_evaluation(name: str = "reach") -> EvaluationConfig:
    """config/eval/<name>.yaml or a YAML file. :raises ConfigError: unknown name, key or value."""
    path = find_config("eval", name)
    return from_mapping(EvaluationConfig, load_yaml(path), path)


def evaluation_of(task: str, kind: str) -> str:
    """Name in config/eval for an arm's task: its own, or that of its kind."""
    return task if (config_root() / "eval" / f"{task}.yaml").is_file() else kind


@dataclasses.dataclass(frozen=True)
class Episode:
    """What happened in one episode of T control periods with n joints."""

    goal: NDArray[np.float64]  # (3,) [m], (7,) of a pose, (0,) of a reference
    observation: NDArray[np.float32]  # (T, n_obs) raw
    raw_action: NDArray[np.float64]  # (T, n) in [-1, 1]
    command: NDArray[np.float64]  # (T, n) limited [rad/s]
    joint_velocity: NDArray[np.float64]  # (T, n) true [rad/s], after each period
    distance: NDArray[np.float64]  # (T,) true [m], or [rad] from a joint reference, after each period
    reward: float
    measured: NDArray[np.float64] | None = None  # (T, 2, n) joint position [rad] and velocity [rad/s], with their noise


def run_episode(env: ArmEnv, policy: Policy, seed: int, goes_on: bool = False) -> Episode:
    """One episode whose goal, start and noise come from `seed`; where it `goes_on`, the arm starts from where it is."""
    observation, info = env.reset(seed=seed, options={"continue": True} if goes_on else None)
    observations, actions, commands, velocities, distances, measured, total = [], [], [], [], [], [], 0.0
    done = False
    while not done:
        observations.append(observation)
        action = np.asarray(policy(observation), dtype=np.float32)
        observation, reward, terminated, truncated, step = env.step(action)
        done = terminated or truncated
        total += reward
        actions.append(action.astype(np.float64))
        commands.append(step["command"])
        velocities.append(step["joint_velocity"])
        distances.append(step["distance"])
        measured.append(step["measured"])
    return Episode(
        info["goal"],
        np.array(observations),
        np.array(actions),
        np.array(commands),
        np.array(velocities),
        np.array(distances),
        total,
        np.array(measured),
    )


def judge(
    episodes: Sequence[Episode],
    rate: float,
    tolerance: float,
    config: EvaluationConfig,
    error_figure: str = "final_distance_mm",
) -> dict[str, float]:
    """Figures over episodes, as flat names.

    success: share with the error within `tolerance` [m or rad] at the end; settled: within it all through the last
    `settle_time`; final_distance_mm, or what else `error_figure` calls a thousandth of the error: mean over the last
    `final_time`, failures included; error_rms_mrad: over whole episodes, of joint references; hold_rms [rad/s]: content
    above a fifth of the control rate of the true joint velocity in the last `hold_time`, successful episodes only
    (NaN-free: -1 where there is none). Smoothness is given for the raw action in [-1, 1] and, with the prefix
    `command_`, for the limited command [rad/s].

    :param rate: control rate [Hz].
    """
    hold, settle, final = (max(1, round(t * rate)) for t in (config.hold_time, config.settle_time, config.final_time))
    success = np.array([e.distance[-1] <= tolerance for e in episodes])
    held = [
        float(np.mean(smoothness.band_rms(e.joint_velocity[-hold:], rate, rate / 5)))
        for e, ok in zip(episodes, success, strict=True)
        if ok
    ]
    figures = {
        "episodes": float(len(episodes)),
        "success": float(success.mean()),
        "settled": float(np.mean([np.all(e.distance[-settle:] <= tolerance) for e in episodes])),
        error_figure: float(1e3 * np.mean([e.distance[-final:].mean() for e in episodes])),
        "return": float(np.mean([e.reward for e in episodes])),
        "hold_rms": float(np.mean(held)) if held else -1.0,
    }
    if error_figure.endswith("_mrad"):
        figures["error_rms_mrad"] = float(1e3 * np.sqrt(np.mean([np.mean(e.distance**2) for e in episodes])))
    for prefix, signals in (("", [e.raw_action for e in episodes]), ("command_", [e.command for e in episodes])):
        figures |= {prefix + name: value for name, value in _smoothness(signals, rate).items()}
    return figures


def _smoothness(signals: Sequence[NDArray[np.float64]], rate: float) -> dict[str, float]:
    """Every metric of a command signal (T, n), averaged over joints and episodes."""

    def mean(metric: Callable[[NDArray[np.float64]], object]) -> float:
        return float(np.mean([np.mean(np.asarray(metric(signal))) for signal in signals]))

    return {
        "sm": mean(smoothness.paper_smoothness),
        "sm_amplitude": mean(lambda s: smoothness.amplitude_smoothness(s, rate)),
        "mean_abs_delta": mean(smoothness.mean_absolute_delta),
        "total_variation_rate": mean(lambda s: smoothness.total_variation_rate(s, rate)),
        "high_frequency_ratio": mean(lambda s: smoothness.high_frequency_ratio(np.diff(s, axis=0), rate, rate / 5)),
        "spectral_centroid": mean(lambda s: smoothness.spectral_centroid(s, rate)),
        "sign_flip_index": mean(lambda s: smoothness.sign_flip_index(s, 1e-3)),
    }


def evaluate(env: ArmEnv, policy: Policy, config: EvaluationConfig) -> tuple[dict[str, float], list[Episode]]:
    """Figures (see `judge`) and the episodes behind them."""
    episodes = [run_episode(env, policy, config.first_seed + i, i % config.chain > 0) for i in range(config.episodes)]
    figures = judge(episodes, env.config.control_rate, env.task.tolerance, config, env.task.error_figure)
    return figures, episodes


def run_any_episode(
    env: ArmEnv | GymnasiumTask, policy: Policy, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Return, undiscounted, and raw actions (T, n) in [-1, 1] of the episode from `seed`."""
    observation, _ = env.reset(seed=seed)
    total, actions, done = 0.0, [], False
    while not done:
        action = np.asarray(policy(observation), dtype=np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
        total += reward
        actions.append(action.astype(np.float64))
    return total, np.array(actions)


_SHORTEST = 16
"""Steps that an episode must last to count in the smoothness figures."""


def evaluate_task(env: GymnasiumTask, policy: Policy, config: EvaluationConfig) -> dict[str, float]:
    """Figures over the episodes from seeds first_seed + i of a Gymnasium task.

    return and return_std: undiscounted, over episodes; length: mean steps. Smoothness is that of the raw action in
    [-1, 1], averaged over dimensions and over the episodes of at least 16 steps (smoothness_episodes; -1 where there is
    none); as paper-form Sm depends on the length, compare at equal lengths. sm_task_units is the paper-form Sm of the
    action in the task's own units, as in the published tables. `rate`: the task's steps per second [Hz], by which
    spectral_centroid and total_variation_rate are told.
    """
    runs = [run_any_episode(env, policy, config.first_seed + i) for i in range(config.episodes)]
    returns, signals = [total for total, _ in runs], [actions for _, actions in runs]
    long = [signal for signal in signals if len(signal) >= _SHORTEST]
    counted = long or [np.zeros_like(signals[0], shape=(_SHORTEST, signals[0].shape[1]))]
    measured = _smoothness(counted, env.rate)
    measured["sm_task_units"] = float(np.mean([smoothness.paper_smoothness(env.scaled(s)) for s in counted]))
    if not long:
        measured = dict.fromkeys(measured, -1.0)
    return {
        "episodes": float(len(returns)),
        "return": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "length": float(np.mean([len(signal) for signal in signals])),
        "smoothness_episodes": float(len(long)),
        "rate": env.rate,
        **measured,
    }

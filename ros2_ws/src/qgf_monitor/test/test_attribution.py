# SPDX-License-Identifier: Apache-2.0
"""A small arm under a small policy, with one thing wrong at a time: the right cause must come first."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qgf_core.baseline import RESIDUAL, measure_baseline, state_residual
from qgf_monitor.attribution import CAUSES, Answers, Cause, Inferences, attribute, describe
from qgf_monitor.explanation import combine, to_json

PERIOD, JOINTS, SUBSTEPS = 0.02, 3, 4
NOISE = (0.002, 0.02)
"""Of positions [rad] and velocities [rad/s]."""


def gentle(observation: np.ndarray) -> np.ndarray:
    """(K, 9), joint error, velocity and goal, -> (K, 3)."""
    return np.tanh(2.0 * observation[:, :3] - 0.05 * observation[:, 3:6])


def harsh(observation: np.ndarray) -> np.ndarray:
    """The same aim by an action that is nearly a switch."""
    return np.tanh(60.0 * observation[:, :3] - 3.0 * observation[:, 3:6])


def run(act, seed: int, steps: int = 500, noise: float = 1.0, jitter: float = 0.0, resonance: float = 0.0):
    """A run of velocity-controlled joints with a lag of 40 ms, or of drives of second order with that damping ratio."""
    rng = np.random.default_rng(seed)
    q, v, rate, now = np.zeros(JOINTS), np.zeros(JOINTS), np.zeros(JOINTS), 0.0
    goal = rng.uniform(-1, 1, JOINTS)
    rows = []
    for k in range(steps):
        if k % 150 == 0:
            goal = rng.uniform(-1, 1, JOINTS)
        position = q + noise * NOISE[0] * rng.normal(size=JOINTS)
        velocity = v + noise * NOISE[1] * rng.normal(size=JOINTS)
        observation = np.concatenate([goal - position, velocity, goal])
        action = act(observation[None])[0]
        rows.append((now, observation, action, position, velocity))
        step = PERIOD * (1.0 + rng.uniform(-jitter, jitter))
        for _ in range(SUBSTEPS):
            dt = step / SUBSTEPS
            if resonance:
                natural = 2 * np.pi * 9.0
                rate += dt * (natural**2 * (action - v) - 2 * resonance * natural * rate)
                v = v + dt * rate
            else:
                v = v + (1 - math.exp(-dt / 0.04)) * (action - v)
            q = q + dt * v
        now += step
    times, observations, actions, positions, velocities = (np.array(column) for column in zip(*rows, strict=True))
    inferences = Inferences(PERIOD, times, np.zeros(steps), observations, actions, positions, velocities)
    return inferences, Answers(("a", "b", "c"), 1 / PERIOD, actions, velocities, 0.005, 1 / PERIOD)


def baselines(act):
    runs = [run(act, 1000 + seed)[0] for seed in range(4)]
    signals = {"raw_action": [r.raw_action for r in runs], "joint_velocity": [r.velocity for r in runs],
               RESIDUAL: [state_residual(r.position, r.velocity, PERIOD) for r in runs]}
    return {name: measure_baseline(pieces, 1 / PERIOD, 10.0) for name, pieces in signals.items()}


WRONG = {"policy": (harsh, {}), "observation_noise": (gentle, {"noise": 6.0}), "loop_timing": (gentle, {"jitter": 0.5}),
         "actuator": (gentle, {"resonance": 0.03}), "none": (gentle, {})}


@pytest.mark.parametrize("cause", WRONG)
def test_each_cause_alone_is_named(cause):
    act, fault = WRONG[cause]
    usual = baselines(act)
    for seed in range(10):
        ranking = attribute(*run(act, seed, **fault), usual, act)
        found = ranking[0].name if ranking[0].score >= 1.0 else "none"
        assert found == cause, describe(ranking)
        assert {each.name for each in ranking} == set(CAUSES)


def test_the_replay_alone_convicts_a_policy():
    inferences, _ = run(harsh, 0)
    bare = {name: value for name, value in baselines(harsh).items() if name != "raw_action"}
    (policy,) = [c for c in attribute(inferences, None, bare, harsh) if c.name == "policy"]
    assert policy.score > 1.0 and "asked again" in policy.evidence
    (policy,) = [c for c in attribute(run(gentle, 0)[0], None, bare, gentle) if c.name == "policy"]
    assert policy.score < 0.5


def test_states_of_uneven_age_are_the_loops_timing():
    inferences, answers = run(gentle, 0)
    rng = np.random.default_rng(0)
    late = Inferences(**{**vars(inferences), "age": rng.uniform(0.0, 2 * PERIOD, 500)})
    assert attribute(late, answers, {}, None)[0].name == "loop_timing"


def test_what_cannot_be_told_is_said():
    ranking = attribute(None, None, {}, None)
    assert all(math.isnan(cause.score) for cause in ranking)
    assert "needs the policy's ~/command" in describe(ranking) and json.loads(to_json(ranking))["likeliest"] == "none"
    inferences, answers = run(gentle, 0, resonance=0.03)
    ranking = attribute(inferences, answers, {}, None)
    assert ranking[0].name == "actuator"
    assert {cause.name for cause in ranking if math.isnan(cause.score)} == {"policy", "observation_noise"}
    short = Inferences(**{name: value if name == "period" else value[:50] for name, value in vars(inferences).items()})
    assert "50 inferences are too few" in attribute(short, None, {}, None)[0].evidence


def test_the_residual_by_hand():
    t = PERIOD * np.arange(50)[:, None]
    assert state_residual(t**2, 2 * t, PERIOD) == pytest.approx(np.zeros((49, 1)), abs=1e-15)
    assert state_residual(np.array([[0.0], [0.1]]), np.array([[1.0], [3.0]]), 0.02)[0, 0] == pytest.approx(0.06)


def test_stretches_are_combined_by_their_median():
    rows = [[Cause(name, score, f"{name} {score}") for name in CAUSES] for score in (1.0, 5.0, 2.0)]
    assert {(cause.score, cause.evidence) for cause in combine(rows)} == {(2.0, f"{name} 2.0") for name in CAUSES}

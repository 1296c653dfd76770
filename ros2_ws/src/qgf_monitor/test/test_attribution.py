# SPDX-License-Identifier: Apache-2.0
"""A small arm under a small policy, with one thing wrong at a time: the right cause must come first."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from qgf_core.baseline import RESIDUAL, measure_baseline, state_residual
from qgf_core.robot import DriveSpec
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


def driven(extra_delay: int = 0, play: float = 0.0, noise: float = 0.0, seed: int = 0) -> Answers:
    """Velocities at 200 Hz of drives with 20 ms latency and 40 ms lag, integrated in steps of a tenth of a sample."""
    rng, rate, fine = np.random.default_rng(seed), 200.0, 10
    t = np.arange(1000) / rate
    command = np.stack([0.5 * np.sin(2 * np.pi * f * t + p) for f, p in ((0.7, 0.0), (1.1, 1.0), (1.9, 2.0))], axis=1)
    speed, motor, joint, measured = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros_like(command)
    for k in range(len(t)):
        before = joint
        for _ in range(fine):
            speed = speed + (command[max(0, k - 5 - extra_delay)] - speed) / (0.04 * rate * fine)
            motor = motor + speed / (rate * fine)
            joint = np.clip(joint, motor - 0.5 * play, motor + 0.5 * play)
        measured[k] = speed if not play else (joint - before) * rate
    return Answers(("a", "b", "c"), rate, command, measured + noise * rng.normal(size=measured.shape), 0.005, 50.0,
                   DriveSpec(0.02, 0.04))


@pytest.mark.parametrize(("fault", "score", "said"), [
    ({}, (0.0, 0.8), "0 ms later"), ({"extra_delay": 12}, (2.75, 3.25), "60 ms later"),
    ({"extra_delay": 3}, (0.5, 0.9), "15 ms later"), ({"play": 0.1}, (1.2, 40.0), "of its motion is not"),
])
def test_the_arm_is_compared_with_its_description(fault, score, said):
    (found,) = [cause for cause in attribute(None, driven(**fault), {}) if cause.name == "actuator"]
    assert score[0] <= found.score <= score[1] and said in found.evidence, found


def test_an_arm_at_rest_has_no_delay():
    still = driven()
    quiet = dataclasses.replace(still, command=0.0 * still.command, measured=0.0 * still.measured)
    (found,) = [cause for cause in attribute(None, quiet, {}) if cause.name == "actuator"]
    assert found.score == 0.0 and "0 ms later" in found.evidence


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

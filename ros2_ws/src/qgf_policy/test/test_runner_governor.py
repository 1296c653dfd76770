# SPDX-License-Identifier: Apache-2.0
"""What a governor may ask of the runner: a smoother command, a hold, and back, all within the limits and reversible."""

from __future__ import annotations

import numpy as np
import pytest

from qgf_core.errors import ConfigError
from qgf_policy.parameters import PARAMETERS, from_values
from qgf_policy.status import Mode

RATE, LAG = 100.0, 0.06


class Chatter:
    """An action that moves on and flips by +-0.2 every period."""

    def __init__(self) -> None:
        self.sign = 1.0

    def __call__(self, _: np.ndarray) -> np.ndarray:
        self.sign = -self.sign
        return np.full(7, 0.1 + 0.2 * self.sign)


def speeds(commands: list) -> np.ndarray:
    return np.array([command.values for command in commands])


def chatter(values: np.ndarray) -> float:
    """Mean second difference: 0 for steady movement."""
    return float(np.abs(np.diff(values, 2, axis=0)).mean())


def check_limits(rig, values: np.ndarray) -> None:
    assert np.all(np.abs(values) <= rig.robot.velocity_limit + 1e-9)
    assert np.all(np.abs(np.diff(values, axis=0)) <= rig.robot.acceleration_limit / RATE + 1e-9)


def test_smoothed_held_and_released_within_the_limits(rig) -> None:
    rig = rig(Chatter(), governor_lag=LAG)
    rig.activate()
    rig.run(80)
    raw = rig.run(100)
    rig.runner.filter.mode = "smooth"
    coming = rig.run(60)
    smooth = rig.run(120)
    assert chatter(speeds(smooth)) < 0.02 * chatter(speeds(raw))
    assert smooth[-1].reason == "smoothed by the governor, 60 ms behind" and smooth[-1].raw_action is not None
    status = rig.runner.status()
    assert status.mode == Mode.ACTIVE and status.governed.command_mode == "smooth" and status.governed.share == 1.0

    rig.runner.filter.mode = "hold"
    held = rig.run(60)
    assert rig.runner.status().mode == Mode.HOLDING and np.all(speeds(held)[-1] == 0.0)
    assert "held by the governor" in held[-1].reason and held[-1].raw_action is None
    assert rig.runner.counters.faults_governed > 0

    rig.runner.filter.mode = "smooth"
    again = rig.run(120)
    assert rig.runner.status().mode == Mode.ACTIVE
    rig.runner.filter.mode = "policy"
    leaving = rig.run(60)
    back = rig.run(100)
    assert back[-1].reason == "" and chatter(speeds(back)) == pytest.approx(chatter(speeds(raw)), rel=0.1)
    check_limits(rig, speeds([*raw, *coming, *smooth, *held, *again, *leaving, *back]))


def test_without_a_governor_the_runner_is_the_very_same(rig) -> None:
    plain, governed = rig(Chatter()), rig(Chatter(), governor_lag=LAG)
    for each in (plain, governed):
        each.activate()
    assert np.array_equal(speeds(plain.run(150)), speeds(governed.run(150)))
    plain.runner.filter.mode = "smooth"  # which no parameter allows
    assert np.array_equal(speeds(plain.run(50)), speeds(governed.run(50)))


def test_an_emergency_stop_stands_above_the_governor(rig) -> None:
    rig = rig(Chatter(), governor_lag=LAG)
    rig.activate()
    rig.run(80)
    rig.runner.filter.mode = "smooth"
    rig.run(80)
    rig.runner.estop("test")
    assert np.all(speeds(rig.run(60))[-1] == 0.0) and rig.runner.status().mode == Mode.ESTOPPED


def test_a_mode_without_a_lag_is_refused() -> None:
    values = {spec.name: spec.default for spec in PARAMETERS}
    with pytest.raises(ConfigError, match="governor_lag"):
        from_values(values | {"command_mode": "smooth"})
    assert from_values(values | {"command_mode": "hold", "governor_lag": 0.06}).command_mode == "hold"
    with pytest.raises(ConfigError, match="choose one of"):
        from_values(values | {"command_mode": "gentle"})

# SPDX-License-Identifier: Apache-2.0
"""The governor's filter: by hand, its lag at every frequency, its bounds, no jump when it comes and goes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core.errors import ConfigError
from qgf_policy.command_filter import BLEND_TIME, CommandFilter, measured_lag

RATE = 100.0


def run(filtered: CommandFilter, inputs: np.ndarray) -> np.ndarray:
    return np.array([filtered.step(row) for row in inputs])


def smoothing(lag: float = 0.06, rate: float = RATE, joints: int = 1) -> CommandFilter:
    """A filter that is fully blended in and at rest."""
    filtered = CommandFilter(joints, rate, lag)
    filtered.mode = "smooth"
    run(filtered, np.zeros((round(BLEND_TIME * rate) + 1, joints)))
    assert filtered.share == 1.0
    return filtered


def test_by_hand() -> None:
    # One period of lag: sin^2 of 45, 90 and 135 degrees is 1/2, 1, 1/2, so the weights are 1/4, 1/2, 1/4.
    assert run(smoothing(0.01), np.array([[4.0], [0.0], [0.0], [0.0]]))[:, 0] == pytest.approx([1.0, 2.0, 1.0, 0.0])


def test_off_it_passes_on_the_very_same() -> None:
    filtered, wanted = CommandFilter(2, RATE, 0.0), np.array([1.0, -2.0])
    filtered.mode = "smooth"
    assert filtered.step(wanted) is wanted and not filtered.enabled and filtered.judge() is None
    filtered.mode = "hold"
    assert filtered.judge() is None
    idle = CommandFilter(2, RATE, 0.06)
    assert idle.step(wanted) is wanted and idle.reason == "" and idle.state.lag == 0.0


@pytest.mark.parametrize("frequency", [0.5, 2.0, 5.0, 10.0])
def test_every_frequency_is_delayed_by_the_same_lag(frequency: float) -> None:
    time = np.arange(400) / RATE
    out = run(smoothing(0.06), np.sin(2 * np.pi * frequency * time)[:, None])[100:, 0]
    late = time[100:] - 0.06
    basis = np.stack([np.sin(2 * np.pi * frequency * late), np.cos(2 * np.pi * frequency * late)], axis=1)
    gain, quadrature = np.linalg.lstsq(basis, out, rcond=None)[0]
    assert 0.0 < gain <= 1.0 and abs(quadrature) < 1e-9


def test_chatter_is_taken_out_and_movement_is_kept() -> None:
    time = np.arange(400) / RATE
    for frequency, least, most in ((0.5, 0.98, 1.0), (12.5, 0.0, 0.07), (25.0, 0.0, 0.02), (50.0, 0.0, 1e-9)):
        out = run(smoothing(0.06), np.cos(2 * np.pi * frequency * time)[:, None])[100:, 0]
        assert least <= np.abs(out).max() <= most, frequency


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-2.0, 2.0), st.sampled_from(["policy", "smooth"])), min_size=2, max_size=80))
def test_the_output_stays_within_the_latest_inputs(steps: list[tuple[float, str]]) -> None:
    filtered, inputs = CommandFilter(1, RATE, 0.03), [0.0] * 7
    for value, mode in steps:
        filtered.mode = mode
        inputs.append(value)
        out = float(filtered.step(np.array([value]))[0])
        assert min(inputs[-7:]) - 1e-12 <= out <= max(inputs[-7:]) + 1e-12


def test_coming_and_going_is_bumpless() -> None:
    """Engaged and released in the middle of a movement: no step is larger than the movement's own plus the lag's worth,
    spread over the blend."""
    time = np.arange(600) / RATE
    wanted = np.sin(2 * np.pi * 0.5 * time)[:, None]
    filtered, out = CommandFilter(1, RATE, 0.06), []
    for i, row in enumerate(wanted):
        filtered.mode = "smooth" if 150 <= i < 400 else "policy"
        out.append(filtered.step(row)[0])
    speed = 2 * np.pi * 0.5
    own, blended = speed / RATE, 1.875 / (BLEND_TIME * RATE) * (speed * 0.06)  # minimum jerk's steepest slope is 1.875
    assert np.abs(np.diff(out)).max() <= own + blended
    assert out[:150] == wanted[:150, 0].tolist() and out[460:] == wanted[460:, 0].tolist()


@pytest.mark.parametrize("rate", [50.0, 100.0, 1000.0])
def test_the_lag_is_measured_on_a_moving_arm_that_chatters(rate: float) -> None:
    random = np.random.default_rng(0)
    time = np.arange(round(3.0 * rate)) / rate
    movement = np.sin(2 * np.pi * 0.7 * time) + 0.3 * np.sin(2 * np.pi * 1.7 * time)
    filtered = smoothing(0.06, rate)
    run(filtered, (movement + 0.1 * random.standard_normal(len(time)))[:, None])
    assert filtered.state.lag == pytest.approx(0.06, abs=0.005)
    assert "60 ms" in filtered.reason


def test_the_measure_of_the_lag_by_hand() -> None:
    into = np.sin(np.arange(120.0)[:, None] / 9.0)
    for shift in (0, 1, 5):
        assert measured_lag(into, np.roll(into, shift, axis=0), 0.01, 10) == pytest.approx(0.01 * shift, abs=1e-4)
    between = 0.5 * (np.roll(into, 2, axis=0) + np.roll(into, 3, axis=0))
    assert measured_lag(into, between, 0.01, 10) == pytest.approx(0.025, abs=2e-4)
    assert math.isnan(measured_lag(np.ones((50, 2)), np.ones((50, 2)), 0.01, 10))
    chatter = np.resize([0.2, -0.2], (60, 1))
    assert math.isnan(measured_lag(chatter, np.zeros((60, 1)), 0.01, 10))


def test_a_lag_below_a_period_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter than a command period"):
        CommandFilter(1, 50.0, 0.005)


def test_a_new_start_forgets_the_old_command() -> None:
    filtered = smoothing()
    run(filtered, np.ones((50, 1)))
    filtered.restart()
    assert float(filtered.step(np.zeros(1))[0]) == 0.0 and filtered.share == 1.0

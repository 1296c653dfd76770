# SPDX-License-Identifier: Apache-2.0
"""The interpolator against numbers worked out by hand, and its declared lag against what a step shows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qgf_core.interpolator import Interpolator, interpolation_lag, substeps_of


def test_a_wish_is_met_in_equal_steps_at_the_end_of_the_period() -> None:
    interpolator = Interpolator(2, 4)
    interpolator.aim(np.array([1.0, -2.0]))
    steps = [interpolator.step().tolist() for _ in range(4)]
    assert steps == [[0.25, -0.5], [0.5, -1.0], [0.75, -1.5], [1.0, -2.0]]
    interpolator.aim(np.array([0.0, -2.0]))
    assert [interpolator.step().tolist() for _ in range(2)] == [[0.75, -2.0], [0.5, -2.0]]
    # A wish that comes early leads on from the last command, not from the last wish.
    interpolator.aim(np.array([0.5, 2.0]))
    assert [interpolator.step().tolist() for _ in range(5)] == [[0.5, -1.0], [0.5, 0.0], [0.5, 1.0]] + [[0.5, 2.0]] * 2


def test_one_command_a_period_passes_the_wish_through_bit_for_bit() -> None:
    interpolator, rng = Interpolator(7, 1), np.random.default_rng(0)
    for wish in rng.normal(size=(20, 7)):
        interpolator.aim(wish)
        assert np.array_equal(interpolator.step(), wish)


def test_restarted_it_goes_on_from_where_the_arm_is() -> None:
    interpolator = Interpolator(1, 5)
    interpolator.aim(np.array([1.0]))
    interpolator.step()
    interpolator.restart(np.array([0.5]))
    assert interpolator.step() == 0.5
    interpolator.aim(np.array([1.0]))
    assert interpolator.step() == pytest.approx(0.6)


@given(st.sampled_from([10.0, 50.0, 125.0]), st.integers(1, 40))
def test_the_declared_lag_is_the_area_between_staircase_and_line(control_rate: float, substeps: int) -> None:
    interpolator, command_period = Interpolator(1, substeps), 1.0 / (control_rate * substeps)
    area = 0.0
    for _ in range(3):
        interpolator.aim(np.ones(1))
        area += sum(1.0 - float(interpolator.step()[0]) for _ in range(substeps)) * command_period
    assert area == pytest.approx(interpolation_lag(control_rate, control_rate * substeps), abs=1e-12)


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=10), st.integers(1, 10))
def test_no_step_is_larger_than_its_share_and_each_period_ends_at_its_wish(wishes: list[float], substeps: int) -> None:
    interpolator, last = Interpolator(1, substeps), 0.0
    for wish in wishes:
        begin = last
        interpolator.aim(np.array([wish]))
        for _ in range(substeps):
            value = float(interpolator.step()[0])
            assert abs(value - last) <= abs(wish - begin) / substeps + 1e-12
            last = value
        assert last == wish


@pytest.mark.parametrize(
    ("control_rate", "command_rate", "substeps", "lag"),
    [
        (50.0, 0.0, 1, 0.0),
        (50.0, 50.0, 1, 0.0),
        (50.0, 500.0, 10, 0.009),
        (50.0, 100.0, 2, 0.005),
        (100.0, 1000.0, 10, 0.0045),
    ],
)
def test_rates_by_hand(control_rate: float, command_rate: float, substeps: int, lag: float) -> None:
    assert substeps_of(control_rate, command_rate) == substeps
    assert interpolation_lag(control_rate, command_rate) == pytest.approx(lag, abs=1e-15)


@pytest.mark.parametrize("command_rate", [25.0, 75.0, 501.0])
def test_rates_that_do_not_fit_are_refused(command_rate: float) -> None:
    with pytest.raises(ValueError, match=f"{command_rate:g} Hz is no multiple of the control rate 50 Hz"):
        substeps_of(50.0, command_rate)
    with pytest.raises(ValueError, match="must be positive"):
        Interpolator(0, 1)

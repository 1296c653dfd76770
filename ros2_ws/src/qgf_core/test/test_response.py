# SPDX-License-Identifier: Apache-2.0
"""Delay and tracking error of known responses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core.errors import MetricError
from qgf_core.response import response

RATE = 200.0
TIME = np.arange(400) / RATE


def movement(t: np.ndarray) -> np.ndarray:
    """(T, 2): the second joint moves more."""
    return np.column_stack([0.1 * np.sin(2 * np.pi * 0.7 * t), 0.5 * np.sin(2 * np.pi * t) + 0.1 * np.sin(31.0 * t)])


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 0.25), st.floats(-1.0, 1.0), st.integers(0, 2**31))
def test_a_delayed_signal(delay, offset, seed):
    noise = 0.002 * np.random.default_rng(seed).normal(size=(400, 2))
    found = response(movement(TIME), movement(TIME - delay) + offset + noise, RATE, 0.3)
    assert found.lag == pytest.approx(delay, abs=0.001 if delay > 0.5 / RATE else 0.5 / RATE)
    assert found.aligned_error == pytest.approx([abs(offset)] * 2, abs=0.01)


def test_errors_by_hand():
    x = movement(TIME)
    found = response(x, x + np.array([0.3, 0.0]), RATE, 0.3)
    assert found.lag == 0.0
    assert found.error == pytest.approx([0.3, 0.0])
    assert found.aligned_error == pytest.approx([0.3, 0.0])


def test_a_first_order_lag():
    y, step = np.zeros((400, 2)), movement(TIME)
    for k in range(1, 400):
        y[k] = y[k - 1] + (step[k] - y[k - 1]) / (0.05 * RATE)
    assert response(step, y, RATE, 0.3).lag == pytest.approx(0.05, abs=0.012)


def test_no_lag_where_nothing_moves_or_nothing_answers():
    rng = np.random.default_rng(0)
    still = response(np.zeros((400, 1)), 1e-4 * rng.normal(size=(400, 1)), RATE, 0.3, floor=1e-3)
    assert np.isnan(still.lag) and still.error == pytest.approx([1e-4], rel=0.2)
    deaf = response(movement(TIME), np.zeros((400, 2)), RATE, 0.3)
    assert np.isnan(deaf.lag) and deaf.aligned_error == pytest.approx(deaf.error)


def test_bad_arguments():
    with pytest.raises(MetricError, match="same shape"):
        response(np.zeros((400, 2)), np.zeros((400, 3)), RATE, 0.3)
    with pytest.raises(MetricError, match="at least 122 samples"):
        response(np.zeros((40, 2)), np.zeros((40, 2)), RATE, 0.3)

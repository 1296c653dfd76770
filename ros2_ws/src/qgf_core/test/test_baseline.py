# SPDX-License-Identifier: Apache-2.0
"""Baselines of known signals."""

from __future__ import annotations

import numpy as np
import pytest

from qgf_core import smoothness
from qgf_core.baseline import measure_baseline
from qgf_core.config import from_mapping, to_mapping
from qgf_core.errors import ConfigError, MetricError

RATE = 50.0


def test_a_sine_above_the_cutoff():
    t = np.arange(400) / RATE
    sine = 0.1 * np.sin(2 * np.pi * 15.0 * t)[:, None]
    signal = np.column_stack([sine, 0.0 * sine])
    baseline = measure_baseline([signal[:150], signal[150:]], RATE, 10.0)
    assert baseline.band_rms == pytest.approx([0.1 / np.sqrt(2), 0.0], rel=1e-3, abs=1e-12)
    frequency, power = smoothness.spectrum(signal[:100], RATE)
    assert baseline.power_at(frequency)[:, 0] == pytest.approx(power[:, 0], rel=0.02, abs=1e-6)
    assert np.isnan(baseline.power_at(np.array([26.0]))).all()
    assert from_mapping(type(baseline), to_mapping(baseline), "x") == baseline


def test_the_95th_percentile_of_the_windows():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(1000, 3)) * np.linspace(0.0, 1.0, 1000)[:, None]
    windows = [smoothness.band_rms(signal[k:k + 100], RATE, 10.0) for k in range(0, 901, 10)]
    expected = np.percentile(windows, 95.0, axis=0)
    assert measure_baseline([signal], RATE, 10.0).band_rms == pytest.approx(expected.tolist())


def test_positions_do_not_jump_from_episode_to_episode():
    t = np.arange(150)[:, None] / RATE
    jumping = measure_baseline([0.1 * t, 5.0 + 0.1 * t], RATE, 10.0)
    joined = measure_baseline([0.1 * t, 5.0 + 0.1 * t], RATE, 10.0, continuous=True)
    assert joined.band_rms[0] < 1e-3 < 1e-1 < jumping.band_rms[0]


def test_bad_baselines():
    with pytest.raises(MetricError, match="99 samples are too few; give at least 100"):
        measure_baseline([np.zeros((99, 2))], RATE, 10.0)
    good = to_mapping(measure_baseline([np.zeros((100, 2))], RATE, 10.0))
    for change in ({"cutoff": 30.0}, {"band_rms": [0.1]}, {"power": [[1.0], [1.0]]}, {"band_rms": [-1.0, 0.0]}):
        with pytest.raises(ConfigError):
            from_mapping(type(measure_baseline([np.zeros((100, 2))], RATE, 10.0)), {**good, **change}, "x")

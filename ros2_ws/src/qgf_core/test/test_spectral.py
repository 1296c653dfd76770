# SPDX-License-Identifier: Apache-2.0
"""Peaks of spectra, and the jerk filter by FFT."""

from __future__ import annotations

import numpy as np
import pytest

from qgf_core import smoothness as metrics
from qgf_core.spectral import Spectra


@pytest.mark.parametrize(("rate", "cutoff", "samples"), [(50.0, 10.0, 40), (200.0, 10.0, 400), (1000.0, 10.0, 2000)])
def test_jerk_is_that_of_scipys_filter(rate, cutoff, samples):
    from scipy.signal import savgol_filter
    position = np.cumsum(np.random.default_rng(3).normal(size=(samples, 3)), axis=0)
    length = metrics.jerk_filter_length(rate, cutoff)
    jerk = savgol_filter(position - position[0], length, 5, deriv=3, delta=1 / rate, axis=0)
    assert metrics.jerk_rms(position, rate, cutoff) == pytest.approx(np.sqrt(np.mean(jerk**2, axis=0)), rel=2e-6)


@pytest.mark.parametrize("chatter", [5.0, 12.0, 25.0, 45.0])
def test_peaks_of_a_sum_of_sines(chatter):
    t = np.arange(400) / 200.0
    signal = 0.3 * np.sin(2 * np.pi * 1.5 * t) + 0.05 * np.sin(2 * np.pi * chatter * t + 0.4)
    noise = np.random.default_rng(0).normal(size=400)
    frequency, amplitude, density = Spectra(np.column_stack([signal, noise, 0.0 * t]), 200.0).peaks(3)
    assert frequency[:2, 0] == pytest.approx([1.5, chatter], abs=0.5)
    assert amplitude[:2, 0] == pytest.approx([0.3, 0.05], rel=0.05)
    assert density[0, 0] > density[1, 0]
    assert np.isnan(frequency[:, 1:]).all() and np.isnan(amplitude[:, 1:]).all()


def test_peaks_between_two_bins_and_at_nyquist():
    t = np.arange(400) / 200.0
    between = 0.05 * np.sin(2 * np.pi * 20.25 * t)
    frequency, amplitude, _ = Spectra(np.column_stack([between, 0.1 * (-1.0) ** np.arange(400)]), 200.0).peaks(1)
    assert frequency[0] == pytest.approx([20.25, 100.0], abs=0.3)
    assert amplitude[0] == pytest.approx([0.05, 0.1 * np.sqrt(2)], rel=0.05)

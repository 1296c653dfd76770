# SPDX-License-Identifier: Apache-2.0
"""How smooth a policy was in simulation, joint by joint: what a live arm is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qgf_core.errors import MetricError
from qgf_core.samples import Array
from qgf_core.spectral import Spectra

WINDOW = 2.0
"""Length of the windows that a baseline is taken of [s]."""
PERCENTILE = 95.0
"""Of the windows' RMS: movements differ, and an ordinary one should not be an alarm."""

RESIDUAL = "state_residual"
"""Name of the baseline of `state_residual`, beside those of signals."""


@dataclass(frozen=True)
class Baseline:
    """Of one signal of n joints."""

    sample_rate: float
    """At which the simulation sampled the signal [Hz]."""
    cutoff: float
    """[Hz]"""
    band_rms: tuple[float, ...]
    """RMS above the cutoff, 95th percentile over the windows, (n,) [unit of the signal]."""
    power: tuple[tuple[float, ...], ...]
    """Mean power spectral density (n, F) [unit^2 / Hz] at F frequencies from 0 to sample_rate / 2."""

    def __post_init__(self) -> None:
        if not (self.sample_rate > 0.0 and 0.0 < self.cutoff < 0.5 * self.sample_rate):
            raise ValueError(f"cutoff {self.cutoff} Hz must lie below half of sample_rate {self.sample_rate} Hz")
        if len(self.power) != len(self.band_rms) or len({len(row) for row in self.power}) != 1 \
                or len(self.power[0]) < 2:
            raise ValueError("power: give a row of at least two densities for each joint of band_rms")
        if not all(np.isfinite(row).all() and min(row) >= 0.0 for row in (*self.power, self.band_rms)):
            raise ValueError("band_rms and power must be finite and not negative")

    def power_at(self, frequency: Array) -> Array:
        """Density (F, n) at other frequencies (F,) [Hz], linear in between; NaN above half of the sample rate."""
        own = np.linspace(0.0, 0.5 * self.sample_rate, len(self.power[0]))
        return np.column_stack([np.interp(frequency, own, row, right=np.nan) for row in self.power])


def measure_baseline(episodes: Sequence[Array], sample_rate: float, cutoff: float,
                     continuous: bool = False) -> Baseline:
    """The baseline from episodes (T, n) that follow each other, so that windows with a change of goal are among them.

    :param sample_rate: [Hz].
    :param cutoff: [Hz].
    :param continuous: for positions: each episode is shifted to begin where the last one ended, since an arm that is
        put to its next start by a reset has not moved there.
    :raises MetricError: less than a window in all.
    """
    pieces = [np.array(episode, dtype=np.float64) for episode in episodes]
    if continuous:
        for before, after in itertools.pairwise(pieces):
            after += before[-1] - after[0]
    signal = np.concatenate(pieces)
    length = round(WINDOW * sample_rate)
    if len(signal) < length:
        raise MetricError(f"baseline: {len(signal)} samples are too few; give at least {length}")
    spectra = [Spectra(signal[k:k + length], sample_rate) for k in range(0, len(signal) - length + 1, length // 10)]
    rms = np.percentile([each.band_rms(cutoff) for each in spectra], PERCENTILE, axis=0)
    power = np.mean([each.power for each in spectra], axis=0)
    # Three digits tell a spectrum; the manifest stays readable.
    rounded = [[float(f"{value:.3g}") for value in row] for row in power.T]
    return Baseline(sample_rate, cutoff, tuple(rms.tolist()), tuple(map(tuple, rounded)))


def state_residual(position: Array, velocity: Array, interval: Array | float) -> Array:
    """q_k - q_(k-1) - dt_k (v_k + v_(k-1)) / 2, (K - 1, n) [rad]: 0 for a motion, by the trapezoidal rule to the third
    order of dt; for noise what is left of it.

    :param position: (K, n) [rad]. :param velocity: (K, n) [rad/s]. :param interval: (K - 1,) or for all [s].
    """
    step = np.broadcast_to(np.asarray(interval, dtype=np.float64), (len(position) - 1,))[:, None]
    return np.asarray(np.diff(position, axis=0) - 0.5 * step * (velocity[1:] + velocity[:-1]))

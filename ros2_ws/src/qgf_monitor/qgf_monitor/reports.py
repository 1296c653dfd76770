# SPDX-License-Identifier: Apache-2.0
"""From a window to the figures of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qgf_core import smoothness as metrics
from qgf_core.baseline import Baseline
from qgf_core.errors import MetricError
from qgf_core.response import Response, response
from qgf_core.samples import Array
from qgf_core.sliding_window import Window
from qgf_core.spectral import Spectra
from qgf_monitor.config import MonitorConfig
from qgf_monitor.recorder import Source

FEWEST_SAMPLES = 9
"""Samples from which a report is made: their differences must do for a spectrum."""
PEAKS = 3
"""Peaks told for each joint."""
BINS = 21
"""Of the histogram of periods."""
NONE = np.zeros(0)


@dataclass(frozen=True)
class Report:
    """Figures of one signal over its window: the fields of qgf_msgs/SmoothnessReport, with the same names and units."""

    source: str
    joint_names: tuple[str, ...]
    window: float
    nominal_window: float
    sample_rate: float
    high_frequency_cutoff: float
    high_frequency_ratio: Array
    delta_high_frequency_ratio: Array
    band_rms: Array
    baseline: Array
    baseline_ratio: Array
    peak_frequency: Array
    peak_amplitude: Array
    spectral_centroid: Array
    mean_absolute_delta: Array
    total_variation_rate: Array
    sign_flip_index: Array
    jerk_rms: Array
    paper_smoothness: float
    amplitude_smoothness: float
    sparc: float
    ldlj: float
    rate: float
    period_jitter_rms: float
    period_jitter_p99: float
    period_jitter_max: float
    period_histogram_edges: Array
    period_histogram: npt.NDArray[np.uint64]
    overruns: int
    samples: int
    dropped: int
    lost: int
    gaps: int
    repeated_stamps: int
    backward_stamps: int
    clock_resets: int
    resampled: bool
    publishers: int
    response_lag: float = math.nan
    tracking_error: Array = field(default_factory=lambda: NONE)
    tracking_error_aligned: Array = field(default_factory=lambda: NONE)
    critic_mixed_sup: float = math.nan
    critic_sharpness_inf: float = math.nan
    critic_slope: float = math.nan


@dataclass(frozen=True)
class Figures:
    """A report, and the spectrum that it rests on."""

    report: Report
    spectra: Spectra
    baseline_power: Array
    """(F, n), (0,) where there is no baseline."""
    peak_power: Array
    """Density at the peaks (PEAKS * n,), as in the report."""
    stamp: int
    """Of the newest sample [ns]."""


def last_movement(speed: Array, rest_speed: float) -> slice | None:
    """The samples of (T,) of the newest movement that is whole: faster than `rest_speed` [unit of the speed].

    None if there is none that lies within the samples from rest to rest: SPARC and LDLJ are for such.
    """
    change = np.flatnonzero(np.diff(np.concatenate([[False], speed > rest_speed, [False]]).astype(np.int8)))
    for begin, end in zip(change[-2::-2], change[::-2], strict=True):
        if begin > 0 and end < len(speed) and end - begin >= FEWEST_SAMPLES:
            return slice(int(begin) - 1, int(end) + 1)
    return None


class Movements:
    """SPARC and LDLJ of the norm of joint velocities over the newest whole movement; told again until there is a newer.

    :param config: settings.
    """

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config
        self._known: tuple[int, tuple[float, float]] | None = None

    def figures(self, source: Source) -> tuple[float, float]:
        """NaN where there is no whole movement. :param source: "joint_velocity"."""
        window = source.window.window(self.config.movement_window)
        if window is None:
            return math.nan, math.nan
        speed = np.sqrt(np.einsum("ij,ij->i", window.values, window.values))
        movement = last_movement(speed, self.config.rest_speed)
        if movement is None:
            return math.nan, math.nan
        end = source.stamp(window.end - (len(speed) - movement.stop) / window.sample_rate)
        # Stamps jitter, and so does the end by their means: the same within two samples.
        if self._known is None or abs(self._known[0] - end) > 2e9 / window.sample_rate:
            rate = window.sample_rate
            self._known = end, (float(metrics.sparc(speed[movement], rate, cutoff=self.config.sparc_cutoff)),
                                float(metrics.ldlj(speed[movement], rate)))
        return self._known[1]


def _histogram(window: Window, period: float) -> tuple[Array, npt.NDArray[np.uint64]]:
    """Periods in 21 bins from half a period too short to half a period too long; the outermost hold what is beyond."""
    edges = np.linspace(-0.5 * period, 0.5 * period, BINS + 1)
    deviation = window.grid.intervals - period
    place = np.floor((deviation / period + 0.5) * BINS).astype(np.int64)  # the bins are of one width
    return edges, np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS).astype(np.uint64)


def make_report(source: Source, control_period: float | None, config: MonitorConfig, duration: float | None = None,
                baseline: Baseline | None = None, publishers: int = 0) -> Figures | None:
    """The figures of a signal's present window; None while it holds fewer than 9 samples.

    :param control_period: the policy's [s], for the cutoff; None takes the signal's own rate as the control rate.
    :param duration: of the window [s], the first of the settings' by default.
    :param baseline: of this signal, with the same joints.
    :param publishers: of the signal's topic, 0 where nobody counts.
    :raises MetricError: the signal is sampled too slowly for the cutoff.
    """
    duration = config.windows[0] if duration is None else duration
    window = source.window.window(duration)
    if window is None or len(window.values) < FEWEST_SAMPLES:
        return None
    rate = window.sample_rate
    cutoff = config.high_frequency_share * (rate if control_period is None else 1.0 / control_period)
    if cutoff > 0.5 * rate:
        raise MetricError(f"{source.name}: sampled at {rate:.3g} Hz, too slowly for the cutoff of {cutoff:.3g} Hz")
    settings = config.sources[source.name]
    spectra = window.spectra()
    figures = window.measure(cutoff, settings.deadband, spectra)
    period = source.period or window.grid.median_interval
    jitter = window.jitter(period)
    edges, histogram = _histogram(window, period)
    jerk = NONE
    if source.quantity == "position" and len(window.values) >= metrics.jerk_filter_length(rate, config.jerk_cutoff):
        jerk = np.asarray(metrics.jerk_rms(window.values, rate, config.jerk_cutoff))
    peaks = [kind.T.ravel() for kind in spectra.peaks(PEAKS)]
    known = baseline is not None and len(baseline.band_rms) == len(source.joint_names)
    usual = np.array(baseline.band_rms) if baseline is not None and known else NONE
    report = Report(
        source=source.name, joint_names=source.joint_names, window=window.duration, nominal_window=duration,
        sample_rate=rate, high_frequency_cutoff=cutoff, jerk_rms=jerk, sparc=math.nan, ldlj=math.nan,
        baseline=usual, baseline_ratio=figures.band_rms / np.maximum(usual, settings.floor) if known else NONE,
        peak_frequency=peaks[0], peak_amplitude=peaks[1],
        rate=(len(window.stamps) - 1) / -float(window.stamps[0]), period_jitter_rms=jitter.rms,
        period_jitter_p99=jitter.p99, period_jitter_max=jitter.maximum, overruns=jitter.overruns,
        period_histogram_edges=edges, period_histogram=histogram,
        samples=len(window.stamps), dropped=source.dropped, lost=window.lost, gaps=source.window.gaps,
        repeated_stamps=source.window.repeated, backward_stamps=source.window.backward,
        clock_resets=source.window.restarts, resampled=window.resampled, publishers=publishers, **vars(figures),
    )
    power = baseline.power_at(spectra.frequency) if baseline is not None and known else NONE
    return Figures(report, spectra, power, peaks[2], source.stamp(window.end))


def side_by_side(command: Source, measured: Source, duration: float) -> tuple[Array, Array, float] | None:
    """Command and measured signal (T, n) over a window [s] and their rate [Hz]; None where they cannot be compared.

    The command counts as held from one sample to the next, as drives do.
    """
    asked, given = command.window.window(duration), measured.window.window(duration)
    if asked is None or given is None or command.joint_names != measured.joint_names:
        return None
    shift = (measured.origin - command.origin) * 1e-9
    times = given.end + shift - np.arange(len(given.values))[::-1] / given.sample_rate
    began = asked.end - (len(asked.values) - 1) / asked.sample_rate
    place = np.floor((times - began) * asked.sample_rate + 1e-6).astype(np.int64)
    inside = (place >= 0) & (times <= asked.end + 1.5 / asked.sample_rate)
    held = asked.values[np.clip(place[inside], 0, len(asked.values) - 1)]
    return held, given.values[inside], given.sample_rate


def answer(command: Source, measured: Source, config: MonitorConfig, duration: float) -> Response | None:
    """How the measured joints answer the commands over a window [s]; None where too little of both is known."""
    aligned = side_by_side(command, measured, duration)
    if aligned is None:
        return None
    try:
        return response(*aligned, config.longest_lag, config.sources[measured.name].floor)
    except MetricError:
        return None

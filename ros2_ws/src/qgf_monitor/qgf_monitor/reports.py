# SPDX-License-Identifier: Apache-2.0
"""From a window to the figures of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qgf_core import smoothness as metrics
from qgf_core.baseline import Baseline
from qgf_core.errors import MetricError
from qgf_core.response import Response, response
from qgf_core.samples import Array
from qgf_core.sliding_window import Window
from qgf_core.smoothness import RowFigures
from qgf_core.spectral import Spectra
from qgf_monitor.config import MonitorConfig
from qgf_monitor.recorder import Source

FEWEST_SAMPLES = 9
"""Samples from which a report is made: their differences must do for a spectrum."""
PEAKS = 3
"""Peaks told for each joint."""
BINS = 21
"""Of the histogram of periods."""
LOOK_AGAIN = 0.5
"""A movement that has ended is looked for so often [s]: the window for it is long."""
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
        self._looked: tuple[float, tuple[float, float]] = (math.inf, (math.nan, math.nan))

    def figures(self, source: Source) -> tuple[float, float]:
        """NaN where there is no whole movement. :param source: "joint_velocity"."""
        newest = 1e-9 * source.stamp(source.window.end)
        if not 0.0 <= newest - self._looked[0] < LOOK_AGAIN:
            self._looked = newest, self._look(source)
        return self._looked[1]

    def _look(self, source: Source) -> tuple[float, float]:
        window = source.window.window(self.config.movement_window)
        if window is None:
            return math.nan, math.nan
        speed = np.sqrt(np.square(window.values.T).sum(axis=0))
        movement = last_movement(speed, self.config.rest_speed)
        if movement is None:
            return math.nan, math.nan
        end = source.stamp(window.end - (len(speed) - movement.stop) / window.sample_rate)
        # Stamps jitter, and so does the end by their means: the same within two samples.
        if self._known is None or abs(self._known[0] - end) > 2e9 / window.sample_rate:
            rate = window.sample_rate
            try:
                sparc = float(metrics.sparc(speed[movement], rate, cutoff=self.config.sparc_cutoff))
            except MetricError:  # nothing of it lies below the cutoff: no movement of an arm
                sparc = math.nan
            self._known = end, (sparc, float(metrics.ldlj(speed[movement], rate)))
        return self._known[1]


def make_reports(sources: Sequence[Source], control_period: float | None, config: MonitorConfig, duration: float,
                 baselines: Mapping[str, Baseline], publishers: Mapping[str, int]) -> dict[str, Figures | MetricError]:
    """The figures of the signals' present windows, by their names; nothing for those of fewer than 9 samples, an error
    for those that are sampled too slowly for the cutoff. Signals with the same stamps are worked out together.

    :param control_period: the policy's [s], for the cutoff; None takes the signal's own rate as the control rate.
    :param duration: of the window [s].
    :param baselines: of signals, with the same joints.
    :param publishers: of the signals' topics, where somebody counts.
    """
    found: dict[str, Figures | MetricError] = {}
    groups: dict[int, list[tuple[Source, Window]]] = {}
    for source in sources:
        window = source.window.window(duration)
        if window is not None and len(window.values) >= FEWEST_SAMPLES:
            groups.setdefault(id(window.grid), []).append((source, window))
    for group in groups.values():
        rate = group[0][1].sample_rate
        cutoff = config.high_frequency_share * (rate if control_period is None else 1.0 / control_period)
        if cutoff > 0.5 * rate:
            found |= {source.name: MetricError(f"{source.name}: sampled at {rate:.3g} Hz, too slowly for the cutoff of "
                                               f"{cutoff:.3g} Hz") for source, _ in group}
            continue
        rows = [window.values.T for _, window in group]
        together = rows[0] if len(rows) == 1 else np.concatenate(rows)
        deadband = np.repeat([config.sources[source.name].deadband for source, _ in group], [len(row) for row in rows])
        spectra = Spectra.of_rows(together, rate)
        figures, peaks, first = RowFigures(together, cutoff, deadband, spectra), spectra.peaks(PEAKS), 0
        for (source, window), row in zip(group, rows, strict=True):
            joints = slice(first, first + len(row))
            first = joints.stop
            found[source.name] = _report(
                source, window, config, duration, cutoff, figures.of(joints), spectra.part(joints),
                [kind[:, joints].T.ravel() for kind in peaks], baselines.get(source.name),
                publishers.get(source.name, 0))
    return found


def _report(source: Source, window: Window, config: MonitorConfig, duration: float, cutoff: float,
            figures: metrics.Smoothness, spectra: Spectra, peaks: list[Array], baseline: Baseline | None,
            publishers: int) -> Figures:
    period = source.period or window.grid.median_interval
    jitter = window.jitter(period)
    known = baseline is not None and len(baseline.band_rms) == len(source.joint_names)
    usual = np.array(baseline.band_rms) if baseline is not None and known else NONE
    floor = config.sources[source.name].floor
    report = Report(
        source=source.name, joint_names=source.joint_names, window=window.duration, nominal_window=duration,
        sample_rate=window.sample_rate, high_frequency_cutoff=cutoff, sparc=math.nan, ldlj=math.nan,
        jerk_rms=window.jerk_rms(config.jerk_cutoff) if source.quantity == "position" else NONE,
        baseline=usual, baseline_ratio=figures.band_rms / np.maximum(usual, floor) if known else NONE,
        peak_frequency=peaks[0], peak_amplitude=peaks[1],
        rate=(len(window.stamps) - 1) / -float(window.stamps[0]), period_jitter_rms=jitter.rms,
        period_jitter_p99=jitter.p99, period_jitter_max=jitter.maximum, overruns=jitter.overruns,
        period_histogram_edges=np.linspace(-0.5 * period, 0.5 * period, BINS + 1),
        period_histogram=window.grid.histogram(period, BINS),
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
    held = np.take(asked.values.T, np.clip(place[inside], 0, len(asked.values) - 1), axis=1)
    return held.T, given.values if inside.all() else given.values.T[:, inside].T, given.sample_rate


def answer(command: Source, measured: Source, config: MonitorConfig, duration: float) -> Response | None:
    """How the measured joints answer the commands over a window [s]; None where too little of both is known."""
    aligned = side_by_side(command, measured, duration)
    if aligned is None:
        return None
    try:
        return response(*aligned, config.longest_lag, config.sources[measured.name].floor)
    except MetricError:
        return None

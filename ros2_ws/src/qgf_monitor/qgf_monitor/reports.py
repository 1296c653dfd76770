# SPDX-License-Identifier: Apache-2.0
"""From a window to the figures of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qgf_core import smoothness as metrics
from qgf_core.errors import MetricError
from qgf_core.samples import Array
from qgf_core.sliding_window import Window
from qgf_monitor.config import MonitorConfig
from qgf_monitor.recorder import Source

FEWEST_SAMPLES = 9
"""Samples from which a report is made: their differences must do for a spectrum."""


@dataclass(frozen=True)
class Report:
    """Figures of one signal over its window: the fields of qgf_msgs/SmoothnessReport, with the same names and units."""

    source: str
    joint_names: tuple[str, ...]
    window: float
    sample_rate: float
    high_frequency_cutoff: float
    high_frequency_ratio: Array
    band_rms: Array
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
    overruns: int
    samples: int
    dropped: int


@dataclass(frozen=True)
class Evidence:
    """What the judgement looks at beside the report.

    `delta_ratio` (n,): high-frequency ratio of the signal's differences, which tells chatter from movement; `lost`:
    share of the window's samples that did not arrive, 0..1.
    """

    delta_ratio: Array
    lost: float


def whole_movement(speed: Array, rest_speed: float) -> slice | None:
    """The samples of (T,) from the first to the last that is faster than `rest_speed` [unit of the speed].

    None if there are none, or if the window cuts the movement: SPARC and LDLJ are for movements from rest to rest.
    """
    moving = np.flatnonzero(speed > rest_speed)
    if len(moving) < FEWEST_SAMPLES or moving[0] == 0 or moving[-1] == len(speed) - 1:
        return None
    return slice(int(moving[0]) - 1, int(moving[-1]) + 2)


def _movement_figures(window: Window, config: MonitorConfig) -> tuple[float, float]:
    """SPARC and LDLJ of the norm of joint velocities; NaN where there is no whole movement."""
    speed = np.sqrt(np.sum(window.values ** 2, axis=1))
    movement = whole_movement(speed, config.rest_speed)
    if movement is None:
        return math.nan, math.nan
    rate = window.sample_rate
    return (float(metrics.sparc(speed[movement], rate, cutoff=config.sparc_cutoff)),
            float(metrics.ldlj(speed[movement], rate)))


def make_report(source: Source, control_period: float | None, config: MonitorConfig) -> tuple[Report, Evidence] | None:
    """The figures of a signal's present window; None while it holds fewer than 9 samples.

    :param control_period: the policy's [s], for the cutoff; None takes the signal's own rate as the control rate.
    :raises MetricError: the signal is sampled too slowly for the cutoff.
    """
    window = source.window.window()
    if window is None or len(window.values) < FEWEST_SAMPLES:
        return None
    rate = window.sample_rate
    cutoff = config.high_frequency_share * (rate if control_period is None else 1.0 / control_period)
    if cutoff > 0.5 * rate:
        raise MetricError(f"{source.name}: sampled at {rate:.3g} Hz, too slowly for the cutoff of {cutoff:.3g} Hz")
    figures = window.measure(cutoff, config.sources[source.name].deadband)
    jitter = window.jitter(source.period)
    jerk = np.zeros(0)
    if source.is_position and len(window.values) >= metrics.jerk_filter_length(rate, config.jerk_cutoff):
        jerk = np.asarray(metrics.jerk_rms(window.values, rate, config.jerk_cutoff))
    sparc, ldlj = (math.nan, math.nan)
    if source.name == "joint_velocity":
        sparc, ldlj = _movement_figures(window, config)
    report = Report(
        source=source.name, joint_names=source.joint_names, window=window.duration, sample_rate=rate,
        high_frequency_cutoff=cutoff, jerk_rms=jerk, sparc=sparc, ldlj=ldlj,
        rate=(len(window.stamps) - 1) / -float(window.stamps[0]), period_jitter_rms=jitter.rms,
        period_jitter_p99=jitter.p99, period_jitter_max=jitter.maximum, overruns=jitter.overruns,
        samples=len(window.stamps), dropped=source.dropped, **vars(figures),
    )
    ratio = metrics.high_frequency_ratio(np.diff(window.values, axis=0), rate, cutoff)
    return report, Evidence(delta_ratio=np.asarray(ratio), lost=window.lost / len(window.values))

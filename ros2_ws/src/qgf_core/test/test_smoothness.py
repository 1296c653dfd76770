# SPDX-License-Identifier: Apache-2.0
"""Smoothness metrics against hand-worked numbers, published anchors, a direct transform and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import signal as scipy_signal

from qgf_core import smoothness as metrics
from qgf_core.errors import MetricError, QgfError


def reach(sample_rate: float, samples: int, duration: float = 2.0) -> np.ndarray:
    """Minimum-jerk movement of 1 rad."""
    s = np.arange(samples) / sample_rate / duration
    return 10 * s**3 - 15 * s**4 + 6 * s**5


CLEAN = reach(100.0, 200)
CHATTER = CLEAN + 0.01 * np.sin(2 * np.pi * 20.0 * np.arange(200) / 100.0 + 0.3)


def transform(x: np.ndarray) -> np.ndarray:
    """|DFT| of (N,) by its definition, bins 0..N-1."""
    k = np.arange(len(x))
    return np.abs(np.exp(-2j * np.pi * np.outer(k, k) / len(x)) @ x)


# --- differences: by hand


def test_differences_by_hand():
    actions = np.array([0.0, 1.0, 0.5, 0.5, -0.5])  # differences 1, -.5, 0, -1
    assert metrics.mean_absolute_delta(actions) == pytest.approx(2.5 / 4)
    assert metrics.total_variation_rate(actions, 50.0) == pytest.approx(50 * 2.5 / 4)
    assert metrics.sign_flip_index(actions, 0.0) == pytest.approx(1 / 3)  # of three pairs, only (1, -.5) flips


def test_sign_flips_need_both_differences_beyond_the_deadband():
    actions = np.array([0.0, 1.0, 0.5, 1.5, 0.5])  # differences 1, -.5, 1, -1
    assert metrics.sign_flip_index(actions, 0.0) == 1.0
    assert metrics.sign_flip_index(actions, 0.5) == pytest.approx(1 / 3)
    assert metrics.sign_flip_index(actions, 1.0) == 0.0


def test_results_are_per_joint_for_two_dimensions_and_floats_for_one():
    both = np.column_stack([CLEAN, CHATTER])
    for function, arguments in [
        (metrics.mean_absolute_delta, ()), (metrics.total_variation_rate, (100.0,)), (metrics.sign_flip_index, (1e-3,)),
        (metrics.high_frequency_ratio, (100.0, 10.0)), (metrics.spectral_centroid, (100.0,)),
        (metrics.band_rms, (100.0, 10.0)), (metrics.jerk_rms, (100.0, 10.0)), (metrics.sparc, (100.0,)),
        (metrics.ldlj, (100.0,)),
    ]:
        result = function(both, *arguments)
        assert result.shape == (2,)
        for joint in range(2):
            alone = function(both[:, joint], *arguments)
            assert type(alone) is float
            assert alone == pytest.approx(result[joint], rel=1e-12, abs=1e-15)
    for smoothness in (metrics.paper_smoothness, lambda a: metrics.amplitude_smoothness(a, 100.0)):
        assert type(smoothness(both)) is float
        assert smoothness(both) == pytest.approx((smoothness(CLEAN) + smoothness(CHATTER)) / 2)


# --- the two forms of Sm


@pytest.mark.parametrize("number", [4, 5, 8, 9, 50, 151])
def test_paper_form_is_its_definition(number):
    actions = np.random.default_rng(number).normal(size=number)
    expected = 2 / number * sum(transform(actions)[i] * i / number for i in range(number // 2))
    assert metrics.paper_smoothness(actions) == pytest.approx(expected, rel=1e-12)


def test_paper_form_by_hand():
    # N = 4, bins 0 and 1 count: F_1 = (a0 - a2) - j (a1 - a3) = -1 + 2j, f_1 = 1/4, Sm = 2/4 * sqrt(5) / 4
    assert metrics.paper_smoothness([1.0, 0.0, 2.0, 2.0]) == pytest.approx(math.sqrt(5) / 8, rel=1e-15)
    # the amplitude form of the same: K = 1, M_1 = 2/4 sqrt(5), f_1 = fs / 4
    assert metrics.amplitude_smoothness([1.0, 0.0, 2.0, 2.0], 7.0) == pytest.approx(2 / 7 * math.sqrt(5) / 2 * 7 / 4)


def test_amplitude_form_of_a_sine_is_its_amplitude_times_its_frequency():
    t = np.arange(100) / 50.0
    sine = 0.3 * np.sin(2 * np.pi * 5.0 * t + 1.0)  # on bin 10 of 49
    assert metrics.amplitude_smoothness(sine, 50.0) == pytest.approx(2 / (49 * 50.0) * 0.3 * 5.0, rel=1e-12)


@pytest.mark.parametrize(("number", "factor"), [(100, 24.5), (200, 49.5), (1000, 249.5)])
def test_forms_differ_by_about_a_quarter_of_the_length(number, factor):
    noise = np.random.default_rng(3).normal(size=(number, 7))
    assert metrics.paper_smoothness(noise) / metrics.amplitude_smoothness(noise, 50.0) == pytest.approx(factor)


def test_paper_form_of_noise_grows_with_the_square_root_of_the_length():
    rng = np.random.default_rng(0)
    short, long = (np.mean([metrics.paper_smoothness(rng.normal(size=(n, 7))) for _ in range(20)]) for n in (100, 1600))
    assert long / short == pytest.approx(4.0, rel=0.05)


def test_forms_do_not_see_chatter_at_nyquist():
    chatter = 0.1 * (-1.0) ** np.arange(100)
    assert metrics.paper_smoothness(chatter) == pytest.approx(0.0, abs=1e-15)
    assert metrics.amplitude_smoothness(chatter, 50.0) == pytest.approx(0.0, abs=1e-15)
    assert metrics.mean_absolute_delta(chatter) == pytest.approx(0.2)
    assert metrics.high_frequency_ratio(chatter, 50.0, 10.0) == pytest.approx(1.0, abs=1e-3)
    assert metrics.sign_flip_index(chatter, 0.0) == 1.0


def test_the_trap_of_the_paper_form_and_what_sees_through_it():
    assert metrics.paper_smoothness(CLEAN) == pytest.approx(0.1844, abs=5e-5)
    assert metrics.paper_smoothness(CHATTER) == pytest.approx(0.1833, abs=5e-5)  # less, though it chatters
    assert metrics.high_frequency_ratio(np.diff(CLEAN), 100.0, 10.0) < 4e-9
    assert metrics.high_frequency_ratio(np.diff(CHATTER), 100.0, 10.0) == pytest.approx(0.89, abs=0.005)
    assert metrics.sign_flip_index(CLEAN, 0.0) == 0.0
    assert metrics.sign_flip_index(CHATTER, 0.0) == pytest.approx(0.40, abs=0.01)


# --- spectra


def direct_spectrum(x: np.ndarray, sample_rate: float) -> np.ndarray:
    """Power spectral density of one segment (N,), by the definition of each step."""
    number = len(x)
    slope, offset = np.polyfit(np.arange(number), x, 1)
    hann = np.array([math.sin(math.pi * k / number) ** 2 for k in range(number)])
    density = transform((x - offset - slope * np.arange(number)) * hann) ** 2 / (sample_rate * np.sum(hann**2))
    folded = density[: number // 2 + 1].copy()
    for i in range(1, (number + 1) // 2):
        folded[i] += density[number - i]
    return folded


@pytest.mark.parametrize("number", [8, 9, 50, 199])
def test_spectrum_is_its_definition(number):
    x = np.random.default_rng(number).normal(size=number) + 0.3 * np.arange(number)
    frequency, power = metrics.spectrum(x, 40.0)
    assert frequency == pytest.approx(np.fft.rfftfreq(number, 1 / 40.0))
    assert power == pytest.approx(direct_spectrum(x, 40.0), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("number", "rate", "segment"), [(200, 100.0, 200), (1024, 100.0, 256), (5000, 1000.0, 2000)])
def test_spectrum_is_scipys_welch(number, rate, segment):
    x = np.random.default_rng(1).normal(size=(number, 3)).cumsum(axis=0)
    frequency, power = metrics.spectrum(x, rate)
    expected = scipy_signal.welch(x, rate, "hann", segment, detrend="linear", axis=0)
    assert frequency == pytest.approx(expected[0])
    assert power == pytest.approx(expected[1], rel=1e-8, abs=1e-12)


def test_the_newest_samples_count_though_segments_leave_a_remainder():
    x = np.zeros(600)
    x[-20:] = 0.1 * (-1.0) ** np.arange(20)
    assert metrics.band_rms(x, 100.0, 30.0) > 0.0
    assert scipy_signal.welch(x, 100.0, "hann", 256)[1].max() == 0.0  # the library leaves out the last 88 samples


@pytest.mark.parametrize("number", [50, 51, 150, 1000])
@pytest.mark.parametrize("frequency", [11.3, 17.0, 23.0])
def test_a_sine_above_the_cutoff(number, frequency):
    t = np.arange(number) / 50.0
    sine = 0.2 * np.sin(2 * np.pi * frequency * t + 0.5) + 3.0 + 2.0 * t
    bin_width = 50.0 / min(number, 256)
    assert metrics.spectral_centroid(sine, 50.0) == pytest.approx(frequency, abs=bin_width)
    assert metrics.high_frequency_ratio(sine, 50.0, frequency - 2 * bin_width) > 0.99
    assert metrics.band_rms(sine, 50.0, frequency - 2 * bin_width) == pytest.approx(0.2 / math.sqrt(2), rel=0.05)
    assert metrics.band_rms(sine, 50.0, min(25.0, frequency + 3 * bin_width)) < 0.005


def test_shares_of_two_sines():
    t = np.arange(400) / 100.0
    x = np.sin(2 * np.pi * 2.5 * t) + 0.5 * np.sin(2 * np.pi * 30.0 * t)
    assert metrics.high_frequency_ratio(x, 100.0, 10.0) == pytest.approx(0.25 / 1.25, rel=0.02)
    assert metrics.spectral_centroid(x, 100.0) == pytest.approx((2.5 + 0.25 * 30.0) / 1.25, rel=0.02)
    assert metrics.band_rms(x, 100.0, 10.0) == pytest.approx(0.5 / math.sqrt(2), rel=0.02)


def test_band_rms_is_parsevals():
    noise = np.random.default_rng(0).normal(size=(50, 2000))
    level = np.sqrt(np.mean(np.square(metrics.band_rms(noise, 50.0, 0.0))))
    # The linear trend takes 2 of 50 degrees of freedom, most of them below the first bin that the window leaves.
    assert level == pytest.approx(1.0, rel=0.04)
    upper = np.sqrt(np.mean(np.square(metrics.band_rms(noise, 50.0, 10.0))))
    assert upper == pytest.approx(math.sqrt(15.5 / 25.0), rel=0.02)  # bins 10..25 Hz: 15 whole and the one of Nyquist
    frequency, power = metrics.spectrum(noise, 50.0)
    without_constant = np.sqrt(power[1:].sum(axis=0) * frequency[1])
    assert metrics.band_rms(noise, 50.0, 0.0) == pytest.approx(without_constant, rel=1e-12)
    chatter = 0.1 * (-1.0) ** np.arange(50)
    assert metrics.band_rms(chatter, 50.0, 10.0) == pytest.approx(0.1, rel=1e-3)


def test_band_rms_of_a_settling_motion_shows_no_leakage():
    t = np.arange(50) / 50.0
    for slow in (0.1 * np.exp(-t / 0.3), 0.05 * np.sin(2 * np.pi * 1.3 * t + 0.4), 0.05 * np.sin(2 * np.pi * 3.3 * t)):
        assert metrics.band_rms(slow, 50.0, 10.0) < 1e-3 * np.abs(slow).max()


@pytest.mark.parametrize("constant", [0.0, 1.0, -2.8, 1e-9, 1e9, 0.1])
@pytest.mark.parametrize("slope", [0.0, 0.1, -1e6])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("number", [8, 50, 1000])
def test_rest_and_uniform_motion_are_smooth(constant, slope, dtype, number):
    x = (constant + slope * np.arange(number)).astype(dtype)
    assert metrics.high_frequency_ratio(x, 50.0, 10.0) == 0.0
    assert metrics.spectral_centroid(x, 50.0) == 0.0
    assert metrics.band_rms(x, 50.0, 10.0) == 0.0


def test_floor_sets_what_counts_as_rest():
    noise = 1e-4 * np.random.default_rng(0).normal(size=200)
    assert metrics.high_frequency_ratio(noise, 100.0, 20.0) > 0.4
    assert metrics.high_frequency_ratio(noise, 100.0, 20.0, floor=1e-3) == 0.0
    assert metrics.spectral_centroid(noise, 100.0, floor=1e-3) == 0.0


def test_constants_have_defined_values_everywhere():
    rest = np.full((100, 2), 0.7)
    for value in (metrics.mean_absolute_delta(rest), metrics.total_variation_rate(rest, 50.0), metrics.ldlj(rest, 50.0),
                  metrics.sign_flip_index(rest, 0.0), metrics.jerk_rms(rest, 50.0, 10.0), metrics.sparc(0 * rest, 50.0),
                  metrics.ldlj(0 * rest, 50.0), metrics.paper_smoothness(rest),
                  metrics.amplitude_smoothness(rest, 50.0)):
        assert np.all(np.abs(value) < 1e-12), value
    assert np.all(np.isfinite(metrics.sparc(rest, 50.0)))


# --- movements


def test_published_anchors():
    t = np.arange(-1, 1, 0.01)
    speed = np.exp(-5 * t**2)
    assert f"{metrics.sparc(speed, 100.0):.5f}" == "-1.41403"
    assert f"{metrics.ldlj(speed, 100.0):.5f}" == "-5.81636"


def test_sparc_sees_chatter_only_below_its_cutoff():
    t = np.arange(400) / 200.0
    s = t / 2.0
    clean = 15 * (s**2 - 2 * s**3 + s**4)  # speed of a reach of 1 rad in 2 s
    assert metrics.sparc(clean, 200.0) == pytest.approx(-1.405, abs=1e-3)
    for frequency in (15.0, 25.0, 40.0):
        rough = clean + 0.1 * np.sin(2 * np.pi * frequency * t)
        assert metrics.sparc(rough, 200.0) == pytest.approx(-1.405, abs=1e-3)
        assert -2.3 < metrics.sparc(rough, 200.0, cutoff=50.0) < -2.1


def test_sparc_refuses_a_signed_speed_that_lies_above_the_cutoff():
    t = np.arange(200) / 100.0
    with pytest.raises(MetricError, match="below the cutoff of 10 Hz"):
        metrics.sparc(np.sin(2 * np.pi * 30.0 * t), 100.0)


def test_ldlj_by_hand():
    # v = 1, 0, 0: second difference 1, N = 3, peak 1: -ln 3^3
    assert metrics.ldlj([1.0, 0.0, 0.0], 10.0) == pytest.approx(-3 * math.log(3))
    assert metrics.ldlj(np.linspace(0.0, 0.3, 77), 10.0) == 0.0


def test_jerk_of_a_cubic_and_of_the_minimum_jerk_reach():
    t = np.arange(300) / 100.0
    assert metrics.jerk_rms(2.0 + t - 0.7 * t**3, 100.0, 10.0) == pytest.approx(6 * 0.7, rel=1e-6)
    assert metrics.jerk_rms(2.0 + t - 0.7 * t**3, 100.0, 50.0) == pytest.approx(6 * 0.7, rel=1e-6)
    # 60 / T^3 (1 - 6 s + 6 s^2), whose mean square is (60 / T^3)^2 / 5
    assert metrics.jerk_rms(reach(200.0, 401), 200.0, 10.0) == pytest.approx(7.5 / math.sqrt(5), rel=0.01)


def test_jerk_needs_a_low_pass_against_quantisation():
    clean = reach(200.0, 401)
    quantised = np.round(clean / 2e-5) * 2e-5
    assert metrics.jerk_rms(clean, 200.0, 100.0) == pytest.approx(3.3, abs=0.05)
    assert metrics.jerk_rms(quantised, 200.0, 100.0) == pytest.approx(222, abs=1)
    assert metrics.jerk_rms(quantised, 200.0, 10.0) == pytest.approx(metrics.jerk_rms(clean, 200.0, 10.0), rel=0.02)


@pytest.mark.parametrize(("rate", "cutoff"), [(50.0, 5.0), (50.0, 10.0), (200.0, 10.0), (1000.0, 10.0), (1000.0, 99.0)])
def test_jerk_low_pass_is_the_stated_one(rate, cutoff):
    t = np.arange(int(2 * rate)) / rate

    def gain(frequency):
        omega = 2 * np.pi * frequency
        return metrics.jerk_rms(np.sin(omega * t), rate, cutoff) / (omega**3 / math.sqrt(2))

    assert gain(0.2 * cutoff) > 0.9
    assert 0.35 < gain(cutoff) < 0.85
    for multiple in (1.5, 2.0, 3.0):
        if multiple * cutoff < 0.5 * rate:
            assert gain(multiple * cutoff) < 0.07


def test_a_window_cut_out_of_a_movement_shows_no_false_jerk():
    t = np.arange(400) / 200.0
    omega = 2 * np.pi * 0.7
    position = np.sin(omega * t + 1.0)  # accelerating at both ends
    truth = omega**3 * np.sqrt(np.mean(np.cos(omega * t + 1.0) ** 2))
    assert metrics.jerk_rms(position, 200.0, 10.0) == pytest.approx(truth, rel=0.01)


# --- timing


def test_period_jitter_by_hand():
    jitter = metrics.period_jitter([5.0, 5.1, 5.2, 5.36, 5.4], 0.1)  # deviations 0, 0, .06, -.06
    assert jitter.rms == pytest.approx(math.sqrt(2 * 0.06**2 / 4))
    assert jitter.maximum == pytest.approx(0.06)
    assert jitter.p99 == pytest.approx(0.06)
    assert jitter.overruns == 1
    assert metrics.period_jitter([5.0, 5.1, 5.2, 5.36, 5.4], 0.1, work=[0.02, 0.11, 0.01, 0.01]).overruns == 2
    on_time = metrics.period_jitter(np.arange(1001) * 0.001, 0.001)
    assert on_time.maximum < 1e-12
    assert on_time.overruns == 0


def test_p99_is_the_percentile_of_the_absolute_deviation():
    deviation = np.random.default_rng(0).normal(scale=1e-4, size=1000)
    jitter = metrics.period_jitter(np.concatenate([[0.0], np.cumsum(0.01 + deviation)]), 0.01)
    assert jitter.p99 == pytest.approx(np.sort(np.abs(deviation))[989], rel=0.01)
    assert jitter.rms == pytest.approx(np.sqrt(np.mean(deviation**2)))


# --- arguments


CALLS = [
    lambda x: metrics.paper_smoothness(x),
    lambda x: metrics.amplitude_smoothness(x, 50.0),
    lambda x: metrics.mean_absolute_delta(x),
    lambda x: metrics.total_variation_rate(x, 50.0),
    lambda x: metrics.high_frequency_ratio(x, 50.0, 10.0),
    lambda x: metrics.spectral_centroid(x, 50.0),
    lambda x: metrics.band_rms(x, 50.0, 10.0),
    lambda x: metrics.spectrum(x, 50.0),
    lambda x: metrics.sign_flip_index(x, 0.0),
    lambda x: metrics.jerk_rms(x, 50.0, 10.0),
    lambda x: metrics.sparc(x, 50.0),
    lambda x: metrics.ldlj(x, 50.0),
    lambda x: metrics.period_jitter(x, 0.02),
    lambda x: metrics.measure(x, 50.0, 10.0),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", [
    [], [1.0], np.zeros((0, 3)), np.zeros((50, 0)), np.zeros((4, 4, 4)), 3.0, [math.nan] * 50, [0.0] * 49 + [math.inf],
    ["a"] * 50, [[1.0], [1.0, 2.0]], None, np.zeros(50, dtype=complex),
], ids=lambda bad: f"{np.shape(bad) if not isinstance(bad, list) else str(bad)[:12]}")
def test_bad_signals_are_refused(call, bad):
    with pytest.raises(MetricError) as caught:
        call(bad)
    assert isinstance(caught.value, QgfError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("rate", [0.0, -50.0, math.nan, math.inf])
def test_bad_rates_are_refused(rate):
    for call in (
        lambda: metrics.amplitude_smoothness(CLEAN, rate), lambda: metrics.total_variation_rate(CLEAN, rate),
        lambda: metrics.high_frequency_ratio(CLEAN, rate, 10.0), lambda: metrics.spectral_centroid(CLEAN, rate),
        lambda: metrics.band_rms(CLEAN, rate, 10.0), lambda: metrics.spectrum(CLEAN, rate),
        lambda: metrics.jerk_rms(CLEAN, rate, 10.0), lambda: metrics.jerk_rms(CLEAN, 100.0, rate),
        lambda: metrics.sparc(CLEAN, rate), lambda: metrics.sparc(CLEAN, 100.0, rate),
        lambda: metrics.ldlj(CLEAN, rate), lambda: metrics.period_jitter(CLEAN, rate),
    ):
        with pytest.raises(MetricError):
            call()


@pytest.mark.parametrize("cutoff", [-1.0, 50.01, math.nan, math.inf])
def test_cutoffs_out_of_the_spectrum_are_refused(cutoff):
    with pytest.raises(MetricError, match="cutoff"):
        metrics.high_frequency_ratio(CLEAN, 100.0, cutoff)
    with pytest.raises(MetricError, match="cutoff"):
        metrics.band_rms(CLEAN, 100.0, cutoff)


def test_a_bin_on_the_cutoff_counts_at_any_rate():
    for rate in (30.0, 50.0, 99.9, 1000 / 3):
        t = np.arange(100) / rate
        assert metrics.high_frequency_ratio(np.sin(2 * np.pi * 0.2 * rate * t), rate, 0.2 * rate) > 0.8
        assert metrics.high_frequency_ratio((-1.0) ** np.arange(100), rate, 0.5 * rate) > 0.6


# --- properties

SIGNALS = arrays(np.float64, st.tuples(st.integers(30, 120), st.integers(1, 3)),
                 elements=st.floats(-10.0, 10.0, width=32))


@settings(max_examples=60, deadline=None)
@given(SIGNALS, st.sampled_from([0.25, 2.0, 1024.0]), st.floats(-5.0, 5.0, width=16))
def test_scale_and_offset(actions, scale, offset):
    moved = scale * actions + offset
    close = {"rel": 1e-6, "abs": 1e-9 * scale}
    assert metrics.mean_absolute_delta(moved) == pytest.approx(scale * metrics.mean_absolute_delta(actions), **close)
    assert metrics.paper_smoothness(moved) == pytest.approx(scale * metrics.paper_smoothness(actions), **close)
    assert metrics.band_rms(moved, 50.0, 10.0) == pytest.approx(scale * metrics.band_rms(actions, 50.0, 10.0), **close)
    assert metrics.jerk_rms(moved, 50.0, 8.0) == pytest.approx(
        scale * metrics.jerk_rms(actions, 50.0, 8.0), rel=1e-6, abs=1e-6 * scale)


@settings(max_examples=60, deadline=None)
@given(SIGNALS)
def test_bounds_and_consistency(actions):
    result = metrics.measure(actions, 50.0, 10.0, 0.01)
    assert np.all((result.high_frequency_ratio >= 0.0) & (result.high_frequency_ratio <= 1.0))
    assert np.all((result.spectral_centroid >= 0.0) & (result.spectral_centroid <= 25.0 + 1e-9))
    assert np.all((result.sign_flip_index >= 0.0) & (result.sign_flip_index <= 1.0))
    assert np.array_equal(result.high_frequency_ratio, metrics.high_frequency_ratio(actions, 50.0, 10.0))
    assert np.array_equal(result.band_rms, metrics.band_rms(actions, 50.0, 10.0))
    assert np.array_equal(result.spectral_centroid, metrics.spectral_centroid(actions, 50.0))
    assert np.array_equal(result.sign_flip_index, metrics.sign_flip_index(actions, 0.01))
    assert result.paper_smoothness == metrics.paper_smoothness(actions)
    assert np.all(np.isfinite(np.concatenate([np.ravel(v) for v in vars(result).values()])))


@settings(max_examples=40, deadline=None)
@given(SIGNALS, st.floats(1.0, 2000.0))
def test_the_rate_cancels_where_it_should(actions, rate):
    reference = metrics.amplitude_smoothness(actions, 1.0)
    assert metrics.amplitude_smoothness(actions, rate) == pytest.approx(reference, rel=1e-9)
    assert metrics.spectral_centroid(actions, rate) == pytest.approx(
        rate * np.asarray(metrics.spectral_centroid(actions, 1.0)), rel=1e-9, abs=1e-12)

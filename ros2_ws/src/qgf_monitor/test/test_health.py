# SPDX-License-Identifier: Apache-2.0
"""Settings and health rules, on a virtual clock."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qgf_core.config import to_mapping
from qgf_core.errors import ConfigError
from qgf_monitor.config import SOURCES, Bounds, load_config
from qgf_monitor.health import Alarm, Level, PolicyHealth, SourceHealth, silent
from qgf_monitor.reports import Report

CONFIG = dataclasses.replace(load_config(), hysteresis=0.8, raise_after=0.3, clear_after=1.0, chatter_ratio=0.3,
                             stale_after=0.5)


def levels(alarm: Alarm, values: list[float], period: float = 0.1) -> str:
    """First letters of the levels that a series of values gives, one every `period`."""
    return "".join(alarm.update(value, k * period).name[0] for k, value in enumerate(values))


def alarm(**changes: float) -> Alarm:
    return Alarm(Bounds(1.0, 2.0), dataclasses.replace(CONFIG, **changes))


def test_an_alarm_rises_at_its_bound_and_not_below():
    quick = {"raise_after": 0.0, "clear_after": 0.0}
    assert levels(alarm(**quick), [0.99, 1.0, 1.99, 2.0]) == "OWWE"


def test_an_alarm_falls_only_below_the_hysteresis():
    quick = {"raise_after": 0.0, "clear_after": 0.0}
    assert levels(alarm(**quick), [2.0, 1.6, 1.59, 0.8, 0.79]) == "EEWWO"
    assert levels(alarm(**quick), [2.0, 0.0]) == "EO"


def test_an_alarm_waits_before_it_rises_and_longer_before_it_falls():
    # 0.0 0.1 0.2 0.3: three tenths after the first high value
    assert levels(alarm(), [5.0] * 4) == "OOOE"
    assert levels(alarm(), [5.0] * 4 + [0.0] * 12) == "OOOE" + "E" * 10 + "OO"


def test_an_interruption_starts_the_wait_again():
    assert levels(alarm(), [5.0, 5.0, 0.0, 5.0, 5.0, 5.0, 5.0]) == "OOOOOOE"
    risen = [5.0] * 4
    assert levels(alarm(), risen + [0.0] * 9 + [5.0] + [0.0] * 9) == "OOOE" + "E" * 19


def test_a_value_that_flickers_round_the_bound_does_not_flicker_the_level():
    quick = {"raise_after": 0.0, "clear_after": 0.0}
    assert levels(alarm(**quick), [1.01, 0.99] * 20) == "W" * 40


@given(st.lists(st.floats(0.0, 4.0), min_size=1, max_size=60))
def test_an_alarm_never_exceeds_what_the_values_reached(values):
    seen, quiet = Level.OK, alarm()
    for k, value in enumerate(values):
        seen = max(seen, Level.ERROR if value >= 2.0 else Level.WARN if value >= 1.0 else Level.OK)
        assert quiet.update(value, 0.1 * k) <= seen


def report(**changes: object) -> Report:
    two = np.zeros(2)
    smooth = Report(
        source="raw_action", joint_names=("a", "b"), window=2.0, nominal_window=2.0, sample_rate=50.0,
        high_frequency_cutoff=10.0, high_frequency_ratio=two, delta_high_frequency_ratio=two, band_rms=two,
        baseline=np.zeros(0), baseline_ratio=np.zeros(0), peak_frequency=np.zeros(6), peak_amplitude=np.zeros(6),
        spectral_centroid=two, mean_absolute_delta=two,
        total_variation_rate=two, sign_flip_index=two, jerk_rms=np.zeros(0), paper_smoothness=0.0,
        amplitude_smoothness=0.0, sparc=0.0, ldlj=0.0, rate=50.0, period_jitter_rms=0.0, period_jitter_p99=0.0,
        period_jitter_max=0.0, overruns=0, samples=101, dropped=0, lost=0, gaps=0,
        repeated_stamps=0, backward_stamps=0, clock_resets=0, resampled=False, publishers=1,
        period_histogram_edges=np.zeros(22), period_histogram=np.zeros(21, np.uint64))
    return dataclasses.replace(smooth, **changes)


def settled(health: SourceHealth, judged: Report, delta_ratio=(0.0, 0.0), lost: int = 0):
    judged = dataclasses.replace(judged, delta_high_frequency_ratio=np.array(delta_ratio), lost=lost)
    for k in range(30):
        verdict = health.judge(judged, 0.1 * k)
    return verdict


def test_chatter_needs_level_and_share_on_the_same_joint():
    bounds = CONFIG.sources["raw_action"].band_rms
    loud = np.array([0.0, 1.5 * bounds.error])
    for ratio, level in [([0.0, 0.9], Level.ERROR), ([0.9, 0.1], Level.OK), ([0.0, 0.0], Level.OK)]:
        verdict = settled(SourceHealth("raw_action", CONFIG), report(band_rms=loud), ratio)
        assert verdict.level == level
    quiet = report(band_rms=np.array([0.0, 0.5 * bounds.warn]))
    assert settled(SourceHealth("raw_action", CONFIG), quiet, [0.9, 0.9]).level == Level.OK


def test_the_verdict_names_the_figure_the_joint_and_the_bound():
    bounds = CONFIG.sources["raw_action"].band_rms
    loud = report(band_rms=np.array([0.0, 0.123]))
    verdict = settled(SourceHealth("raw_action", CONFIG), loud, [0.0, 0.9])
    assert verdict.level == Level.WARN
    assert verdict.summary == (f"chatter: 0.123 RMS above 10 Hz on b, 90% of its differences' power "
                               f"(bound {bounds.warn:g})")
    smooth = settled(SourceHealth("raw_action", CONFIG), report())
    assert smooth.summary == "smooth: 0 RMS above 10 Hz on a, 50 Hz"


def test_a_policy_that_was_rough_in_simulation_is_not_called_smooth():
    bound = CONFIG.sources["raw_action"].band_rms.warn
    band, ratio = np.array([0.0, 0.03]), np.array([0.0, 0.2])
    for usual, rough in [(0.99 * bound, False), (bound, True), (0.15, True)]:
        compared = report(band_rms=band, baseline=np.array([0.01, usual]), baseline_ratio=ratio)
        verdict = settled(SourceHealth("raw_action", CONFIG), compared, [0.9, 0.9])
        assert (verdict.level, verdict.rough_in_simulation) == (Level.OK, rough)
        assert verdict.summary.startswith("smooth: ") != rough
    assert verdict.summary == ("no rougher than in simulation, but rough there (0.15 RMS on b, bound 0.08): "
                               "0.03 RMS above 10 Hz on b")
    late = settled(SourceHealth("raw_action", CONFIG), dataclasses.replace(compared, overruns=50), [0.9, 0.9])
    assert late.level == Level.ERROR and late.rough_in_simulation and late.summary.startswith("late")
    alarmed = report(band_rms=band, baseline=np.array([0.01, 0.15]), baseline_ratio=np.array([0.0, 9.0]))
    verdict = settled(SourceHealth("raw_action", CONFIG), alarmed, [0.9, 0.9])
    assert verdict.level == Level.ERROR and not verdict.rough_in_simulation


def test_late_and_lost_messages():
    late = settled(SourceHealth("command", CONFIG), report(overruns=50))
    assert late.level == Level.ERROR
    assert late.summary.startswith("late: 50% of the periods")
    lost = settled(SourceHealth("command", CONFIG), report(), lost=5)
    assert lost.level == Level.WARN
    assert lost.summary.startswith("lost: 5% of the messages")


def test_with_a_baseline_the_ratio_decides_joint_by_joint():
    bounds = CONFIG.baseline_ratio
    compared = report(band_rms=np.array([0.5, 0.03]), baseline=np.array([0.4, 0.01]),
                      baseline_ratio=np.array([1.25, bounds.warn + 0.5]))
    verdict = settled(SourceHealth("raw_action", CONFIG), compared, [0.9, 0.9])
    assert (verdict.level, verdict.joints) == (Level.WARN, (Level.OK, Level.WARN))
    assert verdict.summary == ("chatter: 0.03 RMS above 10 Hz on b, 2.5 times that in simulation, 90% of its "
                               "differences' power (bound 2)")
    assert silent(1.0, "", 2).joints == (Level.STALE, Level.STALE)


def test_two_publishers_are_told():
    verdict = settled(SourceHealth("command", CONFIG), report(publishers=2))
    assert (verdict.level, verdict.summary) == (Level.WARN, "2 publishers on one topic: the figures mix them")


def test_staleness_is_a_time_and_a_number_of_periods():
    health = SourceHealth("command", CONFIG)
    assert not health.is_stale(0.5, 0.02)
    assert health.is_stale(0.51, 0.02)
    assert not health.is_stale(0.9, 0.2)
    assert health.is_stale(1.1, 0.2)
    assert silent(1.25, "no goal").summary == "no message for 1.2 s: no goal"
    assert silent(1.25).level == Level.STALE


@pytest.mark.parametrize(("mode", "fault", "level"), [
    ("ACTIVE", "", Level.OK), ("INACTIVE", "", Level.OK), ("HOLDING", "", Level.WARN), ("HALTING", "", Level.ERROR),
    ("ESTOPPED", "pressed", Level.ERROR), ("ACTIVE", "stale goal", Level.WARN),
])
def test_modes_and_faults_of_the_policy(mode, fault, level):
    verdict = PolicyHealth(CONFIG).judge(mode, fault, 0.0, 0.0)
    assert verdict.level == level
    assert mode in verdict.summary
    assert fault in verdict.summary


def test_a_late_control_loop():
    health = PolicyHealth(CONFIG)
    assert [health.judge("ACTIVE", "", 0.05, t).level for t in (0.0, 0.2, 0.4)] == [Level.OK, Level.OK, Level.WARN]
    assert "5.0% of the periods late" in health.judge("ACTIVE", "", 0.05, 0.5).summary


# --- settings


def test_the_shipped_settings_are_complete():
    config = load_config()
    assert set(config.sources) == set(SOURCES)
    assert config.report_rate == 10.0
    assert config.diagnostics_rate == 1.0
    assert config.high_frequency_share == 0.2


def write(path, data: dict) -> str:
    path.write_text(yaml.safe_dump(data))
    return str(path)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("windows", [0.0], "windows: .0.0."), ("hysteresis", 1.5, "hysteresis: 1.5"), ("windw", 1.0, "windw: unknown key"),
    ("high_frequency_share", 0.6, "above half"), ("overruns", {"warn": 0.5, "error": 0.1}, "ascending"),
    ("sources", {}, "must be exactly"), ("capacity", 3, "at least 16"), ("windows", [".nan"], "windows"),
    ("windows", [], "windows"),
    ("raise_after", -1.0, "raise_after"),
])
def test_bad_settings_are_refused_with_the_file_and_the_key(tmp_path, key, value, message):
    data = to_mapping(load_config())
    path = write(tmp_path / "monitor.yaml", {**data, key: value})
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert path in str(caught.value)


def test_a_missing_setting_is_refused(tmp_path):
    data = to_mapping(load_config())
    del data["lost"]
    with pytest.raises(ConfigError, match="lost: missing"):
        load_config(write(tmp_path / "monitor.yaml", data))

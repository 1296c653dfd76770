# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from qgf_policy.timing import LoopTiming

MS = 1_000_000


def test_late10_counts_late_and_left_out_periods():
    timing = LoopTiming(10 * MS)
    for k in range(100):
        late = {10: 1 * MS, 20: 1 * MS + 1, 30: 9 * MS}.get(k, 50_000)  # exactly 10 % is not late
        timing.begin(k * 10 * MS, k * 10 * MS + late, skipped=2 if k == 40 else 0)
    assert timing.report().late10 == pytest.approx(4 / 102)


def test_late10_forgets_after_a_minute_and_on_reset():
    timing = LoopTiming(10 * MS)
    timing.begin(0, 5 * MS, 0)
    for _ in range(5999):
        timing.begin(0, 0, 0)
    assert timing.report().late10 == pytest.approx(1 / 6000)
    timing.begin(0, 0, 0)
    assert timing.report().late10 == 0.0
    timing.begin(0, 5 * MS, 0)
    timing.reset()
    assert timing.report().late10 == 0.0


def test_jitter_and_stages_are_those_of_the_report_period():
    timing = LoopTiming(10 * MS)
    starts = np.array([0, 10, 21, 30, 40]) * MS + 1
    for start in starts:
        timing.begin(int(start), int(start), 0)
        timing.end((1000, 2000, 3000, int(start // MS) * 100))
    report = timing.report()
    deviations = np.array([0.0, 1e-3, 1e-3, 0.0])
    assert report.jitter_rms == pytest.approx(np.sqrt(np.mean(deviations**2)))
    assert report.jitter_p99 == pytest.approx(np.percentile(deviations, 99))
    assert report.jitter_max == pytest.approx(1e-3)
    assert report.stage_mean == pytest.approx((1e-6, 2e-6, 3e-6, 1e-7 * np.mean([0, 10, 21, 30, 40])))
    assert report.stage_max == pytest.approx((1e-6, 2e-6, 3e-6, 4e-6))
    timing.begin(50 * MS + 1, 50 * MS + 1, 0)
    assert timing.report().jitter_max == 0.0

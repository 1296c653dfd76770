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
        timing.end((500, 1000, 2000, 3000, int(start // MS) * 100))
    report = timing.report()
    deviations = np.array([0.0, 1e-3, 1e-3, 0.0])
    assert report.jitter_rms == pytest.approx(np.sqrt(np.mean(deviations**2)))
    assert report.jitter_p99 == pytest.approx(np.percentile(deviations, 99))
    assert report.jitter_max == pytest.approx(1e-3)
    assert report.stage_mean == pytest.approx((5e-7, 1e-6, 2e-6, 3e-6, 1e-7 * np.mean([0, 10, 21, 30, 40])))
    assert report.stage_max == pytest.approx((5e-7, 1e-6, 2e-6, 3e-6, 4e-6))
    # 0.5, 1, 2, 3 and up to 4 us: all in the first bin, up to 10 us
    assert [bins[0] for bins in report.histogram] == [5] * 5 and sum(map(sum, report.histogram)) == 25
    timing.begin(50 * MS + 1, 50 * MS + 1, 0)
    assert timing.report().jitter_max == 0.0


def test_a_histogram_counts_each_cycle_once_and_an_edge_belongs_to_the_bin_below():
    timing = LoopTiming(10 * MS)
    for duration in (10_000, 10_001, 20_000, 10**10):
        timing.begin(0, 0, 0)
        timing.end((duration, 0, 0, 0, 0))
    bins = timing.report().histogram
    assert bins[0][:2] == (1, 2) and bins[0][-1] == 1 and bins[1][0] == 4
    assert timing.report().histogram == bins, "it counts from the activation"
    timing.reset()
    assert sum(map(sum, timing.report().histogram)) == 0


def test_the_share_of_overruns_is_that_of_the_last_second():
    timing = LoopTiming(10 * MS)  # 100 periods a second
    assert [timing.overrun_share(True, 0) for _ in range(5)] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert timing.overrun_share(False, 4) == pytest.approx(0.09)
    shares = [timing.overrun_share(False, 0) for _ in range(100)]
    assert shares[89] == pytest.approx(0.09) and shares[-1] == 0.0
    assert timing.overrun_share(False, 10**6) == pytest.approx(0.99), "a long silence costs no time"

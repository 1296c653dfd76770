# SPDX-License-Identifier: Apache-2.0
"""The sliding window: the same figures as the batch formulas, whatever the stamps do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core import smoothness as metrics
from qgf_core.errors import MetricError
from qgf_core.sliding_window import SlidingWindow, Window
from qgf_core.time_grid import TimeGrid


def feed(window: SlidingWindow, stamps: np.ndarray, values: np.ndarray) -> None:
    for stamp, row in zip(stamps, values, strict=True):
        window.add(stamp, row)


def tone(stamps: np.ndarray, frequency: float, amplitude: float = 0.1) -> np.ndarray:
    """(T, 2): a slow movement with chatter on the second joint only."""
    slow = np.sin(2 * np.pi * 0.4 * stamps)
    return np.column_stack([slow, slow + amplitude * np.sin(2 * np.pi * frequency * stamps + 0.3)])


@settings(max_examples=80, deadline=None)
@given(st.integers(10, 400), st.integers(1, 7), st.sampled_from([20.0, 50.0, 100.0, 1000.0]),
       st.integers(1, 300), st.floats(-0.4, 0.4), st.integers(8, 300), st.integers(0, 2**31))
def test_sliding_is_batch(samples, joints, rate, periods, fraction, capacity, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(samples, joints))
    sliding = SlidingWindow((periods + fraction) / rate, joints, capacity)
    feed(sliding, 12.3 + np.arange(samples) / rate, values)
    expected = values[-min(samples, capacity, periods):]
    window = sliding.window()
    if len(expected) < 3:
        assert window is None
        return
    assert np.array_equal(window.values, expected)
    assert window.sample_rate == pytest.approx(rate, rel=1e-9)
    assert (window.lost, window.resampled) == (0, False)
    if len(expected) >= 9:
        figures, batch = window.measure(0.2 * rate, 0.01), metrics.measure(expected, rate, 0.2 * rate, 0.01)
        for name, figure in vars(batch).items():
            assert getattr(figures, name) == pytest.approx(figure, rel=1e-9, abs=1e-12), name


def test_the_window_is_a_view_that_follows_the_newest_samples():
    sliding = SlidingWindow(0.5, 1, 64)
    for k in range(500):
        sliding.add(k / 100.0, [float(k)])
        window = sliding.window()
        if window is not None:
            assert window.values[:, 0].tolist() == list(range(max(0, k - 49), k + 1))
            assert np.shares_memory(window.values, sliding._values)
            assert window.end == k / 100.0
    assert window.duration == pytest.approx(0.5)


def test_repeated_and_backward_stamps_are_counted_and_dropped():
    sliding = SlidingWindow(1.0, 1)
    assert sliding.add(1.0, [1.0])
    assert not sliding.add(1.0, [2.0])
    assert not sliding.add(0.5, [3.0])
    assert sliding.add(1.1, [4.0])
    assert sliding.add(1.2, [5.0])
    assert (sliding.repeated, sliding.backward, sliding.restarts) == (1, 1, 0)
    assert sliding.window().values[:, 0].tolist() == [1.0, 4.0, 5.0]


def test_a_clock_set_back_restarts_the_window_but_stragglers_do_not():
    sliding = SlidingWindow(1.0, 1)
    feed(sliding, 1e9 + np.arange(100) * 0.01, np.ones((100, 1)))
    for k in range(100):  # a second publisher without stamps
        sliding.add(0.0, [9.0])
        sliding.add(1e9 + 1.0 + k * 0.01, [1.0])
    assert (sliding.backward, sliding.restarts) == (100, 0)
    assert len(sliding.window().values) == 100
    feed(sliding, np.arange(50) * 0.01, np.full((50, 1), 2.0))
    assert sliding.restarts == 1
    assert sliding.window().values[:, 0].tolist() == [2.0] * 41  # nine were dropped before the tenth made it sure


def test_a_stamp_far_ahead_does_not_stop_the_window_for_good():
    sliding = SlidingWindow(1.0, 1)
    feed(sliding, np.arange(100) * 0.01, np.ones((100, 1)))
    sliding.add(1e6, [1.0])
    feed(sliding, 1.0 + np.arange(100) * 0.01, np.ones((100, 1)))
    assert sliding.restarts == 1
    assert len(sliding.window().values) == 91


def test_a_gap_cuts_the_window():
    sliding = SlidingWindow(2.0, 2)
    stamps = np.concatenate([np.arange(80) * 0.01, 1.0 + np.arange(50) * 0.01])
    feed(sliding, stamps, tone(stamps, 20.0))
    window = sliding.window()
    assert window.values == pytest.approx(tone(stamps[80:], 20.0))
    assert window.lost == 0


def test_lost_samples_are_filled_in_and_the_others_stay_as_they_are():
    stamps = np.arange(200) * 0.01
    values = tone(stamps, 20.0)
    kept = np.ones(200, dtype=bool)
    kept[[17, 90, 91, 150]] = False
    sliding = SlidingWindow(2.0, 2)
    feed(sliding, stamps[kept], values[kept])
    window = sliding.window()
    assert (window.lost, window.resampled) == (4, False)
    assert window.sample_rate == pytest.approx(100.0)
    assert window.values.shape == (200, 2)
    assert np.array_equal(window.values[kept], values[kept])
    # Straight lines would miss chatter of 0.1 by 0.02 to 0.18 here.
    assert window.values == pytest.approx(values, abs=1e-3)


@pytest.mark.parametrize("jitter", [0.02, 0.1, 0.2])
def test_jittering_stamps_leave_the_values_alone(jitter):
    rng = np.random.default_rng(0)
    due = np.arange(400) * 0.01
    late = due + 0.01 * np.abs(rng.normal(scale=jitter, size=400)).clip(0.0, 0.8)
    values = tone(due, 20.0)
    sliding = SlidingWindow(2.0, 2)
    feed(sliding, late, values)
    window = sliding.window()
    assert (window.lost, window.resampled) == (0, False)
    assert np.array_equal(window.values, values[-len(window.values):])
    assert len(window.values) == pytest.approx(200, abs=1)
    assert window.sample_rate == pytest.approx(100.0, rel=0.005)
    true_level = metrics.band_rms(values[-200:], 100.0, 10.0)[1]
    assert window.measure(10.0).band_rms[1] == pytest.approx(true_level, rel=0.02)


@pytest.mark.parametrize("late", [3, 150, 199])
def test_one_late_stamp_is_no_lost_sample_unless_it_is_the_newest(late):
    due = np.arange(200) * 0.01
    stamps = due.copy()
    stamps[late] += 0.008
    sliding = SlidingWindow(2.0, 2)
    feed(sliding, stamps, tone(due, 20.0))
    window = sliding.window()
    assert window.lost == (1 if late == 199 else 0)
    assert window.measure(10.0).band_rms[1] == pytest.approx(0.1 / np.sqrt(2), rel=0.03)


def test_stamps_without_a_rate_are_resampled():
    rng = np.random.default_rng(1)
    stamps = np.cumsum(rng.exponential(0.01, size=800))
    values = np.column_stack([stamps, np.sin(2 * np.pi * 2.0 * stamps)])
    sliding = SlidingWindow(3.0, 2)
    feed(sliding, stamps, values)
    window = sliding.window()
    assert window.resampled
    grid = window.end + (np.arange(len(window.values)) - len(window.values) + 1) / window.sample_rate
    assert window.values[:, 0] == pytest.approx(grid, abs=1e-9)  # a ramp in time is one again
    assert metrics.spectral_centroid(window.values, window.sample_rate)[1] == pytest.approx(2.0, abs=0.5)


def test_bursts_do_not_make_a_grid_of_millions():
    stamps = np.sort(np.concatenate([np.arange(50) * 0.04, np.arange(50) * 0.04 + 2e-6, np.arange(50) * 0.04 + 4e-6]))
    sliding = SlidingWindow(2.0, 2)
    feed(sliding, stamps, tone(stamps, 3.0))
    window = sliding.window()
    assert window.resampled
    assert len(window.values) <= 151


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1.0, 3.0), min_size=1, max_size=120), st.integers(2, 40))
def test_any_stamps_give_a_window_or_none(stamps, capacity):
    sliding = SlidingWindow(0.7, 1, capacity)
    for stamp in stamps:
        sliding.add(stamp, [stamp])
        window = sliding.window()
        assert window is None or isinstance(window, Window)
        if window is not None:
            assert np.isfinite(window.values).all()
            assert len(window.values) <= 5 * capacity
            assert window.sample_rate > 0.0
            assert np.ptp(window.stamps) <= 0.7 + 1.5
            assert window.jitter().rms >= 0.0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([0.05, 0.4, 0.45, 0.55, 0.9, 1.0, 1.0, 1.0, 1.0, 1.4, 1.6, 2.1, 3.0]), min_size=2,
                max_size=80))
def test_every_sample_has_a_slot_of_its_own_and_no_fewer_than_none_are_lost(intervals):
    """Of two that come within half a period both used to take one slot, and -1 were lost: no message can tell that."""
    grid = TimeGrid(0.02 * np.concatenate([[0.0], np.cumsum(intervals)]))
    assert grid.slots[0] == 0 and np.diff(grid.slots).min() >= 1
    assert grid.lost >= 0
    if not grid.resampled:
        assert grid.lost == len(grid.missing) == grid.slots[-1] + 1 - len(grid.stamps)
        numbers = np.arange(1.0, len(grid.stamps) + 1.0)
        spread = grid.spread(numbers[None])[0]
        assert np.isfinite(spread).all() and np.isin(numbers[-3:], spread).all()


@pytest.mark.parametrize("at", [0, 5, 50, 98])
def test_one_message_that_comes_early_is_one_message(at):
    intervals = np.full(99, 0.02)
    intervals[at] = 0.009
    grid = TimeGrid(np.concatenate([[0.0], np.cumsum(intervals)]))
    assert grid.lost == 0 and grid.slots.tolist() == list(range(100))


def test_period_jitter_of_the_window():
    sliding = SlidingWindow(1.0, 1)
    feed(sliding, np.array([0.0, 0.1, 0.2, 0.36, 0.4]), np.zeros((5, 1)))
    jitter = sliding.window().jitter(0.1)
    assert jitter.maximum == pytest.approx(0.06)
    assert jitter.overruns == 1


def test_bad_arguments_and_samples():
    with pytest.raises(MetricError):
        SlidingWindow(0.0, 1)
    with pytest.raises(MetricError):
        SlidingWindow(1.0, 0)
    sliding = SlidingWindow(1.0, 2)
    for stamp, values in [(0.0, [1.0]), (0.0, [1.0, np.nan]), (np.nan, [1.0, 2.0]), (0.0, [[1.0, 2.0]])]:
        with pytest.raises(MetricError):
            sliding.add(stamp, values)
    assert len(sliding) == 0


STEPS = st.sampled_from([0.0, 0.01, 0.01, 0.01, 0.013, 0.3, -0.05])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(1, 30)), max_size=12), st.integers(4, 60), st.integers(0, 2**31))
def test_many_at_once_is_one_by_one(pieces, capacity, seed):
    """Steps of the stamps in pieces: regular, repeated, going back, with gaps; both must keep the same."""
    rng = np.random.default_rng(seed)
    single, batch = SlidingWindow(0.5, 2, capacity), SlidingWindow(0.5, 2, capacity)
    now = 5.0
    for step, count in pieces:
        stamps = now + step * np.arange(1, count + 1)
        now = max(now, stamps[-1]) if rng.random() < 0.5 else stamps[-1]
        values = rng.normal(size=(count, 2))
        kept = sum(single.add(s, v) for s, v in zip(stamps, values, strict=True))
        assert batch.extend(stamps, values) == kept
        one, other = single.window(), batch.window()
        assert (one is None) == (other is None)
        if one is not None:
            assert np.array_equal(one.values, other.values) and np.array_equal(one.stamps, other.stamps)
        for count_of in ("repeated", "backward", "restarts", "gaps"):
            assert getattr(single, count_of) == getattr(batch, count_of), count_of


def test_a_gap_is_counted_once_and_a_part_of_the_window_can_be_asked_for():
    sliding = SlidingWindow(4.0, 1, 1000)
    sliding.extend(np.arange(100) / 100.0, np.arange(100.0)[:, None])
    assert sliding.window(0.3).values[:, 0].tolist() == list(range(70, 100))
    sliding.extend(2.0 + np.arange(100) / 100.0, np.arange(100.0)[:, None])
    assert sliding.gaps == 1
    assert len(sliding.window().values) == 100

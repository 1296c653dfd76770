# SPDX-License-Identifier: Apache-2.0
"""Encoders: each fault by itself, by hand."""

import math

import numpy as np
import pytest

from qgf_sim import sensor_kernel
from qgf_sim.sensors import SensorSpec, StateSensor

PERIOD = 0.02


def measured(spec, positions, velocities=None, seed=0, periods=None):
    """What a sensor of one joint tells of a list of positions and velocities."""
    sensor, generator = StateSensor(spec), np.random.default_rng(seed)
    velocities = [0.0] * len(positions) if velocities is None else velocities
    periods = [0.0] + [PERIOD] * (len(positions) - 1) if periods is None else periods
    told = [sensor.measure(np.array([q]), np.array([v]), h, generator)
            for q, v, h in zip(positions, velocities, periods, strict=True)]
    return np.array([q[0] for q, _ in told]), np.array([v[0] for _, v in told])


def test_an_ideal_sensor_tells_the_truth_and_draws_nothing():
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    position, velocity = np.array([0.1, 0.2]), np.array([1.0, 2.0])
    told = StateSensor(SensorSpec()).measure(position, velocity, PERIOD, generator)
    assert np.array_equal(told[0], position) and np.array_equal(told[1], velocity)
    assert generator.bit_generator.state == before


def test_the_quantum_is_the_grid_and_the_error_even_over_half_of_it():
    quantum, truth = 0.001, np.random.default_rng(1).uniform(-1, 1, 4000)
    told, _ = measured(SensorSpec(position_quantum=quantum), truth)
    assert told / quantum == pytest.approx(np.round(told / quantum), abs=1e-9)
    error = told - truth
    assert np.abs(error).max() <= 0.5 * quantum + 1e-12
    assert error.std() == pytest.approx(quantum / math.sqrt(12.0), rel=0.05)  # of an even distribution


def test_noise_and_bias():
    told, speed = measured(SensorSpec(0.01, 0.1, position_bias=(0.5,)), [1.0] * 4000, [2.0] * 4000)
    assert told.mean() == pytest.approx(1.5, abs=6e-4) and told.std() == pytest.approx(0.01, rel=0.05)
    assert speed.mean() == pytest.approx(2.0, abs=6e-3) and speed.std() == pytest.approx(0.1, rel=0.05)


def test_the_velocity_filter_is_a_first_order_lag_over_the_time_that_passed():
    periods = [0.0, 0.02, 0.03, 0.01]
    _, speed = measured(SensorSpec(velocity_filter=0.04), [0.0] * 4, [0.0, 1.0, 1.0, 1.0], periods=periods)
    assert speed == pytest.approx(1.0 - np.exp(-np.cumsum(periods) / 0.04))
    _, first = measured(SensorSpec(velocity_filter=0.04), [0.0], [3.0])
    assert first.tolist() == [3.0]  # it had settled before the episode


@pytest.mark.parametrize("delay", [0.004, 0.02, 0.031, 0.06])
def test_a_late_state_is_what_was_so_long_ago(delay):
    times = PERIOD * np.arange(30)
    told, speed = measured(SensorSpec(delay=delay), 3.0 * times, [3.0] * 30)
    assert told == pytest.approx(3.0 * np.maximum(times - delay, 0.0), abs=1e-12)
    assert speed[times > delay] == pytest.approx(3.0) and not speed[times < delay - 1e-9].any()
    wobbly = np.concatenate([[0.0], np.cumsum(np.random.default_rng(0).uniform(0.01, 0.03, 29))])
    told, _ = measured(SensorSpec(delay=delay), 3.0 * wobbly, periods=np.diff(wobbly, prepend=0.0))
    assert told == pytest.approx(3.0 * np.maximum(wobbly - delay, 0.0), abs=1e-12)


def test_a_lost_state_is_the_one_before_and_the_share_is_right():
    told, speed = measured(SensorSpec(dropout=0.3), np.arange(4000.0), np.arange(4000.0))
    lost = told != np.arange(4000.0)
    assert lost.sum() == pytest.approx(1200, abs=90) and not lost[0]
    assert np.array_equal(told, np.maximum.accumulate(np.where(lost, -1.0, np.arange(4000.0))))
    assert np.array_equal(told, speed)
    again, _ = measured(SensorSpec(dropout=0.3), np.arange(4000.0))
    other, _ = measured(SensorSpec(dropout=0.3), np.arange(4000.0), seed=1)
    assert np.array_equal(told, again) and not np.array_equal(told, other)


def test_reset_forgets():
    sensor, generator = StateSensor(SensorSpec(delay=0.05, velocity_filter=0.1, dropout=0.5)), np.random.default_rng(0)
    for _ in range(5):
        sensor.measure(np.array([9.0]), np.array([9.0]), PERIOD, generator)
    sensor.reset()
    position, velocity = sensor.measure(np.array([1.0]), np.array([0.0]), 0.0, generator)
    assert position.tolist() == [1.0] and velocity.tolist() == [0.0]


@pytest.mark.parametrize(("changes", "words"), [
    ({"dropout": 1.0}, "dropout 1.0 must be below 1"), ({"delay": -0.1}, "delay -0.1 must not be negative")])
def test_an_impossible_sensor_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        SensorSpec(**changes)


FAULTS = {"position_noise": 0.01, "velocity_noise": 0.1, "position_bias": (0.1, 0.0, -0.2), "position_quantum": 0.001,
          "velocity_filter": 0.01, "delay": 0.03, "dropout": 0.3}


@pytest.mark.parametrize("without", [None, *FAULTS])
def test_the_kernel_is_the_python_that_it_was_written_in(without, monkeypatch):
    spec = SensorSpec(**{name: value for name, value in FAULTS.items() if name != without})
    sensors, generators = (StateSensor(spec), StateSensor(spec)), [np.random.default_rng(0) for _ in range(2)]
    random = np.random.default_rng(1)
    for k in range(60):
        if k == 40:
            [sensor.reset() for sensor in sensors]
        position, velocity = random.normal(size=(2, 3))
        elapsed = float(random.uniform(0.0, 0.03))
        found = sensors[0].measure(position, velocity, elapsed, generators[0])
        with monkeypatch.context() as patch:
            patch.setattr(sensor_kernel, "measure_state", sensor_kernel.measure_state.py_func)
            again = sensors[1].measure(position, velocity, elapsed, generators[1])
        assert np.array_equal(found, again)


def test_a_delay_of_many_measurements():
    """1 ms apart, 0.2 s late: 200 states are kept at once."""
    told, speed = measured(SensorSpec(delay=0.2), 0.001 * np.arange(1000), 2.0 + np.arange(1000),
                           periods=[0.0] + [0.001] * 999)
    assert told[200:] == pytest.approx(0.001 * np.arange(800), abs=1e-9) and not told[:200].any()
    assert speed[300] == pytest.approx(102.0, abs=1e-6)


def test_states_of_other_shapes_are_refused():
    sensor, generator = StateSensor(SensorSpec()), np.random.default_rng(0)
    sensor.measure(np.zeros(3), np.zeros(3), 0.0, generator)
    for wrong in ((np.zeros(3), np.zeros(2)), (np.zeros(4), np.zeros(4))):
        with pytest.raises(ValueError, match="state has shapes"):
            sensor.measure(*wrong, PERIOD, generator)
    with pytest.raises(ValueError, match="position_bias has 2 entries for 3 joints"):
        StateSensor(SensorSpec(position_bias=(0.1, 0.2))).measure(np.zeros(3), np.zeros(3), 0.0, generator)

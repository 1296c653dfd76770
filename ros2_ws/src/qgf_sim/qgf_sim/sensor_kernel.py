# SPDX-License-Identifier: Apache-2.0
"""One measurement of an arm's state, see qgf_sim.sensors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qgf_core.compiled import compiled

POSITION_NOISE, VELOCITY_NOISE, QUANTUM, FILTER, DELAY = 0, 1, 2, 3, 4
"""Places in `sensor`: those of SensorSpec."""
FIRST, KEPT, FRESH = 0, 1, 2
"""Places in `count`: where the oldest state that is kept stands in the ring, how many are kept, and 1 until the first
measurement of an episode is made."""
NOW, FILTERED, RING = 0, 1, 2
"""Rows of `memory`: the time [s], in front; the filtered velocities; from RING on, the ring of true states: time,
positions, velocities."""


@compiled
def measure_state(
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    elapsed: float,
    noise: NDArray[np.float64],
    bias: NDArray[np.float64],
    sensor: NDArray[np.float64],
    count: NDArray[np.int64],
    memory: NDArray[np.float64],
    measured: NDArray[np.float64],
    speed: NDArray[np.float64],
) -> None:
    """Writes measured positions and velocities.

    :param position: true ones (n,) [rad].
    :param velocity: true ones (n,) [rad/s].
    :param elapsed: time since the last measurement [s].
    :param noise: (2, n), of unit variance; ignored where there is none.
    :param bias: (n,) [rad].
    :param sensor: see above.
    :param count: see above, changed.
    :param memory: (RING + places, 1 + 2 n), changed. With a delay, a place in the ring must be free.
    :param measured: (n,) [rad], overwritten.
    :param speed: (n,) [rad/s], overwritten.
    """
    n, delay, quantum = position.size, sensor[DELAY], sensor[QUANTUM]
    memory[NOW, 0] += elapsed
    for i in range(n):
        measured[i], speed[i] = position[i], velocity[i]
    if delay > 0.0:  # the state `delay` ago, on the line between the measurements on both sides of it
        places, first, kept = memory.shape[0] - RING, count[FIRST], count[KEPT]
        newest = RING + (first + kept) % places
        memory[newest, 0] = memory[NOW, 0]
        for i in range(n):
            memory[newest, 1 + i], memory[newest, 1 + n + i] = position[i], velocity[i]
        kept += 1
        wanted = memory[NOW, 0] - delay
        while kept > 2 and memory[RING + (first + 1) % places, 0] <= wanted:
            first, kept = (first + 1) % places, kept - 1
        count[FIRST], count[KEPT] = first, kept
        before, after = RING + first, RING + (first + 1) % places if kept > 1 else RING + first
        if wanted <= memory[before, 0]:
            for i in range(n):
                measured[i] = memory[before, 1 + i]
                speed[i] = 0.0 if wanted < memory[before, 0] else memory[before, 1 + n + i]
        else:
            share = (wanted - memory[before, 0]) / (memory[after, 0] - memory[before, 0])
            for i in range(n):
                a, b = memory[before, 1 + i], memory[before, 1 + n + i]
                measured[i] = a + share * (memory[after, 1 + i] - a)
                speed[i] = b + share * (memory[after, 1 + n + i] - b)
    if sensor[FILTER] > 0.0 and count[FRESH] == 1:
        for i in range(n):
            memory[FILTERED, i] = speed[i]
    count[FRESH] = 0
    # Exact step of dy/dt = (v - y) / T with v held since the last measurement.
    blend = 1.0 - math.exp(-elapsed / sensor[FILTER]) if sensor[FILTER] > 0.0 else 1.0
    for i in range(n):
        if sensor[POSITION_NOISE] > 0.0:
            measured[i] += sensor[POSITION_NOISE] * noise[0, i]
        if sensor[VELOCITY_NOISE] > 0.0:
            speed[i] += sensor[VELOCITY_NOISE] * noise[1, i]
        if sensor[FILTER] > 0.0:
            memory[FILTERED, i] += blend * (speed[i] - memory[FILTERED, i])
            speed[i] = memory[FILTERED, i]
        measured[i] += bias[i]
        if quantum > 0.0:
            measured[i] = quantum * np.rint(measured[i] / quantum)

# SPDX-License-Identifier: Apache-2.0
"""Ticks on a clock that the test moves."""

from __future__ import annotations

import pytest

from qgf_monitor.ticks import Ticks


@pytest.fixture
def clock():
    return [100.0]


def test_periods_once_and_missed_ticks(clock):
    ticks, told = Ticks(lambda: clock[0]), []
    ticks.every(0.1, lambda: told.append(("a", round(clock[0], 3))))
    ticks.every(0.25, lambda: told.append(("b", round(clock[0], 3))))
    ticks.once(0.12, lambda: told.append(("c", round(clock[0], 3))))
    for _ in range(6):
        clock[0] += ticks.run()
    assert told == [("a", 100.1), ("c", 100.12), ("a", 100.2), ("b", 100.25), ("a", 100.3)]
    clock[0] = 101.03
    assert ticks.run() == pytest.approx(0.07)  # one of "a" and one of "b", not all that were missed
    assert told[5:] == [("a", 101.03), ("b", 101.03)]
    told.clear()
    for _ in range(3):
        clock[0] += ticks.run()
    assert told == [("a", 101.1), ("a", 101.2)]


def test_what_is_done_may_ask_for_more(clock):
    ticks, told = Ticks(lambda: clock[0]), []

    def work() -> None:
        told.append(clock[0])
        if len(told) < 3:
            ticks.once(1.0, work)

    ticks.once(0.0, work)
    for _ in range(5):
        clock[0] += min(ticks.run(), 1.0)
    assert told == [100.0, 101.0, 102.0]
    assert Ticks().run() == 1.0

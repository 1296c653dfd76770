# SPDX-License-Identifier: Apache-2.0
"""What a monitor does about errors that nobody foresaw."""

from __future__ import annotations

import pytest

from qgf_monitor.health import Level
from qgf_monitor.mishaps import RECENT, Mishaps


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def told():
    return []


@pytest.fixture
def mishaps(clock, told):
    return Mishaps(told.append, lambda: clock[0])


def test_work_is_done_and_nothing_is_told(mishaps, told):
    done = []
    mishaps.outlive("a report", lambda: done.append(1))()
    assert done == [1]
    assert told == []
    assert mishaps.diagnosis() is None


def test_an_error_is_told_with_its_traceback_and_counted(mishaps, told, clock):
    def fail() -> None:
        raise ValueError("made by the test")

    work = mishaps.outlive("a report", fail)
    work()
    work()
    assert len(told) == 2
    assert told[0].startswith("a report failed: ValueError: made by the test; the monitor goes on")
    assert "in fail" in told[0]
    clock[0] += RECENT
    entry = mishaps.diagnosis()
    assert (entry.name, entry.verdict.level) == ("monitor", Level.ERROR)
    assert entry.verdict.summary == "a report failed: ValueError: made by the test"
    assert entry.values["errors since the start"] == 2
    clock[0] += 0.01
    assert mishaps.diagnosis().verdict.level == Level.WARN


def test_a_signal_and_an_exit_are_not_kept_from_ending_it(mishaps):
    for kind in (KeyboardInterrupt, SystemExit):
        def leave(kind=kind) -> None:
            raise kind

        with pytest.raises(kind):
            mishaps.outlive("a report", leave)()

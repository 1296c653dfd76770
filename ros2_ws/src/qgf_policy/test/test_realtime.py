# SPDX-License-Identifier: Apache-2.0
"""What is asked of Linux: held as long as wanted, told where it is refused."""

from __future__ import annotations

import os
import struct
import threading

import pytest

from qgf_policy.realtime import Awake, Companions, ask
from qgf_policy.settings import RealtimeSettings

REALTIME = RealtimeSettings(1, stay_awake=True)


def in_thread(job):
    """The result of `job(native id)` in a thread of its own, whose scheduling ends with it."""
    results = []
    thread = threading.Thread(target=lambda: results.append(job(threading.get_native_id())))
    thread.start()
    thread.join()
    return results[0]


def opened(path) -> bool:
    return str(path) in [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]


@pytest.fixture
def granted():
    if in_thread(lambda thread: ask(RealtimeSettings(1), thread)):
        pytest.skip("no right to SCHED_FIFO here: give this user an rtprio limit")


def test_processors_are_kept_awake_exactly_until_the_end(granted, tmp_path):
    device = tmp_path / "cpu_dma_latency"
    device.write_bytes(b"")

    def job(thread):
        assert ask(REALTIME, thread) == []
        awake = Awake(REALTIME, thread, str(device))
        assert awake.note == "" and opened(device)
        assert device.read_bytes() == struct.pack("i", 0)
        awake.end()
        awake.end()
        return opened(device)

    assert in_thread(job) is False


def test_nothing_is_asked_without_a_priority_or_where_it_was_not_given(tmp_path):
    device = tmp_path / "cpu_dma_latency"
    device.write_bytes(b"")
    for settings in (RealtimeSettings(0, stay_awake=True), RealtimeSettings(1), REALTIME):
        awake = Awake(settings, threading.get_native_id(), str(device))  # this thread has ordinary scheduling
        assert awake.note == "" and device.read_bytes() == b"" and not opened(device)


def test_a_refusal_names_the_device_and_the_remedy(granted, tmp_path):
    missing = tmp_path / "none"

    def job(thread):
        ask(REALTIME, thread)
        return Awake(REALTIME, thread, str(missing)).note

    note = in_thread(job)
    assert note.startswith("stay_awake: ") and str(missing) in note and "No such file" in note and "false" in note


def test_the_other_threads_stand_just_below_the_loop_until_the_end(granted):
    """Else a program between the two could keep one off the processor that holds a lock which the loop waits for."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()

    def standing() -> tuple[int, int]:
        return os.sched_getscheduler(other.native_id), os.sched_getparam(other.native_id).sched_priority

    def job(thread):
        settings = RealtimeSettings(30)
        ask(settings, thread)
        companions = Companions(settings, thread)
        during, own = standing(), os.sched_getparam(thread).sched_priority
        companions.end()
        return during, own, standing()

    try:
        assert in_thread(job) == ((os.SCHED_FIFO, 29), 30, (os.SCHED_OTHER, 0))
    finally:
        done.set()
        other.join()

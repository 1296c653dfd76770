# SPDX-License-Identifier: Apache-2.0
"""What is asked of Linux: held as long as wanted, told where it is refused."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import threading

import pytest

from qgf_policy.realtime import Awake, ask
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


NATIVE = """
    import ctypes, os, threading, time

    from qgf_policy.realtime import Companions, ask
    from qgf_policy.settings import RealtimeSettings

    library = ctypes.CDLL(None)
    native = ctypes.c_ulong()
    sleep = ctypes.cast(library.pause, ctypes.c_void_p)  # a thread that Python did not make, as the middleware's are
    before = set(os.listdir("/proc/self/task"))
    assert library.pthread_create(ctypes.byref(native), None, sleep, None) == 0
    while not (made := set(os.listdir("/proc/self/task")) - before):
        time.sleep(0.01)
    others = {"native": int(made.pop()), "python": threading.get_native_id()}

    def standing():
        return {k: (os.sched_getscheduler(t), os.sched_getparam(t).sched_priority) for k, t in others.items()}

    def loop():
        settings = RealtimeSettings(30)
        assert ask(settings, threading.get_native_id()) == []
        companions = Companions(settings, threading.get_native_id())
        during, own = standing(), os.sched_getparam(threading.get_native_id()).sched_priority
        companions.end()
        found.append((during, own, standing()))

    found = []
    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    fifo, other = os.SCHED_FIFO, (os.SCHED_OTHER, 0)
    wanted = ({"native": (fifo, 29), "python": (fifo, 1)}, 30, {"native": other, "python": other})
    assert found == [wanted], found
    os._exit(0)
"""


def test_the_middlewares_threads_stand_just_below_the_loop_and_pythons_at_the_bottom_until_the_end(granted):
    """Else a driver could keep one off the processor that holds a lock which the loop waits for; and a thread that
    loads a policy for seconds must not keep an arm's controller off."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(NATIVE)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == 0, done.stderr

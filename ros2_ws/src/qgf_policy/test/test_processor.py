# SPDX-License-Identifier: Apache-2.0
"""A loop's processor: chosen once, kept awake exactly as long as wanted, given back whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest

from qgf_policy.processor import Awake, Seat, by_speed
from qgf_policy.realtime import ask
from qgf_policy.settings import ANY, CHOSEN, RealtimeSettings

REALTIME = RealtimeSettings(1, stay_awake=True)
CHOOSING = RealtimeSettings(1, cpu=CHOSEN, stay_awake=True)
ALL_KILLED = -1
"""In place of a signal: SIGKILL to the process and to all its children."""
SLEEPS = "0\n"
"""What the kernel gives for a processor that may sleep."""


def opened(path) -> bool:
    return str(path) in [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]


@pytest.fixture
def device(tmp_path):
    device = tmp_path / "cpu_dma_latency"
    device.write_bytes(b"")
    return device


@pytest.fixture
def processors(tmp_path):
    """As the kernel's, of every processor of this machine."""
    folder = tmp_path / "cpu"
    for cpu in range(os.cpu_count() or 1):
        (folder / f"cpu{cpu}/power").mkdir(parents=True)
        (folder / f"cpu{cpu}/power/pm_qos_resume_latency_us").write_text(SLEEPS)
    return folder


def latencies(processors: Path) -> dict[int, str]:
    found = sorted(processors.glob("cpu*/power/pm_qos_resume_latency_us"))
    return {int(path.parts[-3][3:]): path.read_text().strip() for path in found}


def test_a_loop_that_may_run_anywhere_keeps_all_awake_exactly_until_the_end(granted, in_thread, device, processors):
    def job(thread):
        assert ask(REALTIME, thread) == []
        awake = Awake(REALTIME, thread, str(device), processors)
        assert awake.note == "" and opened(device)
        assert device.read_bytes() == struct.pack("i", 0)
        awake.end()
        awake.end()
        return opened(device)

    assert in_thread(job) is False
    assert set(latencies(processors).values()) == {"0"}


def test_a_loop_on_one_processor_keeps_that_one_awake_exactly_until_the_end(granted, in_thread, device, processors):
    def job(thread):
        cpu = max(os.sched_getaffinity(thread))
        assert ask(RealtimeSettings(1, cpu=cpu), thread) == []
        awake = Awake(REALTIME, thread, str(device), processors)
        during = latencies(processors)
        assert awake.note == "" and not opened(device)
        awake.end()
        awake.end()
        return cpu, during

    cpu, during = in_thread(job)
    assert during == {number: "n/a" if number == cpu else "0" for number in during}
    assert set(latencies(processors).values()) == {"0"}
    assert device.read_bytes() == b""


def test_what_the_next_loop_asks_is_not_taken_back_by_the_last_ones_shell(granted, in_thread, device, processors):
    def job(thread):
        cpu = max(os.sched_getaffinity(thread))
        ask(RealtimeSettings(1, cpu=cpu), thread)
        Awake(REALTIME, thread, str(device), processors).end()
        latency = processors / f"cpu{cpu}/power/pm_qos_resume_latency_us"
        latency.write_text("n/a\n")
        time.sleep(0.5)
        return latency.read_text()

    assert in_thread(job) == "n/a\n"


def test_what_somebody_else_asked_of_that_processor_is_left(granted, in_thread, device, processors):
    def job(thread):
        cpu = max(os.sched_getaffinity(thread))
        ask(RealtimeSettings(1, cpu=cpu), thread)
        found = []
        for before in ("n/a", "70"):
            latency = processors / f"cpu{cpu}/power/pm_qos_resume_latency_us"
            latency.write_text(f"{before}\n")
            awake = Awake(REALTIME, thread, str(device), processors)
            found.append(latency.read_text().strip())
            awake.end()
            found.append(latency.read_text().strip())
        return found

    assert in_thread(job) == ["n/a", "n/a", "n/a", "70"]


def test_where_one_processor_alone_is_not_permitted_all_are_kept_awake(granted, in_thread, device, tmp_path):
    def job(thread):
        ask(RealtimeSettings(1, cpu=max(os.sched_getaffinity(thread))), thread)
        awake = Awake(REALTIME, thread, str(device), tmp_path / "none")
        assert awake.note == "" and opened(device)
        awake.end()
        return opened(device)

    assert in_thread(job) is False


def test_nothing_is_asked_without_a_priority_or_where_it_was_not_given(device, processors):
    me = threading.get_native_id()  # this thread has ordinary scheduling
    before = os.sched_getaffinity(me)
    for settings in (RealtimeSettings(0, cpu=CHOSEN, stay_awake=True), RealtimeSettings(1, cpu=CHOSEN), CHOOSING):
        seat = Seat(settings, me, processors)
        awake = Awake(settings, me, str(device), processors)
        assert awake.note == "" and device.read_bytes() == b"" and not opened(device)
        assert seat.cpu == -1 and os.sched_getaffinity(me) == before
    assert set(latencies(processors).values()) == {"0"}


def test_a_refusal_names_the_device_and_the_remedy(granted, in_thread, tmp_path):
    missing = tmp_path / "none"

    def job(thread):
        ask(REALTIME, thread)
        return Awake(REALTIME, thread, str(missing), tmp_path).note

    note = in_thread(job)
    assert note.startswith("stay_awake: ") and str(missing) in note and "No such file" in note and "false" in note


def test_the_fastest_comes_first_and_the_last_of_those(tmp_path):
    for cpu, name, value in ((0, "cpu_capacity", 1024), (1, "cpu_capacity", 1024), (2, "cpu_capacity", 300)):
        (tmp_path / f"cpu{cpu}").mkdir()
        (tmp_path / f"cpu{cpu}" / name).write_text(f"{value}\n")
    assert by_speed({0, 1, 2, 3}, tmp_path) == [1, 0, 2, 3]  # of 3 nothing is known
    for cpu, value in ((4, 4_200_000), (5, 5_100_000), (6, 3_800_000)):
        (tmp_path / f"cpu{cpu}/cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/cpufreq/cpuinfo_max_freq").write_text(f"{value}\n")
    assert by_speed({4, 5, 6}, tmp_path) == [5, 4, 6]


needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")


@pytest.fixture
def claim():
    """A name of this test's own: nodes of other tests may have taken processors meanwhile."""
    return f"qgf_policy/test/{uuid.uuid4()}"


@pytest.fixture
def seated(in_thread, claim):
    """What a loop's thread gets, and where it may run then; the seat is given back."""
    def sit(settings, processors) -> tuple[int, set[int]]:
        def job(thread):
            ask(settings, thread)
            seat = Seat(settings, thread, processors, claim)
            permitted = os.sched_getaffinity(thread)
            seat.end()
            seat.end()
            return seat.cpu, permitted

        return in_thread(job)

    return sit


@needs_two
def test_a_loop_gets_one_processor_unless_told_otherwise(granted, seated, processors):
    permitted = os.sched_getaffinity(0)
    last = max(permitted)
    assert seated(CHOOSING, processors) == (last, {last})
    assert seated(CHOOSING, processors) == (last, {last})  # it was given back
    assert seated(RealtimeSettings(1, cpu=ANY), processors) == (-1, permitted)
    assert seated(RealtimeSettings(1, cpu=min(permitted)), processors) == (-1, {min(permitted)})  # as told


OTHER = """
    import os, signal, sys, threading
    from pathlib import Path

    from qgf_policy.processor import Awake, Seat
    from qgf_policy.realtime import ask
    from qgf_policy.settings import CHOSEN, RealtimeSettings

    def loop():
        settings, me = RealtimeSettings(1, cpu=CHOSEN, stay_awake=True), threading.get_native_id()
        ask(settings, me)
        seat = Seat(settings, me, Path(sys.argv[1]), sys.argv[2])
        awake = Awake(settings, me, "/does/not/exist", Path(sys.argv[1]))
        print(seat.cpu, awake.note, flush=True)
        sys.stdin.read()

    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may have it ignored
    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    thread.join()
"""


@needs_two
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, ALL_KILLED])
def test_each_loop_has_its_own_and_a_killed_one_leaves_nothing_behind(granted, seated, claim, processors, number):
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", textwrap.dedent(OTHER), str(processors), claim]
    others = []
    try:
        for _ in range(2):
            others.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                           stderr=subprocess.DEVNULL, env=paths, start_new_session=True))
        told = [other.stdout.readline().split() for other in others]
        taken = {int(line[0]) for line in told}
        first, second = by_speed(os.sched_getaffinity(0), processors)[:2]
        assert [len(line) for line in told] == [1, 1] and taken == {first, second}
        assert {cpu for cpu, value in latencies(processors).items() if value == "n/a"} == taken
        if len(os.sched_getaffinity(0)) == 2:
            assert seated(CHOOSING, processors) == (-1, os.sched_getaffinity(0))  # none is left
        if number == ALL_KILLED:
            for process in (*psutil.Process(others[0].pid).children(recursive=True), others[0]):
                process.kill()
        else:
            os.killpg(others[0].pid, number)  # as a terminal's interrupt reaches everybody
        assert others[0].wait(10.0) != 0
        end = time.monotonic() + 10.0
        while latencies(processors)[int(told[0][0])] != "0" and time.monotonic() < end:
            time.sleep(0.01)
        assert {cpu for cpu, value in latencies(processors).items() if value == "n/a"} == {int(told[1][0])}
        assert seated(CHOOSING, processors)[0] == int(told[0][0])
    finally:
        for other in others:
            other.kill()
            other.communicate()


def test_a_name_that_is_taken_by_anybody_is_taken(granted, seated, claim, processors):
    last = max(os.sched_getaffinity(0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        holder.bind(f"\0{claim}/{last}")
        assert seated(CHOOSING, processors)[0] != last

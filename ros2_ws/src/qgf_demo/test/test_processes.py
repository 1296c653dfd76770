# SPDX-License-Identifier: Apache-2.0
"""Processes that must not outlive the demo, domains that must not be shared, progress."""

import io
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from qgf_core.errors import QgfError
from qgf_demo.domain import DOMAINS, Domain, lock_file
from qgf_demo.interruption import Interrupted, Interruption
from qgf_demo.processes import ENDED, ChildError, Nursery
from qgf_demo.progress import LINE_PERIOD, Progress

PATIENCE = 20.0
STUBBORN = """
import json, signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(json.dumps({"event": "ready", "child": child.pid}), flush=True)
time.sleep(600)
"""
POLITE = """
import json, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(7))
print(json.dumps({"event": "ready", "ignored": signal.getsignal(signal.SIGTERM) == signal.SIG_IGN}), flush=True)
while True:
    time.sleep(0.1)
"""


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start(nursery, tmp_path, code, name="child"):
    return nursery.start(name, [sys.executable, "-c", code], tmp_path / f"{name}.log")


# --- children


def test_polite_child_ends_at_once(tmp_path):
    with Nursery() as nursery:
        child = start(nursery, tmp_path, POLITE)
        assert nursery.event(PATIENCE).values["event"] == "ready"
        begun = time.monotonic()
        assert nursery.stop() == []
        assert time.monotonic() - begun < 1.5
        assert child.code == 7


def test_stubborn_child_and_its_child_are_killed_within_five_seconds(tmp_path):
    with Nursery() as nursery:
        start(nursery, tmp_path, STUBBORN)
        grandchild = nursery.event(PATIENCE).values["child"]
        begun = time.monotonic()
        assert nursery.stop() == ["child"]
        assert time.monotonic() - begun < 5.0
        until(lambda: gone(grandchild), "the grandchild's end")


def test_what_an_ended_child_left_behind_is_killed(tmp_path):
    # It must not hold the pipe, or the child would not be seen to end.
    code = STUBBORN.replace("time.sleep(600)\n", "sys.exit(0)\n").replace(
        '600)"])', '600)"], stdout=subprocess.DEVNULL)'
    )
    with Nursery() as nursery:
        child = start(nursery, tmp_path, code)
        grandchild = nursery.event(PATIENCE).values["child"]
        until(child.has_ended, "the child's end")
        assert not gone(grandchild)
        assert child.reap() == 0
        until(lambda: gone(grandchild), "the grandchild's end")


def test_nothing_outlives_a_killed_demo(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from qgf_demo.processes import Nursery\n"
        f"n = Nursery(); c = n.start('c', [sys.executable, '-c', {POLITE!r}], Path({str(tmp_path / 'c.log')!r}))\n"
        "n.event(30.0); print(c.process.pid, flush=True); time.sleep(600)"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(demo.stdout.readline())
    assert not gone(child)
    demo.kill()
    demo.wait()
    until(lambda: gone(child), "the child's end")


def test_ignored_signals_are_not_inherited(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Nursery() as nursery:
            start(nursery, tmp_path, POLITE)
            assert nursery.event(PATIENCE).values["ignored"] is False
    finally:
        signal.signal(signal.SIGTERM, before)


def test_events_come_in_order_and_end_with_the_child(tmp_path):
    code = "import json\nfor i in range(50): print(json.dumps({'event': 'n', 'i': i}))\nprint('not json'); print('[1]')"
    with Nursery() as nursery:
        child = start(nursery, tmp_path, code)
        events = [nursery.event(PATIENCE) for _ in range(51)]
        assert [e.values.get("i") for e in events[:-1]] == list(range(50))
        assert events[-1].child is child and events[-1].values == {"event": ENDED}
        assert child.last_lines() == ["not json", "[1]"]


def test_failure_tells_the_child_s_own_error_or_its_last_lines(tmp_path):
    told = "import sys; print('noise\\nqgf: error: x.yaml: is bad; mend it', file=sys.stderr); sys.exit(2)"
    with Nursery() as nursery:
        error = start(nursery, tmp_path, told, "told").failure("training")
        assert str(error) == f"training: told ended with code 2: x.yaml: is bad; mend it (log: {tmp_path / 'told.log'})"
        assert error.log == ()
        error = start(nursery, tmp_path, "raise RuntimeError('two\\nlines')", "untold").failure("training")
        assert isinstance(error, ChildError) and isinstance(error, QgfError)
        assert "\n" not in str(error) and "untold ended with code 1: lines" in str(error)
        assert error.log[0].startswith("Traceback") and error.log[-1] == "lines"
        error = start(nursery, tmp_path, "import os; os.kill(os.getpid(), 9)", "killed").failure("training")
        assert "killed was killed by SIGKILL: it wrote nothing" in str(error)


def test_a_log_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with Nursery() as nursery, pytest.raises(QgfError, match="cannot be written"):
        nursery.start("child", [sys.executable, "-c", ""], tmp_path / "file" / "child.log")


# --- interruption


def test_only_the_first_signal_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    with Interruption():
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        assert caught.value.exit_code == 130
        os.kill(os.getpid(), signal.SIGINT)  # during the ending
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- domains

HOLD = "import sys; from qgf_demo.domain import Domain\nwith Domain(sys.argv[1]) as d: print(d.id, flush=True); input()"


@pytest.fixture
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def hold(preferred):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, preferred], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return holder, int(holder.stdout.readline())


def test_two_processes_never_share_a_domain(own_locks):
    first, first_id = hold("7")
    second, second_id = hold("7")
    try:
        assert first_id == 7 and second_id != 7 and second_id in DOMAINS
        first.kill()  # the lock dies with its holder
        first.wait()
        with Domain("7") as third:
            assert third.id == 7
    finally:
        for holder in (first, second):
            holder.kill()
            holder.communicate()


def test_any_other_preference_is_passed_over(own_locks):
    for preferred in (None, "", "0", "102", "-1", "seven"):
        with Domain(preferred) as domain:
            assert domain.id in DOMAINS


def test_all_domains_held(own_locks):
    held = [Domain() for _ in DOMAINS]
    assert {domain.id for domain in held} == set(DOMAINS)
    with pytest.raises(QgfError, match="all domains"):
        Domain()
    held[40].close()
    with Domain() as free:
        assert free.id == held[40].id
    for domain in held:
        domain.close()


def test_locks_are_those_of_the_set_up_script(own_locks):
    with Domain("9"):
        assert lock_file(9).exists()
        taken = subprocess.run(["flock", "-n", str(lock_file(9)), "true"], check=False)
        assert taken.returncode != 0


# --- progress


def test_lines_with_eta_where_there_is_no_terminal():
    stream, now = io.StringIO(), [0.0]
    progress = Progress({"plain": 1000}, "step", stream, lambda: now[0])
    progress.update("plain", 0, "warm-up")
    now[0] = 4.0
    progress.update("plain", 200)
    assert stream.getvalue() == ""
    now[0] = LINE_PERIOD
    progress.update("plain", 500, "return 3")
    assert stream.getvalue() == "qgf: plain: 500 of 1000 steps, 10 s so far, ETA 10 s (return 3)\n"
    now[0] = 14.0
    progress.update("plain", 1000, "done")
    progress.close()
    assert stream.getvalue().splitlines()[-1] == "qgf: plain: 1000 of 1000 steps, 14 s so far (done)"

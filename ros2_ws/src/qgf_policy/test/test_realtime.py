# SPDX-License-Identifier: Apache-2.0
"""What is asked of Linux: held as long as wanted, told where it is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

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

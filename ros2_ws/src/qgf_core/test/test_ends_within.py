# SPDX-License-Identifier: Apache-2.0
"""A middleware that hangs inside a call which Python cannot interrupt."""

import subprocess
import sys
import time

HANGS = """
import ctypes
from qgf_core.early import ends_within
with ends_within(0.5):
    ctypes.PyDLL(None).sleep(60)  # keeps the interpreter's lock
"""
ENDS = """
import time
from qgf_core.early import ends_within
with ends_within(0.2):
    pass
time.sleep(0.6)
"""


def test_a_process_that_hangs_while_it_is_taken_down_ends_and_says_where():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and time.monotonic() - began < 20.0
    assert 'line 5 in <module>' in done.stderr


def test_what_ends_in_time_lives_on():
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")

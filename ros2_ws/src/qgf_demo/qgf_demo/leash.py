# SPDX-License-Identifier: Apache-2.0
"""Starts a command that cannot outlive the process which started it, however that one ends.

Run as `python -I -S leash.py PARENT_PID COMMAND ARGUMENT...`; a program of its own, because Python cannot safely run
code between fork and exec in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Ask the kernel for the signal, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        print(f"qgf: error: prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 2
    if os.getppid() != parent:  # it has ended before the line above
        return 1
    # Whoever started the demo in the background of a script has had these ignored, and a command inherits that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())

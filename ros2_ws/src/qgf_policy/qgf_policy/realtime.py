# SPDX-License-Identifier: Apache-2.0
"""What a control loop asks of Linux. Whatever is not permitted is told, and done without."""

from __future__ import annotations

import ctypes
import os
import threading

from qgf_policy.settings import RealtimeSettings

_MCL_CURRENT, _MCL_FUTURE = 1, 2


def ask(settings: RealtimeSettings, thread: int) -> list[str]:
    """Ask for what the settings name, for a thread by its native id. Returns what was not permitted."""
    notes = []
    if settings.lock_memory and ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        reason = os.strerror(ctypes.get_errno())
        notes.append(f"lock_memory: not permitted ({reason}); raise the memlock limit")
    if settings.cpu >= 0:
        try:
            os.sched_setaffinity(thread, {settings.cpu})
        except OSError as error:
            allowed = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
            notes.append(f"cpu {settings.cpu}: not permitted ({error.strerror}); choose one of: {allowed}")
    if settings.priority:
        try:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(settings.priority))
        except PermissionError as error:
            notes.append(
                f"realtime_priority {settings.priority}: not permitted ({error.strerror}); the loop runs with ordinary "
                "scheduling and is late when the machine is busy; raise the rtprio limit, or set it to 0"
            )
    return notes


class Companions:
    """Gives the other threads of the process real-time priorities below the loop's while it runs.

    The middleware's threads bring the joint states, do little, and hold locks that the loop waits for. None of these
    lends its holder the priority of who waits: a thread that a driver with real-time rights may keep off the processor
    would hold up the loop for as long. They stand just below it. Python's own threads hold the interpreter's lock, and
    an ordinary one could be kept off by any program; but they may be at work for seconds, as when a policy is loaded,
    and must then give way to an arm's controller: they get the lowest priority.

    :param settings: of the loop; without a priority there is nothing to do.
    :param loop: native id of the loop's thread, which is left alone.
    """

    def __init__(self, settings: RealtimeSettings, loop: int) -> None:
        self._changed: list[int] = []
        if not settings.priority:
            return
        pythons = {thread.native_id for thread in threading.enumerate()}
        for name in os.listdir("/proc/self/task"):
            thread = int(name)
            ordinary = thread != loop and os.sched_getscheduler(thread) == os.SCHED_OTHER
            priority = 1 if thread in pythons else max(1, settings.priority - 1)
            if ordinary and _set(thread, os.SCHED_FIFO, priority):
                self._changed.append(thread)

    def end(self) -> None:
        """Back to ordinary scheduling."""
        for thread in self._changed:
            _set(thread, os.SCHED_OTHER, 0)


def _set(thread: int, policy: int, priority: int) -> bool:
    """Whether the thread still lives and the change was permitted."""
    try:
        os.sched_setscheduler(thread, policy, os.sched_param(priority))
    except (ProcessLookupError, PermissionError):
        return False
    return True

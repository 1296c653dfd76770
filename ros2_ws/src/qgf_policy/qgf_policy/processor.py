# SPDX-License-Identifier: Apache-2.0
"""Which processor a control loop stays on, and that it does not sleep."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from qgf_policy.settings import CHOSEN, RealtimeSettings

PROCESSORS = Path("/sys/devices/system/cpu")
CLAIM = "qgf_policy/processor"
"""Name of what stands for a processor that is taken, before its number."""
AWAKE = "n/a"
"""What the kernel takes for "may not sleep" (Documentation/ABI/testing/sysfs-devices-power)."""
_RESET = 'exec 3<&0; (read _ <&3 || echo "$1" > "$0") &'
"""Waits until who holds the other end of its standard input says a word, or is gone without one, for whatever reason.
It is nobody's child, so that what kills the node and all its children does not reach it."""


class Seat:
    """Keeps a real-time loop on one processor, which no other loop of this machine has taken.

    A thread that wanders meets cold caches, and two loops on one processor would wait for each other. Processors are
    taken by a name in the kernel (an abstract socket), which is free again when its process ends, however it does; a
    container with a network of its own does not see those of others.

    :param settings: of the loop; nothing is chosen unless they say so.
    :param loop: native id of the loop's thread; one that did not get its priority is left alone, as it would have to
        wait for others there.
    :param processors: stands in for the kernel's folder in tests.
    :param claim: stands in for the name of what is taken in tests, beside which others' nodes may run.
    """

    def __init__(
        self, settings: RealtimeSettings, loop: int, processors: Path = PROCESSORS, claim: str = CLAIM
    ) -> None:
        self.cpu = -1
        """The one that was chosen, -1 where none was."""
        self._claim: socket.socket | None = None
        if settings.cpu != CHOSEN or os.sched_getscheduler(loop) != os.SCHED_FIFO:
            return
        permitted = os.sched_getaffinity(loop)
        if len(permitted) < 2:
            return
        for cpu in by_speed(permitted, processors):
            self._claim = _taken(f"{claim}/{cpu}")
            if self._claim is not None:
                os.sched_setaffinity(loop, {cpu})
                self.cpu = cpu
                return

    def end(self) -> None:
        """Leave it to others."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None


def by_speed(cpus: Iterable[int], processors: Path = PROCESSORS) -> list[int]:
    """The fastest first, as processors of two kinds are common on robots, and of those the last, as the first ones
    serve most interrupts."""
    return sorted(cpus, key=lambda cpu: (_speed(processors / f"cpu{cpu}"), cpu), reverse=True)


def _speed(processor: Path) -> int:
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        with contextlib.suppress(OSError, ValueError):
            return int((processor / name).read_text())
    return 0


def _taken(name: str) -> socket.socket | None:
    """None where somebody else has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0{name}")
    except OSError:
        claim.close()
        return None
    return claim


class Awake:
    """Keeps processors from sleeping while a real-time loop runs, as other real-time programs do.

    A processor that sleeps between two periods wakes late, and often with empty caches: the loop's work then takes
    longer as well. A loop that stays on one processor needs that one alone (Linux's resume latency of a single
    processor); the others sleep, which spares power, and on a virtual machine the time that its host grants. Where that
    is not permitted, or the loop may run on any, Linux lets none sleep longer than asked for as long as
    /dev/cpu_dma_latency is held open (Documentation/power/pm_qos_interface.rst of the kernel).

    :param settings: of the loop; without a priority there is nothing to do.
    :param loop: native id of the loop's thread; one that did not get its priority needs none of this.
    :param device: stands in for the kernel's in tests, as `processors` does.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        loop: int,
        device: str = "/dev/cpu_dma_latency",
        processors: Path = PROCESSORS,
    ) -> None:
        self.note = ""
        """Why it is not so, although asked for."""
        self._file = -1
        self._one: Path | None = None
        if not (settings.stay_awake and settings.priority) or os.sched_getscheduler(loop) != os.SCHED_FIFO:
            return
        permitted = os.sched_getaffinity(loop)
        if len(permitted) == 1 and self._keep_one(processors / f"cpu{min(permitted)}/power/pm_qos_resume_latency_us"):
            return
        try:
            self._file = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
            os.write(self._file, struct.pack("i", 0))  # [us]
        except OSError as error:
            self.end()
            self.note = (
                f"stay_awake: {device} cannot be written ({error.strerror}), so the processors sleep between two "
                "periods and wake late; let this user write it, or set it to false"
            )

    def _keep_one(self, latency: Path) -> bool:
        """Whether that one was permitted. The kernel does not take it back when a process is killed: a shell does."""
        try:
            before = latency.read_text().strip()
            if before == AWAKE:
                return True  # whoever said so will take it back
            # In a session of its own, so that a terminal's interrupt does not end it before the node.
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _RESET, str(latency), before],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            shell.wait()
            assert shell.stdin is not None
            self._one, self._before, self._guard = latency, before, shell.stdin
            latency.write_text(AWAKE)
        except OSError:
            self._let_one_sleep()
            return False
        return True

    def _let_one_sleep(self) -> None:
        if self._one is None:
            return
        latency, self._one = self._one, None
        with contextlib.suppress(OSError):
            latency.write_text(self._before)
            self._guard.write(b"\n")
        with contextlib.suppress(OSError):
            self._guard.close()

    def end(self) -> None:
        """Let them sleep again. The same happens when the process ends in another way."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._let_one_sleep()

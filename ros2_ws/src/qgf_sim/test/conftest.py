# SPDX-License-Identifier: Apache-2.0
"""Real processes that talk over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ENDS_WITHIN = 5.0
"""Time in which a node that is asked to end has to be gone [s]."""
APPEARS_WITHIN = 20.0
"""Patience with discovery and busy machines [s]; waiting is always for a condition."""


class Process:
    """A Python process with what it wrote to stderr."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=stream,
                                             env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        self.pid = self._process.pid

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until_text(self, text: str) -> None:
        """Wait until it wrote `text` to stderr."""
        end = time.monotonic() + APPEARS_WITHIN
        while text not in self.text():
            assert self.is_running() and time.monotonic() < end, f"no '{text}' in: {self.text()}"
            time.sleep(0.01)

    def until_handling(self, number: signal.Signals) -> None:
        """Wait until it has a handler of its own for a signal."""
        end, bit = time.monotonic() + APPEARS_WITHIN, 1 << (number - 1)
        while True:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
            caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
            if int(caught, 16) & bit:
                return
            assert self.is_running() and time.monotonic() < end, self.text()
            time.sleep(0.002)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float = ENDS_WITHIN) -> int:
        return self._process.wait(timeout)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal. :return: exit code, and how long it took [s]."""
        began = time.monotonic()
        self._process.send_signal(number)
        return self.wait(), time.monotonic() - began

    def shared_memory(self) -> set[Path]:
        """Files in shared memory that it has mapped now."""
        maps = Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8")
        return {Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if "/dev/shm/fastdds" in line}

    def kill(self) -> None:
        if self.is_running():
            self._process.kill()
        self._process.wait()


@pytest.fixture
def start(tmp_path: Path):
    """Starts Python processes, `start(argument, ...)`; whatever still runs in the end is killed."""
    processes: list[Process] = []

    def begin(*arguments: str) -> Process:
        processes.append(Process(list(arguments), tmp_path / f"process-{len(processes)}.log"))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()


@pytest.fixture
def ros():
    """A node in a context of its own, whose `until(condition)` spins until the condition holds."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("tester", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(condition: Callable[[], object], timeout: float = APPEARS_WITHIN, what: str = "") -> None:
        end = time.monotonic() + timeout
        while not condition():
            executor.spin_once(timeout_sec=0.01)
            assert time.monotonic() < end, f"not within {timeout} s: {what or condition}"

    node.until = until
    node.spin_for = lambda duration: _spin_for(executor, duration)
    yield node
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def _spin_for(executor: object, duration: float) -> None:
    end = time.monotonic() + duration
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.01)  # type: ignore[attr-defined]

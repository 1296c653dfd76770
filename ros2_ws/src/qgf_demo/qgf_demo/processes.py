# SPDX-License-Identifier: Apache-2.0
"""The demo's child processes: started on a leash, heard through JSON lines, ended within a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from qgf_core.errors import QgfError

ESCALATION = ((0.0, signal.SIGINT), (2.0, signal.SIGTERM), (3.5, signal.SIGKILL))
"""What a process group is sent, and when [s]: all are gone well within 5 s."""
_LEASH = Path(__file__).with_name("leash.py")
_LAST_LINES = 8


class ChildError(QgfError):
    """A child process failed. `log` holds the last lines that it wrote."""

    def __init__(self, message: str, log: Sequence[str]) -> None:
        self.log = tuple(log)
        super().__init__(message)


class Child:
    """One process, leader of a process group of its own.

    :ivar log: where its standard error, and of its standard output what is no JSON, goes.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self.code: int | None = None
        """Exit code once it was reaped; negative for a signal."""

    def has_ended(self) -> bool:
        """Whether it has; it is not reaped here, so that its group's id stays its own."""
        if self.code is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self) -> int:
        """Wait for it, end what it left behind in its group, and return its exit code."""
        if self.code is None:
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
            self.signal(signal.SIGKILL)
            self.code = self.process.wait()
        return self.code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its whole group."""
        if self.code is None:
            os.killpg(self.process.pid, number)

    def last_lines(self) -> list[str]:
        """The end of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-_LAST_LINES:]

    def failure(self, what: str) -> ChildError:
        """The error to raise when it has ended though it should not have; in its own words if it told an error."""
        code, lines = self.reap(), self.last_lines()
        told = [line.partition("qgf: error: ")[2] for line in lines if line.startswith("qgf: error: ")]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        reason = told[-1] if told else (lines[-1].strip() if lines else "it wrote nothing")
        return ChildError(f"{what}: {self.name} {how}: {reason} (log: {self.log})", () if told else lines)


ENDED = "ended"
"""Name of the event after a child's last one: it has ended, or is about to."""


class Event(NamedTuple):
    """A JSON line that a child printed, an object with its name under `event`; or ENDED."""

    child: Child
    """Itself and not its name: of a child of an earlier stage there may still be events."""
    values: dict[str, Any]


class Nursery:
    """Starts children and leaves none behind. For the main thread: a leash ends a child with its starter's thread."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def start(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a command, the first word of which is a path; JSON lines on its standard output become events.

        :param environment: all of it; by default our own.
        :raises QgfError: the log cannot be written.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(b"")
            stream = log.open("a", encoding="utf-8")  # appending, because two write to it
        except OSError as error:
            raise QgfError(f"{log}: cannot be written ({error.strerror}); choose another folder") from error
        with stream:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**(os.environ if environment is None else environment), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        child = Child(name, process, log)
        self.children.append(child)
        assert process.stdout is not None
        threading.Thread(
            target=self._listen, args=(child, process.stdout), name=f"listen to {name}", daemon=True
        ).start()
        return child

    def _listen(self, child: Child, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                try:
                    values = json.loads(line)
                except ValueError:
                    values = None
                if isinstance(values, dict):
                    self._events.put(Event(child, values))
                    continue
                with contextlib.suppress(OSError), child.log.open("a", encoding="utf-8") as log:  # a full disk
                    log.write(line)
        self._events.put(Event(child, {"event": ENDED}))

    def event(self, timeout: float | None = None) -> Event | None:
        """The next event, or None if there was none for `timeout` [s]."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def stop(self, children: Iterable[Child] | None = None) -> list[str]:
        """End children, by default all: ask, then insist, see ESCALATION. :returns: names of those that were killed."""
        stopping = [child for child in (self.children if children is None else children) if child.code is None]
        started, killed = time.monotonic(), []
        for delay, number in ESCALATION:
            for child in stopping:
                if not child.has_ended():
                    child.signal(number)
                    if number == signal.SIGKILL:
                        killed.append(child.name)
            following = next((d for d, _ in ESCALATION if d > delay), None)
            while any(not child.has_ended() for child in stopping):
                if following is not None and time.monotonic() - started >= following:
                    break
                time.sleep(0.01)
            else:
                break
        for child in stopping:
            child.reap()
        self.children = [child for child in self.children if child.code is None]
        return killed

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

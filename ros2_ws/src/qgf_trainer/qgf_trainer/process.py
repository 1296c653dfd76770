# SPDX-License-Identifier: Apache-2.0
"""A training run in a process of its own, told of by its JSON lines: who starts it always answers, and a crash is a
result."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_STOP_TIME = 10.0
"""A run that was asked to stop ends its episodes and saves; after this time [s] it is killed."""


class TrainingProcess:
    """Starts `python -m qgf_trainer.cli train ... --progress json`; it ends, with a checkpoint, when we do, even if we
    are killed: it notices that its standard input has.

    :param arguments: of the command `train`, without --progress.
    :param environment: further environment variables.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qgf_trainer.cli", "train", *arguments, "--progress", "json", "--until-input-ends"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the training process."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # not ours: a library that prints
            if isinstance(event, dict):
                self._events.put(event)
        self._events.put(None)

    def next_event(self, timeout: float) -> dict[str, Any] | None:
        """The next event, or None if none came within `timeout` [s] or the run has ended (see `ended`)."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def remaining_events(self) -> Iterator[dict[str, Any]]:
        """What is there of events, without waiting."""
        while not self._events.empty():
            event = self._events.get()
            if event is not None:
                yield event

    @property
    def ended(self) -> bool:
        """Whether the process has ended and all that it said was read."""
        return self._process.poll() is not None and not self._reader.is_alive() and self._events.empty()

    def stop(self) -> None:
        """Ask the run to save and leave, wait for that, and kill it if it takes too long. Harmless once it has
        ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_TIME)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        if self._process.stdin is not None:
            self._process.stdin.close()

    @property
    def code(self) -> int:
        """Exit code, waited for; negative where a signal ended the process."""
        return self._process.wait()

    def verdict(self) -> str:
        """Why the run ended without a result, in one line: its last line of complaint, or the signal that killed it."""
        code = self.code
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            return f"the training process was killed by {signal.Signals(-code).name}; resume it"
        return lines[-1] if lines else f"the training process ended with code {code}"

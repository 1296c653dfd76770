# SPDX-License-Identifier: Apache-2.0
"""How a training tells of itself: a bar with an ETA for people, JSON lines for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any, Literal, Protocol

from tqdm import tqdm

from qgf_trainer.recorder import Progress

Style = Literal["auto", "bar", "json", "none"]


class Reporter(Protocol):
    """Where progress and results go."""

    def progress(self, progress: Progress) -> None:
        """About once a second."""

    def note(self, event: str, **values: Any) -> None:
        """An event with its figures."""

    def close(self) -> None:
        """The end of the progress."""


class BarReporter:
    """A tqdm bar on standard error: it shows steps, speed, ETA, return, success and smoothness."""

    def __init__(self, label: str, total: int, enabled: bool) -> None:
        self._bar = tqdm(total=total, desc=label, unit="step", disable=not enabled, dynamic_ncols=True, mininterval=0.5)

    def progress(self, progress: Progress) -> None:
        """Move the bar."""
        success = "" if math.isnan(progress.success) else f"success {progress.success:.2f}, "
        self._bar.set_postfix_str(
            f"return {progress.episode_return:.0f}, {success}Sm "
            f"{progress.paper_smoothness:.2f}, {progress.updates_per_second:.0f} updates/s, {progress.phase}",
            refresh=False,
        )
        self._bar.update(progress.step - self._bar.n)

    def note(self, event: str, **values: Any) -> None:
        """Nothing: the command line prints its own summary."""

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


class JsonReporter:
    """One JSON object a line on standard output."""

    def progress(self, progress: Progress) -> None:
        """An object with event `progress`."""
        self.note("progress", **dataclasses.asdict(progress))

    def note(self, event: str, **values: Any) -> None:
        """An object with the event's name."""
        print(json.dumps({"event": event, **values}), flush=True)

    def close(self) -> None:
        """Nothing to end."""


def make_reporter(style: Style, label: str, total: int) -> Reporter:
    """`auto` draws a bar where standard error is a terminal, and is silent elsewhere."""
    if style == "json":
        return JsonReporter()
    return BarReporter(label, total, style == "bar" or (style == "auto" and sys.stderr.isatty()))

# SPDX-License-Identifier: Apache-2.0
"""Progress of a stage with the time it will still take: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

LINE_PERIOD = 10.0
"""A line this often where there is no terminal [s]."""
_RATE_WINDOW = 30.0
"""The time to go is judged by the speed of the last so many seconds."""
_ENOUGH = 0.005
"""Share of the whole from which a speed means something."""


def say(text: str) -> None:
    """A line for people; standard output is left to the result."""
    tqdm.write(f"qgf: {text}", file=sys.stderr)


def duration(seconds: float) -> str:
    """`seconds` as 42 s or 3:07 min."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02d} min"


class _Line:
    """One thing that progresses, with its speed over the last half minute."""

    def __init__(self, total: int, now: float) -> None:
        self.total, self.done, self.note = total, 0, ""
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])

    def update(self, done: int, note: str, now: float) -> None:
        self.done, self.note = done, note
        if done == 0:
            self._seen.clear()  # the speed counts from when there is any
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > _RATE_WINDOW:
            self._seen.popleft()

    def eta(self) -> float | None:
        """Time to go [s], None while nobody can know."""
        (then, before), (now, done) = self._seen[0], self._seen[-1]
        known = now > then and done - before >= _ENOUGH * self.total
        return (self.total - done) * (now - then) / (done - before) if known else None


class Progress:
    """Bars, one for each name.

    :param totals: how much there is to do, by name.
    :param unit: what is counted.
    :param now: clock [s].
    """

    def __init__(
        self,
        totals: Mapping[str, int],
        unit: str,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._unit, self._now, self._started = unit, now, now()
        self._last = self._started
        self._lines = {name: _Line(total, self._started) for name, total in totals.items()}
        self._bars: dict[str, tqdm[None]] = {}
        if self._stream.isatty():
            tqdm.monitor_interval = 0  # no thread of tqdm's own
            width = max(map(len, totals))
            self._bars = {
                name: tqdm(
                    total=total,
                    desc=f"{name:>{width}}",
                    unit=unit,
                    position=i,
                    file=self._stream,
                    dynamic_ncols=True,
                    mininterval=0.2,
                    leave=True,
                )
                for i, (name, total) in enumerate(totals.items())
            }

    def update(self, name: str, done: int, note: str = "", total: int | None = None) -> None:
        """`done` of the total, which may have become known only now; `note` says how it goes."""
        line = self._lines[name]
        if total is not None:
            line.total = total
        line.update(done, note, self._now())
        bar = self._bars.get(name)
        if bar is not None:
            bar.total = line.total
            bar.set_postfix_str(note, refresh=False)
            bar.update(done - bar.n)
        elif self._now() - self._last >= LINE_PERIOD:
            self._last = self._now()
            self._print()

    def _print(self) -> None:
        for name, line in self._lines.items():
            eta = line.eta()
            remaining = (
                "" if line.done >= line.total else (", ETA unknown" if eta is None else f", ETA {duration(eta)}")
            )
            note = f" ({line.note})" if line.note else ""
            passed = duration(self._now() - self._started)
            print(
                f"qgf: {name}: {line.done} of {line.total} {self._unit}s, {passed} so far{remaining}{note}",
                file=self._stream,
                flush=True,
            )

    def close(self) -> None:
        """End the bars; where there is no terminal, say where it ended."""
        for bar in self._bars.values():
            bar.close()
        if not self._bars:
            self._print()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

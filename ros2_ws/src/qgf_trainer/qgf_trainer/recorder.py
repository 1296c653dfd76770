# SPDX-License-Identifier: Apache-2.0
"""What a training tells while it runs: a glance for whoever watches, progress.csv and TensorBoard for later."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qgf_core import smoothness
from qgf_trainer.config import TrainConfig

_LOG = logging.getLogger("qgf")
_REPORT_EVERY = 1.0  # [s]


@dataclasses.dataclass(frozen=True)
class Progress:
    """A glance at a running training; means over the last 40 episodes, NaN before the first has ended."""

    step: int
    steps_total: int
    episode_return: float
    success: float
    mean_absolute_delta: float
    paper_smoothness: float
    steps_per_second: float
    updates_per_second: float
    eta: float
    """[s]"""
    phase: str


class Recorder:
    """Keeps recent episodes, writes progress.csv and TensorBoard events, reports about once a second.

    :param folder: None writes nothing.
    """

    _COLUMNS = (
        "step",
        "time",
        "episode_return",
        "success",
        "mean_absolute_delta",
        "paper_smoothness",
        "steps_per_second",
        "updates_per_second",
        "td_loss",
        "q_mean",
        "mixed_partial",
        "field_consistency",
        "curvature",
        "field_scale",
        "mixed_sup",
        "sharpness_inf",
        "smoothness_dial",
        "temperature",
        "level",
    )

    def __init__(
        self,
        config: TrainConfig,
        folder: Path | None,
        report: Callable[[Progress], None] | None,
        resumed_at: int,
        time_limit: float = math.inf,
    ) -> None:
        self._time_limit = time_limit
        self._config, self._report, self._started, self._first_step = config, report, time.monotonic(), resumed_at
        self._episodes: deque[tuple[float, float, float, float]] = deque(maxlen=40)
        self._last = 0.0
        self._csv = None
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # costs seconds to import, and a folder only training has

            self._writer = SummaryWriter(str(folder / "tensorboard"))
            path = folder / "progress.csv"
            rows = _rows_before(path, resumed_at)
            self._stream = path.open("w", newline="", encoding="utf-8")
            self._csv = csv.DictWriter(self._stream, self._COLUMNS)
            self._csv.writeheader()
            self._csv.writerows(rows)

    def episode(self, total: float, success: float, actions: NDArray[np.float32]) -> None:
        """Note an episode: its return, success (0, 1, NaN: the task knows none) and explored actions (T, n)."""
        if len(actions) < 2:
            return  # an end at once says nothing of smoothness
        self._episodes.append(
            (
                total,
                success,
                float(np.mean(smoothness.mean_absolute_delta(actions))),
                smoothness.paper_smoothness(actions),
            )
        )

    def step(self, step: int, updates: int, latest: dict[str, float], phase: str, force: bool = False) -> None:
        """Write and report if it is time."""
        now = time.monotonic()
        if not force and now - self._last < _REPORT_EVERY:
            return
        self._last = now
        elapsed = max(now - self._started, 1e-6)
        rate = (step - self._first_step) / elapsed
        total, success, delta, sm = np.mean(self._episodes, axis=0) if self._episodes else [float("nan")] * 4
        eta = (self._config.steps - step) / rate if rate > 0 else 0.0
        eta = max(0.0, min(eta, self._time_limit - elapsed))
        progress = Progress(
            step,
            self._config.steps,
            float(total),
            float(success),
            float(delta),
            float(sm),
            rate,
            updates / elapsed,
            eta,
            phase,
        )
        if self._csv is not None and self._writer is not None and self._episodes:
            values = {k: v for k, v in dataclasses.asdict(progress).items() if k in self._COLUMNS} | latest
            row = {"time": round(elapsed, 2), **{k: values.get(k, "") for k in self._COLUMNS if k != "time"}}
            try:
                self._csv.writerow(row)
                self._stream.flush()
                for name, value in values.items():
                    self._writer.add_scalar(f"train/{name}", value, step)
            except OSError as error:  # a full disk must not cost the run
                self._csv = None
                _LOG.warning("qgf: warning: %s: the curves end here (%s)", self._stream.name, error.strerror)
        if self._report is not None:
            self._report(progress)

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            for file in (self._writer, self._stream):
                with contextlib.suppress(OSError):  # what a full disk did not take was told already
                    file.close()


def _rows_before(path: Path, step: int) -> list[dict[str, Any]]:
    """Rows of an earlier progress.csv up to the step that is resumed from."""
    if step == 0 or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            row
            for row in csv.DictReader(stream)
            if None not in row and (row["step"] or "").isdigit() and int(row["step"]) <= step
        ]

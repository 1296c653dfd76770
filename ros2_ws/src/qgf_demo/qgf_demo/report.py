# SPDX-License-Identifier: Apache-2.0
"""The report: figures as PNG files, and report.html with all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from qgf_core.files import write_atomic
from qgf_demo import figures
from qgf_demo.figures import DARK, LIGHT, Live, Theme
from qgf_demo.metrics import Value
from qgf_demo.page import REPORT, page
from qgf_demo.policies import Trained
from qgf_demo.progress import Progress
from qgf_sim.reach import ReachConfig


def read_curves(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of a progress.csv; empty where there is no such file. Empty cells are NaN."""
    columns: dict[str, list[float]] = {name: [] for name in ("step", "episode_return", "success", "paper_smoothness")}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                for name, values in columns.items():
                    values.append(float(row.get(name) or "nan"))
    return {name: np.array(values) for name, values in columns.items()}


def write_report(
    out: Path, metrics: Mapping[str, Value], trained: Mapping[str, Trained], live: Mapping[str, Live], task: ReachConfig
) -> None:
    """Draw report.html and the figures beside it. :raises QgfError: a file cannot be written."""
    curves = {role: read_curves(policy.folder / "progress.csv") for role, policy in trained.items()}
    late10 = {role: float(metrics[f"live.{role}.late10"] or 0.0) for role in live}
    number = shown_episode(live)
    draw: dict[str, Callable[[Theme], Figure | None]] = {
        "traces": lambda theme: figures.traces(theme, live, number),
        "spectra": lambda theme: figures.spectra(theme, live),
        "distance": lambda theme: figures.distance(theme, live, task.goal_tolerance),
        "training": lambda theme: figures.training(theme, curves),
        "timing": lambda theme: figures.timing(theme, live, late10),
        "monitor": lambda theme: figures.monitor(theme, live),
    }
    pictures: dict[str, tuple[bytes, bytes]] = {}
    with Progress({"report": len(draw)}, "figure") as progress:
        for done, (name, function) in enumerate(draw.items(), start=1):
            light, dark = png(LIGHT, function), png(DARK, function)
            if light is not None and dark is not None:
                pictures[name] = (light, dark)
                write_atomic(out / f"{name}.png", light)
            progress.update("report", done, name)
    write_atomic(out / REPORT, page(metrics, trained, pictures).encode())


def png(theme: Theme, draw: Callable[[Theme], Figure | None]) -> bytes | None:
    """A figure as the bytes of a PNG file; None if there is nothing to draw."""
    settings: Any = theme.settings()
    with matplotlib.rc_context(settings):
        figure = draw(theme)
        if figure is None:
            return None
        buffer = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def shown_episode(live: Mapping[str, Live]) -> int:
    """The goal that `traces` shows: the one at the end of which both policies are about as near as they usually are."""
    final = np.array([[e.episode.distance[-1] for e in run.episodes] for run in live.values()])
    return int(np.argmin(np.abs(final / np.median(final, axis=1, keepdims=True) - 1.0).max(axis=0)))

# SPDX-License-Identifier: Apache-2.0
"""The plots of a comparison: every seed as a dot, interquartile mean and interval as a bar."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qgf_trainer.comparison import Outcome
from qgf_trainer.statistics import Interval

_SHOWN = ("success", "return", "sm", "mean_abs_delta")


def draw_task(task: str, table: Mapping[tuple[str, str], Mapping[str, Interval]], outcomes: Sequence[Outcome]) -> bytes:
    """A PNG with one panel a figure and one row a method; a method without any result says so."""
    methods = [method for of, method in table if of == task]
    shown = [name for name in _SHOWN if any(name in table[task, method] for method in methods)] or list(_SHOWN)
    figure = Figure(figsize=(3.2 * len(shown) + 1.0, 0.55 * len(methods) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, shown, strict=True):
        for row, method in enumerate(methods):
            mine = [o.figures or {} for o in outcomes if (o.cell.task, o.cell.method) == (task, method)]
            runs = [figures[name] for figures in mine if name in figures]
            found = table[task, method].get(name)
            if found is None:
                axis.text(0.5, row, "no result", transform=axis.get_yaxis_transform(), ha="center", va="center")
                continue
            color = f"C{row}"
            axis.plot([found.low, found.high], [row, row], color=color, linewidth=7, alpha=0.35, solid_capstyle="butt")
            axis.plot(runs, [row] * len(runs), "o", color=color, markersize=4, markerfacecolor="white")
            axis.plot([found.estimate], [row], "|", color="black", markersize=16, markeredgewidth=2)
        axis.set_xlabel(name)
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(methods)), methods)
    figure.suptitle(f"{task}: interquartile mean (line), 95% interval (bar), seeds (dots)")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()

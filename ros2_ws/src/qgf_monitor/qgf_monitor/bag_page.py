# SPDX-License-Identifier: Apache-2.0
"""An analysis as one HTML page that needs nothing else: its pictures and style are part of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qgf_monitor.analysis import Analysis, Series
from qgf_monitor.health import Level

matplotlib.use("Agg")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by all eyes."""
UNITS = {"raw_action": "[-1, 1]", "joint_position": "rad", "joint_velocity": "rad/s", "joint_effort": "N m"}
MOST_LINES = 8
"""Joints drawn in one plot: those with the largest values."""
STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; background: #fff; }
.OK { color: #1a7f5a; } .WARN { color: #b36b00; } .ERROR { color: #c2301c; } .STALE { color: #777; }
"""
ROWS = ("band_rms", "baseline_ratio", "delta_high_frequency_ratio", "spectral_centroid", "sign_flip_index", "jerk_rms",
        "sparc", "ldlj", "rate", "period_jitter_p99", "response_lag", "tracking_error")
"""Figures in the tables."""


def write_page(path: Path, analyses: Sequence[Analysis]) -> None:
    """The page of one bag, or of two that are compared."""
    names = [str(analysis.path) for analysis in analyses]
    parts = [f"<h1>Smoothness of {escape(' and '.join(names))}</h1>"]
    for analysis in analyses:
        parts.append(_head(analysis))
    parts.append(_table(analyses))
    sources = [source for source in ("raw_action", "command", "joint_position", "joint_velocity", "joint_effort")
               if any(source in analysis.series for analysis in analyses)]
    for source in sources:
        parts.append(f"<h2>{source}</h2>" + _picture(source, analyses))
    title = escape(", ".join(names))
    path.write_text(f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
                    f"<style>\n{STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n", encoding="utf-8")


def _head(analysis: Analysis) -> str:
    lines = [f"<p><b>{escape(str(analysis.path))}</b>: {analysis.duration:.1f} s, {analysis.messages} messages of "
             f"{escape(' and '.join(filter(None, (analysis.states, analysis.command))))}. "
             f'Verdict: <b class="{analysis.level.name}">{analysis.level.name}</b></p><ul>']
    for source, series in analysis.series.items():
        level, said = series.worst
        said = escape(said or "smooth throughout")
        lines.append(f'<li><b class="{level.name}">{level.name}</b> {source}: {said}</li>')
    lines += [f"<li>Note: {escape(note)}</li>" for note in analysis.notes]
    return "\n".join(lines) + "</ul>"


def _table(analyses: Sequence[Analysis]) -> str:
    summaries = [analysis.summary() for analysis in analyses]
    compared = len(summaries) == 2
    head = "".join(f"<th>{escape(a.path.name)}: median</th><th>95th percentile</th>" for a in analyses)
    rows = [f"<tr><th>worst joint</th>{head}{'<th>ratio of medians</th>' if compared else ''}</tr>"]
    for key in dict.fromkeys(key[:-len(".median")] for s in summaries for key in s if key.endswith(".median")):
        if key.partition(".")[2] not in ROWS:
            continue
        cells = [s.get(f"{key}.{kind}", np.nan) for s in summaries for kind in ("median", "p95")]
        if compared:
            cells.append(cells[2] / cells[0] if cells[0] else np.nan)
        rows.append(f"<tr><td>{key}</td>" + "".join(f"<td>{cell:.4g}</td>" for cell in cells) + "</tr>")
    return "<table>" + "\n".join(rows) + "</table>"


def _picture(source: str, analyses: Sequence[Analysis]) -> str:
    """Roughness, spectrum and periods of one signal, a row for each bag."""
    present = [a for a in analyses if source in a.series]
    figure = Figure(figsize=(13.0, 3.4 * len(present)), layout="constrained")
    axes = figure.subplots(len(present), 3, squeeze=False)
    draw: tuple[Callable[[Axes, Series, str], None], ...] = (_roughness, _spectrum, _periods)
    for row, analysis in zip(axes, present, strict=True):
        for axis, plot in zip(row, draw, strict=True):
            plot(axis, analysis.series[source], UNITS.get(source, "SI"))
            axis.grid(alpha=0.3)
        row[0].set_title(analysis.path.name, loc="left", fontsize=9)
    for column in (0, 1):  # on equal scales two bags can be compared
        for axis in axes[1:, column]:
            axis.sharey(axes[0, column])
            axes[0, column].autoscale_view()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return f'<img alt="{source}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _lines(values: np.ndarray) -> list[int]:
    """Columns of (K, n) to draw."""
    return sorted(np.argsort(-np.nan_to_num(values).max(axis=0))[:MOST_LINES].tolist())


def _roughness(axis: Axes, series: Series, unit: str) -> None:
    values = series.figure("band_rms")
    for k, joint in enumerate(_lines(values)):
        axis.plot(series.time, values[:, joint], color=COLOURS[k % len(COLOURS)], label=series.joint_names[joint],
                  linestyle="-" if k < len(COLOURS) else "--")
    for level, colour in ((Level.WARN, "#b36b00"), (Level.ERROR, "#c2301c")):
        marked = [t for t, at in zip(series.time, series.levels, strict=True) if at == level]
        axis.plot(marked, [0.0] * len(marked), "|", color=colour, label=level.name if marked else None)
    axis.set(xlabel="time [s]", ylabel=f"RMS above {series.reports[-1].high_frequency_cutoff:.3g} Hz [{unit}]")
    axis.set_ylim(bottom=0.0)
    axis.legend(fontsize=7, ncols=2)


def _spectrum(axis: Axes, series: Series, unit: str) -> None:
    if not series.windows:
        axis.text(0.5, 0.5, "no full window", ha="center", transform=axis.transAxes)
        return
    power = series.power / series.windows
    for k, joint in enumerate(_lines(power[1:])):
        axis.semilogy(series.frequency[1:], np.maximum(power[1:, joint], 1e-16), color=COLOURS[k % len(COLOURS)],
                      linestyle="-" if k < len(COLOURS) else "--")
    axis.axvspan(series.reports[-1].high_frequency_cutoff, series.frequency[-1], color="#8882")
    axis.set(xlabel="frequency [Hz]", ylabel=f"power density [{unit}$^2$/Hz]")


def _periods(axis: Axes, series: Series, unit: str) -> None:
    counts = np.sum([report.period_histogram for report in series.reports], axis=0)
    edges = 1e3 * series.reports[-1].period_histogram_edges
    axis.stairs(counts, edges, fill=True, color=COLOURS[0])
    axis.set(xlabel="period minus nominal [ms]", ylabel="periods", yscale="symlog")

# SPDX-License-Identifier: Apache-2.0
"""All figures of a demo under flat names, the bounds they should keep, and the table of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from qgf_core.files import write_atomic

Value = float | int | str | None
Figures = Mapping[str, float]
RATIOS = ("sm", "mean_abs_delta", "hold_rms", "return")
"""Figures of which stabilised / plain is given."""


def ratio(stabilised: float, plain: float) -> float | None:
    """stabilised / plain; None where it means nothing: where plain is 0, a return below 0, or the -1 that stands for
    the hold of a policy that never succeeded."""
    value = stabilised / plain if plain > 0.0 else math.nan
    return value if math.isfinite(value) else None


def _ratios(plain: Figures, stabilised: Figures) -> dict[str, Value]:
    values: dict[str, Value] = {name: ratio(stabilised[name], plain[name]) for name in RATIOS}
    if stabilised["hold_rms"] < 0.0:
        values["hold_rms"] = None
    return values


def assemble(
    plain: Figures, stabilised: Figures, live_plain: Figures, live_stabilised: Figures, facts: Mapping[str, Value]
) -> dict[str, Value]:
    """The content of metrics.json: `plain.success`, `ratio.sm`, `live.stabilised.return`, `live.late10` and so on.

    `live.late10` is the worse of both policies'. A ratio without meaning is None. `facts` are added under their names.
    """
    metrics: dict[str, Value] = dict(facts)
    for prefix, one, other in (("", plain, stabilised), ("live.", live_plain, live_stabilised)):
        for role, figures in (("plain", one), ("stabilised", other)):
            metrics |= {f"{prefix}{role}.{name}": value for name, value in figures.items()}
        metrics |= {f"{prefix}ratio.{name}": value for name, value in _ratios(one, other).items()}
    metrics["live.late10"] = max(live_plain["late10"], live_stabilised["late10"])
    return metrics


def write_metrics(path: Path, metrics: Mapping[str, Value]) -> None:
    """:raises QgfError: the file cannot be written."""
    write_atomic(path, (json.dumps(dict(metrics), indent=2, allow_nan=False) + "\n").encode())


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a figure should keep after a full training (60,000 steps, scale-free form)."""

    key: str
    limit: float
    at_most: bool

    def __str__(self) -> str:
        subject = next((f"{part} " for part in ("plain", "stabilised", "ratio") if f"{part}." in self.key), "")
        return f"{subject}{'≤' if self.at_most else '≥'} {self.limit:g}"

    def kept(self, metrics: Mapping[str, Value]) -> bool:
        """Whether it is; a figure without a value does not keep it."""
        value = metrics.get(self.key)
        return isinstance(value, (int, float)) and (value <= self.limit if self.at_most else value >= self.limit)


BOUNDS = {
    bound.key: bound
    for bound in (
        Bound("stabilised.success", 0.95, False),
        Bound("stabilised.final_distance_mm", 12.0, True),
        Bound("ratio.return", 0.95, False),
        Bound("plain.mean_abs_delta", 0.2, False),
        Bound("ratio.sm", 0.35, True),
        Bound("ratio.mean_abs_delta", 0.25, True),
        Bound("ratio.hold_rms", 0.3, True),
        Bound("live.stabilised.success", 0.9, False),
        Bound("live.ratio.sm", 0.42, True),
        Bound("live.ratio.mean_abs_delta", 0.3, True),
        Bound("live.ratio.hold_rms", 0.36, True),
        Bound("live.late10", 0.01, True),
    )
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a figure of both policies and, where it has one, its ratio."""

    name: str
    label: str
    unit: str = ""
    digits: int = 3


ROWS = (
    Row("success", "success"),
    Row("settled", "settled"),
    Row("final_distance_mm", "final distance", "mm", 1),
    Row("return", "return", "", 1),
    Row("sm", "Sm (paper form)"),
    Row("mean_abs_delta", "mean |Δa|", "1/step"),
    Row("hold_rms", "hold RMS above fs/5", "rad/s", 4),
    Row("high_frequency_ratio", "high-frequency ratio of Δa"),
    Row("sign_flip_index", "sign flips"),
    Row("command_total_variation_rate", "command variation", "rad/s²", 2),
)
LIVE_ROWS = (
    *ROWS,
    Row("late10", "late by over 10 %", "", 4),
    Row("period_jitter_rms_ms", "period jitter, RMS", "ms"),
    Row("period_jitter_max_ms", "period jitter, largest", "ms", 2),
    Row("skipped", "periods skipped", "", 0),
    Row("held_periods", "periods held", "", 0),
    Row("beyond_limits", "commands beyond limits", "", 0),
)


def number(value: Value, digits: int) -> str:
    """A figure for people; a dash for none, also for the -1 of a figure that needs a success."""
    if value is None or not isinstance(value, (int, float)):
        return "–"
    return f"{value:.{digits}f}"


def cells(metrics: Mapping[str, Value], prefix: str, row: Row) -> tuple[str, str, str]:
    """Plain, stabilised, and their ratio or nothing."""
    values = [metrics.get(f"{prefix}{role}.{row.name}") for role in ("plain", "stabilised")]
    values = [None if row.name == "hold_rms" and isinstance(v, (int, float)) and v < 0 else v for v in values]
    key = f"{prefix}ratio.{row.name}"
    return (
        number(values[0], row.digits),
        number(values[1], row.digits),
        number(metrics[key], 3) if key in metrics else "",
    )


def bounds_of(metrics: Mapping[str, Value], prefix: str, row: Row) -> list[Bound]:
    """The bounds that concern a line of the table."""
    keys = [f"{prefix}{part}.{row.name}" for part in ("plain", "stabilised", "ratio")] + [f"{prefix}{row.name}"]
    return [BOUNDS[key] for key in keys if key in BOUNDS and key in metrics]


def text_table(metrics: Mapping[str, Value]) -> str:
    """The table for the terminal."""
    lines = []
    for title, prefix, rows in (("in simulation", "", ROWS), ("live, over ROS 2", "live.", LIVE_ROWS)):
        lines += [f"{title:<34}{'plain':>10}{'stabilised':>12}{'ratio':>8}   bound", "-" * 78]
        for row in rows:
            plain, stabilised, share = cells(metrics, prefix, row)
            label = f"{row.label} [{row.unit}]" if row.unit else row.label
            judged = ", ".join(
                f"{b} {'kept' if b.kept(metrics) else 'NOT KEPT'}" for b in bounds_of(metrics, prefix, row)
            )
            lines.append(f"{label:<34}{plain:>10}{stabilised:>12}{share:>8}   {judged}".rstrip())
        lines.append("")
    if not all(bound.kept(metrics) for bound in BOUNDS.values()):
        lines.append("Bounds are meant for a full training: 60,000 steps in the scale-free form.")
    return "\n".join(lines).rstrip()

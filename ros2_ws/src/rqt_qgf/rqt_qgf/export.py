# SPDX-License-Identifier: Apache-2.0
"""A view as CSV: one long table, so that a spreadsheet or pandas reads it without knowing its parts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from rqt_qgf.model import View

HEADER = ("quantity", "joint", "x", "x_unit", "value", "unit", "level")


def to_csv(view: View) -> str:
    """Everything that a view shows, one number a line; what is unknown is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)

    def write(quantity: str, joint: str, pairs: Iterable[tuple[object, float]], x_unit: str, unit: str,
              level: str = "") -> None:
        for x, value in pairs:
            known = value == value  # not NaN
            writer.writerow((quantity, joint, x, x_unit, repr(float(value)) if known else "", unit, level))

    for row in view.rows:
        for quantity, value, unit in (("band_rms", row.value, view.unit), ("baseline", row.baseline, view.unit),
                                      ("baseline_ratio", row.ratio, "1")):
            write(f"{view.source}.{quantity}", row.joint, [("", value)], "", unit, row.level.name)
    trace, spectrum = view.trace, view.spectrum
    write("command", view.joint, zip(trace.command_time, trace.command, strict=True), "s", trace.unit)
    write("response", view.joint, zip(trace.response_time, trace.response, strict=True), "s", trace.unit)
    density = f"{view.unit}/sqrt(Hz)"
    write(f"{view.source}.spectrum", view.joint, zip(spectrum.frequency, spectrum.density, strict=True), "Hz", density)
    if len(spectrum.baseline):
        write(f"{view.source}.spectrum_baseline", view.joint,
              zip(spectrum.frequency, spectrum.baseline, strict=True), "Hz", density)
    write(f"{view.source}.peak", view.joint, zip(spectrum.peak_frequency, spectrum.peak_density, strict=True), "Hz",
          density)
    for histogram in view.histograms:
        bins = zip(histogram.edges[1:], histogram.counts, strict=True)
        write(f"histogram: {histogram.title}", "", bins, "s", "periods")
    return text.getvalue()

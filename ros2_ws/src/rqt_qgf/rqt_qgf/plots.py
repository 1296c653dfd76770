# SPDX-License-Identifier: Apache-2.0
"""The three plots: traces, spectrum, histogram. Each draws its part of a View; pyqtgraph brings zoom and pan.

Their keys stand in the titles above them, where they hide no curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from pyqtgraph.Qt import QtCore, QtGui

from rqt_qgf.model import TRACE_TIME, Histogram, SpectrumView, Trace, View
from rqt_qgf.theme import Theme

DASHED = QtCore.Qt.PenStyle.DashLine
DOTTED = QtCore.Qt.PenStyle.DotLine
WIDTH = 1.6
QUANTITIES = {"rad/s": "velocity", "rad": "position", "N m": "effort"}


TICK_TEXT = 60
"""About as wide as a duration's text and a gap [px]."""


class DecadeAxis(pg.AxisItem):
    """A logarithmic axis whose numbers do not lie over each other: 1, 2, 5 of each power of ten where there is room,
    else the powers, else some of them."""

    def logTickValues(  # pyqtgraph's names, here and below
        self, minVal: float, maxVal: float, size: float, stdTicks: object
    ) -> list[tuple[None, list[float]]]:
        """Exponents that carry a number."""
        return [(None, numbered_exponents(minVal, maxVal, size))]

    def logTickStrings(self, values: Sequence[float], scale: float, spacing: object) -> list[str]:
        """The numbers."""
        return [f"{10.0**value * scale:.3g}" for value in values]


_LINE = 16.0  # [px] that a number takes on an upright axis, with a gap


def numbered_exponents(low: float, high: float, size: float) -> list[float]:
    """Decimal exponents from low to high that carry a number on an upright axis of `size` [px]."""
    if not high > low or size <= 0.0:
        return [low]
    decade = size / (high - low)  # [px]
    powers = [float(k) for k in range(math.ceil(low), math.floor(high) + 1)]
    if math.log10(2.0) * decade < _LINE:  # too near each other: every second, third, .. power
        step = math.ceil(_LINE / decade)
        return [k for k in powers if k % step == 0] or powers[:1] or [(low + high) / 2]
    first = math.floor(low)
    steps = [first + k + math.log10(digit) for k in range(math.ceil(high) - first + 1) for digit in (1, 2, 5)]
    inside = [x for x in steps if low <= x <= high]
    if len(inside) > 1:
        return inside
    count = min(3, max(1, int(size / _LINE)))  # a part of a decade: wherever these fall
    return [low + (high - low) * (i + 0.5) / count for i in range(count)]


class Plot(pg.PlotWidget):
    """A plot in the dashboard's theme."""

    def __init__(self, bottom: str, left: str, axes: dict[str, pg.AxisItem] | None = None) -> None:
        super().__init__(axisItems=axes or {})
        self._labels = {"bottom": bottom, "left": left}
        item = self.getPlotItem()
        item.showGrid(x=True, y=True, alpha=0.15)
        item.hideButtons()
        item.setMenuEnabled(True)
        item.getViewBox().setDefaultPadding(0.02)
        font = self.font_of_ticks = QtGui.QFont()
        font.setPixelSize(11)
        for side in self._labels:
            item.getAxis(side).enableAutoSIPrefix(False)
            item.getAxis(side).setTickFont(font)
        item.getAxis("left").setWidth(62)
        self.setMinimumSize(220, 150)

    def apply(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self.setBackground(theme.card)
        for side in ("bottom", "left"):
            axis = self.getPlotItem().getAxis(side)
            axis.setPen(pg.mkPen(theme.line))
            axis.setTextPen(pg.mkPen(theme.muted))
        self._relabel(theme)

    def _relabel(self, theme: Theme) -> None:
        for side, text in self._labels.items():
            self.getPlotItem().setLabel(side, text, color=theme.muted, **{"font-size": "11px"})

    def reset_zoom(self) -> None:
        """Show everything again, and follow."""
        self.getPlotItem().enableAutoRange()

    def show_values(self, there: bool) -> None:
        """Axes without anything to read from them carry no numbers."""
        for side in self._labels:
            self.getPlotItem().getAxis(side).setStyle(showValues=there)


class TracePlot(Plot):
    """Command and response of the chosen joint."""

    def __init__(self) -> None:
        super().__init__("time before now [s]", "")
        self._response = self.plot(antialias=True, connect="finite")
        self._command = self.plot(antialias=True, connect="finite")
        self._unit = ""
        self.reset_zoom()

    def reset_zoom(self) -> None:
        """Show the whole time again, and follow."""
        self.getPlotItem().enableAutoRange(axis="y")
        self.setXRange(-TRACE_TIME, 0.0)

    def key(self, theme: Theme) -> str:
        """What the lines are, as rich text."""
        return key((theme.live, "━", "command (thick)"), (theme.response, "─", "response (thin)"))

    def apply(self, theme: Theme) -> None:
        """Take the theme's colours."""
        super().apply(theme)
        self._theme = theme
        self._command.setPen(pg.mkPen(theme.live, width=2.4))
        self._response.setPen(pg.mkPen(theme.response, width=1.0))

    def draw(self, trace: Trace) -> None:
        """Draw a trace."""
        if trace.unit != self._unit:
            self._unit = trace.unit
            self._labels["left"] = f"{QUANTITIES.get(trace.unit, '')} [{trace.unit}]"
            self._relabel(self._theme)
        self.show_values(len(trace.command_time) + len(trace.response_time) > 0)
        self._command.setData(trace.command_time, trace.command)
        self._response.setData(trace.response_time, trace.response)


_APART = 0.16
"""Of the axis: about as much as a peak's text takes."""


class SpectrumPlot(Plot):
    """Spectrum of the chosen joint with its baseline, its peaks and the cutoff."""

    def __init__(self) -> None:
        super().__init__("frequency [Hz]", "", {"left": DecadeAxis("left")})
        self.getPlotItem().setLogMode(y=True)
        self._baseline = self.plot(antialias=True, connect="finite")
        self._live = self.plot(antialias=True, connect="finite")
        self._peaks = self.plot(pen=None, symbol="t", symbolSize=11)
        self._cutoff = pg.InfiniteLine(angle=90, movable=False, label="chatter →",
                                       labelOpts={"position": 0.04, "anchors": [(0, 0.5), (0, 0.5)]})
        self._cutoff.label.setFont(self.font_of_ticks)
        self.addItem(self._cutoff)
        self._texts: list[pg.TextItem] = []

    def key(self, theme: Theme) -> str:
        """What the lines are, as rich text."""
        return key((theme.live, "━", "live"), (theme.baseline, "╍", "baseline"), (theme.peak, "▼", "peaks"))

    def apply(self, theme: Theme) -> None:
        """Take the theme's colours."""
        super().apply(theme)
        self._theme = theme
        self._live.setPen(pg.mkPen(theme.live, width=WIDTH))
        self._baseline.setPen(pg.mkPen(theme.baseline, width=WIDTH, style=DASHED))
        self._peaks.setSymbolBrush(theme.peak)
        self._peaks.setSymbolPen(pg.mkPen(theme.card))
        self._cutoff.setPen(pg.mkPen(theme.muted, width=1, style=DOTTED))
        self._cutoff.label.setColor(theme.muted)

    def draw(self, spectrum: SpectrumView, unit: str) -> None:
        """Draw the spectrum of a source in this unit."""
        label = f"density [{unit}/√Hz]" if unit != "1" else "density [1/√Hz]"
        if label != self._labels["left"]:
            self._labels["left"] = label
            self._relabel(self._theme)
        self.show_values(len(spectrum.frequency) > 0)
        # The mean is taken out before the transform: its bin says nothing, and -inf would stretch the axis.
        self._live.setData(spectrum.frequency[1:], positive(spectrum.density[1:]))
        self._baseline.setData(spectrum.frequency[1:len(spectrum.baseline)], positive(spectrum.baseline[1:]))
        self._live.setOpacity(0.4 if spectrum.stale else 1.0)
        known = np.isfinite(spectrum.peak_frequency) & (spectrum.peak_density > 0.0)
        frequency, density = spectrum.peak_frequency[known], spectrum.peak_density[known]
        self._peaks.setData(frequency, density)
        while len(self._texts) < len(frequency):
            self._texts.append(pg.TextItem())
            self._texts[-1].setFont(self.font_of_ticks)
            self.addItem(self._texts[-1], ignoreBounds=True)
        told = apart(frequency, density, _APART * spectrum.frequency[-1]) if len(frequency) else set()
        for i, text in enumerate(self._texts):
            text.setVisible(i in told)
            if i in told:
                left = frequency[i] > 0.8 * spectrum.frequency[-1]  # of the peak, so that it stays in the plot
                text.setAnchor((1.12, 0.5) if left else (-0.12, 0.5))
                text.setText(f"{frequency[i]:.3g} Hz", self._theme.peak)
                text.setPos(frequency[i], math.log10(density[i]))
        known_cutoff = math.isfinite(spectrum.cutoff) and spectrum.cutoff > 0.0
        self._cutoff.setVisible(known_cutoff)
        if known_cutoff:
            self._cutoff.setPos(spectrum.cutoff)


def apart(frequency: np.ndarray, density: np.ndarray, distance: float) -> set[int]:
    """Which peaks are told by number, the highest first: none that is nearer than `distance` [Hz] to one told already,
    as the two texts would lie over each other."""
    told: list[int] = []
    for i in np.argsort(-density):
        if all(abs(frequency[i] - frequency[other]) >= distance for other in told):
            told.append(int(i))
    return set(told)


def positive(values: np.ndarray) -> np.ndarray:
    """Values for a logarithmic axis: what is not above 0 becomes a gap."""
    return np.where(values > 0.0, values, np.nan)


class HistogramPlot(Plot):
    """A histogram with bars of equal width, whatever the width of its bins; heights on a logarithmic axis, because the
    few late periods are what one looks for."""

    def __init__(self) -> None:
        super().__init__("", "periods")
        self._bars = pg.BarGraphItem(x=[], height=[], width=0.86)
        self.addItem(self._bars)
        self._edges: tuple[float, ...] = ()
        self._labels_at: tuple[int, ...] = ()

    def apply(self, theme: Theme) -> None:
        """Take the theme's colours."""
        super().apply(theme)
        self._bars.setOpts(brush=pg.mkBrush(theme.live), pen=pg.mkPen(None))

    def draw(self, histogram: Histogram | None) -> None:
        """Draw a histogram, or none."""
        there = histogram is not None and len(histogram.counts) > 0
        self.show_values(there)
        if histogram is None or not there:
            self._bars.setOpts(x=[], height=[], y0=[])
            return
        heights = np.log10(histogram.counts + 1.0)
        self._bars.setOpts(x=np.arange(len(heights)) + 0.5, height=heights, y0=np.zeros(len(heights)))
        top = max(1, math.ceil(heights.max()))
        powers = [(math.log10(10**i + 1), f"{10**i}") for i in range(top + 1)]
        self.getPlotItem().getAxis("left").setTicks([[(0.0, "0"), *powers]])
        edges = tuple(histogram.edges)
        bottom = self.getPlotItem().getAxis("bottom")
        labels_at = numbered_edges(edges, bottom.width())
        if (edges, labels_at) != (self._edges, self._labels_at):
            bottom.setTicks([[(i, duration(edges[i])) for i in labels_at]])
            if edges != self._edges:
                self.reset_zoom()
            self._edges, self._labels_at = edges, labels_at


def numbered_edges(edges: Sequence[float], width: float) -> tuple[int, ...]:
    """Which edges of a histogram carry a number on an axis of this width [px]: the middle one and others as far apart
    on both sides as their texts need."""
    finite = [i for i, edge in enumerate(edges) if math.isfinite(edge)]
    if not finite:
        return ()
    step = max(1, math.ceil(TICK_TEXT * (len(edges) - 1) / max(width, 1.0)))
    return tuple(i for i in finite if (i - finite[len(finite) // 2]) % step == 0)


def key(*entries: tuple[str, str, str]) -> str:
    """Colour, sign and name of each line as rich text."""
    return "&nbsp; ".join(f"<span style='color:{colour}'>{sign} {name}</span>" for colour, sign, name in entries)


def duration(seconds: float) -> str:
    """A short text for a duration [s]."""
    size = abs(seconds)
    if size == 0.0:
        return "0"
    return f"{1e6 * seconds:.3g} µs" if size < 0.9995e-3 else f"{1e3 * seconds:.3g} ms"


def draw_all(view: View, trace: TracePlot, spectrum: SpectrumPlot, histogram: HistogramPlot, shown: str) -> None:
    """Draw a view into the plots; `shown` is the title of the histogram wanted."""
    trace.draw(view.trace)
    spectrum.draw(view.spectrum, view.unit)
    histograms = {entry.title: entry for entry in view.histograms}
    histogram.draw(histograms.get(shown, view.histograms[0] if view.histograms else None))

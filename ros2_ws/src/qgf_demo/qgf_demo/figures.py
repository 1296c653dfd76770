# SPDX-License-Identifier: Apache-2.0
"""The figures of the report. Each function draws one; plain and stabilised have the same colours in all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from qgf_core import smoothness
from qgf_demo.judge import LATE, LiveEpisode, periods_and_deadlines
from qgf_demo.recording import Recording


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of one way to show the figures."""

    name: str
    ink: str
    muted: str
    grid: str
    paper: str
    band: str
    plain: str
    stabilised: str

    def colour(self, role: str) -> str:
        """Of a policy. Orange and blue stay apart for colour-blind eyes."""
        return str(getattr(self, role))

    def settings(self) -> dict[str, Any]:
        """For matplotlib."""
        return {
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "axes.edgecolor": self.muted,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "text.color": self.ink,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "grid.color": self.grid,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 10.0,
            "axes.titlesize": 11.0,
            "axes.titlelocation": "left",
            "axes.labelsize": 10.0,
            "legend.frameon": False,
            "legend.fontsize": 10.0,
            "lines.linewidth": 1.4,
            "lines.solid_joinstyle": "round",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.09,
            "figure.constrained_layout.w_pad": 0.07,
        }


LIGHT = Theme("light", "#1f2328", "#6e7781", "#e3e6ea", "#ffffff", "#8c959f", "#D55E00", "#0072B2")
DARK = Theme("dark", "#e6edf3", "#8b949e", "#2b323b", "#161b22", "#8b949e", "#F0803C", "#56A9E0")

ROLES = ("plain", "stabilised")


@dataclasses.dataclass(frozen=True)
class Live:
    """One policy's run on the arm."""

    recording: Recording
    episodes: list[LiveEpisode]


Curves = Mapping[str, Mapping[str, NDArray[np.float64]]]
Lives = Mapping[str, Live]


def _legend(figure: Figure, theme: Theme) -> None:
    """One legend for all panels, above them."""
    handles = [matplotlib.lines.Line2D([], [], color=theme.colour(role), linewidth=2.5, label=role) for role in ROLES]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)


def _plain_numbers(axis: Any, steps: tuple[float, ...] = (1.0,)) -> None:
    """Log axis with 0.1, 1, 10 in place of powers, and with labels at `steps` times those."""
    axis.set_major_locator(LogLocator(10.0, subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def training(theme: Theme, curves: Curves) -> Figure | None:
    """Return, success and smoothness of the exploring policy against the step; None without curves of both."""
    if not all(len(curves[role]["step"]) for role in ROLES):
        return None
    figure = Figure(figsize=(10.5, 3.2))
    panels = (
        ("episode_return", "return of an episode", None),
        ("success", "share of successful episodes", (-0.03, 1.03)),
        ("paper_smoothness", "Sm, paper form, with exploration noise", None),
    )
    for axes, (name, title, limits) in zip(figure.subplots(1, 3), panels, strict=True):
        for role in ROLES:
            axes.plot(curves[role]["step"] / 1000.0, curves[role][name], color=theme.colour(role))
        axes.set_title(title)
        axes.set_xlabel("control steps [thousands]")
        axes.set_xlim(left=0.0)
        if limits is not None:
            axes.set_ylim(*limits)
    _legend(figure, theme)
    return figure


def traces(theme: Theme, live: Lives, number: int) -> Figure:
    """Actions and true joint velocities of one goal, in the three joints where the plain policy's action moves most."""
    episodes = {role: live[role].episodes[number].episode for role in ROLES}
    period = live["plain"].recording.period
    busiest = np.sort(np.argsort(-np.asarray(smoothness.mean_absolute_delta(episodes["plain"].raw_action)))[:3])
    figure = Figure(figsize=(10.5, 5.4))
    grid = figure.subplots(2, len(busiest), sharex=True, sharey="row")
    for column, joint in zip(grid.T, busiest, strict=True):
        for role in ROLES:
            episode = episodes[role]
            time = period * np.arange(len(episode.raw_action))
            column[0].step(time, episode.raw_action[:, joint], where="post", color=theme.colour(role), linewidth=1.1)
            column[1].plot(time + period, episode.joint_velocity[:, joint], color=theme.colour(role), linewidth=1.3)
        column[0].set_title(str(live["plain"].recording.joint_names[joint]))
        column[1].set_xlabel("time since the goal [s]")
    grid[0, 0].set_ylabel("raw action [–]")
    grid[1, 0].set_ylabel("joint velocity [rad/s]")
    grid[0, 0].set_ylim(-1.08, 1.08)
    grid[0, 0].set_xlim(0.0, period * len(episodes["plain"].raw_action))
    _legend(figure, theme)
    return figure


def mean_spectrum(signals: list[NDArray[np.float64]], rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequency (F,) [Hz] and Welch's power spectral density (F,), mean over joints and episodes."""
    spectra = [smoothness.spectrum(signal, rate) for signal in signals]
    return np.asarray(spectra[0][0]), np.mean([np.mean(power, axis=1) for _, power in spectra], axis=0)


def spectra(theme: Theme, live: Lives) -> Figure:
    """Power spectra of the raw action and of the true joint velocity; above a fifth of the control rate is chatter."""
    figure = Figure(figsize=(10.5, 3.9))
    rate = 1.0 / live["plain"].recording.period
    panels = (
        ("raw_action", "raw action", "power density [1/Hz]"),
        ("joint_velocity", "true joint velocity", "power density [(rad/s)²/Hz]"),
    )
    for axes, (name, title, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for role in ROLES:
            frequency, power = mean_spectrum([getattr(e.episode, name) for e in live[role].episodes], rate)
            axes.semilogy(frequency[1:], power[1:], color=theme.colour(role), linewidth=1.8)
        axes.axvspan(rate / 5, rate / 2, color=theme.band, alpha=0.16, linewidth=0)
        axes.text(
            0.35 * rate,
            0.97,
            "above a fifth of the control rate",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            color=theme.muted,
            fontsize=9,
        )
        axes.set(xlim=(0.0, rate / 2), xlabel="frequency [Hz]", ylabel=label)
        axes.set_title(title)
    _legend(figure, theme)
    return figure


def distance(theme: Theme, live: Lives, tolerance: float) -> Figure:
    """Distance of the tool from each goal, with the median over the goals."""
    figure = Figure(figsize=(10.5, 3.7))
    grid = figure.subplots(1, 2, sharey=True)
    for axes, role in zip(grid, ROLES, strict=True):
        recording, episodes = live[role].recording, [e.episode for e in live[role].episodes]
        metres = np.array([e.distance for e in episodes])
        time = recording.period * np.arange(1, metres.shape[1] + 1)
        axes.semilogy(time, 1e3 * metres.T, color=theme.colour(role), alpha=0.45, linewidth=0.9)
        axes.semilogy(time, 1e3 * np.median(metres, axis=0), color=theme.ink, linewidth=2.0)
        axes.axhline(1e3 * tolerance, color=theme.muted, linestyle=(0, (5, 3)), linewidth=1.2)
        reached = int(np.sum(metres[:, -1] <= tolerance))
        axes.set_title(f"{role}: {reached} of {len(episodes)} goals")
        axes.set_xlabel("time since the goal [s]")
        axes.set_xlim(0.0, time[-1])
        _plain_numbers(axes.yaxis, (1.0, 3.0))
        lines = matplotlib.lines.Line2D
        axes.legend(
            loc="lower left",
            handles=[
                lines([], [], color=theme.colour(role), linewidth=1.0, label="each goal"),
                lines([], [], color=theme.ink, linewidth=2.0, label="median"),
                lines(
                    [],
                    [],
                    color=theme.muted,
                    linestyle=(0, (5, 3)),
                    linewidth=1.2,
                    label=f"success: within {1e3 * tolerance:g} mm",
                ),
            ],
        )
    grid[0].set_ylabel("tool to goal [mm]")
    return figure


def timing(theme: Theme, live: Lives, late10: Mapping[str, float]) -> Figure:
    """How long the periods of the control loop were, by the stamps of its commands."""
    figure = Figure(figsize=(10.5, 3.4))
    grid = figure.subplots(1, 2, sharey=True)
    nominal = 1e3 * live["plain"].recording.period
    late = LATE * nominal
    edges = np.arange(-2.0 * late, 2.0 * late + 1e-9, late / 10.0)
    for axes, role in zip(grid, ROLES, strict=True):
        commands = live[role].recording.commands
        used = np.concatenate([e.indices for e in live[role].episodes])
        span = slice(used[0], used[-1] + 1)
        lengths, _ = periods_and_deadlines(commands.stamp[span], commands.sequence[span], 1e-3 * nominal)
        deviation = 1e3 * lengths - nominal
        axes.hist(np.clip(deviation, edges[0], edges[-1]), bins=edges, color=theme.colour(role), alpha=0.9)
        axes.axvspan(late, edges[-1], color=theme.band, alpha=0.16, linewidth=0)
        axes.text(
            1.5 * late,
            0.96,
            "late by\nover 10 %",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            color=theme.muted,
            fontsize=9,
        )
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_title(f"{role}: {100 * late10[role]:.2f} % of {len(lengths)} periods late by over 10 %")
        axes.set_xlabel(f"deviation from {nominal:g} ms [ms]; beyond ±{edges[-1]:g} ms in the outermost bars")
    grid[0].set_ylabel("periods")
    grid[0].set_ylim(0.7, 2.0 * grid[0].dataLim.union([axes.dataLim for axes in grid]).y1)
    return figure


def monitor(theme: Theme, live: Lives) -> Figure | None:
    """What monitor_node reported while it happened; None if there is nothing of it."""
    panels = (
        ("raw_action", "mean_absolute_delta", "raw action", "mean |Δa| [1/step]"),
        ("command", "band_rms", "limited command, above a fifth of its rate", "RMS [rad/s]"),
    )
    figure, drawn = Figure(figsize=(10.5, 3.2)), False
    for axes, (source, name, title, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for role in ROLES:
            drawn |= _report_line(axes, theme.colour(role), live[role], source, name)
        axes.set(title=title, xlabel="time since the first goal [s]", ylabel=label)
        axes.set_xlim(left=0.0)
        axes.set_ylim(bottom=0.0)
    _legend(figure, theme)
    return figure if drawn else None


def _report_line(axes: Axes, colour: str, live: Live, source: str, name: str) -> bool:
    reports, begun = live.recording.reports, live.recording.goal_stamp[0]
    if "source" not in reports or name not in reports:
        return False
    chosen = (reports["source"] == source) & (reports["stamp"] >= begun) & np.isfinite(reports[name]).all(axis=1)
    axes.plot(1e-9 * (reports["stamp"][chosen] - begun), reports[name][chosen].mean(axis=1), color=colour)
    return bool(chosen.any())

# SPDX-License-Identifier: Apache-2.0
"""Settings of the monitor. Their values stand in config/monitor.yaml, the only copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qgf_core.config import config_root, from_mapping, load_yaml

SOURCES = ("raw_action", "command", "joint_velocity", "joint_position", "joint_effort")
"""Signals that are judged, by the names in qgf_msgs/SmoothnessReport."""


@dataclass(frozen=True)
class Bounds:
    """Values from which a figure is a warning, and an error."""

    warn: float
    error: float

    def __post_init__(self) -> None:
        if not 0.0 < self.warn <= self.error:
            raise ValueError(f"warn {self.warn} and error {self.error} must be positive and ascending")


@dataclass(frozen=True)
class SourceConfig:
    """What counts as rough in one signal, in its own unit."""

    deadband: float
    """Differences up to this are no sign flips [unit of the signal]."""
    floor: float
    """A baseline below this counts as this [unit of the signal]; a signal that varies less does not move."""
    band_rms: Bounds
    """For signals without a baseline: RMS above the cutoff, of the roughest joint [unit of the signal]."""


@dataclass(frozen=True)
class MonitorConfig:
    """All settings of the monitor; times in [s], rates in [Hz]."""

    windows: tuple[float, ...]
    """Lengths of the sliding windows [s]; each gets reports of its own."""
    movement_window: float
    """A movement from rest to rest is looked for in this time [s], for SPARC and LDLJ."""
    capacity: int
    """Samples that are kept at most."""
    longest_lag: float
    """A response later than this after its command is not looked for [s]."""
    report_rate: float
    spectrum_rate: float
    diagnostics_rate: float
    critic_rate: float
    """At which the field of a critic that the bundle carries is looked at."""
    critic_points: int
    """Of the newest window's inferences, at which it is."""
    critic_slope: Bounds
    """The field's slope over that in simulation, from which it is an early warning, and a strong one."""
    high_frequency_share: float
    """The cutoff of the high-frequency figures, as a share of the control rate."""
    jerk_cutoff: float
    """Low-pass of jerk_rms [Hz]."""
    sparc_cutoff: float
    """[Hz]; 10 Hz, the custom for human arms, would not see a robot's chatter."""
    rest_speed: float
    """Norm of the joint velocities below which the arm counts as at rest, for SPARC and LDLJ [rad/s]."""
    stale_after: float
    """A signal without a message for this long, and for five of its periods, is stale [s]."""
    status_stale_after: float
    """The same for the policy's status [s]."""
    chatter_ratio: float
    """A joint is rough only where its differences have at least this share of their power above the cutoff, 0..1."""
    hysteresis: float
    """An alarm clears only below this share of its bound, 0..1."""
    raise_after: float
    """A bound must have been passed for this long [s]."""
    clear_after: float
    """An alarm must have been below its bound for this long [s]."""
    overruns: Bounds
    """Share of the periods in the window that were longer than 1.5 times nominal, 0..1."""
    lost: Bounds
    """Share of the samples in the window that did not arrive, 0..1."""
    late10: Bounds
    """Share of the control loop's periods that came late by more than 10%, from the policy's status, 0..1."""
    baseline_ratio: Bounds
    """Roughness over that in simulation, where the policy's bundle tells it."""
    plain: tuple[str, ...]
    """Figures of a report that are also published as plain numbers; of those per joint, the largest."""
    sources: dict[str, SourceConfig]

    def __post_init__(self) -> None:
        if not self.windows or not min(self.windows) > 0.0 or len(set(self.windows)) < len(self.windows):
            raise ValueError(f"windows: {list(self.windows)} must be lengths above 0, each once")
        for name in ("movement_window", "longest_lag", "report_rate", "spectrum_rate", "diagnostics_rate",
                     "critic_rate", "critic_points", "jerk_cutoff", "sparc_cutoff", "rest_speed", "stale_after",
                     "status_stale_after"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")
        for name in ("high_frequency_share", "chatter_ratio", "hysteresis"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0 and at most 1")
        if self.high_frequency_share > 0.5:
            raise ValueError(f"high_frequency_share: {self.high_frequency_share} is above half of the control rate")
        if self.capacity < 16 or self.raise_after < 0.0 or self.clear_after < 0.0:
            raise ValueError("capacity must be at least 16, raise_after and clear_after at least 0")
        if set(self.sources) != set(SOURCES):
            raise ValueError(f"sources: {sorted(self.sources)} must be exactly {sorted(SOURCES)}")
        if any(source.deadband < 0.0 or source.floor <= 0.0 for source in self.sources.values()):
            raise ValueError("deadband must be at least 0, floor above 0")

    @property
    def kept(self) -> float:
        """Time that signals are kept for [s]."""
        return max(*self.windows, self.movement_window)


def load_config(path: str | Path | None = None) -> MonitorConfig:
    """The settings in a YAML file, config/monitor.yaml by default.

    :raises ConfigError: unreadable, or a bad key or value.
    """
    source = config_root() / "monitor.yaml" if path is None else Path(path)
    return from_mapping(MonitorConfig, load_yaml(source), source)

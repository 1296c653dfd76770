# SPDX-License-Identifier: Apache-2.0
"""The monitor without ROS: messages go into its recorder; judgements, spectra and diagnoses come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qgf_core.baseline import Baseline
from qgf_core.critic_file import read_critic
from qgf_core.errors import ConfigError, MetricError, QgfError
from qgf_core.manifest import read_manifest
from qgf_core.q_field import Critic, FieldFigures
from qgf_core.samples import Array
from qgf_monitor.config import SOURCES, MonitorConfig
from qgf_monitor.health import FieldHealth, Level, PolicyHealth, SourceHealth, Verdict, silent
from qgf_monitor.recorder import INFERENCE, Recorder, Source
from qgf_monitor.reports import Figures, Movements, Report, answer, make_reports

OPTIONAL = {"joint_effort"}
"""Signals that many arms do not send."""


@dataclass(frozen=True)
class Judgement:
    """A report and the verdict on it. `message_age`: of the newest usable message [s]."""

    report: Report
    verdict: Verdict
    message_age: float
    figures: Figures


@dataclass(frozen=True)
class Diagnosis:
    """One entry of /diagnostics."""

    name: str
    verdict: Verdict
    values: Mapping[str, object]


class Monitor:
    """Keeps the verdicts from one judgement to the next.

    :param config: settings.
    :param joints: joints of interest; if empty, those that the policy commands.
    """

    def __init__(self, config: MonitorConfig, joints: tuple[str, ...] = ()) -> None:
        self.config = config
        unknown = set(config.plain) - {field.name for field in dataclasses.fields(Report)}
        if unknown:
            raise ConfigError("monitor settings", "plain", f"{', '.join(sorted(unknown))}: no figure of a report",
                              "name fields of qgf_msgs/SmoothnessReport")
        self.recorder = Recorder(config, joints)
        self._health = {(name, duration): SourceHealth(name, config)
                        for name in SOURCES for duration in config.windows}
        self._movements = Movements(config)
        self._baselines: dict[str, Baseline] = {}
        self._baseline_joints: tuple[str, ...] = ()
        self.bundle = ""
        """Path of the bundle in use."""
        self._bundle_note = ""
        self.critic: Critic | None = None
        """Where the bundle carries it."""
        self._field: FieldFigures | None = None
        self._field_health = FieldHealth(config)
        self._policy_health = PolicyHealth(config)
        self._latest: dict[tuple[str, float], Judgement] = {}
        self._unjudged: dict[str, str] = {}
        self._status: tuple[float, Verdict, Mapping[str, object]] | None = None

    def policy_status(self, mode: str, fault: str, late10: float, values: Mapping[str, object], arrival: float) -> None:
        """Take one status of the policy node.

        :param mode: name of a constant of qgf_msgs/PolicyStatus.
        :param late10: 0..1.
        :param values: shown in the diagnosis.
        :param arrival: on a steady clock [s].
        """
        self._status = (arrival, self._policy_health.judge(mode, fault, late10, arrival), values)

    def use_bundle(self, path: str) -> None:
        """As `load_bundle`, once for each path; what keeps it from that is told with the diagnoses."""
        if path == self.bundle:
            return
        self.bundle, self._bundle_note = path, ""
        try:
            self.load_bundle(path)
        except QgfError as error:
            self.set_baselines({}, ())
            self._bundle_note = f"no baseline: {error}"

    def load_bundle(self, path: str) -> None:
        """Take the baselines, and the critic, that a bundle carries.

        :raises QgfError: a bad bundle, or one without baselines.
        """
        self.critic, self._field = None, None
        manifest = read_manifest(path)
        self.critic = read_critic(path, manifest.observation_builder().size, len(manifest.action.scale))
        usual = manifest.evaluation.get("critic_slope")
        self._field_health.usual = float(usual) if isinstance(usual, (int, float)) else None
        if not manifest.baseline:
            raise QgfError(f"{path}: carries no baseline; export it again")
        self.bundle = path
        self.set_baselines(manifest.baseline, manifest.robot.joint_names)

    @property
    def unjudged(self) -> list[str]:
        """Why signals cannot be judged."""
        return list(self._unjudged.values())

    def set_baselines(self, baselines: Mapping[str, Baseline], joints: tuple[str, ...]) -> None:
        """What the policy was in simulation, by signal. :param joints: in the baselines' order."""
        self._baselines, self._baseline_joints = dict(baselines), joints

    def visited(self, now: float) -> tuple[Array, Array] | None:
        """Observations (B, n_obs) and raw actions (B, n_act) of the newest window, evenly spread, for the critic.

        None where the bundle carries no critic, nothing was inferred lately, or the observations are of another policy.

        :param now: on a steady clock [s].
        """
        source = self.recorder.sources.get(INFERENCE)
        if self.critic is None or source is None or now - source.arrival > self.config.stale_after:
            return None
        window = source.window.window(self.config.windows[0])
        if window is None:
            return None
        rows = source.window.newest(len(window.stamps))
        if rows.shape[1] != self.critic.n_obs + self.critic.n_act + 1:
            return None
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), self.config.critic_points)).astype(int)]
        return rows[:, :self.critic.n_obs].copy(), rows[:, self.critic.n_obs:-1].copy()

    def take_field(self, figures: FieldFigures | None, now: float) -> None:
        """The critic's figures at the states visited last, None where there are none. :param now: steady [s]."""
        self._field = figures
        self._field_health.judge(figures, now)

    def judge(self, now: float) -> list[Judgement]:
        """A judgement for each signal and window that was ever filled, on its newest or, when stale, its last figures.

        :param now: on a steady clock [s].
        """
        for duration in self.config.windows:
            heard = [source for name, source in self.recorder.sources.items()
                     if name in self.config.sources and not self._stale(source, duration, now)]
            baselines = {source.name: self._baselines[source.name] for source in heard
                         if source.name in self._baselines and source.joint_names == self._baseline_joints}
            made = make_reports(heard, self.recorder.control_period, self.config, duration, baselines,
                                self.recorder.publishers)
            for source in heard:
                if source.name in made:
                    self._judge(source, duration, made[source.name], now)
        return list(self._latest.values())

    def _stale(self, source: Source, duration: float, now: float) -> bool:
        """Whether a signal is silent; then its last figures are told with that verdict."""
        key, age = (source.name, duration), now - source.arrival
        previous = self._latest.get(key)
        period = source.period or (1.0 / previous.report.rate if previous else 0.0)
        if not self._health[key].is_stale(age, period):
            return False
        if previous:
            reason = self.recorder.fault if source.name == "raw_action" else ""
            verdict = silent(age, reason, len(source.joint_names))
            self._latest[key] = dataclasses.replace(previous, verdict=verdict, message_age=age)
        return True

    def _judge(self, source: Source, duration: float, made: Figures | MetricError, now: float) -> None:
        name, key = source.name, (source.name, duration)
        if isinstance(made, MetricError):
            self._unjudged[name] = str(made)
            self._latest.pop(key, None)
            return
        self._unjudged.pop(name, None)
        more = self._more(name, source, duration)
        if more:
            made = dataclasses.replace(made, report=dataclasses.replace(made.report, **more))
        verdict = self._health[key].judge(made.report, now)
        self._latest[key] = Judgement(made.report, verdict, now - source.arrival, made)

    def _more(self, name: str, source: Source, duration: float) -> dict[str, Any]:
        """Figures that need more than one signal's window."""
        if name == "raw_action" and self._field is not None:
            return {f"critic_{figure}": value for figure, value in asdict(self._field).items()}
        if name == "joint_velocity":
            sparc, ldlj = self._movements.figures(source)
            return {"sparc": sparc, "ldlj": ldlj}
        measured = self.recorder.sources.get(f"joint_{source.quantity}")
        if name == "command" and measured is not None and source.quantity != "effort":
            found = answer(source, measured, self.config, duration)
            if found is not None:
                return {"response_lag": found.lag, "tracking_error": found.error,
                        "tracking_error_aligned": found.aligned_error}
        return {}

    def diagnose(self, now: float) -> list[Diagnosis]:
        """An entry for each signal, for the policy node and for the messages refused. Uses the latest judgements.

        :param now: on a steady clock [s].
        """
        entries = [Diagnosis(name, *self._diagnose_source(name, now)) for name in SOURCES
                   if name not in OPTIONAL or name in self.recorder.sources]
        if self._status is None:
            entries.append(Diagnosis("policy", Verdict(Level.STALE, "no status yet"), {}))
        else:
            arrival, verdict, values = self._status
            age = now - arrival
            stale = age > self.config.status_stale_after
            entries.append(Diagnosis("policy", silent(age) if stale else verdict, values))
        if self.critic is not None:
            figures = {} if self._field is None else {name: f"{v:.4g}" for name, v in asdict(self._field).items()}
            entries.append(Diagnosis("critic", self._field_health.verdict, figures))
        counts = asdict(self.recorder.counts)
        refused = ", ".join(f"{value} {name}" for name, value in counts.items() if value)
        if not self.recorder.joints:
            verdict = Verdict(Level.WARN, "no joint names: set the parameter `joints` or start a policy")
        else:
            verdict = Verdict(Level.OK, f"messages since the start: {refused}" if refused else "all messages usable")
        if self._bundle_note:
            verdict = Verdict(verdict.level, f"{verdict.summary}; {self._bundle_note}")
        entries.append(Diagnosis("inputs", verdict, counts))
        return entries

    def _diagnose_source(self, name: str, now: float) -> tuple[Verdict, Mapping[str, object]]:
        source, key = self.recorder.sources.get(name), (name, self.config.windows[0])
        judgement = self._latest.get(key)
        if source is None:
            return Verdict(Level.STALE, "no message yet"), {}
        age = now - source.arrival
        if name in self._unjudged:
            return Verdict(Level.WARN, self._unjudged[name]), {}
        if judgement is None:
            return (silent(age) if self._health[key].is_stale(age, 0.0) else Verdict(Level.OK, "window filling")), {}
        report = judgement.report
        worst = int(np.argmax(report.band_rms))
        return judgement.verdict, {
            "roughest joint": report.joint_names[worst],
            "band RMS": f"{report.band_rms[worst]:.4g}",
            "ratio to simulation": f"{report.baseline_ratio[worst]:.3g}" if len(report.baseline_ratio) else "unknown",
            "high-frequency ratio": f"{report.high_frequency_ratio[worst]:.3f}",
            "spectral centroid [Hz]": f"{report.spectral_centroid[worst]:.3g}",
            "mean absolute delta": f"{report.mean_absolute_delta[worst]:.4g}",
            "rate [Hz]": f"{report.rate:.4g}",
            "period jitter p99 [ms]": f"{1e3 * report.period_jitter_p99:.3g}",
            "overruns": report.overruns, "dropped": report.dropped,
            "lost": report.lost, "gaps": report.gaps, "publishers": report.publishers,
            "stamps repeated": source.window.repeated, "stamps going back": source.window.backward,
            "message age [s]": f"{age:.2f}",
        }

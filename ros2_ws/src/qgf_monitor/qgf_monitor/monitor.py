# SPDX-License-Identifier: Apache-2.0
"""The monitor without ROS: messages go into its recorder; judgements, spectra and diagnoses come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from qgf_core.errors import MetricError
from qgf_core.samples import Array
from qgf_core.smoothness import spectrum
from qgf_monitor.config import SOURCES, MonitorConfig
from qgf_monitor.health import Level, PolicyHealth, SourceHealth, Verdict, silent
from qgf_monitor.recorder import Recorder
from qgf_monitor.reports import FEWEST_SAMPLES, Report, make_report


@dataclass(frozen=True)
class Judgement:
    """A report and the verdict on it. `message_age`: of the newest usable message [s]."""

    report: Report
    verdict: Verdict
    message_age: float


@dataclass(frozen=True)
class SpectrumOfSource:
    """Power (F, n) [unit^2 / Hz] over frequency (F,) [Hz] of a signal's window that ends at `stamp` [ns]."""

    source: str
    joint_names: tuple[str, ...]
    sample_rate: float
    stamp: int
    frequency: Array
    power: Array


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
        self.recorder = Recorder(config, joints)
        self._health = {name: SourceHealth(name, config) for name in SOURCES}
        self._policy_health = PolicyHealth(config)
        self._latest: dict[str, Judgement] = {}
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

    def judge(self, now: float) -> list[Judgement]:
        """A judgement for each signal that has ever filled a window, on its newest or, when stale, its last figures.

        :param now: on a steady clock [s].
        """
        for name, source in self.recorder.sources.items():
            age, previous = now - source.arrival, self._latest.get(name)
            period = source.period or (1.0 / previous.report.rate if previous else 0.0)
            if self._health[name].is_stale(age, period):
                if previous:
                    reason = self.recorder.fault if name == "raw_action" else ""
                    self._latest[name] = Judgement(previous.report, silent(age, reason), age)
                continue
            try:
                made = make_report(source, self.recorder.control_period, self.config)
            except MetricError as error:
                self._unjudged[name] = str(error)
                self._latest.pop(name, None)
                continue
            if made is not None:
                self._unjudged.pop(name, None)
                self._latest[name] = Judgement(made[0], self._health[name].judge(*made, now), age)
        return list(self._latest.values())

    def spectra(self) -> list[SpectrumOfSource]:
        """The spectrum of each signal's present window."""
        spectra = []
        for name, source in self.recorder.sources.items():
            window = source.window.window()
            if window is not None and len(window.values) >= FEWEST_SAMPLES:
                frequency, power = spectrum(window.values, window.sample_rate)
                spectra.append(SpectrumOfSource(name, source.joint_names, window.sample_rate, source.stamp(window.end),
                                                frequency, power))
        return spectra

    def diagnose(self, now: float) -> list[Diagnosis]:
        """An entry for each signal, for the policy node and for the messages refused. Uses the latest judgements.

        :param now: on a steady clock [s].
        """
        entries = [Diagnosis(name, *self._diagnose_source(name, now)) for name in SOURCES]
        if self._status is None:
            entries.append(Diagnosis("policy", Verdict(Level.STALE, "no status yet"), {}))
        else:
            arrival, verdict, values = self._status
            age = now - arrival
            stale = age > self.config.status_stale_after
            entries.append(Diagnosis("policy", silent(age) if stale else verdict, values))
        counts = asdict(self.recorder.counts)
        refused = ", ".join(f"{value} {name}" for name, value in counts.items() if value)
        if not self.recorder.joints:
            verdict = Verdict(Level.WARN, "no joint names: set the parameter `joints` or start a policy")
        else:
            verdict = Verdict(Level.OK, f"messages since the start: {refused}" if refused else "all messages usable")
        entries.append(Diagnosis("inputs", verdict, counts))
        return entries

    def _diagnose_source(self, name: str, now: float) -> tuple[Verdict, Mapping[str, object]]:
        source, judgement = self.recorder.sources.get(name), self._latest.get(name)
        if source is None:
            return Verdict(Level.STALE, "no message yet"), {}
        age = now - source.arrival
        if name in self._unjudged:
            return Verdict(Level.WARN, self._unjudged[name]), {}
        if judgement is None:
            return (silent(age) if self._health[name].is_stale(age, 0.0) else Verdict(Level.OK, "window filling")), {}
        report = judgement.report
        worst = int(np.argmax(report.band_rms))
        return judgement.verdict, {
            "roughest joint": report.joint_names[worst],
            "band RMS": f"{report.band_rms[worst]:.4g}",
            "high-frequency ratio": f"{report.high_frequency_ratio[worst]:.3f}",
            "spectral centroid [Hz]": f"{report.spectral_centroid[worst]:.3g}",
            "mean absolute delta": f"{report.mean_absolute_delta[worst]:.4g}",
            "rate [Hz]": f"{report.rate:.4g}",
            "period jitter p99 [ms]": f"{1e3 * report.period_jitter_p99:.3g}",
            "overruns": report.overruns, "dropped": report.dropped,
            "stamps repeated": source.window.repeated, "stamps going back": source.window.backward,
            "message age [s]": f"{age:.2f}",
        }

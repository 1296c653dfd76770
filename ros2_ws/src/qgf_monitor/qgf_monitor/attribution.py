# SPDX-License-Identifier: Apache-2.0
"""Whose roughness it is: evidence for and against each cause, and a ranking.

Four causes are told apart, each by what it alone brings about:

policy             its own baseline is rough, or what it does is still rough when it is asked again about the recorded
                   observations after a low-pass, at ideal timing
observation_noise  measured positions and velocities contradict each other: of a real motion, however rough, the change
                   of position is the integral of the velocity, of noise it is not
loop_timing        control periods, or the ages of the states used, are uneven
actuator           the arm answers with more than it was asked for (a resonance, motion of its own), later than its
                   drives do, or otherwise (play, friction): told from what the bundle's description of them predicts

A score of 1 is where a cause begins to matter; scores are ratios to what is usual and so compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal as scipy_signal

from qgf_core.baseline import RESIDUAL, Baseline, state_residual
from qgf_core.robot import DriveSpec
from qgf_core.samples import Array
from qgf_core.smoothness import band_rms
from qgf_core.spectral import Spectra

CAUSES = ("policy", "observation_noise", "loop_timing", "actuator")
LEAST_SAMPLES = 100
USUAL_JITTER = 0.1
"""RMS deviation of the period, as a share of it, from which timing matters."""
USUAL_AGE_SPREAD = 0.3
"""Standard deviation of the states' ages, as a share of the period, from which it matters."""
USUAL_GAIN = 1.5
"""Largest amplitude of response by command that a drive in order shows at any frequency."""
USUAL_EXTRA_DELAY = 0.02
"""Delay beyond the described one from which it matters [s]: sampling and transport make some milliseconds of it."""
USUAL_MODEL_ERROR = 0.35
"""RMS of what the described drives do not explain, over that of what they predict, from which it matters."""
LONGEST_DELAY = 0.3
"""[s]"""
LEAST_MOTION = 0.03
"""Predicted motion below this RMS counts as this [unit of the signals]."""
USUAL_RESIDUAL = 2.0
"""Ratio to the simulation's residual from which noise matters."""
ROUGH_ACTION = 0.08
"""RMS of the raw action above the cutoff from which a policy is rough, in [-1, 1]."""
LOWEST_FREQUENCY = 1.0
"""Responses below it say nothing of roughness [Hz]."""

Act = Callable[[Array], Array]
"""Observations (K, n_obs) -> actions (K, n_act) in [-1, 1]."""


@dataclass(frozen=True)
class Inferences:
    """K consecutive inferences of a policy."""

    period: float
    """Nominal [s]."""
    time: Array
    """Of the commands (K,) [s]."""
    age: Array
    """Of the state used, at the command (K,) [s]; all 0 where it is not known."""
    observation: Array
    """(K, n_obs), raw."""
    raw_action: Array
    """(K, n_act) in [-1, 1]."""
    position: Array
    """(K, n) measured, as in the observation [rad]; (K, 0) where it does not tell."""
    velocity: Array
    """(K, n) [rad/s]; (K, 0) likewise."""


@dataclass(frozen=True)
class Answers:
    """T samples at one rate of what was commanded and what was measured, of the same quantity of n joints."""

    joint_names: tuple[str, ...]
    sample_rate: float
    """[Hz]"""
    command: Array
    """Held between two commands (T, n)."""
    measured: Array
    """(T, n)"""
    floor: float
    """Amplitude that is none [unit of the signals]."""
    command_rate: float
    """[Hz]"""
    drive: DriveSpec | None = None
    """Of the arm by the policy's bundle; None where there is none, or the commands are no velocities."""


@dataclass(frozen=True)
class Cause:
    """One cause, how far it is beyond the usual, and why. `score`: NaN where it cannot be told."""

    name: str
    score: float
    evidence: str


def attribute(inferences: Inferences | None, answers: Answers | None, baselines: Mapping[str, Baseline],
              act: Act | None = None) -> list[Cause]:
    """All causes, the likeliest first; those that cannot be told last.

    :param inferences: None where only commands and states are known.
    :param answers: None where nothing measured answers the command.
    :param baselines: of the policy's bundle, by signal; may be empty.
    :param act: the policy itself, for the replay.
    """
    noise, residual = _noise(inferences, baselines)
    found = [_policy(inferences, baselines, act), noise, _timing(inferences), _actuator(answers, baselines, residual)]
    return sorted(found, key=lambda cause: -math.inf if math.isnan(cause.score) else cause.score, reverse=True)


def describe(causes: Sequence[Cause]) -> str:
    """The ranking in words."""
    first = causes[0]
    head = "nothing is beyond the usual" if not first.score >= 1.0 else f"most likely: {first.name}"
    rows = [f"  {'?' if math.isnan(c.score) else f'{c.score:.2f}':>6}  {c.name}: {c.evidence}" for c in causes]
    return "\n".join([f"{head} (scores: 1 is where a cause begins to matter)", *rows])


def _enough(inferences: Inferences | None) -> str:
    if inferences is None:
        return "no inferences recorded (needs the policy's ~/command)"
    if len(inferences.time) < LEAST_SAMPLES:
        return f"{len(inferences.time)} inferences are too few; {LEAST_SAMPLES} are needed"
    return ""


def _policy(inferences: Inferences | None, baselines: Mapping[str, Baseline], act: Act | None) -> Cause:
    missing = _enough(inferences)
    if inferences is None or missing:
        return Cause("policy", math.nan, missing)
    rate = 1.0 / inferences.period
    cutoff = rate / 5.0
    live = float(np.mean(band_rms(inferences.raw_action, rate, cutoff)))
    scores, said = [], [f"action's RMS above {cutoff:.3g} Hz is {live:.3f}"]
    usual = baselines.get("raw_action")
    if usual is not None:
        simulated = float(np.mean(usual.band_rms))
        scores.append(min(live, simulated) / ROUGH_ACTION)
        said.append(f"in simulation it was {simulated:.3f}")
    if act is not None:
        smooth = scipy_signal.sosfiltfilt(scipy_signal.butter(4, 0.5 * cutoff, fs=rate, output="sos"),
                                          inferences.observation, axis=0)
        again = float(np.mean(band_rms(act(smooth), rate, cutoff)))
        scores.append(2.0 * min(live, again) / ROUGH_ACTION)
        said.append(f"asked again about low-passed observations it is {again:.3f}")
    if not scores:
        return Cause("policy", math.nan, f"{said[0]}; needs the bundle")
    return Cause("policy", max(scores), ", ".join(said))


def _noise(inferences: Inferences | None, baselines: Mapping[str, Baseline]) -> tuple[Cause, float]:
    """The cause, and the residual's ratio to the simulation's (1 where it is not known)."""
    name, missing = "observation_noise", _enough(inferences)
    usual = baselines.get(RESIDUAL)
    if inferences is not None and not missing and not inferences.position.shape[1]:
        missing = "the observation tells no joint positions and velocities"
    if inferences is None or missing or usual is None:
        return Cause(name, math.nan, missing or "needs a bundle with the residual's baseline"), 1.0
    rate = 1.0 / inferences.period
    taken = inferences.time - inferences.age
    interval = np.diff(taken)
    residual = state_residual(inferences.position, inferences.velocity, interval)
    residual = residual[interval > 0.1 * inferences.period]  # a state used twice holds no news
    if len(residual) < LEAST_SAMPLES // 2:
        return Cause(name, math.nan, "the states used are too few"), 1.0
    # By the median, so that a few states that leap (a reset, a late message) are no noise; times 1.48 the standard
    # deviation of a normal distribution, nearly all of which lies above the cutoff, where the baseline was taken.
    ratios = 1.4826 * np.median(np.abs(residual), axis=0) / np.maximum(np.array(usual.band_rms), 1e-9)
    ratio = float(np.median(ratios))
    # Of a single bad encoder the median would know nothing.
    worst = float(ratios.max())
    score = max(ratio, 0.5 * worst) / USUAL_RESIDUAL
    coherence = _coherence(inferences.velocity, inferences.raw_action, rate, usual.cutoff)
    return Cause(name, score, f"positions and velocities contradict each other {ratio:.1f} times as much as in "
                 f"simulation (worst joint {worst:.1f}); coherence from measured velocity to action above "
                 f"{usual.cutoff:.3g} Hz {coherence:.2f}"), max(1.0, ratio)


def _coherence(cause: Array, effect: Array, rate: float, cutoff: float) -> float:
    """Mean magnitude-squared coherence above the cutoff of the joint where it is largest, 0..1."""
    count = min(cause.shape[1], effect.shape[1])
    length = min(64, len(cause) // 4)
    frequency, values = scipy_signal.coherence(cause[:, :count], effect[:, :count], rate, nperseg=length, axis=0)
    return float(np.nan_to_num(values[frequency >= cutoff]).mean(axis=0).max())


def _timing(inferences: Inferences | None) -> Cause:
    missing = _enough(inferences)
    if inferences is None or missing:
        return Cause("loop_timing", math.nan, missing)
    period = inferences.period
    error = np.diff(inferences.time) - period
    jitter = float(np.sqrt(np.mean(error * error))) / period
    spread = float(np.std(inferences.age)) / period
    jumps = np.abs(np.diff(inferences.raw_action, axis=0)).mean(axis=1)
    moved = np.std(jumps) > 0.0 and np.std(error) > 0.0
    correlation = float(np.corrcoef(np.abs(error), jumps)[0, 1]) if moved else 0.0
    return Cause("loop_timing", max(jitter / USUAL_JITTER, spread / USUAL_AGE_SPREAD),
                 f"period jitter {jitter:.1%} RMS of the period (largest {np.abs(error).max() / period:.0%}), spread "
                 f"of the states' ages {spread:.1%}; correlation of jitter with the action's jumps {correlation:.2f}")


def _actuator(answers: Answers | None, baselines: Mapping[str, Baseline], residual: float) -> Cause:
    if answers is None or len(answers.command) < LEAST_SAMPLES:
        return Cause("actuator", math.nan, "nothing measured answers the command (needs joint states of its quantity)")
    rate = answers.sample_rate
    asked, given = Spectra(answers.command, rate), Spectra(answers.measured, rate)
    top = 0.5 * min(answers.command_rate, rate)
    band = (asked.frequency >= LOWEST_FREQUENCY) & (asked.frequency < top)
    if band.sum() < 4:
        return Cause("actuator", math.nan, f"sampled at {rate:.3g} Hz, too slowly to tell")
    noise = np.zeros(given.power.shape[1])
    usual = baselines.get("joint_velocity")
    if usual is not None and len(usual.power) == len(noise):
        # White noise of the same variance spreads over the band up to half of the rate.
        own = np.array(usual.power)[:, 1:]
        noise = residual**2 * own.min(axis=1) * usual.sample_rate / rate
        # Both are estimates from below; where commands do not reach, the measured signal tells its own noise.
        noise = np.clip(np.median(given.power[given.frequency > rate / 3.0], axis=0), noise, 2.0 * noise)
    floor = answers.floor**2 / top
    # Three bins together: one alone scatters too much.
    kernel = np.ones(3) / 3.0
    power = np.maximum(given.power[band] - 2.0 * noise, 0.0)
    excess = np.convolve(power.sum(axis=1), kernel, "same")
    cause = np.convolve(asked.power[band].sum(axis=1) + len(noise) * floor, kernel, "same")
    gain = np.sqrt(excess / cause)
    peak = int(np.argmax(gain))
    joint = int(np.argmax(power[peak]))
    scores = [float(gain[peak]) / USUAL_GAIN]
    said = [f"at {asked.frequency[band][peak]:.1f} Hz the arm moves {gain[peak]:.1f} times as much as commanded, "
            f"most of it {answers.joint_names[joint]}"]
    found = None if answers.drive is None else _unlike_its_drives(answers, answers.drive, 0.5 * rate * noise.sum())
    if found is not None:
        delay, error = found
        scores += [delay / USUAL_EXTRA_DELAY, error / USUAL_MODEL_ERROR]
        said.append(f"it answers {1e3 * delay:.0f} ms later than its drives are described to, and {error:.0%} of its "
                    "motion is not what they would make")
    return Cause("actuator", max(scores), ", ".join(said))


def _unlike_its_drives(answers: Answers, drive: DriveSpec, noise: float) -> tuple[float, float] | None:
    """Delay beyond the described one [s], and the motion that is left unexplained at that delay over the predicted one.

    Predicted is dy/dt = (gain u(t - latency) - y) / time_constant, exactly for the command u held between samples.

    :param noise: variance of the measured signals, summed over the joints.
    """
    rate = answers.sample_rate
    known, longest = round(drive.latency * rate), round(LONGEST_DELAY * rate)
    if len(answers.command) < 4 * (known + longest) or drive.damping_ratio > 0.0:
        return None
    keep = math.exp(-1.0 / (rate * drive.time_constant)) if drive.time_constant > 0.0 else 0.0
    asked = drive.gain * answers.command
    predicted = scipy_signal.lfilter([0.0, 1.0 - keep], [1.0, -keep], asked, axis=0, zi=asked[:1])[0]
    skip = known + longest  # by then the filter has forgotten where it began
    end = len(predicted) - skip
    left = [float(np.sum(np.mean((answers.measured[skip:] - predicted[longest - d:longest - d + end]) ** 2, axis=0)))
            for d in range(longest + 1)]
    best = int(np.argmin(left))
    motion = float(np.sum(np.var(predicted[longest - best:longest - best + end], axis=0)))
    least = LEAST_MOTION**2 * answers.command.shape[1]
    if motion < least:  # of an arm at rest there is no delay to tell
        best = 0
    return best / rate, math.sqrt(max(left[best] - noise, 0.0) / max(motion, least))

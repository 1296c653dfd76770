# SPDX-License-Identifier: Apache-2.0
"""From what an arm was told and what it then did to the delay, lag, friction and noise of each joint.

The model of a joint, as in qgf_sim.drive: a command takes effect after a delay, passes a lag of first or second order,
is scaled by a gain and loses what dry friction takes. It is simulated on a grid of 1 ms from the mean of the delayed
command in each cell, so that it depends smoothly on the delay and resolves it far below the grid.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy.optimize
import scipy.signal
from numpy.typing import NDArray

from qgf_core.errors import QgfError
from qgf_core.robot_identified import IdentifiedJoint, IdentifiedSpec, Interval
from qgf_sim.drive import ActuatorSpec

Vector = NDArray[np.float64]
_GRID = 1e-3
"""[s]"""
_BLOCK = 0.25
"""Residuals further apart than this count as independent [s]."""
_SHORTEST = 2.0
"""Of a recording [s]."""
_LEAST_MOTION = 0.01
"""A joint that moved less is not identified [rad]."""
_NORMAL_95 = 1.96
_ENOUGH_STILL = 50
"""States of a joint at rest that tell its noise."""
_BEATS = 0.02
"""A servo is of second order only if that explains this share more of what noise does not explain."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """Commands and states, in the robot's joint order and the driver's sign."""

    interface: Literal["velocity", "position"]
    command_time: Vector
    """(k,) [s], increasing."""
    command: Vector
    """(k, n) [rad/s or rad]"""
    state_time: Vector
    """(m,) when the state was measured [s], increasing."""
    position: Vector
    """(m, n) [rad]"""
    velocity: Vector
    """(m, n) [rad/s]; NaN where the driver tells none."""

    def joint(self, i: int, begin: float, end: float) -> Recording:
        """Joint i alone, from `begin` to `end` [s]; of the commands before, the last one stays."""
        first = max(0, int(np.searchsorted(self.command_time, begin, "right")) - 1)
        commands = slice(first, int(np.searchsorted(self.command_time, end, "right")))
        states = slice(*np.searchsorted(self.state_time, [begin, end]).tolist())
        return Recording(self.interface, self.command_time[commands], self.command[commands, i:i + 1],
                         self.state_time[states], self.position[states, i:i + 1], self.velocity[states, i:i + 1])


def measured_times(stamps: Vector, arrivals: Vector) -> tuple[Vector, str]:
    """When states were measured (m,) [s], on the clock of `arrivals`, and "" or why that is only a guess.

    :param stamps: of the messages (m,) [s]; the driver's clock.
    :param arrivals: of the messages (m,) [s].
    """
    age = arrivals - stamps
    if stamps.size and (stamps > 0).all() and (np.diff(stamps) >= 0).all() and -0.002 <= np.median(age) <= 0.3:
        return stamps, ""
    return arrivals, ("the states' stamps are not of this clock: their arrival counts, and the delay contains their "
                      "way here")


class _JointModel:
    """Residuals of one joint's model over one recording of that joint alone."""

    def __init__(self, recording: Recording, second_order: bool) -> None:
        self._second, self._recording = second_order, recording
        times = recording.state_time
        self._grid = np.arange(times[0] - 0.5, times[-1] + 2 * _GRID, _GRID)
        self._told = recording.command[:, 0]
        self._edges = np.append(recording.command_time, max(self._grid[-1], recording.command_time[-1]) + 1.0)
        # Integral of the command held from each message to the next.
        self._integral = np.append(0.0, np.cumsum(self._told * np.diff(self._edges)))
        # Behind a staircase of positions the speed is all ripples, and tells less of the servo than of its smoothing.
        self._has_velocity = recording.interface == "velocity" and bool(np.isfinite(recording.velocity).all())
        self.noise: tuple[float, ...] = (1e-3, 1e-2)
        self.names = ["delay", "time_constant", *(["damping_ratio"] if second_order else []), "gain", "dead_band",
                      *(["velocity_filter"] if self._has_velocity else [])]
        if recording.interface == "position":  # a position servo ends where it is told, whatever the friction
            self.names = [name for name in self.names if name not in ("gain", "dead_band")]

    def _delayed(self, delay: float) -> Vector:
        """Mean of the command in each grid cell (cells,), `delay` [s] later."""
        at = self._grid - delay
        before = np.minimum(at - self._edges[0], 0.0) * (self._told[0] if self._recording.interface == "position"
                                                         else 0.0)
        return np.asarray(np.diff(np.interp(at, self._edges, self._integral) + before) / _GRID)

    def _lag(self, u: Vector, values: dict[str, float]) -> Vector:
        """The servo's output at the end of each cell, for an input constant in it."""
        lag = max(values["time_constant"], 1e-5)
        if self._second:
            system = ([1.0], [lag * lag, 2.0 * values["damping_ratio"] * lag, 1.0])
            b, a, _ = scipy.signal.cont2discrete(system, _GRID, "zoh")
            b = np.ravel(b)
        else:
            keep = math.exp(-_GRID / lag)
            b, a = np.array([0.0, 1.0 - keep]), np.array([1.0, -keep])
        # From the end of a cell, which saw u there, hence the input one cell early.
        rest = scipy.signal.lfilter_zi(b[1:], a) * u[0] if a.size > 1 else None
        return np.asarray(scipy.signal.lfilter(b[1:], a, u, zi=rest)[0])

    def _motion(self, values: dict[str, float]) -> tuple[Vector, Vector]:
        """Position (cells,) [rad], up to an offset, and velocity (cells,) [rad/s] at the ends of the cells."""
        output = self._lag(self._delayed(values["delay"]), values)
        if self._recording.interface == "position":
            return output, np.gradient(output, _GRID)
        scaled = values["gain"] * output
        velocity = np.copysign(np.maximum(np.abs(scaled) - values["dead_band"], 0.0), scaled)
        return np.concatenate([[0.0], np.cumsum(0.5 * (velocity[1:] + velocity[:-1]) * _GRID)]), velocity

    def errors(self, parameters: Vector) -> list[Vector]:
        """Measured minus modelled positions (m,) [rad], and velocities (m,) [rad/s] where there are any."""
        values = dict(zip(self.names, parameters, strict=True))
        position, velocity = self._motion(values)
        times, recording = self._recording.state_time, self._recording
        ends = self._grid[1:]
        error = recording.position[:, 0] - np.interp(times, ends, position)
        # Nobody knows where the model starts, and a small constant drift says nothing of the drive.
        s = times - times.mean()
        error = error - error.mean() - s * (s @ error) / (s @ s)
        errors = [error]
        if self._has_velocity:
            keep = math.exp(-_GRID / max(values["velocity_filter"], 1e-5))
            told = scipy.signal.lfilter([1.0 - keep], [1.0, -keep], velocity)
            errors.append(recording.velocity[:, 0] - np.interp(times, ends, told))
        return errors

    def residuals(self, parameters: Vector) -> Vector:
        """The errors, each over its noise, in one vector."""
        pairs = zip(self.errors(parameters), self.noise, strict=False)  # without velocities one noise is left over
        return np.concatenate([error / noise for error, noise in pairs])

    def fit(self) -> tuple[Vector, Vector]:
        """Estimates and half widths of their intervals, in the order of `names`."""
        begin = {"time_constant": 0.03, "damping_ratio": 0.8, "gain": 0.95, "dead_band": 0.005,
                 "velocity_filter": 0.002}
        # The sum of squares has several valleys along the delay.
        starts = [np.array([{**begin, "delay": delay}[name] for name in self.names]) for delay in (0.01, 0.05, 0.15)]
        found = min((self._solve(start, 20) for start in starts), key=lambda solution: float(solution.cost))
        for _ in range(2):  # weighted by a guess of the noise so far, now by the errors of the fit before
            self.noise = tuple(max(float(np.std(error)), 1e-9) for error in self.errors(found.x))
            found = self._solve(found.x, 100)
        return found.x, self._half_widths(found.jac, found.fun)

    def _solve(self, start: Vector, most: int) -> Any:
        bounds = {"delay": (0.0, 0.4), "time_constant": (1e-4, 1.0), "damping_ratio": (0.1, 1.5), "gain": (0.05, 2.0),
                  "dead_band": (0.0, 0.2), "velocity_filter": (0.0, 0.1)}
        lower, upper = (np.array([bounds[name][side] for name in self.names]) for side in (0, 1))
        scale = np.array([{"gain": 0.5, "damping_ratio": 0.5}.get(name, 0.02) for name in self.names])
        inside = np.clip(start, lower + 1e-6, upper - 1e-6)
        return scipy.optimize.least_squares(self.residuals, inside, bounds=(lower, upper), x_scale=scale,
                                            diff_step=1e-4, max_nfev=most, ftol=1e-7)

    def _half_widths(self, jacobian: Vector, residuals: Vector) -> Vector:
        """Of 95 % intervals, from the sandwich estimate over blocks in time: residuals near each other are not
        independent where the model is not exact (Huber 1967; clusters: Liang and Zeger 1986)."""
        times = self._recording.state_time
        block = np.tile(((times - times[0]) / _BLOCK).astype(int), 2 if self._has_velocity else 1)
        inverse = np.linalg.pinv(jacobian.T @ jacobian)
        scores = np.zeros((block.max() + 1, len(self.names)))
        np.add.at(scores, block, jacobian * residuals[:, None])
        robust = inverse @ scores.T @ scores @ inverse
        plain = inverse * float(residuals @ residuals) / max(1, residuals.size - len(self.names))
        return np.asarray(_NORMAL_95 * np.sqrt(np.maximum(np.diag(robust), np.diag(plain))))


def _noise(signal: Vector, residual: Vector, still: NDArray[np.bool_]) -> Interval:
    """Standard deviation while the joint stood still, where it did for long enough, else of the residual.

    Chi-square interval of a variance, in its normal approximation: s (1 +- 1.96 / sqrt(2 (n - 1))).
    """
    values = scipy.signal.detrend(signal[still]) if still.sum() >= _ENOUGH_STILL else residual
    deviation, half = float(np.std(values, ddof=1)), _NORMAL_95 / math.sqrt(2.0 * (values.size - 1))
    return deviation, deviation * (1.0 - half), deviation * (1.0 + half)


def identify_joint(recording: Recording, still_until: float = -math.inf) -> IdentifiedJoint:
    """One joint from a recording of it alone.

    :param still_until: until then the joint stood still [s]: the noise is measured there.
    :raises QgfError: too short, or the joint did not move.
    """
    times = recording.state_time
    if times.size < 50 or times[-1] - times[0] < _SHORTEST:
        raise QgfError(f"{times.size} states in {np.ptp(times) if times.size else 0.0:.1f} s: too few to identify a "
                       f"joint; record {_SHORTEST:g} s or more")
    moved = float(np.ptp(recording.position[:, 0]))
    noise_of = recording.position[:, 0] - scipy.signal.medfilt(recording.position[:, 0], 5)
    if recording.command.size == 0 or moved < max(_LEAST_MOTION, 8.0 * float(np.std(noise_of))):
        raise QgfError(f"it moved by {moved:.4f} rad only; let it be moved by {_LEAST_MOTION:g} rad and more")
    still = times < still_until
    first, second = _JointModel(recording, second_order=False), _JointModel(recording, second_order=True)
    fits = {model: model.fit() for model in (first, second)}
    second_noise, second.noise = second.noise, first.noise  # both judged by the same measure
    costs = {model: float(np.sum(model.residuals(fit[0]) ** 2)) for model, fit in fits.items()}
    second.noise = second_noise
    # Schwarz's criterion for one more parameter among 2 m numbers, and no order for a trifle.
    enough = max(_BEATS, math.log(2 * times.size) / (2 * times.size))
    model = second if costs[first] > (1.0 + enough) * costs[second] else first
    parameters, half = fits[model]
    errors = model.errors(parameters)
    values = {name: _interval(value, width) for name, value, width in zip(model.names, parameters, half, strict=True)}
    dead_band = values.pop("dead_band", (0.0, 0.0, 0.0))
    stiffness = ActuatorSpec().stiffness
    values["coulomb"] = (stiffness * dead_band[0], stiffness * dead_band[1], stiffness * dead_band[2])
    values["position_noise"] = _noise(recording.position[:, 0], errors[0], still)
    if len(errors) > 1 or (np.isfinite(recording.velocity).all() and still.sum() >= _ENOUGH_STILL):
        values["velocity_noise"] = _noise(recording.velocity[:, 0], errors[-1], still)
    return IdentifiedJoint(**values)


def _interval(value: float, half: float) -> Interval:
    return float(value), max(0.0, float(value - half)), float(value + half)


def identify(recording: Recording, names: tuple[str, ...], parts: dict[str, tuple[float, float, float]] | None = None,
             how: str = "", progress: Callable[[str], object] = str) -> tuple[IdentifiedSpec, dict[str, str]]:
    """All joints that can be identified, and for the others why not.

    :param names: joints in the recording's order.
    :param progress: is told the joint whose turn it is.
    :param parts: of each joint when it begins to stand still, to move, and ends [s]; None: all of the recording.
    :raises QgfError: no joint can be identified.
    """
    found, refused = {}, {}
    for i, name in enumerate(names):
        begin, moves, end = (parts or {}).get(name, (-math.inf, -math.inf, math.inf))
        if parts is not None and name not in parts:
            continue
        progress(name)
        try:
            found[name] = identify_joint(recording.joint(i, begin, end), moves)
        except QgfError as error:
            refused[name] = str(error)
    if not found:
        raise QgfError("no joint can be identified: " + "; ".join(f"'{name}': {why}" for name, why in refused.items()))
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return IdentifiedSpec(f"{today}, {how}", found), refused

# SPDX-License-Identifier: Apache-2.0
"""The action-gradient field of a critic, g(s, a) = grad_a Q, and how rough a policy it makes.

At an interior optimum d a*/ds = -[H_aa]^-1 H_as, so ||d a*/ds|| <= M / mu with M = sup ||H_as||_2, how fast the field
turns with the state, and mu = inf |lambda_max(H_aa)|, how sharp its optima are (arXiv:2601.22970). A robot's computer
takes them from the closed form below, in numpy; the trainer takes the same figures of any critic by autograd.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qgf_core.errors import MetricError
from qgf_core.samples import Array


class FieldDerivatives(NamedTuple):
    """Of Q at B points (s, a)."""

    gradient: Array
    """grad_a Q, (B, n_act)"""
    mixed: Array
    """H_as: d2Q / da_i ds_j, (B, n_act, n_obs)"""
    curvature: Array
    """H_aa, (B, n_act, n_act)"""


@dataclass(frozen=True)
class FieldFigures:
    """Over B points that were visited. Values of Q have the reward's unit."""

    mixed_sup: float
    """M: largest spectral norm of H_as."""
    sharpness_inf: float
    """mu: smallest |lambda_max(H_aa)|."""
    slope: float
    """Median over the points of ||H_as||_2 / |lambda_max(H_aa)|: action by observation. M / mu, which bounds it, is
    decided by single points."""


def turning_and_sharpness(mixed: Array, curvature: Array) -> tuple[Array, Array]:
    """||H_as||_2 (B,) and lambda_max(H_aa) (B,), with its sign. :param mixed, curvature: as in FieldDerivatives."""
    return np.asarray(np.linalg.norm(mixed, ord=2, axis=(1, 2))), np.asarray(np.linalg.eigvalsh(curvature)[:, -1])


def figures_of(turning: Array, sharpness: Array) -> FieldFigures:
    """M, mu and the slope from what `turning_and_sharpness` gives, B > 0."""
    flat = np.abs(sharpness)
    slope = np.divide(turning, flat, out=np.full_like(turning, np.inf), where=flat > 0.0)
    return FieldFigures(float(turning.max()), float(flat.min()), float(np.median(slope)))


def _silu(z: Array) -> tuple[Array, Array, Array]:
    """f(z) = z sigmoid(z), f' and f''. The sigmoid by tanh, which does not overflow."""
    gate = 0.5 * (1.0 + np.tanh(0.5 * z))
    rest = 1.0 - gate
    return z * gate, gate * (1.0 + z * rest), gate * rest * (2.0 + z * (1.0 - 2.0 * gate))


class Critic:
    """A perceptron with SiLU, Q(s, a) of raw observations, as it was trained.

    :param weights: (n_obs + n_act, h1), (h1, h2), ..., (h, 1); actions are the last rows of the first.
    :param biases: (h1,), (h2,), ..., (1,).
    :param mean, std: of the observations (n_obs,), by which they are normalised.
    :raises MetricError: shapes that do not fit each other, numbers that are not finite, a std that is not positive.
    """

    def __init__(self, weights: Sequence[npt.ArrayLike], biases: Sequence[npt.ArrayLike], mean: npt.ArrayLike,
                 std: npt.ArrayLike) -> None:
        self.weights = [np.array(w, dtype=np.float64) for w in weights]
        self.biases = [np.array(b, dtype=np.float64) for b in biases]
        self.mean, self.std = np.array(mean, dtype=np.float64), np.array(std, dtype=np.float64)
        w = self.weights
        chained = (len(w) >= 2 and len(w) == len(self.biases) and all(each.ndim == 2 for each in w)
                   and all(a.shape[1] == b.shape[0] for a, b in itertools.pairwise(w)) and w[-1].shape[1] == 1
                   and all(b.shape == a.shape[1:] for a, b in zip(w, self.biases, strict=True))
                   and self.mean.ndim == 1 and self.mean.shape == self.std.shape)
        if not chained or not 0 < len(self.mean) < len(w[0]):
            raise MetricError("critic: its layers do not fit each other")
        if not all(np.isfinite(each).all() for each in (*w, *self.biases, self.mean, self.std)):
            raise MetricError("critic: a weight is not finite")
        if not (self.std > 0.0).all():
            raise MetricError("critic: a standard deviation is not positive")
        self.n_obs, self.n_act = len(self.mean), len(w[0]) - len(self.mean)

    def _layers(self, observation: npt.ArrayLike,
                action: npt.ArrayLike) -> tuple[list[tuple[Array, Array, Array]], Array]:
        """f, f' and f'' of every hidden layer, each (B, width), and Q (B,)."""
        s, a = np.asarray(observation, dtype=np.float64), np.asarray(action, dtype=np.float64)
        if s.shape[1:] != (self.n_obs,) or a.shape[1:] != (self.n_act,) or len(s) != len(a):
            raise MetricError(f"critic: observations {s.shape} and actions {a.shape}; give (B, {self.n_obs}) and "
                              f"(B, {self.n_act})")
        h, layers = np.concatenate([(s - self.mean) / self.std, a], axis=1), []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            layers.append(_silu(h @ weight + bias))
            h = layers[-1][0]
        return layers, (h @ self.weights[-1] + self.biases[-1])[:, 0]

    def value(self, observation: npt.ArrayLike, action: npt.ArrayLike) -> Array:
        """Q (B,) of raw observations (B, n_obs) and actions (B, n_act) in [-1, 1]."""
        return self._layers(observation, action)[1]

    def derivatives(self, observation: npt.ArrayLike, action: npt.ArrayLike) -> FieldDerivatives:
        """The field and how it changes, by raw observation and action, in closed form.

        With z_l = h_(l-1) W_l + b_l, h_l = f(z_l), backwards u_(l-1) = (u_l f'(z_l)) W_l^T; along a direction of the
        input, forwards t_(l+1) = (f'(z_l) t_l) W_(l+1), and the change of u along it backwards,
        v_(l-1) = (v_l f'(z_l) + u_l f''(z_l) t_l) W_l^T: v_0 is that direction's row of the Hessian.
        """
        layers, _ = self._layers(observation, action)
        tangents = []
        t: Array = self.weights[0][self.n_obs:, None, :]  # one row for each action: (n_act, 1 or B, width)
        for (_, slope, _), weight in zip(layers, self.weights[1:], strict=True):
            tangents.append(t)
            t = (slope * t) @ weight
        u: Array = self.weights[-1].T  # (1 or B, width)
        v: Array = np.zeros((1, 1, u.shape[1]))
        for (_, slope, bend), weight, t in zip(layers[::-1], self.weights[-2::-1], tangents[::-1], strict=True):
            v = (v * slope + u * bend * t) @ weight.T
            u = (u * slope) @ weight.T
        rows = np.moveaxis(v, 0, 1)  # (B, n_act, n_obs + n_act)
        return FieldDerivatives(u[:, self.n_obs:], rows[:, :, :self.n_obs] / self.std, rows[:, :, self.n_obs:])

    def field_figures(self, observation: npt.ArrayLike, action: npt.ArrayLike) -> FieldFigures:
        """M, mu and the slope over B points, B > 0."""
        found = self.derivatives(observation, action)
        return figures_of(*turning_and_sharpness(found.mixed, found.curvature))

# SPDX-License-Identifier: Apache-2.0
"""The geometry of any critic, exact by autograd: how fast its action gradient turns with the state, and how sharp its
optima are (`qgf_core.q_field`, whose figures these are)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qgf_core.q_field import figures_of, turning_and_sharpness

Value = Callable[[Tensor, Tensor], Tensor]
"""One critic: observation (B, n_obs), action (B, n_act) -> Q (B,), twice differentiable."""
Policy = Callable[[Tensor], Tensor]
"""Observation (B, n_obs) -> action (B, n_act)."""


class Derivatives(NamedTuple):
    """Of Q at B points (s, a), detached."""

    gradient: Tensor
    """grad_a Q, (B, n_act)"""
    mixed: Tensor
    """H_as: d2Q / da_i ds_j, (B, n_act, n_obs)"""
    curvature: Tensor
    """H_aa, (B, n_act, n_act)"""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """T consecutive points that a policy visited."""

    observation: Tensor  # (T, n_obs)
    action: Tensor  # (T, n_act)


def derivatives(value: Value, observation: Tensor, action: Tensor) -> Derivatives:
    """Action gradient and both second derivatives of one critic, row by row of the action.

    :param observation: (B, n_obs).
    :param action: (B, n_act).
    """
    s = observation.detach().clone().requires_grad_()
    a = action.detach().clone().requires_grad_()
    gradient = torch.autograd.grad(value(s, a).sum(), a, create_graph=True)[0]
    mixed, curvature = [], []
    for i in range(a.shape[1]):
        row_s, row_a = torch.autograd.grad(
            gradient[:, i].sum(), (s, a), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        mixed.append(row_s)
        curvature.append(row_a)
    return Derivatives(gradient.detach(), torch.stack(mixed, 1).detach(), torch.stack(curvature, 1).detach())


def glance(value: Value, observation: Tensor, action: Tensor) -> dict[str, float]:
    """mixed_sup (M) and sharpness_inf (mu), as in `measure`, over B points: cheap enough to be logged in training."""
    found = derivatives(value, observation, action)
    largest = torch.linalg.eigvalsh(found.curvature)[:, -1]
    norm = torch.linalg.matrix_norm(found.mixed, ord=2)
    return {"mixed_sup": float(norm.max()), "sharpness_inf": float(largest.abs().min())}


def policy_slope(policy: Policy, observation: Tensor) -> Tensor:
    """Spectral norm of d pi / ds at B observations (B, n_obs), (B,)."""
    s = observation.detach().clone().requires_grad_()
    action = policy(s)
    rows = [torch.autograd.grad(action[:, i].sum(), s, retain_graph=True)[0] for i in range(action.shape[1])]
    return torch.linalg.matrix_norm(torch.stack(rows, 1), ord=2)


def measure(
    value: Value, trajectories: Sequence[Trajectory], *, margin: float = 1.0, policy: Policy | None = None
) -> dict[str, float]:
    """The figures over all visited points, as flat names.

    mixed_sup (M), mixed_median: spectral norm of H_as. sharpness_inf (mu), sharpness_median: |lambda_max(H_aa)|.
    trace_mean: of H_aa. concavity_rate: share of points with trace(H_aa) < -margin; concave_share: with every
    eigenvalue negative. gradient_cosine: mean cosine of consecutive action gradients; gradient_sign_flips: share of
    their entries that change sign. bound: M / mu; ratio_median: median over the points of ||H_as|| / |lambda_max|.
    lipschitz_max, lipschitz_p95: |a' - a| / |s' - s| of consecutive points, the policy's as it was measured.
    policy_slope_max, policy_slope_median: spectral norm of d pi / ds, where a policy is given.

    :param trajectories: at least one, each of at least two points.
    :param margin: delta, the curvature that the published form demands.
    :raises ValueError: no trajectory, or one too short.
    """
    if not trajectories or any(len(t.observation) < 2 for t in trajectories):
        raise ValueError("geometry needs at least one trajectory, and two points in each")
    found = [derivatives(value, t.observation, t.action) for t in trajectories]
    curvature = torch.cat([d.curvature for d in found])
    norm, largest = turning_and_sharpness(torch.cat([d.mixed for d in found]).numpy(), curvature.numpy())
    field = figures_of(norm, largest)
    trace = curvature.diagonal(dim1=1, dim2=2).sum(1)
    cosine = torch.cat([torch.cosine_similarity(d.gradient[1:], d.gradient[:-1], dim=1) for d in found])
    flips = torch.cat([(d.gradient[1:] * d.gradient[:-1] < 0).flatten() for d in found])
    ratios = []
    for t in trajectories:
        moved = (t.observation[1:] - t.observation[:-1]).norm(dim=1)
        turned = (t.action[1:] - t.action[:-1]).norm(dim=1)
        ratios.append((turned / moved)[moved > 0])
    lipschitz = torch.cat(ratios)
    figures = {
        "points": float(len(norm)),
        "mixed_sup": field.mixed_sup,
        "mixed_median": float(np.median(norm)),
        "sharpness_inf": field.sharpness_inf,
        "sharpness_median": float(np.median(np.abs(largest))),
        "trace_mean": float(trace.mean()),
        "concavity_rate": float((trace < -margin).double().mean()),
        "concave_share": float(np.mean(largest < 0)),
        "gradient_cosine": float(cosine.mean()),
        "gradient_sign_flips": float(flips.double().mean()),
        "bound": field.mixed_sup / field.sharpness_inf if field.sharpness_inf > 0 else float("inf"),
        "ratio_median": field.slope,
        "lipschitz_max": float(lipschitz.max()) if len(lipschitz) else 0.0,
        "lipschitz_p95": float(lipschitz.quantile(0.95)) if len(lipschitz) else 0.0,
    }
    if policy is not None:
        slopes = policy_slope(policy, torch.cat([t.observation for t in trajectories]))
        figures |= {"policy_slope_max": float(slopes.max()), "policy_slope_median": float(slopes.median())}
    return figures


@dataclasses.dataclass(frozen=True)
class Slice:
    """A plane through one visited point along one observation and one action entry."""

    observation: Tensor  # (n_obs,)
    action: Tensor  # (n_act,)
    state_index: int
    action_index: int
    state_range: tuple[float, float]


def worst_slice(value: Value, trajectories: Sequence[Trajectory]) -> Slice:
    """The pair of observation and action, and the visited point, where |d2Q / da_i ds_j| times the deviation of s_j
    over the visited points is largest: where the field turns most within what the policy meets."""
    s, a = torch.cat([t.observation for t in trajectories]), torch.cat([t.action for t in trajectories])
    turning = derivatives(value, s, a).mixed.abs() * s.std(0, correction=0)
    point, row, column = (int(x) for x in torch.unravel_index(turning.argmax(), turning.shape))
    low, high = s[:, column].quantile(0.01), s[:, column].quantile(0.99)
    return Slice(s[point], a[point], column, row, (float(low), float(high)))


def field_on(value: Value, plane: Slice, size: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    """Axes (size,) of the observation and the action in [-1, 1], and dQ/da_i (size, size) over them: rows follow the
    observation."""
    states = torch.linspace(*plane.state_range, size, dtype=plane.observation.dtype)
    actions = torch.linspace(-1.0, 1.0, size, dtype=plane.action.dtype)
    s = plane.observation.repeat(size * size, 1)
    a = plane.action.repeat(size * size, 1)
    s[:, plane.state_index] = states.repeat_interleave(size)
    a[:, plane.action_index] = actions.repeat(size)
    a.requires_grad_()
    gradient = torch.autograd.grad(value(s, a).sum(), a)[0][:, plane.action_index]
    return states, actions, gradient.reshape(size, size)

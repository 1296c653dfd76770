# SPDX-License-Identifier: Apache-2.0
"""A policy at work: what it sees, what it answers, and what it wants of the arm."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qgf_core.errors import StateError
from qgf_core.manifest import Manifest
from qgf_policy.goals import Goals
from qgf_policy.joint_state import JointState

Vector = NDArray[np.float64]


class Policy(Protocol):
    """What the runner needs of a bundle."""

    @property
    def manifest(self) -> Manifest:
        """The contract."""

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """Action (n,) in [-1, 1] for an observation (n_obs,)."""


class Pilot:
    """One policy with its observation's history and its last action. Steps once a control period."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        manifest = policy.manifest
        self._builder, self._decoder = manifest.observation_builder(), manifest.action_decoder()
        self._zero = np.zeros(len(manifest.robot.joints))
        self.restart()

    def restart(self) -> None:
        """As after activation: no history, previous_action 0."""
        self._builder.reset()
        self._previous_action = self._zero
        self.wanted: Vector = self._zero
        """Joint velocity (n,) [rad/s] that the last action asks for."""

    def observe(self, state: JointState, goals: Goals, now: int) -> NDArray[np.float32]:
        """The observation (n_obs,) of this control period."""
        return self._builder.build(
            state.position, state.velocity, self._previous_action, goals.goal, goals.reference, goals.time(now))

    def act(self, observation: NDArray[np.float32], position: Vector, velocity: Vector) -> NDArray[np.float32]:
        """The action (n,) in [-1, 1].

        :param position: that the limiter goes by (n,) [rad]. :param velocity: last commanded (n,) [rad/s].
        :raises StateError: the policy failed, or its answer is not finite."""
        try:
            action = self.policy.act(observation)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise StateError("model_exception", f"running the policy failed: {reason}") from error
        if action.shape != self._zero.shape or not math.isfinite(sum(action.tolist())):
            raise StateError("non_finite_action", "the policy's output is not finite or has a wrong shape")
        self._previous_action = np.asarray(action, dtype=np.float64)
        self.wanted = self._decoder.decode(action, position, velocity)
        return action

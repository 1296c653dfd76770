# SPDX-License-Identifier: Apache-2.0
"""What the runner gives and says: commands, its mode, counters, and the changes worth a line in the log."""

from __future__ import annotations

import dataclasses
import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_policy.command_filter import Governed


class Mode(enum.IntEnum):
    """Modes, numbered as in qgf_msgs/PolicyStatus."""

    UNCONFIGURED = 0
    INACTIVE = 1
    RAMPING = 2
    ACTIVE = 3
    HOLDING = 4
    HALTING = 5
    ESTOPPED = 6


@dataclasses.dataclass
class Counters:
    """Faults and irregular periods since configure, named as in qgf_msgs/PolicyStatus, where each is explained."""

    faults_stale_state: int = 0
    faults_incomplete_state: int = 0
    faults_non_finite_state: int = 0
    faults_malformed_state: int = 0
    faults_non_finite_action: int = 0
    faults_stale_goal: int = 0
    faults_rejected_goal: int = 0
    faults_model_exception: int = 0
    faults_future_state: int = 0
    faults_tracking_error: int = 0
    faults_saturated_action: int = 0
    faults_workspace: int = 0
    faults_overruns: int = 0
    faults_second_commander: int = 0
    faults_bundle_changed: int = 0
    faults_clock_step: int = 0
    faults_governed: int = 0
    limited_commands: int = 0
    overruns: int = 0
    skipped_cycles: int = 0
    estops: int = 0

    def count_fault(self, kind: str) -> None:
        """One more fault of a StateError's kind. :raises AttributeError: no such kind."""
        name = f"faults_{kind}"
        setattr(self, name, getattr(self, name) + 1)


class Command(NamedTuple):
    """What is to be sent in one command period."""

    values: NDArray[np.float64]
    """(n,) [rad/s] for the velocity interface, else [rad]; in the driver's signs."""
    inference: bool
    """Whether this is the first command of a control period."""
    sequence: int
    """Number of the control period since activation, from 0."""
    raw_action: NDArray[np.float32] | None
    """The policy's output (n,) in [-1, 1], where it was asked in this step."""
    observation: NDArray[np.float32] | None
    """What it was asked with (n_obs,)."""
    state_stamp: int
    """Stamp of the oldest joint state known [ns]."""
    goal_stamp: int
    """Stamp of the goal [ns]; 0 without one."""
    reason: str
    """Why this is not purely the policy's command; empty where it is."""


class RunnerStatus(NamedTuple):
    """State of the runner after a step."""

    mode: Mode
    fault: str
    """Present fault in one sentence; empty while there is none."""
    counters: Counters
    """The live counters, not a copy."""
    cycles: int
    """Control periods since activation."""
    state_age: float
    """Age of the oldest required joint state at the last inference [s]."""
    governed: Governed = Governed()
    """What the governor's filter does to the command."""


class Event(NamedTuple):
    """A change of mode or of the kind of fault."""

    mode: Mode
    kind: str
    """Kind of the fault, as counted; empty for none."""
    text: str

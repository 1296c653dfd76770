# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a driver's joint states and commands, to be switched on and off while it runs."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import ConfigError

Vector = NDArray[np.float64]


def _fault(description: str, upper: float | None = None) -> dict[str, object]:
    """A parameter's metadata; `upper` is the end of its range, which begins at 0."""
    return {"description": description, "upper": upper}


@dataclasses.dataclass(frozen=True)
class FaultSettings:
    """Faults in force; sim_node's parameters fault.*, settable at any time. The defaults are a healthy arm."""

    delay_s: float = dataclasses.field(default=0.0, metadata=_fault(
        "Joint states arrive this much later than they are stamped [s].", 10.0))
    jitter_s: float = dataclasses.field(default=0.0, metadata=_fault(
        "Largest further delay of a joint state [s], drawn uniformly from 0 on; their order is kept.", 10.0))
    dropout: float = dataclasses.field(default=0.0, metadata=_fault("Share of joint states that never arrive.", 1.0))
    noise: float = dataclasses.field(default=1.0, metadata=_fault(
        "Factor on the noise of position and velocity; 1 is the arm's own.", 1000.0))
    frozen_joint: str = dataclasses.field(default="", metadata=_fault(
        "Joint whose position and velocity repeat what they were when the fault began; empty: none."))
    nan: bool = dataclasses.field(default=False, metadata=_fault(
        "The position of the arm's last joint is not a number."))
    permute: bool = dataclasses.field(default=False, metadata=_fault(
        "The joints stand in the opposite order in the message: normal in ROS, readers match by name."))
    missing_joint: str = dataclasses.field(default="", metadata=_fault(
        "Joint that is left out of the message; empty: none."))
    protective_stop: bool = dataclasses.field(default=False, metadata=_fault(
        "The drives stop at once and stay so; states go on; commands have no effect. Once cleared, the arm waits where "
        "it is for a new command."))
    inactive_controller: bool = dataclasses.field(default=False, metadata=_fault(
        "The controller is not active: commands are ignored and the arm comes to rest. Once cleared, it waits for a "
        "new command."))

    def check(self, joint_names: Sequence[str]) -> None:
        """:raises ConfigError: a number outside its range, or a joint that is not one of `joint_names`."""
        for field in dataclasses.fields(self):
            value, upper = getattr(self, field.name), field.metadata["upper"]
            if upper is not None and not 0.0 <= value <= upper:  # NaN is in no range
                raise ConfigError("sim_node", f"fault.{field.name}", f"{value} is outside 0 to {upper:g}",
                                  "give a value inside")
        for name in ("frozen_joint", "missing_joint"):
            joint = getattr(self, name)
            if joint and joint not in joint_names:
                raise ConfigError("sim_node", f"fault.{name}", f"there is no joint '{joint}'",
                                  f"choose one of: {', '.join(joint_names)}; or leave it empty")


class StateMessage(NamedTuple):
    """A joint state as it leaves the driver."""

    stamp: int
    """When it was measured [ns], on the readers' clock."""
    names: tuple[str, ...]
    position: Vector
    """(m,) [rad; m for a finger]"""
    velocity: Vector
    """(m,) [rad/s; m/s]"""


class FaultInjector:
    """Turns healthy joint states into the messages that arrive, at the times at which they do.

    Stepped by its caller: `push` when a state is measured, `due` whenever time has passed. `settings` may be replaced
    by another thread at any time.

    :param joint_names: joints in the states' order.
    :param driven: how many of them, from the first on, are the arm's.
    :param seed: of dropout and jitter.
    """

    def __init__(self, joint_names: Sequence[str], driven: int, seed: int = 0) -> None:
        self.settings = FaultSettings()
        self.joint_names, self._driven = tuple(joint_names), driven
        self._random = np.random.default_rng(seed)
        self._queue: deque[tuple[int, StateMessage]] = deque()
        self._frozen: tuple[str, float, float] = ("", 0.0, 0.0)
        self.dropped = 0

    def push(
        self, now: int, stamp: int, position: Vector, velocity: Vector, true_position: Vector,
        true_velocity: Vector
    ) -> None:
        """Take the state (m,) measured at `now` [ns], which the readers' clock calls `stamp` [ns], and the truth."""
        faults = self.settings
        # Drawn whether needed or not, so that a fault does not change when another one strikes.
        dropped, share = self._random.random() < faults.dropout, self._random.random()
        position = true_position + faults.noise * (position - true_position)
        velocity = true_velocity + faults.noise * (velocity - true_velocity)
        if faults.frozen_joint != self._frozen[0]:
            i = self.joint_names.index(faults.frozen_joint) if faults.frozen_joint else 0
            self._frozen = (faults.frozen_joint, float(position[i]), float(velocity[i]))
        if faults.frozen_joint:
            i = self.joint_names.index(faults.frozen_joint)
            position[i], velocity[i] = self._frozen[1:]
        if faults.nan:
            position[self._driven - 1] = np.nan
        order = [i for i, name in enumerate(self.joint_names) if name != faults.missing_joint]
        if faults.permute:
            order.reverse()
        if dropped:
            self.dropped += 1
            return
        arrival = now + round(1e9 * (faults.delay_s + faults.jitter_s * share))
        if self._queue:  # a later state never overtakes an earlier one, also where the delay was just shortened
            arrival = max(arrival, self._queue[-1][0])
        names = tuple(self.joint_names[i] for i in order)
        self._queue.append((arrival, StateMessage(stamp, names, position[order], velocity[order])))

    @property
    def next_arrival(self) -> int | None:
        """When the next message is due [ns]; None if there is none on its way."""
        return self._queue[0][0] if self._queue else None

    def due(self, now: int) -> list[StateMessage]:
        """The messages that arrive until `now` [ns], in order; each is given once."""
        messages = []
        while self._queue and self._queue[0][0] <= now:
            messages.append(self._queue.popleft()[1])
        return messages

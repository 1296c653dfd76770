# SPDX-License-Identifier: Apache-2.0
"""From serialised messages of a topic to the recorder: the same for live topics and for bags."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qgf_core.cdr import SCHEMAS, Batch, Decoder
from qgf_core.errors import ConfigError
from qgf_monitor.recorder import Recorder, Stamps

QUANTITIES = ("position", "velocity", "effort")
KINDS = {kind.rpartition("/")[2]: kind for kind in SCHEMAS}
"""Message types by their short names."""


def command_kind(name: str, source: object = "command_type") -> str:
    """The full name of a command's message type. :raises ConfigError: none of these."""
    if name not in KINDS:
        raise ConfigError(source, "", f"'{name}' is no message type that is known",
                          f"choose one of: {', '.join(KINDS)}")
    return KINDS[name]


class Input:
    """One topic.

    :param recorder: takes what is decoded.
    :param kind: message type, one of `qgf_core.cdr.SCHEMAS`.
    :param is_command: whether joint states are commands and not measurements.
    :param quantity: what commands are: "position", "velocity" or "effort"; where empty, a joint state's or trajectory's
        first array that is filled, and a velocity for an array that does not tell.
    """

    def __init__(self, recorder: Recorder, kind: str, is_command: bool = False, quantity: str = "") -> None:
        if quantity and quantity not in QUANTITIES:
            raise ConfigError("command_quantity", "", f"'{quantity}' is not known",
                              f"choose one of: {', '.join(QUANTITIES)}")
        self._recorder, self._decoder, self._quantity = recorder, Decoder(kind), quantity
        record: dict[str, Callable[[Batch, Stamps, float], None]] = {
            KINDS["JointState"]: self._named if is_command else self._state,
            KINDS["JointTrajectory"]: self._named,
            KINDS["Float64MultiArray"]: self._array,
            KINDS["PolicyCommand"]: self._policy_command,
        }
        self._record = record[kind]

    def take(self, payloads: Sequence[bytes], received: Stamps, arrival: float) -> None:
        """Take K messages in the order of their arrival.

        :param received: (K,) [ns], for messages without a stamp.
        :param arrival: of the newest, on a steady clock [s].
        """
        batches, malformed = self._decoder.decode(payloads)
        self._recorder.counts.malformed += malformed
        for batch in batches:
            self._record(batch, received[batch.indices], arrival)

    def _state(self, batch: Batch, received: Stamps, arrival: float) -> None:
        numbers = batch.numbers
        self._recorder.joint_states(batch.texts["name"], numbers["position"], numbers["velocity"], numbers["effort"],
                                    numbers["stamp"], received, arrival)

    def _named(self, batch: Batch, received: Stamps, arrival: float) -> None:
        filled = [name for name in QUANTITIES if name in batch.numbers and batch.numbers[name].shape[1]]
        quantity = self._quantity or (filled[0] if filled else "")
        if quantity not in filled:
            self._recorder.counts.malformed += len(received)
            return
        self._recorder.commands(batch.texts["name"], batch.numbers[quantity], quantity, batch.numbers["stamp"],
                                received, arrival)

    def _array(self, batch: Batch, received: Stamps, arrival: float) -> None:
        self._recorder.commands((), batch.numbers["data"], self._quantity or "velocity", np.zeros_like(received),
                                received, arrival)

    def _policy_command(self, batch: Batch, received: Stamps, arrival: float) -> None:
        numbers, texts = batch.numbers, batch.texts
        self._recorder.policy_commands(
            texts["name"], numbers["raw_action"].astype(np.float64), numbers["command"],
            numbers["observation"].astype(np.float64), texts["command_interface"][0], numbers["sequence"],
            float(numbers["period"][-1]), texts["fault"][0], numbers["stamp"], received, arrival,
            numbers["state_stamp"])

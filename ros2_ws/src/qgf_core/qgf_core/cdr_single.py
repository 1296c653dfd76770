# SPDX-License-Identifier: Apache-2.0
"""Serialised messages one at a time, for a loop that has no time to make message objects.

Messages of one topic mostly differ in their numbers alone. Where these lie is found once, by `qgf_core.cdr`; from then
on they are read from, or written to, their places, and everything else is compared or kept as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core.cdr import SCHEMAS, Layout, layout_of

_LAYOUTS_KEPT = 32
_FIRST, _LAST = -(2**31) * 1_000_000_000, 2**31 * 1_000_000_000 - 1
"""Times that builtin_interfaces/Time can hold [ns]."""
_JOINT_STATE = "sensor_msgs/msg/JointState"
_STAMP = 4
"""A JointState begins with 4 bytes of encoding; the stamp is next."""


class JointStateNumbers(NamedTuple):
    """What a control loop needs of a sensor_msgs/JointState. Nothing in it has been judged."""

    names: tuple[str, ...]
    """The same object for all messages of one layout."""
    position: NDArray[np.float64]
    """[rad] or [m]; of any length."""
    velocity: NDArray[np.float64]
    """[rad/s] or [m/s]; of any length."""
    effort_length: int
    stamp: int
    """[ns]"""


class _Known(NamedTuple):
    mask: int
    """Of the whole message as one number: which bits decide where its numbers lie. Padding does not: many senders leave
    it as it was in memory."""
    masked: int
    names: tuple[str, ...]
    kind: str
    position: tuple[int, int]
    velocity: tuple[int, int]
    effort_length: int
    stamp: struct.Struct


class JointStateReader:
    """Reads sensor_msgs/JointState messages of one topic."""

    def __init__(self) -> None:
        self._known: dict[int, list[_Known]] = {}
        self._count = 0

    def read(self, payload: bytes) -> JointStateNumbers:
        """One message. :raises MalformedMessage: it is no JointState, or cut short."""
        bits = int.from_bytes(payload, "little")
        for known in self._known.get(len(payload), ()):  # two arms' messages often have the same size
            if bits & known.mask == known.masked:
                break
        else:
            known = self._learn(payload)
        seconds, nanoseconds = known.stamp.unpack_from(payload, _STAMP)
        return JointStateNumbers(
            known.names,
            _floats(payload, known.kind, *known.position),
            _floats(payload, known.kind, *known.velocity),
            known.effort_length,
            seconds * 1_000_000_000 + nanoseconds,
        )

    def _learn(self, payload: bytes) -> _Known:
        layout = layout_of(payload, SCHEMAS[_JOINT_STATE])
        mask = bytearray(len(payload))
        for begin, end in layout.fixed:
            mask[begin:end] = b"\xff" * (end - begin)
        bits = int.from_bytes(mask, "little")
        position, velocity, effort = (_span(layout, name) for name in ("position", "velocity", "effort"))
        known = _Known(
            bits,
            int.from_bytes(payload, "little") & bits,
            layout.texts["name"],
            layout.order + "f8",
            position,
            velocity,
            effort[1],
            struct.Struct(layout.order + "iI"),
        )
        if self._count >= _LAYOUTS_KEPT:  # a stream of ever new layouts must not fill the memory
            self._known.clear()
            self._count = 0
        self._known.setdefault(len(payload), []).append(known)
        self._count += 1
        return known


def _span(layout: Layout, name: str) -> tuple[int, int]:
    begin, _, count = layout.numbers[name]
    return begin, count or 0


def _floats(payload: bytes, kind: str, begin: int, count: int) -> NDArray[np.float64]:
    values = np.frombuffer(payload, kind, count, begin) if count else np.zeros(0)
    return values if kind == "<f8" else values.astype(np.float64)


class MessageTemplate:
    """A serialised message whose numbers are written anew, as often as it is sent.

    :param kind: one of `qgf_core.cdr.SCHEMAS`; other fields behind those it names stay as they are.
    :param payload: the message once serialised by its own middleware, with arrays of the lengths to come.
    :raises MalformedMessage: the payload is none of this type.
    """

    def __init__(self, kind: str, payload: bytes) -> None:
        layout = layout_of(payload, SCHEMAS[kind])
        self._payload = bytearray(payload)
        self._places = {
            name: (_packer(layout.order, kind, count), begin) for name, (begin, kind, count) in layout.numbers.items()
        }

    def set_time(self, name: str, time: int) -> None:
        """A time [ns]; one that no message can hold, as a stamp with 4e9 nanoseconds would give, as the nearest."""
        packer, begin = self._places[name]
        packer.pack_into(self._payload, begin, *divmod(max(_FIRST, min(time, _LAST)), 1_000_000_000))

    def set(self, name: str, values: Sequence[float]) -> None:
        """An array, or a single number as a sequence of one. :raises struct.error: another length than the layout's."""
        packer, begin = self._places[name]
        packer.pack_into(self._payload, begin, *values)

    def payload(self) -> bytes:
        """The message as it now is."""
        return bytes(self._payload)


_CODES = {"f4": "f", "f8": "d", "u4": "I", "u8": "Q"}


def _packer(order: str, kind: str, count: int | None) -> struct.Struct:
    if kind == "time":
        return struct.Struct(order + "iI")
    return struct.Struct(f"{order}{1 if count is None else count}{_CODES[kind[1:]]}")

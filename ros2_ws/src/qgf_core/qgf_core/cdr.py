# SPDX-License-Identifier: Apache-2.0
"""Messages from their serialised form (CDR), many at once.

At 1 kHz the making of message objects costs more than all that is computed of them. Messages of one topic mostly differ
in their numbers alone: where their texts and array lengths lie is found once, and the numbers of a whole batch are read
as one array. Live messages and those of bags are read by the same code. After the encoding of the OMG's DDS-XTypes
specification, of which plain CDR (versions 1 and 2) is known here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Fields = tuple[tuple[str, str], ...]
"""Names and kinds of a message's fields, in order; see `Layout.read` for the kinds."""

_HEADER = (("stamp", "time"), ("frame_id", "string"))
SCHEMAS: dict[str, Fields] = {
    "sensor_msgs/msg/JointState": (*_HEADER, ("name", "string[]"), ("position", "f8[]"), ("velocity", "f8[]"),
                                   ("effort", "f8[]")),
    "std_msgs/msg/Float64MultiArray": (("dim", "dimension[]"), ("data_offset", "u4"), ("data", "f8[]")),
    "trajectory_msgs/msg/JointTrajectory": (*_HEADER, ("name", "string[]"), ("points", "u4"), ("position", "f8[]"),
                                            ("velocity", "f8[]")),
    "qgf_msgs/msg/PolicyCommand": (*_HEADER, ("state_stamp", "time"), ("goal_stamp", "time"), ("sequence", "u8"),
                                   ("period", "f8"), ("observation", "f4[]"), ("raw_action", "f4[]"),
                                   ("command", "f8[]"), ("command_interface", "string"), ("name", "string[]"),
                                   ("fault", "string")),
}
"""What is read of each type. Of a trajectory it is the first point; what follows the named fields is not looked at."""


class MalformedMessage(Exception):
    """A message that is cut short, names no known encoding, or holds a text that is none."""


@dataclass(frozen=True)
class Batch:
    """K messages with the same texts and array lengths.

    `numbers`: by field, (K,) for single numbers and times [ns], (K, n) for arrays. `texts`: by field, one or several.
    `indices` (K,): which of the payloads these are.
    """

    numbers: dict[str, npt.NDArray[Any]]
    texts: dict[str, tuple[str, ...]]
    indices: npt.NDArray[np.int_]


class Layout:
    """Walks one message and notes where its numbers lie, and which bytes decide that.

    `fixed`: (begin, end) of the bytes that every message of this layout shares. `numbers`: by field, where it begins,
    its kind ("time", or numpy's with the byte order) and how many there are, None for a single one. `texts`: by field.
    """

    def __init__(self, payload: bytes) -> None:
        if len(payload) < 4 or payload[0] != 0 or payload[1] not in (0, 1, 6, 7):
            raise MalformedMessage("not plain CDR")
        self.payload, self.place = payload, 4
        self.order = "<" if payload[1] & 1 else ">"
        self.widest = 8 if payload[1] < 2 else 4  # version 2 aligns to 4 bytes at most
        self.fixed: list[tuple[int, int]] = [(0, 4)]
        self.numbers: dict[str, tuple[int, str, int | None]] = {}
        self.texts: dict[str, tuple[str, ...]] = {}

    def _take(self, size: int, count: int = 1) -> int:
        """Aligns to `size`, passes over `count` of them, and tells where they begin."""
        align = min(size, self.widest)
        begin = 4 + -(-(self.place - 4) // align) * align if count else self.place
        if begin + size * count > len(self.payload):
            raise MalformedMessage("cut short")
        self.place = begin + size * count
        return begin

    def _length(self) -> int:
        begin = self._take(4)
        self.fixed.append((begin, begin + 4))
        length: int = struct.unpack_from(self.order + "I", self.payload, begin)[0]
        return length

    def _text(self) -> str:
        length = self._length()
        begin = self._take(1, length)
        self.fixed.append((begin, begin + length))
        try:
            return self.payload[begin:begin + length].rstrip(b"\0").decode()
        except UnicodeDecodeError as error:
            raise MalformedMessage("a text that is none") from error

    def read(self, name: str, kind: str) -> None:
        """One field of kind time (to [ns]), string, string[], dimension[] (of a MultiArray), or a number (numpy's f4,
        f8, u4, u8) or array of these ("f8[]")."""
        if kind == "string":
            self.texts[name] = (self._text(),)
        elif kind == "string[]":
            self.texts[name] = tuple([self._text() for _ in range(self._count(4))])
        elif kind == "dimension[]":
            for _ in range(self._count(12)):
                self._text()
                self._take(4, 2)
        elif kind == "time":
            self.numbers[name] = (self._take(4, 2), "time", None)
        else:
            size = int(kind[1])
            count = self._count(size) if kind.endswith("[]") else None
            begin = self._take(size, 1 if count is None else count)
            self.numbers[name] = (begin, self.order + kind[:2], count)

    def _count(self, size: int) -> int:
        """Length of a sequence whose elements take at least `size` bytes; no more than there is room for."""
        count = self._length()
        if count * size > len(self.payload):
            raise MalformedMessage("cut short")
        return count


class Decoder:
    """Reads the messages of one topic.

    :param kind: one of `SCHEMAS`.
    """

    def __init__(self, kind: str) -> None:
        self._fields = SCHEMAS[kind]
        self._layouts: dict[int, tuple[Layout, npt.NDArray[np.int_], npt.NDArray[np.uint8]]] = {}

    def decode(self, payloads: Sequence[bytes]) -> tuple[list[Batch], int]:
        """Batches in the order of the payloads, and how many of these were malformed."""
        batches, malformed, first = [], 0, 0
        while first < len(payloads):
            layout = self._layout(payloads[first])
            if layout is None:
                malformed, first = malformed + 1, first + 1
                continue
            reader, fixed, template = layout
            size, last = len(payloads[first]), first + 1
            while last < len(payloads) and len(payloads[last]) == size:
                last += 1
            table = np.frombuffer(b"".join(payloads[first:last]), np.uint8).reshape(-1, size)
            alike = (table[:, fixed] == template).all(axis=1)
            count = len(alike) if alike.all() else int(np.argmin(alike))
            batches.append(Batch({name: _read(table[:count], *where, reader.order)
                                  for name, where in reader.numbers.items()}, reader.texts,
                                 np.arange(first, first + count)))
            first += count
        return batches, malformed

    def _layout(self, payload: bytes) -> tuple[Layout, npt.NDArray[np.int_], npt.NDArray[np.uint8]] | None:
        """That of the last message of this size, if it fits, else a new one; None for a malformed message."""
        row = np.frombuffer(payload, np.uint8)
        known = self._layouts.get(len(payload))
        if known is not None and np.array_equal(row[known[1]], known[2]):
            return known
        try:
            reader = layout_of(payload, self._fields)
        except MalformedMessage:
            return None
        fixed = np.concatenate([np.arange(begin, end) for begin, end in reader.fixed])
        if len(self._layouts) > 64:  # sizes that come and go must not fill the memory
            self._layouts.clear()
        self._layouts[len(payload)] = layout = (reader, fixed, row[fixed].copy())
        return layout


def layout_of(payload: bytes, fields: Fields) -> Layout:
    """The layout of one message. :raises MalformedMessage: it is none of this type, or cut short."""
    layout = Layout(payload)
    for name, kind in fields:
        layout.read(name, kind)
        if name == "points":
            _enter_points(layout)
    return layout


def _enter_points(reader: Layout) -> None:
    """The number of points must be known, as it decides whether there is a first one to read."""
    begin = reader.numbers["points"][0]
    reader.fixed.append((begin, begin + 4))
    if reader.payload[begin:begin + 4] == bytes(4):
        raise MalformedMessage("no points")


def _read(table: npt.NDArray[np.uint8], begin: int, kind: str, count: int | None,
          order: str) -> npt.NDArray[Any]:
    """Numbers at one place of every message (K, size): (K,), or (K, count)."""
    if kind == "time":
        parts = np.ascontiguousarray(table[:, begin:begin + 8]).view(order + "u4").astype(np.int64)
        seconds = parts[:, 0].astype(np.int32).astype(np.int64)
        return np.asarray(seconds * 1_000_000_000 + parts[:, 1])
    size = int(kind[-1])
    if count == 0:
        return np.zeros((len(table), 0))
    block = np.ascontiguousarray(table[:, begin:begin + size * (1 if count is None else count)])
    values: npt.NDArray[Any] = block.view(kind).astype(kind[1:])
    return values[:, 0] if count is None else values

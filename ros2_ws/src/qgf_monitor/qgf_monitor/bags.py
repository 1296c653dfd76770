# SPDX-License-Identifier: Apache-2.0
"""Bags (rosbag2 in sqlite3 or mcap) as serialised messages, also damaged ones: whatever can be read, and a note on what
cannot. No ROS is needed."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.rosbag2.storage_mcap import decompress, zstd

from qgf_core.errors import QgfError

_REFUSED = (ReaderError, sqlite3.Error, OSError, ValueError, KeyError, IndexError, AssertionError, EOFError,
            RuntimeError, TypeError, AttributeError, MemoryError, OverflowError, struct.error, apsw.Error,
            zstd.ZstdError)
"""What reading a damaged bag raises; the library lets the errors of its own code pass."""


class Message(NamedTuple):
    """A message as it was recorded."""

    topic: str
    payload: bytes
    received: int
    """[ns]"""


class Bag:
    """A bag for reading.

    :param path: folder of a bag, or one of its files.
    :raises QgfError: there is nothing of a bag.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise QgfError(f"{path}: no such bag; check the path")
        self._files = sorted(path.glob("*.db3")) + sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        if not [file for file in self._files if file.suffix in (".db3", ".mcap")]:
            raise QgfError(f"{path}: no bag of rosbag2 (.db3 or .mcap); give its folder or file")
        self.notes: list[str] = []
        """What could not be read."""
        self.topics: dict[str, str] = {}
        """Message types by topic; of a damaged bag, those seen so far."""
        self._reader: Reader | None = None
        try:
            with Reader(path) as reader:
                self.topics = {connection.topic: connection.msgtype for connection in reader.connections}
            self._reader = reader
        except _REFUSED as error:
            self.notes.append(f"not a whole bag ({_line(error)}): what can be read is read")
            for _ in self._salvage():  # to know the topics
                pass

    def messages(self) -> Iterator[Message]:
        """All messages of the bag, or as many as can be read."""
        count = 0
        if self._reader is not None:
            try:
                with Reader(self.path) as reader:
                    for connection, received, payload in reader.messages():
                        yield Message(connection.topic, bytes(payload), received)
                        count += 1
                return
            except _REFUSED as error:
                self.notes.append(f"damaged after {count} messages ({_line(error)})")
        if count == 0:
            yield from self._salvage(self.notes)

    def _salvage(self, notes: list[str] | None = None) -> Iterator[Message]:
        """File by file, without the index and the summary that a recorder writes at its end."""
        readers: dict[str, Callable[[Path, dict[str, str]], Iterator[Message]]] = {
            ".db3": _salvage_sqlite, ".mcap": _salvage_mcap}
        for file in self._files:
            try:
                yield from readers[file.suffix](file, self.topics)
            except _REFUSED as error:
                if notes is not None:
                    notes.append(f"{file.name}: cut short ({_line(error)})")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _salvage_sqlite(file: Path, topics: dict[str, str]) -> Iterator[Message]:
    """Messages in the order in which they were written."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db3"
        shutil.copyfile(file, copy)
        with copy.open("r+b") as stream:  # a file shorter than its header tells is refused as a whole
            header = stream.read(100)
            page = struct.unpack_from(">H", header, 16)[0]
            stream.seek(28)
            stream.write(struct.pack(">I", copy.stat().st_size // (65536 if page == 1 else page or 4096)))
        yield from _rows(copy, topics)


def _rows(file: Path, topics: dict[str, str]) -> Iterator[Message]:
    database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        names = {}
        for number, name, kind in database.execute("SELECT id, name, type FROM topics"):
            names[number], topics[name] = name, kind
        for topic, received, payload in database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id"):
            if topic in names and isinstance(payload, bytes):
                yield Message(names[topic], payload, int(received))
    finally:
        database.close()


_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 3, 4, 5, 6, 15
_LARGEST = 1 << 31


def _salvage_mcap(file: Path, topics: dict[str, str]) -> Iterator[Message]:
    """Messages in the order in which they were written, by the specification of MCAP version 0."""
    with file.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as an mcap file")
        schemas: dict[int, str] = {}
        channels: dict[int, str] = {}
        while True:
            head = stream.read(9)
            if len(head) < 9:
                raise EOFError("it ends without an end")
            kind, size = struct.unpack("<BQ", head)
            if kind == _DATA_END:
                return
            content = stream.read(min(size, _LARGEST))
            if kind == _CHUNK:  # one that is not compressed can be read as far as it goes
                for inner, record in _chunk(content):
                    yield from _mcap_record(inner, record, schemas, channels, topics)
            elif len(content) == size:
                yield from _mcap_record(kind, content, schemas, channels, topics)
            if len(content) < size:
                raise EOFError("it ends within a record")


def _chunk(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The records in a chunk."""
    size, checksum, length = struct.unpack_from("<16xQII", content)
    compression = content[32:32 + length].decode()
    data = content[40 + length:]
    if size > _LARGEST:
        raise ValueError(f"a chunk of {size} bytes")
    if compression:
        data = decompress(data, compression, size, checksum)
    place = 0
    while place + 9 <= len(data):
        kind, length = struct.unpack_from("<BQ", data, place)
        if place + 9 + length > len(data):
            return
        yield kind, data[place + 9:place + 9 + length]
        place += 9 + length


def _mcap_record(kind: int, record: bytes, schemas: dict[int, str], channels: dict[int, str],
                 topics: dict[str, str]) -> Iterator[Message]:
    def text(place: int) -> str:
        length: int = struct.unpack_from("<I", record, place)[0]
        return record[place + 4:place + 4 + length].decode()

    if kind == _SCHEMA:
        schemas[struct.unpack_from("<H", record)[0]] = text(2)
    elif kind == _CHANNEL:
        number, schema = struct.unpack_from("<HH", record)
        channels[number] = text(4)
        topics[channels[number]] = schemas.get(schema, "")
    elif kind == _MESSAGE:
        channel, _, received = struct.unpack_from("<HIQ", record)
        if channel in channels:
            yield Message(channels[channel], record[22:], received)


def describe(topics: dict[str, Any]) -> str:
    """Topics and their types in a line."""
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(topics.items())) or "none"

# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file with JSON and checksums in its header, written atomically, so that it is whole or
the one before; a training keeps the one before as well, for a disk that damages what it was given."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic

_VERSION = 2
_WITHOUT_CHECKSUMS = 1  # an older file, which is still read


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of its bytes: for damage, not for malice."""
    return zlib.crc32(tensor.contiguous().numpy().reshape(-1).view("uint8").data)


def previous_of(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(
    path: Path, tensors: dict[str, Tensor], values: dict[str, Any], keep_previous: bool = False
) -> None:
    """Write tensors and plain values.

    :param keep_previous: the file that is there stays, as `previous_of(path)`.
    :raises QgfError: the disk is full; the checkpoint before stays.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    checksums = {name: _checksum(tensor) for name, tensor in whole.items()}
    text = json.dumps({"version": _VERSION, "checksums": checksums, **values})
    data = save(whole, metadata={"qgf": text, "qgf_checksum": str(zlib.crc32(text.encode()))})
    if keep_previous and path.exists():
        _keep(path)
    write_atomic(path, data)


def _keep(path: Path) -> None:
    """A second name for the file, so that `path` is there at every moment; a copy where there are no second names."""
    kept, temporary = previous_of(path), path.with_name(f".{path.name}.previous")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        os.replace(temporary, kept)
    except OSError as error:
        raise QgfError(f"{kept}: cannot be written ({error.strerror}); free space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)  # a rename between two names of one file leaves both


def load_checkpoint(
    path: Path, problem: str = "cannot be resumed from", remedy: str = "train again with --overwrite"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_checkpoint` wrote.

    :param problem, remedy: for the message. :raises QgfError: missing, damaged or of another version.
    """
    try:
        with safe_open(str(path), framework="pt") as stored:
            metadata = stored.metadata() or {}
            values = json.loads(metadata["qgf"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise QgfError(f"{path}: {problem} ({error}); {remedy}") from error
    version = values.pop("version", None)
    if version == _WITHOUT_CHECKSUMS:
        return tensors, values
    if version != _VERSION:
        raise QgfError(f"{path}: was written by another version; {remedy}")
    checksums = values.pop("checksums", {})
    damaged = [name for name in checksums.keys() | tensors.keys() if not _is_whole(name, tensors, checksums)]
    if metadata.get("qgf_checksum") != str(zlib.crc32(metadata["qgf"].encode())):
        damaged.append("its settings")
    if damaged:
        raise QgfError(f"{path}: {problem} ({min(damaged)} is damaged); {remedy}")
    return tensors, values


def _is_whole(name: str, tensors: dict[str, Tensor], checksums: dict[str, int]) -> bool:
    return name in tensors and name in checksums and _checksum(tensors[name]) == checksums[name]


def load_last_checkpoint(path: Path, warn: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The checkpoint, or where it is damaged or missing the one before, with a warning.

    :raises QgfError: neither can be read.
    """
    try:
        return load_checkpoint(path)
    except QgfError as error:
        try:
            found = load_checkpoint(previous_of(path))
        except QgfError:
            raise error from None
        what, before = str(error).partition(";")[0], previous_of(path).name
        warn(f"{what}; going on from {before}, which is of step {found[1].get('step')}")
        return found

# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file with JSON in its header, written atomically, so that it is whole or the one
before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic

_VERSION = 1


def save_checkpoint(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write tensors and plain values. :raises QgfError: the disk is full; the checkpoint before stays."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(whole, metadata={"qgf": json.dumps({"version": _VERSION, **values})}))


def load_checkpoint(
    path: Path, problem: str = "cannot be resumed from", remedy: str = "train again with --overwrite"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_checkpoint` wrote.

    :param problem, remedy: for the message. :raises QgfError: missing, damaged or of another version.
    """
    try:
        with safe_open(str(path), framework="pt") as stored:
            values = json.loads((stored.metadata() or {})["qgf"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise QgfError(f"{path}: {problem} ({error}); {remedy}") from error
    if values.pop("version", None) != _VERSION:
        raise QgfError(f"{path}: was written by another version; {remedy}")
    return tensors, values

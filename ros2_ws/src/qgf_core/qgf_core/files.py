# SPDX-License-Identifier: Apache-2.0
"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from qgf_core.errors import QgfError


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `data` to `path` by a temporary file beside it, fsync and rename: the old file or the new, never a mix.

    :param mode: of the file; it is the owner's alone until it is whole, so that a secret is never readable by others.
    :raises QgfError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = error.strerror or error
        raise QgfError(f"{path}: cannot be written ({reason}); free space or choose another folder") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)

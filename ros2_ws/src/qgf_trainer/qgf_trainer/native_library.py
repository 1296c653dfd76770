# SPDX-License-Identifier: Apache-2.0
"""The machine code of `csrc/`: made once by the computer's C++ compiler, kept beside the byte code of this module.

Set-up makes it; a program that does not find it makes it when it starts (a few seconds). Where that cannot be, for want
of a compiler or of a place to write, the updates run on torch alone, which takes about a quarter longer. The name of
the file tells what it was made of: sources, instructions of the processor and flags. It is trusted as byte code is:
whoever can write there can change the program itself.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SOURCES = Path(__file__).parent / "csrc"
SWITCH = "QGF_NATIVE"
"""Environment variable: 0 leaves the machine code alone."""

_FLAGS = ("-std=gnu++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_INSTRUCTIONS = {"AVX512": ("-march=x86-64-v4",), "AVX2": ("-march=x86-64-v3",)}

_logger = logging.getLogger(__name__)


class _Named(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p))


def functions(dtype: torch.dtype) -> Mapping[str, int] | None:
    """Addresses of the functions for this kind of number, by name; None where there are none."""
    library = _library()
    start = {torch.float32: "qgf_single", torch.float64: "qgf_double"}.get(dtype)
    if library is None or start is None:
        return None
    table = getattr(library, start)
    table.restype = ctypes.POINTER(_Named)
    found: dict[str, int] = {}
    for entry in table():
        if entry.name is None:
            return found
        found[entry.name.decode()] = entry.function
    return found


def build() -> Path:
    """The library, made if it is not there. :raises OSError, subprocess.CalledProcessError: it cannot be."""
    name = _name()
    for folder in _folders():
        if (folder / name).exists() and _is_guarded(folder) and _is_guarded(folder / name):
            return folder / name
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise FileNotFoundError("no C++ compiler; on Debian and Ubuntu: sudo apt-get install g++")
    place = next(filter(_can_write, _folders()), None)
    if place is None:
        raise PermissionError(f"neither {' nor '.join(map(str, _folders()))} can be written")
    path = place / name
    handle, unfinished = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        command = [*compiler.split(), *_flags(), str(SOURCES / "library.cpp"), "-o", unfinished]
        subprocess.run(command, check=True, capture_output=True, text=True)
        Path(unfinished).chmod(0o644)  # as byte code: set-up may be another user's
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return path


def _flags() -> tuple[str, ...]:
    return (*_FLAGS, *_INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ()))


def _name() -> str:
    digest = hashlib.sha256(" ".join(_flags()).encode())
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in (".h", ".cpp"):
            digest.update(source.read_bytes())
    return f"native-{digest.hexdigest()[:16]}.so"


def _folders() -> tuple[Path, Path]:
    """Where it may be: beside the byte code, or, where that cannot be written, in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(__file__).parent / "__pycache__", cache / "qgf"


def _is_guarded(path: Path) -> bool:
    """Whether not everybody may write it."""
    return not path.stat().st_mode & stat.S_IWOTH


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError:
        return False
    return os.access(folder, os.W_OK) and _is_guarded(folder)


@functools.cache
def _library() -> Any:
    """The library, or None; why is said once."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        return ctypes.CDLL(str(build()))
    except subprocess.CalledProcessError as error:
        reason = next(iter(error.stderr.strip().splitlines()), str(error))
    except OSError as error:
        reason = str(error)
    _logger.warning("updates run on torch alone, which is slower: their machine code cannot be made (%s)", reason)
    return None

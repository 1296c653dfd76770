# SPDX-License-Identifier: Apache-2.0
"""A ROS domain for one demo alone, so that demos side by side do not hear each other's arms."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from types import TracebackType

from qgf_core.errors import QgfError

DOMAINS = range(1, 102)
"""Domains whose ports lie below those that Linux hands out itself."""


class Domain:
    """A claimed ROS_DOMAIN_ID; nobody else gets it until `close`, or until this process ends in whatever way.

    :raises QgfError: all domains are held.
    """

    def __init__(self, preferred: str | None = None) -> None:
        """:param preferred: taken if it is free, such as the user's own ROS_DOMAIN_ID."""
        order = [int(preferred)] if preferred and preferred.isdigit() and int(preferred) in DOMAINS else []
        # Demos that start together begin to look at different places.
        order += [DOMAINS[(os.getpid() + i) % len(DOMAINS)] for i in range(len(DOMAINS))]
        for number in order:
            descriptor = _lock(lock_file(number))
            if descriptor is not None:
                self.id, self._descriptor = number, descriptor
                return
        raise QgfError(
            f"ROS_DOMAIN_ID: all domains from {DOMAINS[0]} to {DOMAINS[-1]} are held by other runs (locks "
            f"{lock_file('*')}); end some of them"
        )

    def close(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Domain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_file(number: int | str) -> Path:
    """The file whose lock claims a domain; ./qgf uses the same ones for its test runs."""
    return Path(tempfile.gettempdir()) / f"qgf-domain-{number}.lock"


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock of `path`, or None if somebody else does."""
    try:
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        # Opened for reading, because another user's file in a shared folder may not be opened for writing.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor

# SPDX-License-Identifier: Apache-2.0
"""A grid of trainings on a Ray cluster: each is a task of one processor, on whichever machine has one free.

The comparison's folder must be one that all machines of the cluster see, such as on NFS: a training writes its
checkpoints there, so that another machine can go on with it. QGF must be set up on each.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qgf_core.errors import QgfError
from qgf_trainer.comparison import Cell, Outcome, run_cell

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, which ends with the comparison."""
_TELL_EVERY = 0.5
"""Progress is asked for this often [s]."""


class _Shares:
    """Actor: how far each cell has come."""

    def __init__(self) -> None:
        self._shares: dict[Cell, float] = {}

    def tell(self, cell: Cell, share: float) -> None:
        """A cell has come so far, 0 to 1."""
        self._shares[cell] = share

    def shares(self) -> dict[Cell, float]:
        """Of all cells that have begun."""
        return self._shares


def _train(cell: Cell, root: str, more: Sequence[str], shares: Any) -> Outcome:
    """On a machine of the cluster. Cancelled, it stops its training, which saves."""
    folder = Path(root)
    if not (folder / "grid.json").exists():
        reason = f"{os.uname().nodename} does not see {root}; give --out a folder that all machines of the cluster see"
        return Outcome(cell, None, reason)
    return run_cell(cell, folder, more, lambda of, share: shares.tell.remote(of, share), threading.Event())


def run_grid_on_ray(
    cells: Sequence[Cell],
    root: Path,
    more: Sequence[str],
    address: str,
    tell: Callable[[Cell, float], None] = lambda cell, share: None,
    jobs: int = 0,
) -> list[Outcome]:
    """As `comparison.run_grid`, by a cluster.

    A machine that is lost is an outcome of its cells, as a crash is: the next call goes on with them.

    :param address: of the cluster (HOST:PORT, ray://HOST:PORT, auto), or LOCAL.
    :param jobs: processors of a local cluster; 0: all.
    :raises QgfError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise QgfError("--ray: Ray is not installed here; install it: pip install ray") from error
    _reach(address)
    where: dict[str, Any] = {"address": address}
    if address == LOCAL:
        # The workers import what we import, by the same interpreter.
        variables = {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        where = {"address": LOCAL, "num_cpus": jobs or None, "include_dashboard": False,
                 "runtime_env": {"env_vars": variables}}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(**where, configure_logging=False, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "start it there with `ray start --head`, or leave the address out for this machine alone"
        raise QgfError(f"--ray {address}: no cluster ({reason}); {remedy}") from error
    try:
        shares = ray.remote(num_cpus=0)(_Shares).remote()
        task = ray.remote(num_cpus=1, max_retries=0)(_train)
        running = [task.remote(cell, str(root.resolve()), list(more), shares) for cell in cells]
        try:
            return _collect(ray, cells, running, shares, tell)
        except BaseException:
            for reference in running:
                ray.cancel(reference)
            ray.wait(running, num_returns=len(running), timeout=30.0)
            raise
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself takes minutes to give up. :raises QgfError: nobody answers at HOST:PORT or ray://HOST:PORT."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdecimal():
        return  # a word of Ray's
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        remedy = "start the cluster there with `ray start --head`, or leave the address out for this machine alone"
        raise QgfError(f"--ray {address}: nobody answers ({error}); {remedy}") from error


def _collect(
    ray: Any, cells: Sequence[Cell], running: Sequence[Any], shares: Any, tell: Callable[[Cell, float], None]
) -> list[Outcome]:
    """Waits for all, telling of progress."""
    waiting = list(running)
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_TELL_EVERY)
        for cell, share in ray.get(shares.shares.remote()).items():
            tell(cell, share)
    outcomes = []
    for cell, reference in zip(cells, running, strict=True):
        try:
            outcomes.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            outcomes.append(Outcome(cell, None, f"its machine or process was lost: {reason}"))
    return outcomes

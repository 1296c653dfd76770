# SPDX-License-Identifier: Apache-2.0
"""Runs a node of this package from its construction to a signal."""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from qgf_core.early import ends_within
from qgf_core.errors import QgfError

SERVED = 0.2
"""A service of a node with ticks waits for so long at most [s]."""
CLOCK = 0.02
"""The same where the executor also takes /clock: the stamps of reports are late by no more [s]."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def keep_memory() -> None:
    """Let the C library keep what is freed, as the same sizes are asked for again ten times a second: by default arrays
    above 128 kB are mapped anew each time, and every page of them faults."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 128 << 20)


def run(make: Callable[[], Node], args: Sequence[str] | None) -> int:
    """Spin what `make` gives until SIGINT or SIGTERM. Where the node has `ticks`, those are its work, and the executor
    serves its services in between. :returns: the exit code: 0, or 2 for a mistake of the user."""
    keep_memory()
    stop: list[bool] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.append(True))
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
    except (QgfError, InvalidParameterTypeException, InvalidTopicNameException) as error:
        print("qgf: error:", *str(error).split(), file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ticks = getattr(node, "ticks", None)
    if ticks is not None:
        simulated = node.get_parameter("use_sim_time").value
        ticks.every(CLOCK if simulated else SERVED, lambda: executor.spin_once(timeout_sec=0.0))
    while not stop:  # a signal is noticed in between
        if ticks is None:
            executor.spin_once(timeout_sec=SERVED)
        else:
            time.sleep(min(ticks.run(), SERVED))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal's and a launch's: the second one finds us ending
    with ends_within():
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0

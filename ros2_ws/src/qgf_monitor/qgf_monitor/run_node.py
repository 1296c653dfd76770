# SPDX-License-Identifier: Apache-2.0
"""Runs a node of this package from its construction to a signal."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from qgf_core.errors import QgfError


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
    """Spin what `make` gives until SIGINT or SIGTERM. :returns: the exit code: 0, or 2 for a mistake of the user."""
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
    while not stop:
        executor.spin_once(timeout_sec=0.2)  # in which a signal is noticed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal's and a launch's: the second one finds us ending
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0

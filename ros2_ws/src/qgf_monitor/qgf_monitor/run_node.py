# SPDX-License-Identifier: Apache-2.0
"""Runs a node of this package from its construction to a signal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from qgf_core.errors import QgfError


def run(make: Callable[[], Node], args: Sequence[str] | None) -> int:
    """Spin what `make` gives until SIGINT or SIGTERM. :returns: the exit code: 0, or 2 for a mistake of the user."""
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

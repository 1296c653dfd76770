# SPDX-License-Identifier: Apache-2.0
"""How a node of this package ends: by a signal, or with one line for a user's error."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation

from qgf_core.errors import QgfError

RCLError, UnknownROSArgsError = rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError


def exit_code(run: Callable[[], None]) -> int:
    """Run a node, from `rclpy.init` to its end. :return: 0, or 2 for a user's error, which is told."""
    try:
        run()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except UnknownROSArgsError as error:
        print(f"qgf: error: unknown ROS arguments {error}; leave them out", file=sys.stderr)
        return 2
    except (QgfError, ParameterException, RCLError) as error:
        print("qgf: error:", *str(error).split(), file=sys.stderr)
        return 2
    return 0

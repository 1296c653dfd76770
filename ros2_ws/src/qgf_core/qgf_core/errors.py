# SPDX-License-Identifier: Apache-2.0
"""Exceptions of QGF. Every one carries a one-line message that names the place, the value and the remedy."""

from __future__ import annotations


class QgfError(Exception):
    """Base of all errors that a user can cause and mend. Command lines print it in one line and exit with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # one line, whatever a library or a value brought in


class ConfigError(QgfError, ValueError):
    """A configuration file or value that cannot be used.

    :param source: file (or command-line option) at fault.
    :param key: dotted key inside it, empty if the file as a whole is at fault.
    :param problem: what is wrong, with the value.
    :param remedy: what to do about it.
    """

    def __init__(self, source: object, key: str, problem: str, remedy: str) -> None:
        self.source, self.key, self.problem, self.remedy = str(source), key, problem, remedy
        place = f"{source}: {key}" if key else str(source)
        super().__init__(f"{place}: {problem}; {remedy}")


class RobotError(ConfigError):
    """A robot description (YAML or URDF) that contradicts itself or cannot be used."""


class BundleError(QgfError):
    """A policy bundle that is damaged, unsafe, of another schema, or not for this robot."""


class StateError(QgfError, ValueError):
    """A joint state or goal that must not be acted upon. `kind` names the fault as counted in PolicyStatus."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class MetricError(QgfError, ValueError):
    """A signal from which a metric cannot be computed: too short, not finite, wrong shape, rate not positive."""

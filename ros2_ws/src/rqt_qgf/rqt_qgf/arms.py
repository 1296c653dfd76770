# SPDX-License-Identifier: Apache-2.0
"""Which arms there are, by the topics in the graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STATUS, REPORT = "qgf_msgs/msg/PolicyStatus", "qgf_msgs/msg/SmoothnessReport"


@dataclass(frozen=True, order=True)
class Arm:
    """A policy node and the monitor beside it, by their full names; one of them may be missing ("")."""

    namespace: str
    policy: str
    monitor: str

    def same(self, other: Arm) -> bool:
        """Whether it is the other one, maybe with another monitor beside it."""
        return (self.namespace, self.policy) == (other.namespace, other.policy) and bool(
            self.policy or self.monitor == other.monitor)

    @property
    def title(self) -> str:
        """How to call it."""
        return f"{self.namespace} ({(self.policy or self.monitor).rpartition('/')[2]})"

    @property
    def joint_states(self) -> str:
        """Topic of its joint states."""
        return f"{self.namespace.rstrip('/')}/joint_states"


def find_arms(topics: Iterable[tuple[str, Iterable[str]]]) -> list[Arm]:
    """The arms behind topics and their types: each policy node, with the monitors of its namespace, and each monitor
    that has no policy beside it."""
    found: dict[str, dict[str, list[str]]] = {STATUS: {}, REPORT: {}}
    for topic, types in topics:
        node, _, last = topic.rpartition("/")
        for kind, wanted in ((STATUS, "status"), (REPORT, "report")):
            if kind in types and last == wanted and node:
                found[kind].setdefault(node.rpartition("/")[0] or "/", []).append(node)
    arms = []
    for namespace in sorted(set(found[STATUS]) | set(found[REPORT])):
        policies, monitors = sorted(found[STATUS].get(namespace, [])), sorted(found[REPORT].get(namespace, []))
        for policy in policies:
            arms.append(Arm(namespace, policy, monitors[0] if monitors else ""))
        if not policies:
            arms += [Arm(namespace, "", monitor) for monitor in monitors]
    return arms

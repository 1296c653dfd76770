# SPDX-License-Identifier: Apache-2.0
"""The nodes at the ends of a topic, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNKNOWN = "_NODE_NAME_UNKNOWN_"
"""The middleware's word for a node of which an end of a topic is known, but not yet its name."""


def unnamed(infos: Sequence[Any]) -> bool:
    """Whether a node's name is not yet known.

    :param infos: as rclpy's `get_publishers_info_by_topic` and `get_subscriptions_info_by_topic` give them.
    """
    return any(info.node_name == UNKNOWN for info in infos)


def node_names(infos: Sequence[Any]) -> list[str]:
    """The names in the middleware's order; words for one that is not known."""
    return ["a node whose name is not known" if info.node_name == UNKNOWN else info.node_name for info in infos]

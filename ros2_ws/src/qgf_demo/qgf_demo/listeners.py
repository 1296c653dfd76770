# SPDX-License-Identifier: Apache-2.0
"""Who hears what is about to be published."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.publisher import Publisher


def owner_hears(node: Node, publisher: Publisher) -> bool:
    """Whether a topic of the form NODE/NAME reaches that node. Others may listen too, as the monitor does to goals, and
    that these are there does not tell that it is."""
    owner = publisher.topic_name.rsplit("/", 2)[-2]
    listeners = node.get_subscriptions_info_by_topic(publisher.topic_name)
    known = any(listener.node_name == owner for listener in listeners)
    return known and publisher.get_subscription_count() >= len(listeners)

# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
from rclpy.context import Context
from rclpy.node import Node

from qgf_policy.endpoints import UNKNOWN, node_names, unnamed


def test_a_name_that_is_not_yet_known_is_told_in_words():
    infos = [SimpleNamespace(node_name=name) for name in ("arm", UNKNOWN)]
    assert unnamed(infos) and not unnamed(infos[:1]) and not unnamed([])
    assert node_names(infos) == ["arm", "a node whose name is not known"]


@pytest.mark.ros
def test_the_middleware_says_names_in_that_way(domain):
    from std_msgs.msg import Bool

    context = Context()
    context.init(domain_id=domain)
    node = Node("one", context=context)
    try:
        node.create_subscription(Bool, "topic", lambda _: None, 1)
        infos = node.get_subscriptions_info_by_topic("/topic")
        assert node_names(infos) == ["one"] and not unnamed(infos)
    finally:
        node.destroy_node()
        context.shutdown()

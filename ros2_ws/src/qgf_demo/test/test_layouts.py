# SPDX-License-Identifier: Apache-2.0
"""The layouts for rqt, PlotJuggler and Foxglove name what is published, down to the field; test_governor_live looks for
their topics among those of running nodes."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from qgf_core.config import config_root
from qgf_monitor.config import load_config
from qgf_msgs.msg import PolicyCommand, PolicyStatus

FOLDER = config_root() / "layouts"
KINDS = {"/policy_node/command": PolicyCommand, "/policy_node/status": PolicyStatus, "/joint_states": JointState,
         "/diagnostics": DiagnosticArray}


def kind_of(topic):
    if topic in KINDS:
        return KINDS[topic]
    source, figure = re.fullmatch(r"/monitor_node/plain/(\w+)/(\w+)", topic).groups()
    config = load_config()
    assert source in config.sources and figure in config.plain
    return Float64


def check(topic, field):
    """A field, or an element of one, as the tools name it."""
    types = kind_of(topic).get_fields_and_field_types()
    name, element = re.fullmatch(r"(\w+)(\[\d+\])?", field).groups()
    assert name in types and types[name].startswith("sequence<") == bool(element), f"{topic}: {field}"


def foxglove():
    """Panels by id, as the file has them, and the layout's leaves."""
    layout = json.loads((FOLDER / "foxglove.json").read_text())

    def leaves(part):
        return [part] if isinstance(part, str) else [*leaves(part["first"]), *leaves(part["second"])]

    return layout["configById"], leaves(layout["layout"])


def plotjuggler():
    """Curves and subscribed topics."""
    root = ElementTree.parse(FOLDER / "plotjuggler.xml").getroot()
    return ([curve.get("name") for curve in root.iter("curve")],
            root.find("Plugins/plugin/selected_topics").get("value").split(";"))


def test_foxglove():
    panels, leaves = foxglove()
    assert sorted(leaves) == sorted(panels) and len(leaves) > 5
    for panel in panels.values():
        for path in panel.get("paths", ()):
            check(*path["value"].split(".", 1))


def test_plotjuggler():
    curves, topics = plotjuggler()
    assert len(curves) > 20 and len(set(topics)) == len(topics)
    used = set()
    for curve in curves:
        topic, _, field = curve.rpartition("/")
        check(topic, field)
        used.add(topic)
    assert used == set(topics)  # nothing is drawn that is not subscribed to, and nothing subscribed to in vain


def test_rqt_perspective():
    groups = json.loads((FOLDER / "qgf.perspective").read_text())["groups"]["pluginmanager"]
    running = ast.literal_eval(groups["keys"]["running-plugins"]["repr"])
    plugin = ElementTree.parse(config_root().parent / "ros2_ws" / "src" / "rqt_qgf" / "plugin.xml").find("class")
    assert running == {f"rqt_qgf/{plugin.get('name')}": [1]}
    assert set(groups["groups"]) == {f"plugin__rqt_qgf__{plugin.get('name')}__1"}


@pytest.mark.parametrize(("topic", "field"), [("/policy_node/status", "nothing"), ("/policy_node/command", "command")])
def test_the_check_itself_sees_mistakes(topic, field):
    with pytest.raises(AssertionError):
        check(topic, field)

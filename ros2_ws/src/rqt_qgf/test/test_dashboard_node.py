# SPDX-License-Identifier: Apache-2.0
"""The widget over DDS: a real policy node in another process is found, shown, stopped, and missed when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from qgf_demo.domain import Domain
from qgf_msgs.msg import PolicyStatus, SmoothnessReport
from rqt_qgf.arms import Arm

pytestmark = pytest.mark.ros
POLICY = ["-c", "from qgf_policy.start import main; main()", "--ros-args", "-r", "__ns:=/left"]


@pytest.fixture
def domain():
    with Domain() as domain:
        yield domain.id


@pytest.fixture
def scene(domain, application):
    """A policy node in its own process, and the widget with a node here; Qt and ROS both run in `until`."""
    from rqt_qgf.link_node import RosLink
    from rqt_qgf.widget import Dashboard

    class Scene:
        context = Context()

        def start(self):
            environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
            self.process = subprocess.Popen([sys.executable, *POLICY], env=environment)

        def until(self, condition, what, timeout=40.0):
            end = time.monotonic() + timeout
            while not condition():
                shown = (self.widget.headline.text(), self.widget.message.text(), self.widget.facts)
                assert time.monotonic() < end, f"not within {timeout} s: {what}; shown are {shown}"
                self.executor.spin_once(timeout_sec=0.02)
                application.processEvents()

    scene = Scene()
    rclpy.init(context=scene.context, domain_id=domain)
    scene.node = rclpy.create_node("dashboard", context=scene.context)
    scene.executor = SingleThreadedExecutor(context=scene.context)
    scene.executor.add_node(scene.node)
    scene.widget = Dashboard(RosLink(scene.node))
    scene.start()
    yield scene
    scene.process.kill()
    scene.process.wait(10.0)
    scene.widget.close_link()
    scene.executor.shutdown()
    scene.node.destroy_node()
    rclpy.shutdown(context=scene.context)


def test_a_node_is_found_stopped_reset_and_missed(scene):
    widget, statuses, mode = scene.widget, [], lambda: statuses[-1].mode if statuses else None
    scene.node.create_subscription(PolicyStatus, "/left/policy_node/status", statuses.append, 10)
    assert "hardware's" not in widget.message.text()
    widget.buttons["estop"].click()  # nobody is there yet, and it says so
    assert "hardware's" in widget.message.text()
    scene.until(lambda: widget.buttons["configure"].isEnabled(), "a lifecycle state of the node")
    # The state comes by a service, the mode by a topic: in either order.
    scene.until(lambda: widget.facts["mode"].text() == "UNCONFIGURED", "the node's mode, as shown")
    assert mode() == PolicyStatus.UNCONFIGURED

    widget.buttons["configure"].click()  # without a bundle: refused, and told why
    scene.until(lambda: "REFUSED" in widget.message.text(), "a refusal")
    scene.until(lambda: "configure refused" in widget.detail.text(), "the reason")

    widget.buttons["estop"].click()
    scene.until(lambda: mode() == PolicyStatus.ESTOPPED, "the emergency stop, by the node's own word")
    scene.until(lambda: "ESTOPPED" in widget.headline.text(), "the emergency stop, as shown")
    assert widget.headline.text().startswith("■") and "estop: done" in widget.message.text()
    widget.buttons["reset_estop"].click()
    scene.until(lambda: mode() == PolicyStatus.UNCONFIGURED, "the reset")

    # The node hangs for a moment: the request is not lost.
    scene.process.send_signal(signal.SIGSTOP)
    widget.buttons["estop"].click()
    scene.process.send_signal(signal.SIGCONT)
    scene.until(lambda: mode() == PolicyStatus.ESTOPPED, "the emergency stop of a node that had hung")

    scene.process.kill()
    scene.until(lambda: widget.headline.text() == "○ no policy, not measured", "the killed node is missed")
    scene.until(lambda: widget.facts["lifecycle"].text() == "no answer", "no lifecycle state any more")
    assert widget.buttons["estop"].isEnabled()


def test_reports_come_through_and_another_arm_can_be_chosen(scene):
    widget = scene.widget
    publisher = scene.node.create_publisher(SmoothnessReport, "/right/watch/report", 10)
    timer = scene.node.create_timer(0.05, lambda: publisher.publish(SmoothnessReport(
        source="joint_velocity", joint_names=["a"], band_rms=[0.125], joint_level=[0], summary="smooth")))
    right = Arm("/right", "", "/right/watch")
    scene.until(lambda: right in widget._arms and len(widget._arms) == 2, "both arms")
    assert widget.arm_choice.currentText() in ("/left (policy_node)", "/right (watch)")
    widget.choose_arm(right)
    scene.until(lambda: widget.table.rowCount() == 1, "a row")
    assert [widget.table.item(0, i).text() for i in range(4)] == ["a", "0.125", "–", "–"]
    timer.cancel()
    scene.until(lambda: widget.table.cellWidget(0, 4).text() == "○ stale", "a stale row")

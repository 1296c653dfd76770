# SPDX-License-Identifier: Apache-2.0
"""The governor over DDS: a policy that chatters on the double is smoothed, calms down, and gets its command back; one
that goes on is held, tried again and stopped, and is the operator's again after a reset."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.config import config_root
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf
from qgf_demo.domain import Domain
from qgf_msgs.msg import PolicyCommand, PolicyStatus

pytestmark = [pytest.mark.ros, pytest.mark.alone]

RATE, LAG = 50.0, 0.06
ROUGH_GOAL, CALM_GOAL = (0.5, 0.2, 0.4), (0.5, -0.2, 0.4)


class Chatterer(torch.nn.Module):
    """Goes to the goal by the Jacobian's pseudo-inverse at home; where the first joint is turned to the left, every
    action also flips by 0.15 against the last one, which is what an overfed critic's field does to a policy."""

    def __init__(self, manifest):
        super().__init__()
        robot, size = manifest.robot, manifest.observation_builder().size
        inverse = np.linalg.pinv(manifest.kinematics().tool_jacobian(robot.home))
        weight = np.zeros((7, size))
        weight[:, -3:] = -1.5 * inverse
        self.linear = torch.nn.Linear(size, 7, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(weight / robot.policy_velocity[:, None]))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        calm = torch.tanh(self.linear(observation))
        left = torch.sigmoid(200.0 * (observation[:, 0:1] - 0.1))
        flip = 0.15 * torch.tanh(8.0 * (calm - observation[:, 14:21]) / 0.15 + 0.1)
        return torch.clamp(calm + left * flip, -1.0, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("governor")


@pytest.fixture(scope="module")
def bundle(folder):
    robot = load_robot("panda")
    terms = (ObservationTerm("joint_position"), ObservationTerm("joint_velocity"), ObservationTerm("previous_action"),
             ObservationTerm("tool_position_error"))
    manifest = make_manifest(
        task="reach", robot=robot, observation=terms,
        action=ActionSpec("joint_velocity", tuple(robot.policy_velocity.tolist())), control_rate=RATE,
        delay_range=(0.0, 0.02), goal_region=Box((0.42, -0.25, 0.30), (0.67, 0.25, 0.60)), training={}, evaluation={},
        urdf=read_urdf(robot))
    probes = np.random.default_rng(0).normal(size=(8, manifest.observation_builder().size))
    save_bundle(folder / "bundle.pt", Chatterer(manifest), manifest, probes)
    return folder / "bundle.pt"


PATIENT = {"smooth_after": 1.0, "release_after": 2.0, "hold_after": 8.0, "hold_time": 2.0}
STRICT = {"smooth_after": 0.5, "release_after": 9.0, "hold_after": 0.4, "hold_time": 0.3}
"""It holds while the window still tells of the chatter before the smoothing, and so takes every step within seconds."""


def governor(folder, name, times):
    """Arguments of a governor_node with these times [s]."""
    settings = {"engage_level": 1, "estop_after": 9.0, "most_holds": 1, "reports_stale_after": 2.0, **times}
    (folder / f"{name}.yaml").write_text(json.dumps(settings))
    return ["-p", f"config:={folder / name}.yaml"]


@pytest.fixture(scope="module")
def scene(folder, bundle):
    """The four nodes as processes, and an operator who hears everything."""
    nodes = {
        "qgf_sim.sim_node": ["-p", "robot:=panda"],
        "qgf_policy.policy_node": [
            "-p", f"bundle:={bundle}", "-p", "autostart:=true", "-p", "allow_controller_without_timeout:=true",
            "-p", f"governor_lag:={LAG}", "-p", "stale_periods:=50.0", "-p", "overrun_share:=1.0"],
        "qgf_monitor.monitor_node": [],
        "qgf_monitor.governor_node": governor(folder, "patient", PATIENT),
    }

    class Scene:
        context, commands, statuses, governor_states = Context(), [], [], []

        def until(self, condition, what, timeout=60.0):
            end = time.monotonic() + timeout
            while not condition():
                last = [(s.mode, s.fault, s.command_mode) for s in self.statuses[-1:]]
                assert time.monotonic() < end, f"not within {timeout} s: {what}; last status {last}"
                self.executor.spin_once(timeout_sec=0.05)

        def topics(self):
            return {topic for topic, _ in self.node.get_topic_names_and_types()}

        def last(self):
            return self.statuses[-1] if self.statuses else PolicyStatus()

        def listen(self, number):
            """The next commands."""
            first = len(self.commands)
            self.until(lambda: len(self.commands) >= first + number, f"{number} commands")
            return self.commands[first:]

        def send(self, goal):
            message = PoseStamped()
            message.header.frame_id = "panda_link0"
            message.pose.position.x, message.pose.position.y, message.pose.position.z = goal
            self.goal.publish(message)

        def note_governor(self, message):
            self.governor_states += [status for status in message.status if status.name.endswith(": governor")]

        def call(self, kind, name, request):
            client = self.node.create_client(kind, name)
            assert client.wait_for_service(10.0)
            future = client.call_async(request)
            self.until(future.done, f"an answer of {name}")
            return future.result()

        def start(self, module, arguments):
            """A node whose log goes to a file of its name."""
            with (folder / f"{module}.log").open("w") as log:
                self.processes[module] = subprocess.Popen(
                    [sys.executable, "-m", module, "--ros-args", *arguments], env=self.environment, stderr=log)

    with Domain() as domain:
        scene = Scene()
        rclpy.init(context=scene.context, domain_id=domain.id)
        scene.node = rclpy.create_node("operator", context=scene.context)
        scene.executor = SingleThreadedExecutor(context=scene.context)
        scene.executor.add_node(scene.node)
        scene.node.create_subscription(PolicyCommand, "/policy_node/command", scene.commands.append, 1000)
        scene.node.create_subscription(PolicyStatus, "/policy_node/status", scene.statuses.append, 100)
        scene.node.create_subscription(DiagnosticArray, "/diagnostics", scene.note_governor, 100)
        scene.goal = scene.node.create_publisher(PoseStamped, "/policy_node/goal", 10)
        scene.environment, scene.processes = {**os.environ, "ROS_DOMAIN_ID": str(domain.id)}, {}
        for module, arguments in nodes.items():
            scene.start(module, arguments)
        yield scene
        for process in scene.processes.values():
            process.kill()
            process.wait(10.0)
        scene.executor.shutdown()
        scene.node.destroy_node()
        rclpy.shutdown(context=scene.context)


def topics_of_layouts():
    """What the layouts for Foxglove and PlotJuggler subscribe to."""
    folder = config_root() / "layouts"
    plotted = ElementTree.parse(folder / "plotjuggler.xml").find("Plugins/plugin/selected_topics").get("value")
    return set(re.findall(r'"value": "([^."]+)\.', (folder / "foxglove.json").read_text())) | set(plotted.split(";"))


def chatter(commands):
    """Mean second difference of the commands [rad/s]: next to 0 in steady movement, 4 A for a flip of amplitude A."""
    return float(np.abs(np.diff(np.array([c.command for c in commands]), 2, axis=0)).mean())


def check_no_jump(commands):
    """Nowhere did a command jump beyond the limits."""
    robot = load_robot("panda")
    values = np.array([c.command for c in commands])
    following = np.diff([c.sequence for c in commands]) == 1
    assert np.all(np.abs(values) <= robot.velocity_limit + 1e-9)
    assert np.all(np.abs(np.diff(values, axis=0))[following] <= robot.acceleration_limit / RATE + 1e-9)


def test_chatter_is_smoothed_and_the_command_given_back(scene):
    scene.until(lambda: scene.last().mode == PolicyStatus.HOLDING, "the policy waits for a goal")
    scene.send(ROUGH_GOAL)
    scene.until(lambda: scene.last().mode == PolicyStatus.ACTIVE, "active")
    scene.until(lambda: len(scene.commands) > 20 and chatter(scene.commands[-20:]) > 0.1, "chatter")
    rough = scene.listen(20)
    assert scene.last().command_mode == "policy"

    scene.until(lambda: scene.last().command_mode == "smooth", "the governor engages")
    scene.until(lambda: scene.last().smoothed_share == 1.0, "smoothing is blended in")
    smooth = scene.listen(50)
    raw = np.array([c.raw_action for c in smooth])
    assert np.abs(np.diff(raw, axis=0)).mean() > 0.1  # the policy itself goes on chattering
    assert chatter(smooth) < 0.1 * chatter(rough), (chatter(smooth), chatter(rough))
    assert "smoothed by the governor" in smooth[-1].fault

    scene.send(CALM_GOAL)
    scene.until(lambda: not np.isnan(scene.last().smoothing_lag), "a measured lag, now that the arm moves")
    lag = scene.last().smoothing_lag
    assert lag == pytest.approx(LAG, abs=0.01)
    scene.until(lambda: scene.last().command_mode == "policy", "the governor releases")
    scene.until(lambda: scene.last().smoothed_share == 0.0, "smoothing is blended out")
    scene.listen(20)
    assert scene.last().mode == PolicyStatus.ACTIVE and scene.last().faults_governed == 0

    check_no_jump(scene.commands)  # engaging and releasing included

    # Of the layouts' topics all are there but those that compare with simulation, for which this bundle tells nothing.
    missing = {topic for topic in topics_of_layouts() - scene.topics() if not topic.endswith("/baseline_ratio")}
    assert not missing

    told = [{pair.key: pair.value for pair in state.values} for state in scene.governor_states]
    assert any(abs(float(values["smoothing_lag [s]"]) - LAG) < 0.01 for values in told)  # the lag stands there too
    # A governor that dies leaves its last step; one that asks a policy without a lag would be refused.
    scene.processes["qgf_monitor.governor_node"].send_signal(signal.SIGINT)
    assert scene.processes["qgf_monitor.governor_node"].wait(10.0) == 0
    print(f"chatter {chatter(rough):.3f} -> {chatter(smooth):.4f} rad/s; lag {1e3 * lag:.1f} ms")


def test_one_that_goes_on_is_held_tried_again_and_stopped_and_comes_back(scene, folder):
    scene.until(lambda: scene.last().mode == PolicyStatus.ACTIVE, "active")
    scene.start("qgf_monitor.governor_node", governor(folder, "strict", STRICT))
    scene.commands.clear()
    first = len(scene.statuses)
    scene.send(ROUGH_GOAL)
    scene.until(lambda: scene.last().mode == PolicyStatus.ESTOPPED, "the emergency stop")
    assert scene.last().faults_governed > 0
    scene.until(lambda: np.abs(scene.commands[-1].command).max() < 1e-6, "the arm at rest")

    # Every step in its turn, and the first hold was taken back before the stop; the log tells each with its reason.
    log = (folder / "qgf_monitor.governor_node.log").read_text()
    steps = re.findall(r"(POLICY|SMOOTH|HOLD|ESTOP): ([^\n]+)", log)
    assert [step for step, _ in steps] == ["SMOOTH", "HOLD", "SMOOTH", "ESTOP"], log
    assert all(re.search(r"\d\.\d s", reason) for _, reason in steps)
    modes = [key for key, _ in itertools.groupby(status.command_mode for status in scene.statuses[first:])]
    assert modes[0] == "policy" and "hold" in modes
    check_no_jump(scene.commands)

    # Reversible, by the operator: reset, activate, and the policy has its command again.
    scene.until(lambda: scene.call(Trigger, "/policy_node/reset_estop", Trigger.Request()).success, "the reset")
    scene.until(lambda: scene.last().mode == PolicyStatus.INACTIVE and scene.last().command_mode == "policy",
                "the governor begins anew")
    scene.processes["qgf_monitor.governor_node"].send_signal(signal.SIGINT)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    assert scene.call(ChangeState, "/policy_node/change_state", request).success
    scene.send(CALM_GOAL)
    scene.until(lambda: scene.last().mode == PolicyStatus.ACTIVE, "active again")
    assert scene.last().smoothed_share == 0.0
    check_no_jump(scene.commands)

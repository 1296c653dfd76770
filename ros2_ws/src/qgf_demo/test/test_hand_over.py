# SPDX-License-Identifier: Apache-2.0
"""A finished training hands its bundle to a policy node whose arm moves, over DDS: only if it is better, where that was
asked for, and without a jump."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf

pytestmark = pytest.mark.ros

PANDA = load_robot("panda")
JOINT, ACTION = 4, 0.004
SPEED = ACTION * PANDA.policy_velocity[JOINT]
"""[rad/s]: within the minutes of this test it does not come to its limit."""
PERIOD = 0.02
DEADLINE = 300.0
FIGURES = {"episodes": 20, "success": 1.0, "return": 140.0, "sm": 0.4}
"""Of the policy that runs; no training of a second reaches them."""


@pytest.fixture
def folder(tmp_path):
    """With the bundle of a policy that turns one joint at SPEED, whatever it sees."""
    manifest = make_manifest(
        task="reach", robot=PANDA,
        observation=(ObservationTerm("joint_position"), ObservationTerm("tool_position_error")),
        action=ActionSpec("joint_velocity", tuple(PANDA.policy_velocity.tolist())), control_rate=1.0 / PERIOD,
        delay_range=(0.0, 0.02), goal_region=Box((0.42, -0.25, 0.30), (0.67, 0.25, 0.60)), training={},
        evaluation=FIGURES, urdf=read_urdf(PANDA))
    layer = torch.nn.Linear(10, 7)
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.atanh(torch.tensor([ACTION if i == JOINT else 0.0 for i in range(7)]))
    save_bundle(tmp_path / "running.pt", torch.nn.Sequential(layer, torch.nn.Tanh()), manifest, np.zeros((2, 10)))
    return tmp_path


@pytest.fixture
def nodes(folder):
    """sim_node, policy_node and trainer_node, side by side."""
    starts = {
        "sim_node": ["-c", "from qgf_sim.start import main; main()", "--ros-args"],
        "policy_node": ["-c", "from qgf_policy.start import main; main()", "--ros-args",
                        "-p", f"bundle:={folder / 'running.pt'}", "-p", f"bundle_folder:={folder}",
                        "-p", "autostart:=true", "-p", "allow_controller_without_timeout:=true",
                        # A busy machine's lateness is not what is looked at here.
                        "-p", "state_timeout:=2.0", "-p", "overrun_share:=1.0"],
        "trainer_node": ["-m", "qgf_trainer.trainer_node", "--ros-args", "-p", f"output_root:={folder}"],
    }
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    children = {name: subprocess.Popen([sys.executable, *words, "-r", "__ns:=/handed"], env=environment)
                for name, words in starts.items()}
    yield children.values()
    for child in children.values():
        child.send_signal(signal.SIGINT)
    codes = {}
    for name, child in children.items():
        try:
            codes[name] = child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()  # it would disturb the tests that follow
            codes[name] = f"still running after 20 s, killed with {child.wait()}"
    assert codes == dict.fromkeys(children, 0)


@pytest.fixture
def ros(nodes):
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("supervisor", context=context, namespace="handed")
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(condition, what):
        end = time.monotonic() + DEADLINE
        while not condition():
            executor.spin_once(timeout_sec=0.05)
            assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
            assert all(child.poll() is None for child in nodes), "a node has ended"

    node.until = until
    yield node
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_better_bundle_is_handed_over_to_a_moving_arm_without_a_jump(ros, folder):
    from geometry_msgs.msg import PoseStamped
    from rclpy.action import ActionClient

    from qgf_msgs.action import TrainPolicy
    from qgf_msgs.msg import PolicyCommand, PolicyStatus

    commands, statuses = [], []
    ros.create_subscription(PolicyCommand, "policy_node/command", commands.append, 1000)
    ros.create_subscription(PolicyStatus, "policy_node/status", statuses.append, 100)
    action = ActionClient(ros, TrainPolicy, "trainer_node/train")
    goals = ros.create_publisher(PoseStamped, "policy_node/goal", 1)
    goal = PoseStamped()
    goal.header.frame_id = "panda_link0"
    goal.pose.position.x, goal.pose.position.z = 0.5, 0.4

    def is_active():
        goals.publish(goal)
        return statuses and statuses[-1].mode == PolicyStatus.ACTIVE

    ros.until(is_active, "an arm that moves")
    ros.until(action.server_is_ready, "trainer_node")

    def train(**changes):
        request = TrainPolicy.Goal(
            robot="panda", task="reach", algorithm="td3", steps=600, output_directory="new",
            overrides="{learner: {hidden: [16, 16]}, warmup_steps: 600}", hand_over_to="policy_node", **changes)
        sent = action.send_goal_async(request)
        ros.until(sent.done, "an answer to the goal")
        answer = sent.result().get_result_async()
        ros.until(answer.done, "its result")
        return answer.result().result

    refused = train(only_if_better=True)
    success = json.loads(refused.metrics_json)["success"]
    assert refused.success and not refused.handed_over
    assert refused.hand_over_message == f"not handed over: success {success:.2f} after 1.00"
    assert statuses[-1].bundle == str(folder / "running.pt")

    # The same again, which is trained already, to whatever figures.
    done = train(resume=True)
    assert done.success and done.handed_over, done.hand_over_message
    ros.until(lambda: statuses[-1].bundle_sha256 == done.sha256, "the new policy")
    after = len(commands)
    ros.until(lambda: len(commands) > after + 100, "two seconds of it")
    assert {one.mode for one in statuses[-20:]} <= {PolicyStatus.ACTIVE, PolicyStatus.RAMPING}

    sequence = np.array([one.sequence for one in commands])
    values = np.array([one.command for one in commands])
    together = np.diff(sequence) == 1
    before = values[after - 60 : after - 50, JOINT] if after > 60 else values[:10, JOINT]
    assert np.abs(before).max() > 0.0 and together.mean() > 0.9
    assert np.abs(values[-1] - values[after - 60]).max() > 0.01, "the new policy does something else"
    changes = np.abs(np.diff(values, axis=0))[together]
    assert np.all(changes <= PANDA.acceleration_limit * PERIOD + 1e-9)

# SPDX-License-Identifier: Apache-2.0
"""trainer_node as a real process over DDS: a goal to its end, a second goal, cancel, a killed training, bad goals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import rclpy
from rclpy.action import ActionClient

from qgf_core.bundle import load_bundle
from qgf_msgs.action import TrainPolicy

pytestmark = pytest.mark.ros

QUICK = "learner: {hidden: [16, 16]}\nwarmup_steps: 600\n"
DEADLINE = 120.0


@pytest.fixture(scope="module")
def client():
    process = subprocess.Popen([sys.executable, "-m", "qgf_trainer.trainer_node"], env=os.environ)
    rclpy.init()
    node = rclpy.create_node("train_client")
    action = ActionClient(node, TrainPolicy, "/trainer_node/train")
    try:
        assert action.wait_for_server(timeout_sec=30.0), "trainer_node was not discovered"
        yield node, action, process
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(15)
        action.destroy()
        node.destroy_node()
        rclpy.shutdown()
    assert code == 0


def goal(folder, steps=1200, **changes):
    fields = {
        "robot": "panda",
        "task": "reach",
        "algorithm": "td3",
        "steps": steps,
        "seed": 0,
        "output_directory": str(folder),
        "overrides": QUICK,
    }
    return TrainPolicy.Goal(**{**fields, **changes})


def wait(node, future):
    rclpy.spin_until_future_complete(node, future, timeout_sec=DEADLINE)
    assert future.done()
    return future.result()


def send(client, request, feedback=None):
    node, action, _ = client
    return wait(node, action.send_goal_async(request, feedback_callback=feedback))


def finish(client, handle):
    return wait(client[0], handle.get_result_async()).result


def trainings(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def test_a_goal_trains_and_gives_the_bundle(client, tmp_path):
    told = []
    handle = send(client, goal(tmp_path / "run"), lambda message: told.append(message.feedback.progress))
    assert handle.accepted
    second = send(client, goal(tmp_path / "second"))
    assert not second.accepted
    result = finish(client, handle)
    assert result.success, result.message
    assert load_bundle(result.bundle).manifest.training["steps"] == 1200
    assert "success" in json.loads(result.metrics_json)
    assert told and told[-1].step <= 1200 and told[-1].steps_total == 1200
    assert not (tmp_path / "second").exists()


def test_cancel_leaves_a_checkpoint_and_no_process(client, tmp_path):
    told = []
    handle = send(client, goal(tmp_path / "run", steps=500_000), told.append)
    node = client[0]
    deadline = time.monotonic() + DEADLINE
    while not told and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    assert told
    wait(node, handle.cancel_goal_async())
    result = finish(client, handle)
    assert not result.success and "cancelled" in result.message
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not trainings(client[2])


def test_a_killed_training_is_a_result(client, tmp_path):
    handle = send(client, goal(tmp_path / "run", steps=500_000))
    deadline = time.monotonic() + DEADLINE
    while not trainings(client[2]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for child in trainings(client[2]):
        child.kill()
    result = finish(client, handle)
    assert not result.success and "SIGKILL" in result.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"robot": "hexapod"}, "unknown robot 'hexapod'"),
        ({"overrides": "learner: {gama: 1}"}, "learner.gama: unknown key"),
        ({"overrides": "- 1"}, "expected a mapping"),
        ({"steps": 0}, "steps 0 must be at least 1"),
        ({"algorithm": "ppo"}, "invalid choice: 'ppo'"),
    ],
)
def test_a_bad_goal_is_aborted_with_one_line(client, tmp_path, changes, words):
    result = finish(client, send(client, goal(tmp_path / "run", **changes)))
    assert not result.success and words in result.message
    assert not (tmp_path / "run").exists()

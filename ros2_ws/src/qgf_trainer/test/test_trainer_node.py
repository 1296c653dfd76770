# SPDX-License-Identifier: Apache-2.0
"""trainer_node as real processes over DDS: a goal to its end, cancel, queue, two clients, a killed training, a killed
node, bad goals. What is interrupted, in whatever way, ends as if it had not been."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import rclpy
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from safetensors.numpy import load_file

from qgf_core.bundle import load_bundle
from qgf_msgs.action import TrainPolicy
from qgf_msgs.msg import TrainProgress

pytestmark = pytest.mark.ros

QUICK = "learner: {hidden: [16, 16]}\nwarmup_steps: 600\ncheckpoint_steps: 0\n"
STEPS = 4800
"""Eight rounds of four episodes: enough to be interrupted in, with networks of no size."""
ENDLESS = 2_000_000
DEADLINE = 600.0
Result = TrainPolicy.Result


class Trainer:
    """A trainer_node and a client of it."""

    def __init__(self, namespace, *parameters):
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("train_client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._command = [sys.executable, "-m", "qgf_trainer.trainer_node", "--ros-args", "-r", f"__ns:={namespace}",
                         *(word for one in parameters for word in ("-p", one))]  # fmt: skip
        self.name = f"{namespace}/trainer_node"
        self.progress = []
        self.node.create_subscription(TrainProgress, f"{self.name}/progress", self.progress.append, 10)
        self.process = subprocess.Popen(self._command, env=os.environ)
        self.action = ActionClient(self.node, TrainPolicy, f"{self.name}/train")
        self.until(self.action.server_is_ready, "trainer_node is discovered")

    def until(self, condition, what, timeout=DEADLINE):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"not within {timeout} s: {what}"
            assert self.process.poll() is None, "trainer_node has ended"
            self.executor.spin_once(timeout_sec=0.05)

    def wait(self, future):
        self.until(future.done, "an answer")
        return future.result()

    def send(self, request, told=None):
        take = None if told is None else lambda message: told.append((time.monotonic(), message.feedback.progress))
        return self.wait(self.action.send_goal_async(request, feedback_callback=take))

    def finish(self, handle):
        return self.wait(handle.get_result_async()).result

    def trainings(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def close(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(15)
        self.action.destroy()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        return code


@pytest.fixture(scope="module")
def trainer():
    trainer = Trainer("/trained")
    yield trainer
    assert trainer.close() == 0


def goal(folder, steps=STEPS, **changes):
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


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """A goal that nobody disturbed but a second client: folder, result, feedback, and the second client's result."""
    folder, told = tmp_path_factory.mktemp("run") / "whole", []
    handle = trainer.send(goal(folder), told)
    trainer.until(lambda: told and told[-1][1].step, "it trains")
    second = trainer.finish(trainer.send(goal(folder.parent / "second")))
    return folder, trainer.finish(handle), told, second


def test_a_goal_trains_and_gives_the_bundle(whole):
    folder, result, *_ = whole
    assert (result.reason, result.success, result.step) == (Result.TRAINED, True, STEPS), result.message
    bundle = load_bundle(result.bundle)
    assert bundle.manifest.training["steps"] == STEPS and bundle.sha256 == result.sha256
    assert json.loads(result.metrics_json) == json.loads((folder / "evaluation.json").read_text())
    assert (result.handed_over, result.hand_over_message) == (False, "")


def test_it_tells_once_a_second_where_it_is(trainer, whole):
    times = np.array([when for when, _ in whole[2]])
    told = [progress for _, progress in whole[2]]
    assert told[0].phase == "starting" and {"warmup", "training"} & {one.phase for one in told}
    assert np.diff(times).min() > 0.5 and np.median(np.diff(times)) < 1.5
    last = told[-1]
    assert last.step <= STEPS and last.steps_total == STEPS and last.updates_per_second > 0
    best = max(one.episode_return for one in told if not np.isnan(one.episode_return))
    assert last.best_return >= best and 0 < last.best_step <= STEPS
    assert [one.step for one in told] == [one.step for one in trainer.progress[: len(told)]]


def test_a_second_client_is_told_who_is_trained(whole):
    second = whole[3]
    assert (second.reason, second.success) == (Result.REFUSED, False)
    assert f"busy: td3 for panda is trained in {whole[0]} for " in second.message and "cancel it" in second.message
    assert not (whole[0].parent / "second").exists()


def test_cancelled_and_killed_with_its_node_it_ends_as_if_it_had_not_been(trainer, whole, tmp_path):
    folder, told = tmp_path / "disturbed", []
    handle = trainer.send(goal(folder), told)
    trainer.until(lambda: told and told[-1][1].step, "it trains")
    began = time.monotonic()
    future = handle.get_result_async()
    trainer.wait(handle.cancel_goal_async())
    result = trainer.wait(future).result
    # A second on an idle machine; that it stops in the midst of an episode is shown in test_training.py.
    assert time.monotonic() - began < 10.0
    assert (result.reason, result.success) == (Result.CANCELLED, False) and "resume" in result.message
    assert 0 <= result.step < STEPS and result.step % 600 == 0
    assert (folder / "checkpoint.safetensors").exists() and not trainer.trainings()

    told.clear()
    victim = Trainer("/victim")
    try:
        victim.send(goal(folder, resume=True), told)
        victim.until(lambda: told and told[-1][1].step > result.step, "it goes on")
        (training,) = victim.trainings()
        victim.process.kill()
    finally:
        assert victim.close() == -signal.SIGKILL
    # Nobody is left to ask it to: it notices itself, and saves.
    _, alive = psutil.wait_procs([training], timeout=30)
    assert not alive and not (folder / "bundle.pt").exists()

    result = trainer.finish(trainer.send(goal(folder, resume=True)))
    assert result.success, result.message
    one, other = (load_file(where / "checkpoint.safetensors") for where in (whole[0], folder))
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=True), name
    figures = [json.loads((where / "evaluation.json").read_text()) for where in (whole[0], folder)]
    for one in figures:
        del one["training_time_s"]
    assert figures[0] == figures[1]


def test_a_killed_training_is_a_result(trainer, tmp_path):
    handle = trainer.send(goal(tmp_path / "run", ENDLESS))
    trainer.until(trainer.trainings, "its process")
    for child in trainer.trainings():
        child.kill()
    result = trainer.finish(handle)
    assert result.reason == Result.KILLED and "SIGKILL" in result.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"robot": "hexapod"}, "unknown robot 'hexapod'"),
        ({"overrides": "learner: {gama: 1}"}, "learner.gama: unknown key"),
        ({"overrides": "- 1"}, "expected a mapping"),
        ({"minutes": -1.0}, "minutes -1.0 must be finite and not negative"),
        ({"algorithm": "ppo"}, "invalid choice: 'ppo'"),
    ],
)
def test_a_bad_goal_is_refused_with_one_line(trainer, tmp_path, changes, words):
    result = trainer.finish(trainer.send(goal(tmp_path / "run", **changes)))
    assert (result.reason, result.success) == (Result.REFUSED, False)
    assert words in result.message and "\n" not in result.message
    assert not (tmp_path / "run").exists()


def test_a_queue_a_root_and_an_end(tmp_path):
    """Of a node with a place in its queue: the third goal is refused, the second waits, and both end with the node."""
    trainer = Trainer("/queued", "queue:=1", f"output_root:={tmp_path}")
    try:
        outside = trainer.finish(trainer.send(goal("/elsewhere")))
        assert outside.reason == Result.REFUSED and "lies outside" in outside.message
        told = []
        first = trainer.send(goal("first", ENDLESS))
        second = trainer.send(goal("second", ENDLESS), told)
        third = trainer.finish(trainer.send(goal("third", ENDLESS)))
        assert third.reason == Result.REFUSED and "busy: " in third.message
        trainer.until(lambda: told, "news of the one that waits")
        assert told[0][1].phase == "queued"
        trainer.until(lambda: (tmp_path / "first").exists(), "the first trains")
        trainer.wait(first.cancel_goal_async())
        assert trainer.finish(first).reason == Result.CANCELLED
        trainer.until(lambda: told[-1][1].phase != "queued" and (tmp_path / "second").exists(), "the second's turn")
        future = second.get_result_async()
        trainer.process.send_signal(signal.SIGTERM)
        assert trainer.wait(future).result.reason == Result.STOPPED
        assert not (tmp_path / "third").exists()
    finally:
        assert trainer.close() == 0


def test_a_wrong_parameter_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "qgf_trainer.trainer_node", "--ros-args", "-p", "queue:=many"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("qgf: error: ") and done.stderr.count("\n") == 1

# SPDX-License-Identifier: Apache-2.0
"""trainer_node: training as the action ~/train, in a process of its own, with feedback, cancel, and a hand-over of the
bundle to a policy node. Wiring only; goals stand in goal.py, the process in process.py, the comparison in
hand_over.py."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
import time
from pathlib import Path

import rclpy
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from qgf_core.early import ends_within
from qgf_core.errors import QgfError
from qgf_msgs.action import TrainPolicy
from qgf_msgs.msg import PolicyStatus, TrainProgress
from qgf_msgs.srv import LoadPolicy
from qgf_trainer.goal import Reason, Run, arguments_of, folder_of, reason_of
from qgf_trainer.hand_over import beats
from qgf_trainer.process import TrainingProcess

RCLError, UnknownROSArgsError = rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError
FEEDBACK_PERIOD = 1.0
"""[s]"""
LOOK = 0.1
"""Cancelling is noticed within this time [s]."""
LAST_WORDS = 3.0
"""Results are still sent for so long after the node was asked to end [s]."""
LONGEST_QUEUE = 8


class TrainerNode(Node):
    """One training at a time; as many goals as the parameter `queue` says wait for it, others are refused."""

    def __init__(self) -> None:
        super().__init__("trainer_node")
        self._lock = threading.Lock()
        self._line: list[ServerGoalHandle] = []
        self._run: Run | None = None
        self._ending = threading.Event()
        self.queue = int(self._parameter(
            "queue", 0, "Goals that may wait while another is trained; beyond that they are refused.",
            [IntegerRange(from_value=0, to_value=LONGEST_QUEUE, step=1)]))
        self._root = str(self._parameter(
            "output_root", "", "Folder that the goals' output_directory must lie in; empty: anywhere."))
        self._offer_time = float(self._parameter(
            "hand_over_timeout", 10.0, "Longest wait for each answer of the policy node in a hand-over [s]."))
        self._group = ReentrantCallbackGroup()
        self._progress = self.create_publisher(TrainProgress, "~/progress", 10)
        self._server = ActionServer(
            self, TrainPolicy, "~/train", self._execute, cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=self._group)

    def _parameter(self, name, default, description, integer_range=()):
        descriptor = ParameterDescriptor(description=description, read_only=True, integer_range=integer_range)
        return self.declare_parameter(name, default, descriptor).value

    # ------------------------------------------------------------------------------------------------------ goals

    def _execute(self, handle: ServerGoalHandle) -> TrainPolicy.Result:
        with self._lock:
            crowded = len(self._line) > self.queue
            if not crowded:
                self._line.append(handle)
        if crowded:
            remedy = "cancel it, wait for its end, or start trainer_node with a longer queue"
            return self._end(handle, "REFUSED", f"busy: {self._run or 'another goal is trained'}; {remedy}")
        try:
            if not self._wait_for_turn(handle):
                word = "CANCELLED" if handle.is_cancel_requested else "STOPPED"
                return self._end(handle, word, "left the queue before its training began")
            return self._train(handle)
        finally:
            with self._lock:
                self._line.remove(handle)

    def _wait_for_turn(self, handle: ServerGoalHandle) -> bool:
        waiting = Run("queued")
        waiting.standing.phase, told = "queued", 0.0
        while self._line[0] is not handle:
            if handle.is_cancel_requested or self._ending.wait(LOOK):
                return False
            told = self._tell(handle, waiting, told)
        return True

    def _train(self, handle: ServerGoalHandle) -> TrainPolicy.Result:
        goal: TrainPolicy.Goal = handle.request
        try:
            folder = folder_of(goal, self._root)
            process = TrainingProcess(arguments_of(goal, folder))
        except (QgfError, OSError) as error:
            return self._end(handle, "REFUSED", str(error))
        about = f"{goal.algorithm} for {goal.robot or goal.task} is trained in {folder}"
        self._run = run = Run(about)
        self.get_logger().info(f"{about}, process {process.pid}")
        if goal.resume:
            run.standing.remember(folder)
        told, found = 0.0, None
        try:
            while not process.ended:
                if handle.is_cancel_requested or self._ending.is_set():
                    process.stop()
                    for event in process.remaining_events():
                        run.standing.take(event)
                    word = "CANCELLED" if handle.is_cancel_requested else "STOPPED"
                    return self._end(handle, word, f"stopped; the same goal with resume goes on from {folder}")
                event = process.next_event(timeout=LOOK)
                if event is not None:
                    run.standing.take(event)
                    if event["event"] == "result":
                        found = event
                told = self._tell(handle, run, told)
            if found is None:
                return self._end(handle, reason_of(process.code, run.standing.step), process.verdict())
            return self._finish(handle, found)
        finally:
            process.stop()
            self._run = None

    def _finish(self, handle: ServerGoalHandle, found: dict) -> TrainPolicy.Result:
        bundle = found.get("bundle") or found["policy"]  # of a Gymnasium task there is no bundle
        result = TrainPolicy.Result(bundle=bundle, sha256=found.get("sha256", ""))
        result.metrics_json = json.dumps(found["figures"])
        name = handle.request.hand_over_to
        if name:
            result.handed_over, result.hand_over_message = self._hand_over(name, Path(bundle), handle)
            self.get_logger().info(result.hand_over_message)
        return self._end(handle, "TRAINED", f"trained and exported {bundle}", result)

    def _end(self, handle: ServerGoalHandle, reason: Reason, message: str, result=None) -> TrainPolicy.Result:
        result = result or TrainPolicy.Result()
        result.reason, result.message = getattr(TrainPolicy.Result, reason), message
        result.success = reason == "TRAINED"
        result.step = self._run.standing.step if self._run is not None and reason != "REFUSED" else 0
        if reason == "CANCELLED":
            handle.canceled()
        elif result.success:
            handle.succeed()
        else:
            handle.abort()
        if reason in ("TRAINED", "CANCELLED"):
            self.get_logger().info(message)
        else:
            self.get_logger().error(message)
        return result

    def _tell(self, handle: ServerGoalHandle, run: Run, told: float) -> float:
        """Once a second. :returns: when it was last told."""
        now = time.monotonic()
        if now - told < FEEDBACK_PERIOD:
            return told
        message = TrainProgress(**dataclasses.asdict(run.standing))
        message.header.stamp = self.get_clock().now().to_msg()
        handle.publish_feedback(TrainPolicy.Feedback(progress=message))
        self._progress.publish(message)
        return now

    # -------------------------------------------------------------------------------------------------- hand-over

    def _hand_over(self, name: str, bundle: Path, handle: ServerGoalHandle) -> tuple[bool, str]:
        if handle.request.only_if_better:
            running = self._running_bundle(name)
            if running is None:
                return False, f"not handed over: {name} tells no bundle to compare with"
            verdict = beats(bundle, running)
            if not verdict.better:
                return False, f"not handed over: {verdict.why}"
        client = self.create_client(LoadPolicy, f"{name}/load_policy", callback_group=self._group)
        try:
            if not client.wait_for_service(self._offer_time):
                return False, f"not handed over: no service {client.srv_name}; is the policy node running?"
            answered, future = threading.Event(), client.call_async(LoadPolicy.Request(bundle=str(bundle)))
            future.add_done_callback(lambda _: answered.set())
            if not answered.wait(self._offer_time) or future.result() is None:
                return False, f"{name} did not answer within {self._offer_time:g} s; look at its ~/status"
            answer = future.result()
        finally:
            self.destroy_client(client)
        return answer.success, f"{name}: {'' if answer.success else 'not handed over: '}{answer.message}"

    def _running_bundle(self, name: str) -> Path | None:
        """What the policy node tells that it runs."""
        heard, statuses = threading.Event(), []
        subscription = self.create_subscription(
            PolicyStatus, f"{name}/status", lambda message: (statuses.append(message), heard.set()), 1,
            callback_group=self._group)
        heard.wait(self._offer_time)
        self.destroy_subscription(subscription)
        return Path(statuses[-1].bundle) if statuses and statuses[-1].bundle else None

    # -------------------------------------------------------------------------------------------------------- end

    def stop(self) -> None:
        """End a running training, which saves a checkpoint; goals are answered as long as somebody spins."""
        self._ending.set()

    @property
    def busy(self) -> bool:
        """Whether a goal is still to be answered."""
        return bool(self._line)


def main() -> int:
    """Run the node until SIGINT or SIGTERM. :returns: 0, or 2 for a mistake of the user."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
        node = TrainerNode()
    except (ParameterException, RCLError, UnknownROSArgsError) as error:
        print("qgf: error:", *str(error).split(), file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    # A goal that is trained or waits occupies a thread; so does one that is about to be refused.
    executor = MultiThreadedExecutor(num_threads=4 + node.queue)
    executor.add_node(node)
    end = float("inf")
    try:
        while rclpy.ok() and time.monotonic() < end:
            executor.spin_once(timeout_sec=LOOK)
            if stopping.is_set():
                node.stop()
                end = min(end, time.monotonic() + LAST_WORDS) if node.busy else 0.0
    except ExternalShutdownException:
        pass
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal's and a launch's: the second one finds us ending
    node.stop()
    with ends_within():
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

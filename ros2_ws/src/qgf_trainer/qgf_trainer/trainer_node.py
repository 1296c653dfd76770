# SPDX-License-Identifier: Apache-2.0
"""trainer_node: training as the action ~/train, in a process of its own, with feedback, cancel and the bundle's
path."""

from __future__ import annotations

import json
import signal
import sys
import threading

import rclpy
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from qgf_core.config import parse_yaml
from qgf_core.errors import QgfError
from qgf_msgs.action import TrainPolicy
from qgf_msgs.msg import TrainProgress
from qgf_trainer.process import TrainingProcess

_PROGRESS_FIELDS = (
    "phase",
    "step",
    "steps_total",
    "episode_return",
    "success",
    "mean_absolute_delta",
    "paper_smoothness",
    "steps_per_second",
    "updates_per_second",
    "eta",
)


def arguments_of(goal: TrainPolicy.Goal) -> list[str]:
    """The command line of a goal. :raises QgfError: overrides that are not a YAML mapping."""
    arguments = [
        "--robot",
        goal.robot,
        "--task",
        goal.task,
        "--algo",
        goal.algorithm,
        "--steps",
        str(goal.steps),
        "--seed",
        str(goal.seed),
        "--out",
        goal.output_directory,
    ]
    pending = list(parse_yaml(goal.overrides, "overrides").items()) if goal.overrides.strip() else []
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{key}.{inner}", below) for inner, below in value.items()]
        else:
            arguments += ["--override", f"{key}={json.dumps(value)}"]
    return arguments


class TrainerNode(Node):
    """One training at a time; a second goal is rejected while one runs."""

    def __init__(self) -> None:
        super().__init__("trainer_node")
        self._busy = threading.Lock()
        self._running: TrainingProcess | None = None
        self._progress = self.create_publisher(TrainProgress, "~/progress", 10)
        self._server = ActionServer(
            self,
            TrainPolicy,
            "~/train",
            self._execute,
            goal_callback=self._accept,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def _accept(self, goal: TrainPolicy.Goal) -> GoalResponse:
        if not self._busy.acquire(blocking=False):
            self.get_logger().warning("goal rejected: a training is running; cancel it or wait for its end")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _execute(self, handle: ServerGoalHandle) -> TrainPolicy.Result:
        try:
            return self._train(handle)
        finally:
            self._running = None
            self._busy.release()

    def _train(self, handle: ServerGoalHandle) -> TrainPolicy.Result:
        result = TrainPolicy.Result()
        try:
            process = self._running = TrainingProcess(arguments_of(handle.request))
        except (QgfError, OSError) as error:
            handle.abort()
            result.message = str(error)
            return result
        self.get_logger().info(
            f"training {handle.request.algorithm} for {handle.request.robot} in process {process.pid}"
        )
        while not process.ended:
            if handle.is_cancel_requested:
                process.stop()
                handle.canceled()
                result.message = f"cancelled; the checkpoint in {handle.request.output_directory} can be resumed from"
                return result
            event = process.next_event(timeout=0.1)
            if event is not None and event["event"] == "progress":
                self._tell(handle, event)
            elif event is not None and event["event"] == "result":
                result.bundle = event.get("bundle") or event["policy"]  # of a Gymnasium task there is no bundle
                result.success, result.metrics_json = True, json.dumps(event["figures"])
        if not result.success:
            handle.abort()
            result.message = process.verdict()
            self.get_logger().error(result.message)
            return result
        handle.succeed()
        result.message = f"trained and exported {result.bundle}"
        self.get_logger().info(result.message)
        return result

    def _tell(self, handle: ServerGoalHandle, event: dict) -> None:
        message = TrainProgress(**{name: event[name] for name in _PROGRESS_FIELDS})
        message.header.stamp = self.get_clock().now().to_msg()
        handle.publish_feedback(TrainPolicy.Feedback(progress=message))
        self._progress.publish(message)

    def stop(self) -> None:
        """End a running training; it saves a checkpoint."""
        process = self._running
        if process is not None:
            process.stop()


def main() -> int:
    """Entry point of the executable trainer_node."""
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = TrainerNode()
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        while rclpy.ok() and not stopping.is_set():
            executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        pass
    node.stop()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

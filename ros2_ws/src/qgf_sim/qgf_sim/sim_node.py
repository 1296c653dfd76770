# SPDX-License-Identifier: Apache-2.0
"""sim_node: a simulated arm behind the topics of a ros2_control driver, in real time."""

from __future__ import annotations

import array
import dataclasses
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_profile_system_default
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from qgf_core.clocks import SteadyClock
from qgf_core.config import from_mapping
from qgf_core.early import ends_within
from qgf_core.errors import QgfError
from qgf_core.robot import load_robot
from qgf_sim.faults import FaultSettings, StateMessage
from qgf_sim.reach import load_reach
from qgf_sim.real_time import RealTimeLoop
from qgf_sim.robot_double import DoubleSettings, JointSample, RobotDouble, default_settings
from qgf_sim.run_node import exit_code
from qgf_sim.trajectory import TrajectoryPoint

_WARNING_PERIOD = 5.0
_RESET_TIMEOUT = 2.0


@dataclasses.dataclass(frozen=True)
class _NodeSettings:
    """The parameters that are not DoubleSettings."""

    robot: str = dataclasses.field(default="panda", metadata={
        "description": "Arm: the name of a file in config/robots, or the path of a YAML file."})
    gui: bool = dataclasses.field(default=False, metadata={"description": "Show the physics in a window."})
    publish_clock: bool = dataclasses.field(default=False, metadata={
        "description": "Publish simulated time on /clock, for nodes with use_sim_time, and stamp the states with it."})
    gripper_publisher: bool = dataclasses.field(default=False, metadata={
        "description": "Tell of the joints that the policy does not move, such as fingers, in messages of their own by "
                       "a second publisher, as the drivers of grippers do."})


class SimNode(Node):
    """Wiring: parameters, topics and the service of a RealTimeLoop. `run` is to be called in a thread of its own."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        settings = self._declare(_NodeSettings, {f.name: f.default for f in dataclasses.fields(_NodeSettings)})
        robot = load_robot(settings.robot)
        double_settings = self._declare(DoubleSettings, default_settings(robot, load_reach()))
        self.double = RobotDouble(robot, double_settings, settings.gui)
        self._steady = SteadyClock()
        self._loop = RealTimeLoop(self.double, self._steady, self._publish,
                                  self._publish_states)
        self._declare_faults()

        overridable = QoSOverridingOptions.with_default_policies()
        # joint_state_broadcaster leaves its QoS to the middleware: in Fast DDS reliable, transient local, keep last 1.
        # This one is reliable too, but deeper, so that a recorder loses nothing, and sends no old state to latecomers.
        self._states = self.create_publisher(JointState, robot.topics.joint_states, QoSProfile(depth=10),
                                             qos_overriding_options=overridable)
        self._gripper_states = None
        if settings.gripper_publisher:
            self._gripper_states = self.create_publisher(JointState, robot.topics.joint_states, QoSProfile(depth=10))
        self._truth = self.create_publisher(JointState, "~/ground_truth", QoSProfile(depth=100),
                                            qos_overriding_options=overridable)
        self._clock_topic = None
        if settings.publish_clock:
            self._clock_topic = self.create_publisher(Clock, "/clock", QoSProfile(depth=1))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        interface = double_settings.command_interface
        # The forward controllers' own QoS: in Fast DDS best effort, which hears reliable publishers too.
        kind, callback = ((JointTrajectory, self._on_trajectory) if interface == "joint_trajectory"
                          else (Float64MultiArray, self._on_command))
        commands = self.create_subscription(kind, getattr(robot.topics, interface), callback,
                                            qos_profile_system_default, qos_overriding_options=overridable)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(1.0, self._report, clock=RosClock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(
            f"{robot.name}: {interface} commands on {commands.topic_name}, {self._states.topic_name} at "
            f"{double_settings.state_rate:g} Hz, physics at {double_settings.physics_rate:g} Hz")

    def _declare(self, cls: type, defaults: dict[str, Any]) -> Any:
        """An instance of `cls` from the parameters of its fields' names, which are declared here."""
        values = {}
        for field in dataclasses.fields(cls):
            # Typed dynamically, so that "200" is taken for 200.0; from_mapping checks the types.
            description = ParameterDescriptor(description=field.metadata["description"], read_only=True,
                                              dynamic_typing=True)
            value = self.declare_parameter(field.name, defaults[field.name], description).value
            values[field.name] = list(value) if isinstance(value, (array.array, tuple)) else value
        return from_mapping(cls, values, "sim_node")

    def run(self, stop: threading.Event) -> None:
        """Simulate until `stop` is set. :raises RobotError: the physics window was closed."""
        self._loop.run(stop)

    def _declare_faults(self) -> None:
        """The parameters fault.*, which take effect at the next joint state."""
        initial = self.double.faults.settings
        for field in dataclasses.fields(FaultSettings):
            descriptor = ParameterDescriptor(description=field.metadata["description"])
            if field.metadata["upper"] is not None:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=0.0, to_value=field.metadata["upper"], step=0.0)]
            self.declare_parameter(f"fault.{field.name}", getattr(initial, field.name), descriptor)
        self._set_faults(list(self.get_parameters([f"fault.{f.name}" for f in dataclasses.fields(FaultSettings)])))
        self.add_on_set_parameters_callback(self._check_faults)
        self.add_post_set_parameters_callback(self._set_faults)

    def _faults_with(self, parameters: list[Parameter]) -> FaultSettings:
        changes = {p.name.removeprefix("fault."): p.value for p in parameters if p.name.startswith("fault.")}
        faults = dataclasses.replace(self.double.faults.settings, **changes)
        faults.check(self.double.joint_names)
        return faults

    def _check_faults(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            self._faults_with(parameters)
        except QgfError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _set_faults(self, parameters: list[Parameter]) -> None:
        self.double.faults.settings = self._faults_with(parameters)

    def _publish(self, deadline: int, simulated: int, _measured: JointSample, truth: JointSample) -> int:
        # The deadline on the node's clock; 0 at the least, as long as a simulated clock has not begun.
        nanoseconds = max(0, self.get_clock().now().nanoseconds - (self._steady.now() - deadline))
        stamp = simulated if self._clock_topic else nanoseconds
        if self._clock_topic is not None:
            self._clock_topic.publish(Clock(clock=Time(nanoseconds=stamp).to_msg()))
        self._send(self._truth, StateMessage(stamp, self.double.joint_names, *truth))
        return stamp

    def _publish_states(self, state: StateMessage) -> None:
        if self._gripper_states is None:
            self._send(self._states, state)
            return
        arms = np.isin(state.names, self.double.robot.joint_names)
        for publisher, chosen in ((self._states, arms), (self._gripper_states, ~arms)):
            if chosen.any():
                names = tuple(name for name, wanted in zip(state.names, chosen, strict=True) if wanted)
                self._send(publisher, StateMessage(state.stamp, names, state.position[chosen], state.velocity[chosen]))

    @staticmethod
    def _send(publisher: Publisher, state: StateMessage) -> None:
        message = JointState(name=state.names, position=state.position.tolist(), velocity=state.velocity.tolist())
        message.header.stamp = Time(nanoseconds=state.stamp).to_msg()
        publisher.publish(message)

    def _on_command(self, message: Float64MultiArray) -> None:
        self._warn(self.double.accept(message.data, self._steady.now()))

    def _on_trajectory(self, message: JointTrajectory) -> None:
        now, stamp = self._steady.now(), Time.from_msg(message.header.stamp).nanoseconds
        # A stamp of zero means now, as in the real controller.
        start = now + stamp - self.get_clock().now().nanoseconds if stamp else None
        points = [TrajectoryPoint(p.time_from_start.sec * 10**9 + p.time_from_start.nanosec, p.positions, p.velocities)
                  for p in message.points]
        self._warn(self.double.accept_trajectory(message.joint_names, points, now, start))

    def _warn(self, refusal: str) -> None:
        if refusal:
            self.get_logger().warning(f"command refused: {refusal}", throttle_duration_sec=_WARNING_PERIOD)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._loop.reset(_RESET_TIMEOUT)
        response.message = "at the start pose, at rest" if response.success else "the physics does not answer"
        return response

    def _report(self) -> None:
        health = self._loop.health()
        status = DiagnosticStatus(level=DiagnosticStatus.WARN if health.problem else DiagnosticStatus.OK,
                                  name=f"{self.get_fully_qualified_name().lstrip('/')}: simulation",
                                  message=health.problem or "in real time", hardware_id=self.double.robot.name)
        status.values = [KeyValue(key=f.name, value=str(getattr(health, f.name))) for f in dataclasses.fields(health)]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        if health.slow:
            self.get_logger().warning(health.problem, throttle_duration_sec=_WARNING_PERIOD)


def _run(stop: threading.Event) -> None:
    """Physics in this thread, ROS callbacks in another; whichever fails ends both and raises here."""
    with rclpy.init(signal_handler_options=SignalHandlerOptions.NO):
        node = SimNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            with ThreadPoolExecutor(1) as pool:
                spinning = pool.submit(executor.spin)
                spinning.add_done_callback(lambda _: stop.set())
                try:
                    node.run(stop)
                finally:
                    executor.shutdown()
            spinning.result()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # a terminal's and a launch's: the second one finds us ending
            node.double.close()
            with ends_within():
                node.destroy_node()


def main() -> int:
    """Run sim_node until SIGINT or SIGTERM. :return: 0, or 2 for a user's error."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sys.setswitchinterval(0.0003)  # the default of 5 ms is how long a callback could hold up the physics
    return exit_code(lambda: _run(stop))


if __name__ == "__main__":
    sys.exit(main())

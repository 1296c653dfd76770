# SPDX-License-Identifier: Apache-2.0
"""camera_node: a picture of the arm as its joint states tell it, for looks without a display.

A process of its own, because drawing takes tens of milliseconds, for which the physics would stand still. It draws a
simulated arm and a real one alike: what the driver says, not what a camera would see.
"""

from __future__ import annotations

import array
import sys
from typing import Any, TypeVar

import numpy as np
import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from qgf_core.robot import load_robot
from qgf_sim.camera import Camera
from qgf_sim.run_node import exit_code

T = TypeVar("T", str, float, int)


class CameraNode(Node):
    """Wiring: joint states in, ~/image out."""

    def __init__(self) -> None:
        super().__init__("camera_node")
        robot = load_robot(self._parameter(
            "robot", "panda", "Arm: the name of a file in config/robots, or the path of a YAML file."))
        rate = self._parameter("rate", 5.0, "Pictures a second [Hz].", floating_point_range=[
            FloatingPointRange(from_value=0.1, to_value=60.0)])
        pixels = [IntegerRange(from_value=16, to_value=4096)]
        self._size = (self._parameter("width", 320, "Of a picture [pixels].", integer_range=pixels),
                      self._parameter("height", 240, "Of a picture [pixels].", integer_range=pixels))
        self._camera, self._signs = Camera(robot), robot.signs
        self._index = {name: i for i, name in enumerate(robot.joint_names)}
        self._position = np.full(len(robot.joints), np.nan)
        self._stamp = JointState().header.stamp
        self._images = self.create_publisher(Image, "~/image", QoSProfile(depth=2))
        self.create_subscription(JointState, robot.topics.joint_states, self._on_state, qos_profile_sensor_data)
        self.create_timer(1.0 / rate, self._draw)

    def _parameter(self, name: str, default: T, description: str, **limits: Any) -> T:
        descriptor = ParameterDescriptor(description=description, read_only=True, **limits)
        value: T = self.declare_parameter(name, default, descriptor).value
        return value

    def _on_state(self, message: JointState) -> None:
        if len(message.position) != len(message.name):
            return
        for name, value in zip(message.name, message.position, strict=True):
            i = self._index.get(name)
            if i is not None and np.isfinite(value):
                self._position[i] = value * self._signs[i]
        self._stamp = message.header.stamp

    def _draw(self) -> None:
        """Nothing before every joint was heard of, and for nobody."""
        if not np.isfinite(self._position).all() or self._images.get_subscription_count() == 0:
            return
        pixels = self._camera.image(self._position, *self._size)
        height, width, channels = pixels.shape
        image = Image(height=height, width=width, encoding="rgb8", step=width * channels)
        image.header.stamp, image.header.frame_id = self._stamp, "camera"
        image.data = array.array("B", pixels.tobytes())
        self._images.publish(image)

    def close(self) -> None:
        """Leave the renderer."""
        self._camera.close()
        self.destroy_node()


def _run() -> None:
    with rclpy.init():
        node = CameraNode()
        try:
            rclpy.spin(node)
        finally:
            node.close()


def main() -> int:
    """Run camera_node until SIGINT or SIGTERM. :return: 0, or 2 for a user's error."""
    return exit_code(_run)


if __name__ == "__main__":
    sys.exit(main())

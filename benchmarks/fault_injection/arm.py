# SPDX-License-Identifier: Apache-2.0
"""The fault campaign's policy, which misbehaves where it is asked to, and its arm, a process that fails on request."""

from __future__ import annotations

import argparse
import array
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from rclpy.callback_groups import CallbackGroup
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.clocks import Pacer, SteadyClock
from qgf_core.manifest import Box, Manifest, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf
from qgf_policy.realtime import ask
from qgf_policy.settings import RealtimeSettings

RATE, STATE_RATE = 100.0, 200.0
ROBOT = load_robot("panda")
FULL_AT, NAN_AT = 0.75, 0.95
"""For goals further than this in x [m] the campaign's policy asks for full speed, or answers NaN."""


# ----------------------------------------------------------------------------------------------------- the policy


class Reacher(torch.nn.Module):
    """Goes to the goal by the Jacobian's pseudo-inverse at home; misbehaves for goals far out in x.

    The goal's x is read off the observation, tool - goal, with the tool's place by the Jacobian. All by layers that a
    bundle may hold.
    """

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        jacobian = manifest.kinematics().tool_jacobian(ROBOT.home)
        inverse = np.linalg.pinv(jacobian)
        weight, rows = np.zeros((7, 24)), np.zeros((8, 24))
        weight[:, :7] = -0.5 * (np.eye(7) - inverse @ jacobian)
        weight[:, -3:] = -2.0 * inverse
        # The goal's x: too far out it means full speed for joint 7, which leaves the tool alone, or NaN.
        rows[6:, :7], rows[6:, 21] = jacobian[0], -1.0
        self.wish, self.beyond = torch.nn.Linear(24, 7, bias=False), torch.nn.Linear(24, 8)
        with torch.no_grad():
            self.wish.weight.copy_(torch.from_numpy(weight / ROBOT.policy_velocity[:, None]))
            self.beyond.weight.copy_(torch.from_numpy(rows))
            home_x = float(manifest.kinematics().tool_position(ROBOT.home)[0])
            self.beyond.bias.copy_(torch.tensor([-1.0] * 6 + [home_x - FULL_AT, home_x - NAN_AT]))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        beyond = torch.relu(self.beyond(observation))
        broken = beyond[:, 7:] * 1e38 * 1e38  # 0, or infinite
        return torch.tanh(self.wish(observation) + beyond[:, :7] * 1e6) + (broken - broken)


def export(path: Path) -> None:
    """The campaign's bundle."""
    names = ("joint_position", "joint_velocity", "previous_action", "tool_position_error")
    manifest = make_manifest(
        task="reach",
        robot=ROBOT,
        observation=tuple(ObservationTerm(name) for name in names),
        action=ActionSpec("joint_velocity", tuple(ROBOT.policy_velocity.tolist())),
        control_rate=RATE,
        delay_range=(0.0, 0.0),
        goal_region=Box((0.3, -0.4, 0.2), (1.2, 0.4, 0.7)),
        training={},
        evaluation={},
        urdf=read_urdf(ROBOT),
    )
    save_bundle(path, Reacher(manifest), manifest, np.zeros((4, 24)))


# -------------------------------------------------------------------------------------------------------- the arm


class NotSpun(CallbackGroup):
    """Subscriptions whose messages are taken by the arm's own loop."""


def taken(subscription: Any) -> Any:
    """Every message that has arrived."""
    while (message := subscription.handle.take_message(subscription.msg_type, False)) is not None:
        yield message[0]


def arm(start: np.ndarray, tells_time: bool) -> None:
    """Follows velocity commands at once and publishes its state; `arm/fault` names a fault and how long it lasts [s].

    When a fault takes effect it is told on `arm/injected`, by name and steady time [ns].

    :param start: joint position (7,) [rad].
    :param tells_time: publish /clock, at the pace of the steady clock, and stamp by it.
    """
    ask(RealtimeSettings(priority=40), 0)
    rclpy.init()
    node = rclpy.create_node("campaign_arm")
    group = NotSpun()
    commands = node.create_subscription(
        Float64MultiArray, ROBOT.topics.velocity, print, 10, callback_group=group
    )
    requests = node.create_subscription(String, "arm/fault", print, 10, callback_group=group)
    injected = node.create_publisher(String, "arm/injected", 10)
    states = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
    names = ["finger", *ROBOT.joint_names]
    clock = node.create_publisher(ClockMessage, "/clock", 10) if tells_time else None
    simulated = 10**9
    position, velocity, fault, until = start, np.zeros(7), "", 0.0
    pacer = Pacer(SteadyClock(), round(1e9 / STATE_RATE))
    while True:
        pacer.wait()
        for request in taken(requests):
            fault, lasts = request.data.split()
            until = time.monotonic() + float(lasts)
            injected.publish(String(data=f"{fault} {time.monotonic_ns()}"))
            if fault == "home":
                position, velocity = ROBOT.home.copy(), np.zeros(7)
            elif fault == "clock_step":
                simulated -= 10**9 // 2
        if time.monotonic() > until:
            fault = ""
        if fault == "clock_stops":
            continue
        simulated += round(1e9 / STATE_RATE)
        for command in taken(commands):
            velocity = np.array(command.data)
        if fault == "protective_stop":
            velocity = np.zeros(7)
        position = position + velocity / STATE_RATE
        if fault == "stale":
            continue
        order = list(range(8))
        if fault == "permute":
            order = order[::-1]
        elif fault == "missing_joint":
            order.remove(3)
        told, values, speeds = list(names), np.append(0.04, position), np.append(math.nan, velocity)
        if fault == "nan":
            values[4] = math.nan
        elif fault == "infinite_velocity":
            speeds[2] = math.inf
        elif fault == "named_twice":
            told[2] = told[1]
        message = JointState(name=[told[i] for i in order])
        message.position = array.array("d", values[order].tolist())
        message.velocity = array.array("d", speeds[order].tolist())
        if fault == "lengths":
            message.velocity = message.velocity[:-1]
        stamp = node.get_clock().now().nanoseconds if clock is None else simulated
        stamp += {"stamps_back": -(10**9), "stamps_ahead": 10**9}.get(fault, 0)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        if clock is not None:
            clock.publish(ClockMessage(clock=message.header.stamp))
        states.publish(message)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--position", type=json.loads, default=ROBOT.home.tolist(), help="where it stands [rad]")
    parser.add_argument("--clock", action="store_true", help="tell the time on /clock")
    options = parser.parse_args()
    arm(np.array(options.position), options.clock)

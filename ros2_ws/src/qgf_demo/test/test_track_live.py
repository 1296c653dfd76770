# SPDX-License-Identifier: Apache-2.0
"""References over DDS: a policy that follows them leads the simulated arm along one; a bad one is refused and told."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.manifest import make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.reference import JointReference
from qgf_core.robot import load_robot, read_urdf
from qgf_demo.domain import Domain
from qgf_msgs.msg import PolicyCommand, PolicyStatus

pytestmark = [pytest.mark.ros, pytest.mark.alone]

PANDA = load_robot("panda")
RATE, AHEAD = 50.0, 0.06
"""Control rate [Hz]; latency and lag of the drive [s], which the policy looks ahead by."""


class Follower(torch.nn.Module):
    """A hand law: the velocity of the reference when the command has taken effect, and a pull of 3 1/s to where it is
    now."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pull", torch.from_numpy((3.0 / PANDA.policy_velocity).astype(np.float32)))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.clamp(observation[:, 7:14] - self.pull * observation[:, 0:7], -1.0, 1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    manifest = make_manifest(
        task="track", robot=PANDA,
        observation=(ObservationTerm("reference_error"), ObservationTerm("reference_velocity", preview=(AHEAD,))),
        action=ActionSpec("joint_velocity", tuple(PANDA.policy_velocity.tolist())), control_rate=RATE,
        delay_range=(0.02, 0.02), goal_region=None, reference_speed=0.6, training={}, evaluation={},
        urdf=read_urdf(PANDA))
    path = tmp_path_factory.mktemp("follower") / "bundle.pt"
    save_bundle(path, Follower(), manifest, np.random.default_rng(0).normal(0.0, 0.1, (8, 14)))
    return path


@pytest.fixture
def scene(bundle):
    """sim_node and policy_node as processes, and an operator."""
    nodes = {"qgf_sim.sim_node": ["-p", "robot:=panda"],
             "qgf_policy.policy_node": ["-p", f"bundle:={bundle}", "-p", "autostart:=true", "-p", "stale_periods:=50.0",
                                        "-p", "allow_controller_without_timeout:=true", "-p", "overrun_share:=1.0"]}

    class Scene:
        context, commands, statuses, states, diagnostics = Context(), [], [], [], []

        def until(self, condition, what, timeout=60.0):
            end = time.monotonic() + timeout
            while not condition():
                last = [(s.mode, s.fault) for s in self.statuses[-1:]]
                assert time.monotonic() < end, f"not within {timeout} s: {what}; last status {last}"
                self.executor.spin_once(timeout_sec=0.05)

        def last(self):
            return self.statuses[-1] if self.statuses else PolicyStatus()

        def send(self, curve, names=PANDA.joint_names):
            message = JointTrajectory(joint_names=list(names))
            for t, q, v in zip(curve.times, curve.positions, curve.velocities, strict=True):
                point = JointTrajectoryPoint(positions=q.tolist(), velocities=v.tolist())
                point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(1e9 * t), 10**9)
                message.points.append(point)
            self.reference.publish(message)

        def hear(self, message):
            """The arm's joints in the robot's order, with the time of their arrival [s]."""
            state = dict(zip(message.name, message.position, strict=True))
            self.states.append((time.monotonic(), np.array([state[name] for name in PANDA.joint_names])))

    with Domain() as domain:
        scene = Scene()
        rclpy.init(context=scene.context, domain_id=domain.id)
        scene.node = rclpy.create_node("operator", context=scene.context)
        scene.executor = SingleThreadedExecutor(context=scene.context)
        scene.executor.add_node(scene.node)
        subscribe = scene.node.create_subscription
        subscribe(PolicyCommand, "/policy_node/command", scene.commands.append, 1000)
        subscribe(PolicyStatus, "/policy_node/status", scene.statuses.append, 100)
        subscribe(DiagnosticArray, "/diagnostics", scene.diagnostics.append, 10)
        subscribe(JointState, "/joint_states", scene.hear, qos_profile_sensor_data)
        scene.reference = scene.node.create_publisher(JointTrajectory, "/policy_node/reference", 10)
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain.id)}
        processes = [subprocess.Popen([sys.executable, "-m", module, "--ros-args", *arguments], env=environment)
                     for module, arguments in nodes.items()]
        yield scene
        for process in processes:
            process.kill()
            process.wait(10.0)
        scene.executor.shutdown()
        scene.node.destroy_node()
        rclpy.shutdown(context=scene.context)


def test_the_arm_follows_a_reference_and_a_bad_one_is_refused_and_told(scene):
    scene.until(lambda: scene.last().mode == PolicyStatus.HOLDING and scene.states, "the policy waits for a reference")
    assert scene.last().fault == "no reference was received yet"
    scene.until(lambda: scene.reference.get_subscription_count() > 0, "~/reference")

    begin = scene.states[-1][1]
    turn = 0.25 * np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0])
    way = JointReference(np.array([0.0, 1.5, 3.0]), np.array([begin, begin + turn, begin]))
    scene.send(way)
    scene.until(lambda: scene.commands and scene.commands[-1].goal_stamp.sec > 0, "the reference is followed")
    began = time.monotonic()
    scene.until(lambda: scene.last().mode == PolicyStatus.ACTIVE, "active")
    scene.until(lambda: time.monotonic() - began > 3.3, "the end of the reference")

    # Behind by the ramp of the start at first, the arm is with it well before it turns round. When exactly the node
    # took it up is not known here: the shift of a few periods that fits best is told.
    measured = [(t - began, q) for t, q in scene.states if t > began]
    assert max(np.abs(q - begin).max() for _, q in measured) > 0.2
    errors = {shift: max(np.abs(q - way.at(t + shift)[0]).max() for t, q in measured if t > 1.0)
              for shift in np.arange(-0.1, 0.101, 0.02)}
    shift = min(errors, key=errors.get)
    print(f"largest error {errors[shift]:.4f} rad from 1 s on, shifted by {1e3 * shift:.0f} ms")
    assert errors[shift] < 0.05
    assert np.abs(measured[-1][1] - begin).max() < 0.02

    # Too fast: refused in words, counted, on /diagnostics; the arm stays where it is.
    scene.send(JointReference(np.array([0.0, 0.1]), np.array([begin, begin + turn])))
    scene.until(lambda: scene.last().faults_rejected_goal == 1, "the refusal is counted")
    scene.until(lambda: any("reference refused: the reference moves joint 'panda_joint1' at up to" in status.message
                            for array in scene.diagnostics for status in array.status), "the refusal on /diagnostics")
    assert np.abs(scene.states[-1][1] - begin).max() < 0.02
    scene.send(way, names=[*PANDA.joint_names[:-1], "wrist"])
    scene.until(lambda: scene.last().faults_rejected_goal == 2, "the second refusal is counted")

    values = np.array([c.command for c in scene.commands])
    following = np.diff([c.sequence for c in scene.commands]) == 1
    assert np.isfinite(values).all() and np.all(np.abs(values) <= PANDA.velocity_limit + 1e-9)
    assert np.all(np.abs(np.diff(values, axis=0))[following] <= PANDA.acceleration_limit / RATE + 1e-9)

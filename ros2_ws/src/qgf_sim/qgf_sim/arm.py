# SPDX-License-Identifier: Apache-2.0
"""An arm in PyBullet behind the small interface that environments and the simulation node need."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pybullet
from numpy.typing import NDArray

from qgf_core.errors import RobotError
from qgf_core.robot import RobotSpec
from qgf_sim.drive import Drive
from qgf_sim.quiet import quiet_native_output

Vector = NDArray[np.float64]
_SOLVER_ITERATIONS = 20


class PyBulletArm:
    """One fixed-base arm in a physics client of its own.

    :param robot: which URDF and joints, and how the drives answer.
    :param physics_rate: simulation steps per second [Hz].
    :param gui: show PyBullet's window.
    :raises RobotError: PyBullet cannot load the URDF or lacks a joint.
    """

    def __init__(self, robot: RobotSpec, physics_rate: float, gui: bool = False) -> None:
        self.robot, self.period = robot, 1.0 / physics_rate
        with quiet_native_output():
            self._client = pybullet.connect(pybullet.GUI if gui else pybullet.DIRECT)
        if self._client < 0:
            raise RobotError(robot.urdf, "", "PyBullet cannot open a window", "set DISPLAY or run without the window")
        flags = pybullet.URDF_USE_INERTIA_FROM_FILE | (0 if gui else pybullet.URDF_IGNORE_VISUAL_SHAPES)
        try:
            with quiet_native_output():
                self._body = pybullet.loadURDF(robot.urdf, useFixedBase=True, flags=flags, physicsClientId=self._client)
        except pybullet.error as error:
            raise RobotError(
                robot.urdf, "", f"PyBullet cannot load it ({error})", "mend the URDF or its mesh paths"
            ) from error
        self._set_up()

    def _set_up(self) -> None:
        client = {"physicsClientId": self._client}
        pybullet.setTimeStep(self.period, **client)
        pybullet.setGravity(0.0, 0.0, -9.81, **client)
        pybullet.setPhysicsEngineParameter(numSolverIterations=_SOLVER_ITERATIONS, **client)
        index = {}
        for i in range(pybullet.getNumJoints(self._body, **client)):
            info = pybullet.getJointInfo(self._body, i, **client)
            pybullet.changeDynamics(
                self._body,
                i,
                jointDamping=self.robot.drive.joint_damping,
                linearDamping=0.0,
                angularDamping=0.0,
                **client,
            )
            if info[2] in (pybullet.JOINT_REVOLUTE, pybullet.JOINT_PRISMATIC):
                index[info[1].decode()] = i
        missing = [name for name in self.robot.joint_names if name not in index]
        if missing:
            raise RobotError(
                self.robot.urdf, missing[0], "PyBullet sees no such movable joint", "correct the robot's joints"
            )
        self._joints = [index.pop(name) for name in self.robot.joint_names]
        self.other_joint_names = tuple(index)
        self._others = list(index.values())
        for i in self._others:  # a gripper's fingers stay where they are
            force = pybullet.getJointInfo(self._body, i, **client)[10]
            pybullet.setJointMotorControl2(
                self._body, i, pybullet.POSITION_CONTROL, targetPosition=0.0, force=force, **client
            )
        self._forces = self.robot.effort_limit.tolist()
        self._drives = {
            kind: Drive(self.robot.drive, self.period, len(self._joints)) for kind in ("velocity", "position")
        }
        self.reset(self.robot.home)

    def reset(self, position: Vector) -> None:
        """Put the arm at rest at joint positions (n,) [rad]; forget all commands."""
        for i, q in zip(self._joints, position, strict=True):
            pybullet.resetJointState(self._body, i, q, 0.0, physicsClientId=self._client)
        for i in self._others:
            pybullet.resetJointState(self._body, i, 0.0, 0.0, physicsClientId=self._client)
        self._drives["velocity"].reset(np.zeros(len(self._joints)))
        self._drives["position"].reset(np.asarray(position))
        self._last_position_target = np.array(position, dtype=np.float64)

    def step(self, command: Vector, interface: Literal["velocity", "position"] = "velocity", steps: int = 1) -> None:
        """Simulate `steps` physics periods with a constant command (n,) [rad/s] or [rad] to the drives."""
        for _ in range(steps):
            if interface == "velocity":
                pybullet.setJointMotorControlArray(
                    self._body,
                    self._joints,
                    pybullet.VELOCITY_CONTROL,
                    targetVelocities=self._drives["velocity"].step(command).tolist(),
                    forces=self._forces,
                    physicsClientId=self._client,
                )
            else:
                target = self._drives["position"].step(command)
                # Feeding the target's velocity forward keeps the servo's lag at the drive's own.
                velocity = (target - self._last_position_target) / self.period
                self._last_position_target = target
                pybullet.setJointMotorControlArray(
                    self._body,
                    self._joints,
                    pybullet.POSITION_CONTROL,
                    targetPositions=target.tolist(),
                    targetVelocities=velocity.tolist(),
                    positionGains=[0.3] * len(self._joints),
                    velocityGains=[1.0] * len(self._joints),
                    forces=self._forces,
                    physicsClientId=self._client,
                )
            pybullet.stepSimulation(physicsClientId=self._client)

    def state(self) -> tuple[Vector, Vector]:
        """True joint positions (n,) [rad] and velocities (n,) [rad/s]."""
        states = pybullet.getJointStates(self._body, self._joints, physicsClientId=self._client)
        return np.array([s[0] for s in states]), np.array([s[1] for s in states])

    def other_state(self) -> tuple[Vector, Vector]:
        """The same of the joints that nobody drives, such as fingers: (m,) [rad or m] and [rad/s or m/s]."""
        states = pybullet.getJointStates(self._body, self._others, physicsClientId=self._client) if self._others else []
        return np.array([s[0] for s in states]), np.array([s[1] for s in states])

    def close(self) -> None:
        """Leave the physics client."""
        if self._client >= 0 and pybullet.isConnected(self._client):
            pybullet.disconnect(self._client)
        self._client = -1

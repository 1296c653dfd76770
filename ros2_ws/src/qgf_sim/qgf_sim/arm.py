# SPDX-License-Identifier: Apache-2.0
"""An arm in PyBullet behind the small interface that environments and the simulation node need."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pybullet
from numpy.typing import NDArray

from qgf_core.errors import RobotError
from qgf_core.robot import RobotSpec, links_without_inertia, read_urdf
from qgf_sim.drive import Drive
from qgf_sim.quiet import quiet_native_output

Vector = NDArray[np.float64]
Interface = Literal["velocity", "position", "effort", "brake"]
"""What a command to the drives means: [rad/s], [rad], [N m] with the motors off, or nothing: they stop at once."""
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
        massless = links_without_inertia(read_urdf(self.robot))
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
            if info[12].decode() in massless:  # PyBullet takes 1 kg and 1 kg m^2 for what is not told
                pybullet.changeDynamics(self._body, i, mass=0.0, localInertiaDiagonal=(0.0, 0.0, 0.0), **client)
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
        # A torque loop is much faster than the servo round it: the latency remains, the lag does not.
        self._drives["effort"] = Drive(
            dataclasses.replace(self.robot.drive, time_constant=0.0), self.period, len(self._joints)
        )
        self._motors_on = True
        self.reset(self.robot.home)

    def reset(self, position: Vector) -> None:
        """Put the arm at rest at joint positions (n,) [rad]; forget all commands."""
        for i, q in zip(self._joints, position, strict=True):
            pybullet.resetJointState(self._body, i, q, 0.0, physicsClientId=self._client)
        for i in self._others:
            pybullet.resetJointState(self._body, i, 0.0, 0.0, physicsClientId=self._client)
        self._rest(np.asarray(position))

    def _rest(self, position: Vector) -> None:
        """The drives forget what they were told and stand at `position` (n,) [rad]."""
        for kind in ("velocity", "effort"):
            self._drives[kind].reset(np.zeros(len(self._joints)))
        self._effort_delay = self._drives["effort"].delay
        self._drives["position"].reset(position)
        self._last_position_target = np.array(position, dtype=np.float64)

    def step(self, command: Vector, interface: Interface = "velocity", steps: int = 1) -> None:
        """Simulate `steps` physics periods with a constant command (n,) to the drives, see `Interface`.

        Efforts are cut to the robot's limits and act against gravity, which nobody compensates.
        """
        for _ in range(steps):
            if interface == "effort":
                self._step_effort(command)
            elif interface == "brake":
                self._brake()
            elif interface == "velocity":
                self._motors_on = True
                pybullet.setJointMotorControlArray(
                    self._body,
                    self._joints,
                    pybullet.VELOCITY_CONTROL,
                    targetVelocities=self._drives["velocity"].step(command).tolist(),
                    forces=self._forces,
                    physicsClientId=self._client,
                )
            else:
                self._motors_on = True
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
            if interface == "brake":
                self._rest(self.state()[0])

    def _brake(self) -> None:
        self._motors_on = True
        pybullet.setJointMotorControlArray(
            self._body,
            self._joints,
            pybullet.VELOCITY_CONTROL,
            targetVelocities=[0.0] * len(self._joints),
            forces=self._forces,
            physicsClientId=self._client,
        )

    def _step_effort(self, command: Vector) -> None:
        torque = np.clip(self._drives["effort"].step(command), -self.robot.effort_limit, self.robot.effort_limit)
        if self._effort_delay > 0:  # the brakes are released when the first torque takes effect, not before
            self._effort_delay -= 1
            self._brake()
            return
        client = {"physicsClientId": self._client}
        if self._motors_on:  # a velocity motor without force: the joint turns freely
            pybullet.setJointMotorControlArray(
                self._body, self._joints, pybullet.VELOCITY_CONTROL, forces=[0.0] * len(self._joints), **client
            )
            self._motors_on = False
        # PyBullet clears torques at every step.
        pybullet.setJointMotorControlArray(
            self._body, self._joints, pybullet.TORQUE_CONTROL, forces=torque.tolist(), **client
        )

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

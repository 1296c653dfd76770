# SPDX-License-Identifier: Apache-2.0
"""An arm in PyBullet."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pybullet
from numpy.typing import NDArray

from qgf_core.errors import RobotError
from qgf_core.robot import RobotSpec, links_without_inertia, read_urdf, strip_meshes
from qgf_sim.engine import (
    PAYLOAD_LINK,
    POSITION_GAIN,
    PhysicsSpec,
    SimulatedArm,
    massive_links,
    urdf_with_payload,
    with_shifted_masses,
)
from qgf_sim.quiet import quiet_native_output

Vector = NDArray[np.float64]
_SOLVER_ITERATIONS = 20


class PyBulletArm(SimulatedArm):
    """One fixed-base arm in a physics client of its own.

    :param gui: show PyBullet's window.
    :param payload: whether `configure` may give it a payload; it then has no collision shapes.
    :raises RobotError: PyBullet cannot load the URDF or lacks a joint.
    """

    def __init__(self, robot: RobotSpec, physics_rate: float, gui: bool = False, payload: bool = False) -> None:
        super().__init__(robot, physics_rate)
        with quiet_native_output():
            self._client = pybullet.connect(pybullet.GUI if gui else pybullet.DIRECT)
        if self._client < 0:
            raise RobotError(robot.urdf, "", "PyBullet cannot open a window", "set DISPLAY or run without the window")
        self._flags = pybullet.URDF_USE_INERTIA_FROM_FILE | (0 if gui else pybullet.URDF_IGNORE_VISUAL_SHAPES)
        self._centre_of_mass: tuple[tuple[float, float, float], ...] = ()
        self._load(urdf_with_payload(robot) if payload else None)

    def _load(self, urdf: str | None) -> None:
        """The robot's own URDF, or one given as text, which has no meshes."""
        robot = self.robot
        with tempfile.TemporaryDirectory() as folder:
            path = Path(robot.urdf)
            if urdf is not None:
                path = Path(folder) / "changed.urdf"
                path.write_text(urdf, encoding="utf-8")
            try:
                with quiet_native_output():
                    self._body = pybullet.loadURDF(
                        str(path), useFixedBase=True, flags=self._flags, physicsClientId=self._client
                    )
            except pybullet.error as error:
                raise RobotError(
                    robot.urdf, "", f"PyBullet cannot load it ({error})", "mend the URDF or its mesh paths"
                ) from error
        self._set_up()

    def _set_up(self) -> None:
        client = {"physicsClientId": self._client}
        pybullet.setTimeStep(self.period, **client)
        self._time_step = self.period
        pybullet.setGravity(0.0, 0.0, -9.81, **client)
        pybullet.setPhysicsEngineParameter(numSolverIterations=_SOLVER_ITERATIONS, **client)
        massless = links_without_inertia(read_urdf(self.robot))
        index = {}
        self._link_index: dict[str, int] = {}
        self._payload = -1
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
            self._link_index[info[12].decode()] = i
            if info[12].decode() == PAYLOAD_LINK:
                self._payload = i
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
        self._links = [
            (i, *pybullet.getDynamicsInfo(self._body, i, **client)[0:3:2])
            for i in range(pybullet.getNumJoints(self._body, **client))
        ]
        self._motors_on = True
        self.reset(self.robot.home)

    def _place(self, position: Vector) -> None:
        for i, q in zip(self._joints, position, strict=True):
            pybullet.resetJointState(self._body, i, q, 0.0, physicsClientId=self._client)
        for i in self._others:
            pybullet.resetJointState(self._body, i, 0.0, 0.0, physicsClientId=self._client)

    def _set_physics(self, physics: PhysicsSpec) -> None:
        if physics.centre_of_mass != self._centre_of_mass:  # what PyBullet takes from the URDF only
            self._centre_of_mass = physics.centre_of_mass
            pybullet.removeBody(self._body, physicsClientId=self._client)
            urdf = strip_meshes(read_urdf(self.robot))
            self._load(urdf_with_payload(self.robot, with_shifted_masses(
                urdf, physics.centre_of_mass or [(0.0, 0.0, 0.0)] * len(massive_links(urdf)))))
        client = {"physicsClientId": self._client}
        for i, mass, inertia in self._links:
            pybullet.changeDynamics(
                self._body,
                i,
                mass=physics.payload if i == self._payload else physics.mass_factor * mass,
                localInertiaDiagonal=[physics.mass_factor * physics.inertia_factor * value for value in inertia],
                jointDamping=physics.joint_damping,
                **client,
            )
        if physics.payload and self._payload < 0:
            raise RobotError(self.robot.urdf, PAYLOAD_LINK, "the arm was made without one", "make it with payload=True")
        pybullet.setGravity(*physics.gravity, **client)
        self._forces = (physics.effort_factor * self.robot.effort_limit).tolist()

    def _apply_force(self, link: str, force: Vector) -> None:
        client = {"physicsClientId": self._client}
        index = self._link_index[link]
        point = pybullet.getLinkState(self._body, index, computeForwardKinematics=True, **client)[4]
        pybullet.applyExternalForce(self._body, index, force.tolist(), point, pybullet.WORLD_FRAME, **client)

    def _drive_velocity(self, velocity: list[float], period: float) -> None:
        self._motors_on = True
        # Arguments by place take PyBullet a sixth less time; of the positions it only looks at their number.
        pybullet.setJointMotorControlArray(self._body, self._joints, pybullet.VELOCITY_CONTROL, velocity, velocity,
                                           self._forces, physicsClientId=self._client)

    def _follow(self, velocities: list[list[float]], period: float) -> None:
        """The same, step by step, as the base class has it, in the one loop that training spends its time in."""
        self._motors_on = True
        drive, simulate, kind = pybullet.setJointMotorControlArray, pybullet.stepSimulation, pybullet.VELOCITY_CONTROL
        body, joints, forces, client = self._body, self._joints, self._forces, self._client
        for velocity in velocities:
            drive(body, joints, kind, velocity, velocity, forces, physicsClientId=client)
            if period != self._time_step:  # after the drive's command, whose largest impulse is that of the step before
                self._set_time_step(period)
            simulate(client)

    def _drive_position(self, position: list[float], velocity: list[float], period: float) -> None:
        self._motors_on = True
        pybullet.setJointMotorControlArray(
            self._body,
            self._joints,
            pybullet.POSITION_CONTROL,
            targetPositions=position,
            targetVelocities=velocity,
            positionGains=[POSITION_GAIN] * len(self._joints),
            velocityGains=[1.0] * len(self._joints),
            forces=self._forces,
            physicsClientId=self._client,
        )

    def _drive_torque(self, torque: list[float]) -> None:
        client = {"physicsClientId": self._client}
        if self._motors_on:  # a velocity motor without force: the joint turns freely
            pybullet.setJointMotorControlArray(
                self._body, self._joints, pybullet.VELOCITY_CONTROL, forces=[0.0] * len(self._joints), **client
            )
            self._motors_on = False
        # PyBullet clears torques at every step.
        pybullet.setJointMotorControlArray(
            self._body, self._joints, pybullet.TORQUE_CONTROL, forces=torque, **client
        )

    def _set_time_step(self, period: float) -> None:
        pybullet.setTimeStep(period, self._client)
        self._time_step = period

    def _simulate(self, period: float) -> None:
        if period != self._time_step:
            self._set_time_step(period)
        pybullet.stepSimulation(self._client)

    def state(self) -> tuple[Vector, Vector]:
        """True joint positions (n,) [rad] and velocities (n,) [rad/s]."""
        states = pybullet.getJointStates(self._body, self._joints, self._client)
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

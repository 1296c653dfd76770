# SPDX-License-Identifier: Apache-2.0
"""The same arm in MuJoCo, from the same URDF: an engine that no policy was trained on."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import RobotError
from qgf_core.robot import RobotSpec, read_urdf
from qgf_sim.engine import PAYLOAD_LINK, POSITION_GAIN, PhysicsSpec, SimulatedArm, massive_links, urdf_with_payload

Vector = NDArray[np.float64]
# Links stay apart, so that masses can be changed; inertias are taken as they stand, where they can be a body's.
_COMPILER = '<mujoco><compiler fusestatic="false" balanceinertia="{balance}" discardvisual="true"/></mujoco>'
_UNKNOWN_EFFORT = 1000.0
"""Of a joint that nobody drives and whose URDF tells none [N m or N]."""


class MuJoCoArm(SimulatedArm):
    """One fixed-base arm without collision shapes.

    The servos are inverse dynamics over one step (mass matrix times acceleration, plus gravity, Coriolis and damping),
    cut to the torque limits: what PyBullet's motors reach by an iterative solver.

    :raises RobotError: MuJoCo cannot read the URDF or lacks a joint.
    """

    def __init__(self, robot: RobotSpec, physics_rate: float) -> None:
        super().__init__(robot, physics_rate)
        model = self._model = _compile(robot)
        joints = {model.joint(i).name: i for i in range(model.njnt)}
        for name in robot.joint_names:
            if name not in joints:
                raise RobotError(robot.urdf, name, "MuJoCo sees no such movable joint", "correct the robot's joints")
        self.other_joint_names = tuple(name for name in joints if name not in robot.joint_names)
        driven, others = ([joints[name] for name in names] for names in (robot.joint_names, self.other_joint_names))
        self._q, self._v = model.jnt_qposadr[driven], model.jnt_dofadr[driven]
        self._other_q, self._other_v = model.jnt_qposadr[others], model.jnt_dofadr[others]
        self._limit = np.where(model.jnt_actfrclimited, model.jnt_actfrcrange[:, 1], _UNKNOWN_EFFORT)
        self._payload = model.body(PAYLOAD_LINK).id
        self._mass, self._inertia = model.body_mass.copy(), model.body_inertia.copy()
        self._centre, self._massive = model.body_ipos.copy(), massive_links(read_urdf(robot))
        self._data = mujoco.MjData(model)
        self._outside = np.zeros(model.nv)
        self._demand: tuple[Vector, Vector | None] = (np.zeros(len(driven)), None)
        self._set_physics(PhysicsSpec(joint_damping=robot.drive.joint_damping))
        self.reset(robot.home)

    def _place(self, position: Vector) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[self._q] = position
        mujoco.mj_forward(self._model, self._data)

    def _set_physics(self, physics: PhysicsSpec) -> None:
        model = self._model
        model.opt.gravity[:] = physics.gravity
        model.dof_damping[:] = physics.joint_damping
        model.dof_frictionloss[:] = 0.0  # a URDF's <dynamics friction>, which PyBullet ignores; ours is drive.coulomb
        model.body_mass[:] = physics.mass_factor * self._mass
        model.body_inertia[:] = physics.mass_factor * physics.inertia_factor * self._inertia
        model.body_ipos[:] = self._centre
        for link, shift in zip(self._massive, physics.centre_of_mass, strict=False):
            body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, link)
            if body > 0:  # the root link is part of the world, whose mass moves nothing
                model.body_ipos[body] += shift
        model.body_mass[self._payload] = physics.payload
        self._limit[self._v] = physics.effort_factor * self.robot.effort_limit
        mujoco.mj_setConst(model, self._data)

    def _apply_force(self, link: str, force: Vector) -> None:
        body = self._model.body(link).id
        mujoco.mj_applyFT(self._model, self._data, force, np.zeros(3), self._data.xpos[body], body, self._outside)

    def _drive_velocity(self, velocity: list[float], period: float) -> None:
        self._demand = np.array(velocity), None

    def _drive_position(self, position: list[float], velocity: list[float], period: float) -> None:
        error = np.array(position) - self._data.qpos[self._q]
        self._demand = np.array(velocity) + POSITION_GAIN * error / period, None

    def _drive_torque(self, torque: list[float]) -> None:
        self._demand = np.zeros(len(torque)), np.array(torque)

    def _simulate(self, period: float) -> None:
        model, data = self._model, self._data
        model.opt.timestep = period
        mujoco.mj_step1(model, data)
        velocity, torque = self._demand
        target = np.zeros(model.nv)
        target[self._v] = velocity
        target[self._other_v] = -POSITION_GAIN * data.qpos[self._other_q] / period
        # MuJoCo's step: (M + h D) (v' - v) = h (tau - bias - D v); tau for v' = target:
        force = np.zeros(model.nv)
        mujoco.mj_mulM(model, data, force, (target - data.qvel) / period)
        force += data.qfrc_bias + model.dof_damping * target - self._outside
        if torque is not None:
            force[self._v] = torque
        data.qfrc_applied[:] = np.clip(force, -self._limit, self._limit) + self._outside
        self._outside[:] = 0.0
        mujoco.mj_step2(model, data)

    def state(self) -> tuple[Vector, Vector]:
        """True joint positions (n,) [rad] and velocities (n,) [rad/s]."""
        return self._data.qpos[self._q].copy(), self._data.qvel[self._v].copy()

    def other_state(self) -> tuple[Vector, Vector]:
        """The same of the joints that nobody drives, such as fingers: (m,) [rad or m] and [rad/s or m/s]."""
        return self._data.qpos[self._other_q].copy(), self._data.qvel[self._other_v].copy()

    def close(self) -> None:
        """Nothing to give back: the memory goes with the object."""


def _compile(robot: RobotSpec) -> mujoco.MjModel:
    """The arm as MuJoCo reads it. Principal moments that break the triangle inequality, as URDFs of real arms have
    them, are replaced by their mean, link by link, which `./qgf robot check` tells.

    :raises RobotError: MuJoCo cannot read the URDF.
    """
    text = urdf_with_payload(robot)
    for balance in ("false", "true"):
        try:
            return mujoco.MjModel.from_xml_string(
                text.replace("</robot>", f"{_COMPILER.format(balance=balance)}</robot>")
            )
        except ValueError as error:
            if balance == "true" or "balanceinertia" not in str(error):
                raise RobotError(robot.urdf, "", f"MuJoCo cannot read it ({error})", "mend the URDF") from error
    raise AssertionError("unreachable")

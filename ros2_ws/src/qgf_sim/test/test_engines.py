# SPDX-License-Identifier: Apache-2.0
"""PyBullet and MuJoCo from the same URDF: free fall, gravity at rest, step responses; pinocchio as the referee."""

import dataclasses
import re

import numpy as np
import pinocchio
import pytest

from qgf_core.errors import ConfigError, RobotError
from qgf_core.kinematics import Kinematics
from qgf_core.robot import ToolSpec, load_robot, read_urdf, strip_meshes
from qgf_sim.arm import PyBulletArm
from qgf_sim.drive import ActuatorSpec
from qgf_sim.engine import POSITION_GAIN, PhysicsSpec, Push, massive_links, urdf_with_payload, with_shifted_masses
from qgf_sim.engines import make_arm
from qgf_sim.env import ArmEnv
from qgf_sim.mujoco_arm import MuJoCoArm

ARMS = ["panda", "iiwa", "ur5e"]
IDEAL = ActuatorSpec(delay=0.0, time_constant=0.0)
FREE = PhysicsSpec(joint_damping=0.0)


class Referee:
    """Equations of motion by pinocchio, fingers held."""

    def __init__(self, spec, payload=0.0, urdf=None):
        full = pinocchio.buildModelFromXML(urdf or strip_meshes(read_urdf(spec)))
        if payload:
            frame = full.frames[full.getFrameId(spec.tool.link)]
            place = frame.placement * pinocchio.SE3(np.eye(3), np.array(spec.tool.offset))
            full.appendBodyToJoint(frame.parentJoint, pinocchio.Inertia(payload, np.zeros(3), np.zeros((3, 3))), place)
        fixed = [i for i, name in enumerate(full.names) if i and name not in spec.joint_names]
        self.model = pinocchio.buildReducedModel(full, fixed, pinocchio.neutral(full))
        self.data = self.model.createData()
        assert tuple(self.model.names)[1:] == spec.joint_names

    def gravity(self, q):
        return pinocchio.computeGeneralizedGravity(self.model, self.data, q).copy()

    def acceleration(self, q, v, torque):
        return pinocchio.aba(self.model, self.data, q, v, torque).copy()

    def energy(self, q, v):
        return pinocchio.computeKineticEnergy(self.model, self.data, q, v) + pinocchio.computePotentialEnergy(
            self.model, self.data, q)

    def fall(self, q, duration, steps):
        """Classical Runge-Kutta from rest without torque."""
        h, v, zero = duration / steps, np.zeros_like(q), np.zeros_like(q)
        for _ in range(steps):
            k = []
            for a, b in ((0.0, None), (0.5, 0), (0.5, 1), (1.0, 2)):
                qk = q + (a * h * k[b][0] if b is not None else 0.0)
                vk = v + (a * h * k[b][1] if b is not None else 0.0)
                k.append((vk, self.acceleration(qk, vk, zero)))
            q = q + h / 6.0 * (k[0][0] + 2 * k[1][0] + 2 * k[2][0] + k[3][0])
            v = v + h / 6.0 * (k[0][1] + 2 * k[1][1] + 2 * k[2][1] + k[3][1])
        return q, v


@pytest.fixture(params=[PyBulletArm, MuJoCoArm], ids=["pybullet", "mujoco"])
def engine(request):
    return request.param


def made(engine, robot, rate=1000.0, actuator=IDEAL, physics=FREE, **more):
    spec = load_robot(robot)
    arm = engine(spec, rate, **more)
    arm.configure(actuator, physics)
    arm.reset(spec.home)
    return arm


def fall(arm, steps):
    zero = np.zeros(len(arm.robot.joints))
    for _ in range(steps):
        arm.step(zero, "effort")
    return arm.state()


@pytest.mark.parametrize("robot", ARMS)
def test_free_fall_agrees_with_the_equations_of_motion(engine, robot):
    """0.3 s from home at 4 kHz, against Runge-Kutta: within 1% of the way and of the speed of the fastest joint."""
    arm = made(engine, robot, 4000.0)
    position, velocity = fall(arm, 1200)
    expected, speed = Referee(arm.robot).fall(arm.robot.home, 0.3, 300)
    arm.close()
    way = np.abs(expected - arm.robot.home).max()
    assert way > 0.15
    assert np.abs(position - expected).max() < 0.01 * way
    assert np.abs(velocity - speed).max() < 0.01 * np.abs(speed).max()


@pytest.mark.parametrize("robot", ARMS)
def test_gravity_torque_holds_the_arm_at_rest_in_both(engine, robot):
    """Joints stay within 1e-3 rad/s in 20 ms; without a tenth of the torque they leave by more than ten times that."""
    for share, still in ((1.0, True), (0.9, False)):
        arm = made(engine, robot)
        torque = share * Referee(arm.robot).gravity(arm.robot.home)
        assert np.abs(torque).max() > 5.0
        for _ in range(20):
            arm.step(torque, "effort")
        speed = np.abs(arm.state()[1]).max()
        arm.close()
        assert speed < 1e-3 if still else speed > 1e-2


@pytest.mark.parametrize("robot", ARMS)
def test_a_payload_weighs_what_it_does_where_the_tool_is(engine, robot):
    more = {"payload": True} if engine is PyBulletArm else {}
    arm = made(engine, robot, physics=dataclasses.replace(FREE, payload=1.5), **more)
    referee = Referee(arm.robot, 1.5)
    torque = referee.gravity(arm.robot.home)
    assert np.abs(torque - Referee(arm.robot).gravity(arm.robot.home)).max() > 4.0
    for _ in range(20):
        arm.step(torque, "effort")
    assert np.abs(arm.state()[1]).max() < 1e-3
    arm.reset(arm.robot.home)  # its inertia, too: the first step of the fall
    for _ in range(4):
        velocity = fall(arm, 1)[1]
    arm.close()
    expected = 4e-3 * referee.acceleration(arm.robot.home, np.zeros_like(torque), np.zeros_like(torque))
    assert velocity == pytest.approx(expected, abs=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("robot", ARMS)
def test_centres_of_mass_and_inertias_are_where_and_what_is_said(engine, robot):
    """Weight: the torque that holds the changed arm. Inertia: the first steps of its fall."""
    spec = load_robot(robot)
    plain = strip_meshes(read_urdf(spec))
    shifts = tuple(map(tuple, np.random.default_rng(1).uniform(-0.03, 0.03, (len(massive_links(plain)), 3)).tolist()))
    physics = dataclasses.replace(FREE, centre_of_mass=shifts, inertia_factor=1.5)
    heavier = re.sub(r'\b(i[xyz][xyz])="([^"]*)"', lambda m: f'{m[1]}="{1.5 * float(m[2])}"', plain)
    referee, nominal = Referee(spec, urdf=with_shifted_masses(heavier, shifts)), Referee(spec)
    arm = made(engine, robot, physics=physics)
    torque = referee.gravity(spec.home)
    assert np.abs(torque - nominal.gravity(spec.home)).max() > 0.3
    for _ in range(20):
        arm.step(torque, "effort")
    assert np.abs(arm.state()[1]).max() < 1e-3
    still = np.zeros_like(torque)
    expected = 4e-3 * referee.acceleration(spec.home, still, still)
    arm.reset(spec.home)
    assert fall(arm, 4)[1] == pytest.approx(expected, abs=0.02 * np.abs(expected).max())
    arm.configure(IDEAL, FREE)  # and back to what it was
    arm.reset(spec.home)
    expected = 4e-3 * nominal.acceleration(spec.home, still, still)
    assert fall(arm, 4)[1] == pytest.approx(expected, abs=0.02 * np.abs(expected).max())
    arm.close()


@pytest.mark.parametrize("robot", ARMS)
def test_a_push_accelerates_an_arm_that_is_held_by_torques(engine, robot):
    """M dv = J^T F dt, J of the pushed link's frame; none of it is left after the push, nor after a reset."""
    arm = made(engine, robot)
    spec, referee = arm.robot, Referee(arm.robot)
    torque, still, joint = referee.gravity(spec.home), np.zeros(len(spec.joints)), spec.joint_names[-2]
    force = np.array([20.0, -30.0, 10.0])
    pinocchio.computeJointJacobians(referee.model, referee.data, spec.home)
    jacobian = pinocchio.getJointJacobian(referee.model, referee.data, referee.model.getJointId(joint),
                                          pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED)[:3]
    arm.push(Push(joint, force))
    for _ in range(4):
        arm.step(torque, "effort")
    velocity = arm.state()[1]
    expected = 4e-3 * referee.acceleration(spec.home, still, torque + jacobian.T @ force)
    assert np.abs(expected).max() > 0.04
    assert velocity == pytest.approx(expected, abs=0.03 * np.abs(expected).max())
    arm.push(None)
    arm.step(torque, "effort")
    assert arm.state()[1] == pytest.approx(velocity, abs=0.05 * np.abs(expected).max())
    arm.push(Push(joint, force))
    arm.reset(spec.home)
    arm.step(torque, "effort")
    assert np.abs(arm.state()[1]).max() < 1e-3
    arm.close()


@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_a_servo_yields_to_a_push_by_its_stiffness(engine, interface):
    """Torque by stiffness is the speed it loses: 10 N at the wrist of a Panda, against 50 N m s/rad."""
    arm = made(engine, "panda", 200.0)
    command = np.zeros(7) if interface == "velocity" else arm.robot.home
    arm.push(Push("panda_joint6", np.array([0.0, 10.0, 0.0])))
    arm.step(command, interface, steps=8 if interface == "velocity" else 60)
    position, velocity = arm.state()
    arm.close()
    kinematics = Kinematics(strip_meshes(read_urdf(arm.robot)), arm.robot.joint_names, ToolSpec("panda_link6"))
    yielding = kinematics.tool_jacobian(arm.robot.home).T @ [0.0, 10.0, 0.0] / 50.0
    assert np.abs(yielding).max() > 0.05
    if interface == "velocity":
        assert velocity == pytest.approx(yielding, abs=0.05 * np.abs(yielding).max())
    else:  # at rest where POSITION_GAIN of the error in a period makes up for it
        assert position - arm.robot.home == pytest.approx(
            0.005 / POSITION_GAIN * yielding, abs=0.001 * np.abs(yielding).max())
        assert np.abs(velocity).max() < 0.02 * np.abs(yielding).max()


@pytest.mark.parametrize("robot", ARMS)
def test_energy_is_kept_in_free_swing_and_lost_by_damping(engine, robot):
    """0.3 s at 4 kHz without damping, before any joint meets its limit: within 1% of what turned into motion; with
    damping it only falls."""
    arm = made(engine, robot, 4000.0)
    referee, moving, start = Referee(arm.robot), 0.0, None
    for _ in range(12):
        q, v = fall(arm, 100)
        start = referee.energy(arm.robot.home, 0 * v) if start is None else start
        moving = max(moving, pinocchio.computeKineticEnergy(referee.model, referee.data, q, v))
        assert abs(referee.energy(q, v) - start) < 0.01 * max(moving, 1.0)
    assert moving > 2.0  # [J]
    arm.configure(IDEAL, dataclasses.replace(FREE, joint_damping=0.5))
    arm.reset(arm.robot.home)
    energies = [start]
    for _ in range(10):
        q, v = fall(arm, 100)
        energies.append(referee.energy(q, v))
    arm.close()
    assert (np.diff(energies) < 1e-3).all() and energies[-1] < start - 0.02


@pytest.mark.parametrize("robot", ARMS)
@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_step_responses_agree(robot, interface):
    """At the task's 200 Hz with the arm's own drives, all joints at once, as fast as the limiter lets them: velocities
    within 3% of the step, positions within 2 mrad."""
    spec = load_robot(robot)
    answers = []
    for engine in (PyBulletArm, MuJoCoArm):
        arm, log = engine(spec, 200.0), []
        for k in range(120):
            if interface == "velocity":
                command = np.minimum(0.5 * spec.policy_velocity, spec.acceleration_limit * k / 200.0)
            else:  # a smooth step of 0.2 rad in 0.5 s
                t = min(k / 100.0, 1.0)
                command = spec.home + 0.2 * t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
            arm.step(command, interface)
            log.append(np.concatenate(arm.state()))
        arm.close()
        answers.append(np.array(log))
    n = len(spec.joints)
    difference = np.abs(answers[0] - answers[1])
    assert np.abs(answers[0][:, n:]).max() > 0.25
    assert difference[:, :n].max() < 2e-3
    assert difference[:, n:].max() < 0.03 * np.abs(answers[0][:, n:]).max()


@pytest.mark.parametrize("robot", ARMS)
def test_mass_gravity_and_torque_limits_are_changed_for_both_alike(engine, robot):
    physics = PhysicsSpec(mass_factor=1.3, joint_damping=0.0, gravity=(0.6, -0.4, -9.7))
    arm = made(engine, robot, physics=physics)
    model = Referee(arm.robot)
    model.model.gravity.linear = np.array(physics.gravity)
    torque = 1.3 * model.gravity(arm.robot.home)
    for _ in range(20):
        arm.step(torque, "effort")
    assert np.abs(arm.state()[1]).max() < 1e-3
    arm.configure(IDEAL, dataclasses.replace(FREE, effort_factor=0.01))
    arm.reset(arm.robot.home)
    for _ in range(100):  # with a hundredth of its torque no arm holds itself
        arm.step(np.zeros(len(arm.robot.joints)))
    assert np.abs(arm.state()[1]).max() > 0.1
    arm.configure(IDEAL, FREE)
    arm.reset(arm.robot.home)
    for _ in range(100):
        arm.step(np.zeros(len(arm.robot.joints)))
    assert np.abs(arm.state()[1]).max() < 5e-3
    arm.close()


def test_brakes_fingers_and_the_order_of_joints(engine):
    spec = load_robot("panda")
    turned = dataclasses.replace(spec, joints=spec.joints[::-1])
    arm = engine(turned, 200.0)
    assert arm.other_joint_names == ("panda_finger_joint1", "panda_finger_joint2")
    assert arm.state()[0] == pytest.approx(spec.home[::-1])
    command = np.zeros(7)
    command[2] = 0.4  # panda_joint5
    for _ in range(60):
        arm.step(command)
    moved = arm.state()[0][::-1] - spec.home
    assert moved[4] > 0.05 and np.abs(np.delete(moved, 4)).max() < 5e-3
    assert np.abs(arm.other_state()[0]).max() < 1e-3
    for _ in range(20):
        arm.step(command, "brake")
    assert np.abs(arm.state()[1]).max() < 5e-3
    arm.close()


def test_a_period_of_its_own_moves_the_arm_by_as_much(engine):
    arm = made(engine, "iiwa", 200.0)
    command = np.full(7, 0.05)
    for _ in range(20):
        arm.step(command)
    for period in (0.004, 0.0065, None, 0.005):
        before = arm.state()[0]
        arm.step(command, period=period)
        assert arm.state()[0] - before == pytest.approx(np.full(7, 0.05 * (period or 0.005)), rel=0.02)
    arm.close()


def test_the_task_runs_on_the_second_engine_by_the_same_seeds():
    first, second, pybullet = (ArmEnv("panda", engine=name) for name in ("mujoco", "mujoco", "pybullet"))
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 7)).astype(np.float32)
    logs = []
    for env in (first, second, pybullet):
        _, info = env.reset(seed=5)
        steps = [env.step(action) for action in actions]
        logs.append((info["goal"], np.array([step[0] for step in steps]), env.joint_position))
        env.close()
    assert np.array_equal(logs[0][1], logs[1][1]) and not np.array_equal(logs[0][1], logs[2][1])
    assert np.array_equal(logs[0][0], logs[2][0])
    assert logs[0][2] == pytest.approx(logs[2][2], abs=0.01)


def test_engines_are_made_by_name():
    spec = load_robot("iiwa")
    for name, cls in (("pybullet", PyBulletArm), ("mujoco", MuJoCoArm)):
        arm = make_arm(name, spec, 200.0)
        assert type(arm) is cls
        arm.close()
    with pytest.raises(ConfigError, match="'drake' is not known; choose one of: pybullet, mujoco"):
        make_arm("drake", spec, 200.0)
    with pytest.raises(ConfigError, match="no window"):
        make_arm("mujoco", spec, 200.0, gui=True)


def test_errors_are_one_line(tmp_path):
    spec = load_robot("panda")
    lost = dataclasses.replace(spec, joints=(dataclasses.replace(spec.joints[0], name="elbow"), *spec.joints[1:]))
    with pytest.raises(RobotError, match="elbow: MuJoCo sees no such movable joint"):
        MuJoCoArm(lost, 200.0)
    broken = tmp_path / "broken.urdf"
    broken.write_text(read_urdf(spec).replace('name="panda_link5"', 'name=""', 1))
    with pytest.raises(RobotError, match="MuJoCo cannot read it"):
        MuJoCoArm(dataclasses.replace(spec, urdf=str(broken)), 200.0)
    arm = PyBulletArm(spec, 200.0)
    with pytest.raises(RobotError, match="made without one"):
        arm.configure(IDEAL, PhysicsSpec(payload=1.0))
    arm.close()
    assert "qgf_payload" in urdf_with_payload(spec)

# SPDX-License-Identifier: Apache-2.0
"""Faults of the driver: what arrives, when and in which order; and what a stopped arm does."""

import dataclasses

import numpy as np
import pinocchio
import pytest

from qgf_core.clocks import VirtualClock
from qgf_core.config import from_mapping
from qgf_core.errors import ConfigError
from qgf_core.robot import load_robot, read_urdf, strip_meshes
from qgf_sim.faults import FaultInjector, FaultSettings
from qgf_sim.reach import load_reach
from qgf_sim.real_time import RealTimeLoop
from qgf_sim.robot_double import DoubleSettings, RobotDouble, default_settings
from qgf_sim.trajectory import TrajectoryPoint

MS = 1_000_000
NAMES = ("a", "b", "finger")
PANDA = load_robot("panda")


def injector(seed=0, **faults):
    made = FaultInjector(NAMES, 2, seed)
    made.settings = FaultSettings(**faults)
    return made


def push(made, stamp, position=(1.0, 2.0, 3.0), noise=0.0):
    truth, velocity = np.array(position), np.array([0.1, 0.2, 0.3])
    made.push(stamp, stamp, truth + noise, velocity + noise, truth, velocity)


def one(made, **more):
    push(made, 0, **more)
    (message,) = made.due(0)
    return message


def test_a_healthy_arm_tells_everything_at_once():
    message = one(injector(), noise=0.5)
    assert message.stamp == 0 and message.names == NAMES
    assert message.position.tolist() == [1.5, 2.5, 3.5] and message.velocity.tolist() == [0.6, 0.7, 0.8]


def test_delay_is_exact_and_keeps_the_stamp():
    late = injector(delay_s=0.0123)
    push(late, 5 * MS)
    assert late.next_arrival == 17_300_000
    assert late.due(17_299_999) == [] and [m.stamp for m in late.due(17_300_000)] == [5 * MS]
    assert late.due(10**12) == [] and late.next_arrival is None


def test_jitter_spreads_arrivals_evenly_and_keeps_their_order():
    late = injector(delay_s=0.01, jitter_s=0.004)
    arrivals = []
    for k in range(2000):
        push(late, 5 * k * MS)
        arrivals.append(late.next_arrival - 5 * k * MS)
        late.due(10**15)
    shares = (np.array(arrivals) - 10 * MS) / (4 * MS)
    assert shares.min() >= 0.0 and shares.max() <= 1.0
    assert np.histogram(shares, 4, (0, 1))[0] == pytest.approx([500] * 4, rel=0.15)
    wild = injector(jitter_s=0.1)  # far more than the period: without order they would overtake each other
    for k in range(200):
        push(wild, 5 * k * MS)
    assert [m.stamp for m in wild.due(10**15)] == [5 * k * MS for k in range(200)]
    wild.settings = FaultSettings(delay_s=0.5)
    push(wild, 0)
    wild.settings = FaultSettings()
    push(wild, 5 * MS)
    assert wild.due(499 * MS) == [] and [m.stamp for m in wild.due(500 * MS)] == [0, 5 * MS]


def test_dropout_takes_its_share_by_the_seed():
    def arrived(seed, share):
        lossy = injector(seed, dropout=share)
        for k in range(4000):
            push(lossy, k)
        stamps = [m.stamp for m in lossy.due(10**9)]
        assert lossy.dropped == 4000 - len(stamps)
        return stamps

    assert len(arrived(0, 0.3)) == pytest.approx(2800, abs=90)  # three standard deviations
    assert arrived(1, 0.3) == arrived(1, 0.3) != arrived(2, 0.3)
    assert arrived(0, 1.0) == [] and len(arrived(0, 0.0)) == 4000


def test_noise_is_scaled_round_the_truth():
    message = one(injector(noise=3.0), noise=0.5)
    assert message.position == pytest.approx([2.5, 3.5, 4.5]) and message.velocity == pytest.approx([1.6, 1.7, 1.8])
    assert one(injector(noise=0.0), noise=0.5).position.tolist() == [1.0, 2.0, 3.0]


def test_a_frozen_joint_repeats_what_it_was_until_it_is_freed():
    stuck = injector()
    assert one(stuck).position[1] == 2.0
    stuck.settings = FaultSettings(frozen_joint="b")
    assert one(stuck, position=(1.0, 2.5, 3.0)).position.tolist() == [1.0, 2.5, 3.0]
    assert one(stuck, position=(7.0, 8.0, 9.0)).position.tolist() == [7.0, 2.5, 9.0]
    stuck.settings = FaultSettings(frozen_joint="a")
    assert one(stuck, position=(4.0, 5.0, 6.0)).position.tolist() == [4.0, 5.0, 6.0]
    assert one(stuck, position=(7.0, 8.0, 9.0)).position.tolist() == [4.0, 8.0, 9.0]
    stuck.settings = FaultSettings()
    assert one(stuck, position=(7.0, 8.0, 9.0)).position.tolist() == [7.0, 8.0, 9.0]


def test_nan_permutation_and_a_missing_joint():
    broken = one(injector(nan=True))
    assert np.isnan(broken.position).tolist() == [False, True, False] and np.isfinite(broken.velocity).all()
    turned = one(injector(permute=True))
    assert turned.names == ("finger", "b", "a") and turned.position.tolist() == [3.0, 2.0, 1.0]
    assert turned.velocity.tolist() == [0.3, 0.2, 0.1]
    without = one(injector(permute=True, missing_joint="b", nan=True))
    assert without.names == ("finger", "a") and without.position.tolist() == [3.0, 1.0]


@pytest.mark.parametrize(("faults", "words"), [
    ({"dropout": 1.5}, "fault.dropout: 1.5 is outside 0 to 1"),
    ({"delay_s": float("nan")}, "fault.delay_s: nan is outside 0 to 10"),
    ({"noise": -1.0}, "fault.noise: -1.0 is outside 0 to 1000"),
    ({"frozen_joint": "elbow"}, "fault.frozen_joint: there is no joint 'elbow'; choose one of: a, b, finger"),
    ({"missing_joint": "x"}, "fault.missing_joint: there is no joint 'x'"),
])
def test_settings_are_checked(faults, words):
    with pytest.raises(ConfigError, match=words):
        FaultSettings(**faults).check(NAMES)
    FaultSettings(delay_s=10.0, dropout=1.0, frozen_joint="a", missing_joint="finger").check(NAMES)


def test_every_fault_is_described():
    assert all(f.metadata["description"].endswith((".", "none")) for f in dataclasses.fields(FaultSettings))


@pytest.fixture
def arm():
    made = []

    def make(**changes):
        values = default_settings(PANDA, load_reach()) | {"position_noise": 0.0, "velocity_noise": 0.0} | changes
        made.append(RobotDouble(PANDA, from_mapping(DoubleSettings, values, "sim_node")))
        return made[-1]

    yield make
    for double in made:
        double.close()


def run(double, steps, start=0):
    for k in range(steps):
        double.step(start + 5 * k * MS)
    return start + 5 * steps * MS


def truth(double):
    sample = double.read()[1]
    return sample.position[:7], sample.velocity[:7]


def test_delayed_states_arrive_between_two_steps_of_the_physics(arm):
    clock, arrivals = VirtualClock(10**9), []
    double = arm()
    double.faults.settings = FaultSettings(delay_s=0.0072)
    loop = RealTimeLoop(double, clock, lambda *_: None,
                        lambda message: arrivals.append((clock.now() - 10**9, message.stamp - 10**9)))
    for _ in range(6):
        loop.cycle()
    assert arrivals == [(12_200_000, 5 * MS), (17_200_000, 10 * MS), (22_200_000, 15 * MS), (27_200_000, 20 * MS)]
    double.faults.settings = FaultSettings()
    loop.cycle()
    # The two on their way come first, and what was measured later waits for them.
    assert arrivals[4:] == [(32_200_000, 25 * MS)] and loop.health().dropped_steps == 0


@pytest.mark.parametrize("interface", ["velocity", "position", "effort", "joint_trajectory"])
@pytest.mark.parametrize("fault", ["protective_stop", "inactive_controller"])
def test_a_stopped_arm_is_deaf_and_waits_for_a_new_command(arm, interface, fault):
    double = arm(command_interface=interface)

    def command(now, way=0.1):
        if interface == "joint_trajectory":
            goal = TrajectoryPoint(1000 * MS, (PANDA.home + 4 * way).tolist())
            return double.accept_trajectory(PANDA.joint_names, [goal], now)
        values = {"velocity": np.full(7, 4 * way), "position": PANDA.home + way}
        return double.accept(values.get(interface, np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])).tolist(), now)

    def stopped_at(now):
        first = run(double, 80, now)
        pose = truth(double)[0]
        assert np.abs(truth(double)[1]).max() < 5e-3  # PyBullet's velocity motors sink by 2 mrad/s
        return first, pose

    assert command(0) == ""
    now = run(double, 40)
    assert np.abs(truth(double)[1]).max() > 0.1
    double.faults.settings = FaultSettings(**{fault: True})
    before = truth(double)[0]
    if fault == "protective_stop":
        moving = np.abs(truth(double)[1]).max()
        now = run(double, 14, now)
        # Past their latency of 20 ms and lag of 40 ms, by which 29% of the speed would be left after these 70 ms.
        assert np.abs(truth(double)[1]).max() < 0.15 * moving
    now, pose = stopped_at(now)
    assert np.abs(pose - before).max() < (0.06 if fault == "protective_stop" else 0.1)
    assert command(now) == "" and double.ignored == 1 and double.accepted == 1
    now, still = stopped_at(now)
    assert np.abs(still - pose).max() < 3e-3
    double.faults.settings = FaultSettings()
    now, still = stopped_at(now)  # cleared: neither the old command nor the one during the stop comes back
    assert np.abs(still - pose).max() < 3e-3
    assert command(now, 0.2) == "" and double.accepted == 2
    run(double, 40, now)
    assert np.abs(truth(double)[0] - pose).max() > 0.02


def test_a_trajectory_is_followed_with_the_drives_delay_and_lag(arm):
    double = arm(command_interface="joint_trajectory")
    names = list(reversed(PANDA.joint_names))
    goal = PANDA.home + 0.3
    assert double.accept_trajectory(names, [TrajectoryPoint(1000 * MS, goal[::-1].tolist(), [0.0] * 7)], 0) == ""
    now = run(double, 100)
    # The command is at half the way; the arm is behind by 60 ms at the top speed of 1.5 * 0.3 rad/s.
    assert truth(double)[0] - PANDA.home == pytest.approx(np.full(7, 0.15 - 0.06 * 0.45), abs=4e-3)
    run(double, 200, now)
    assert truth(double)[0] == pytest.approx(goal, abs=1e-3)
    assert "joints missing" in double.accept_trajectory(names[1:], [TrajectoryPoint(MS, [0.0] * 6)], now)
    assert double.malformed == 1 and double.beyond_limits == 0
    double.accept_trajectory(names, [TrajectoryPoint(MS, [9.0] * 7)], now)
    assert double.beyond_limits == 1


def test_effort_meets_gravity(arm):
    """The gravity torque holds the arm; the brakes hold before the first command."""
    double = arm(command_interface="effort")
    now = run(double, 100)
    assert truth(double)[0] == pytest.approx(PANDA.home, abs=2e-3)
    torque = gravity_torque(PANDA.home)
    assert np.abs(torque).max() > 10.0  # [N m]
    double.accept(torque.tolist(), now)
    now = run(double, 100, now)
    assert np.abs(truth(double)[1]).max() < 0.02
    double.accept([0.0] * 7, now)
    now = run(double, 100, now)
    assert np.abs(truth(double)[1]).max() > 0.5
    double.accept([1e6] * 7, now)
    assert double.beyond_limits == 1


def gravity_torque(position):
    """By pinocchio: how fast the potential energy of the links grows with each joint, central difference [N m]."""
    full = pinocchio.buildModelFromXML(strip_meshes(read_urdf(PANDA)))
    fixed = [i for i, name in enumerate(full.names) if i and name not in PANDA.joint_names]
    model = pinocchio.buildReducedModel(full, fixed, pinocchio.neutral(full))
    data, step = model.createData(), 1e-5
    assert tuple(model.names)[1:] == PANDA.joint_names
    energy = [pinocchio.computePotentialEnergy(model, data, position + turn) for turn in
              np.vstack([step * np.eye(7), -step * np.eye(7)])]
    return (np.array(energy[:7]) - np.array(energy[7:])) / (2 * step)

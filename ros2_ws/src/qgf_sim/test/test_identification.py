# SPDX-License-Identifier: Apache-2.0
"""Identification without ROS: hidden drives are found again, and the motion that shows them is bounded."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core.errors import ConfigError, QgfError, RobotError
from qgf_core.robot import Box, RobotSpec, load_robot
from qgf_core.robot_identified import IdentifiedJoint, IdentifiedSpec, with_identified
from qgf_sim.drive import actuator_of
from qgf_sim.excitation import Excitation, ExcitationSettings, Guard, held
from qgf_sim.identification import Recording, identify, identify_joint, measured_times
from qgf_sim.identify_bag import read_bag
from qgf_sim.perturb import Distribution, Perturbation, draw
from qgf_sim.sensors import SensorSpec

PANDA = load_robot("panda")


def played(delay: float, lag: float, damping: float = 0.0, gain: float = 1.0, dead_band: float = 0.0,
           interface: str = "velocity", seed: int = 0, noise: tuple[float, float] = (1e-3, 1e-2)) -> Recording:
    """A joint's answer to the excitation by a second implementation: Euler steps of 0.1 ms, sampled at 250 Hz."""
    excitation = Excitation(PANDA, ExcitationSettings(seed=seed), PANDA.home, (1,))
    told = (excitation.velocity if interface == "velocity" else excitation.position)[:, 1]
    random, h = np.random.default_rng(seed), 1e-4
    sent = np.arange(told.size) * excitation.period + random.uniform(0.0, 1e-3, told.size)  # not quite evenly
    times = np.arange(-0.3, sent[-1] + 0.3, h)
    index = np.searchsorted(sent + delay, times, "right") - 1
    u = np.where(index >= 0, told[np.maximum(index, 0)], told[0] if interface == "position" else 0.0)
    y, dy, q = np.empty(times.size), 0.0, float(PANDA.home[1])
    out, positions, velocities = u[0], np.empty(times.size), np.empty(times.size)
    for i in range(times.size):
        if damping:
            dy += h * ((u[i] - out) / lag**2 - 2.0 * damping / lag * dy)
            out += h * dy
        else:
            out += h * (u[i] - out) / lag
        y[i] = out
        v = math.copysign(max(abs(gain * out) - dead_band, 0.0), out)
        q += h * v
        positions[i], velocities[i] = (out if interface == "position" else q), v
    if interface == "position":
        velocities = np.gradient(y, h)
    at = slice(0, None, 40)
    m = times[at].size
    return Recording(interface, sent, told[:, None], times[at],  # type: ignore[arg-type]
                     (positions[at] + random.normal(0, noise[0], m))[:, None],
                     (velocities[at] + random.normal(0, noise[1], m))[:, None])


@pytest.mark.parametrize(("delay", "lag", "damping", "gain", "dead_band"), [
    (0.02, 0.04, 0.0, 1.0, 0.0), (0.045, 0.025, 0.0, 0.85, 0.01), (0.005, 0.12, 0.0, 1.0, 0.006),
    (0.03, 0.03, 0.7, 1.0, 0.0), (0.0173, 0.05, 0.4, 0.9, 0.0),
])
def test_what_was_hidden_is_found(delay, lag, damping, gain, dead_band):
    found = identify_joint(played(delay, lag, damping, gain, dead_band), still_until=1.0)
    assert found.delay[0] == pytest.approx(delay, rel=0.05, abs=1e-3)
    assert found.time_constant[0] == pytest.approx(lag, rel=0.05)
    assert found.damping_ratio[0] == pytest.approx(damping, rel=0.1)
    assert found.gain[0] == pytest.approx(gain, rel=0.02)
    assert found.coulomb[0] == pytest.approx(50.0 * dead_band, abs=0.05)
    assert found.position_noise[0] == pytest.approx(1e-3, rel=0.15)
    assert found.velocity_noise[0] == pytest.approx(1e-2, rel=0.15)
    for low, value, high in ((i[1], i[0], i[2]) for i in (found.delay, found.time_constant, found.gain)):
        assert low <= value <= high and high - low < 0.3 * value + 2e-3


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    """95 %: of 2 x 8 intervals one miss is usual; five or more come once in a thousand times."""
    inside = []
    for seed in range(8):
        found = identify_joint(played(0.03, 0.05, seed=seed), still_until=1.0)
        inside += [found.delay[1] <= 0.03 <= found.delay[2], found.time_constant[1] <= 0.05 <= found.time_constant[2]]
    assert sum(inside) > len(inside) - 5, inside


def test_a_position_servo_is_found_too():
    found = identify_joint(played(0.03, 0.06, interface="position"), still_until=1.0)
    assert found.delay[0] == pytest.approx(0.03, abs=1.5e-3) and found.time_constant[0] == pytest.approx(0.06, rel=0.05)


def test_without_velocities_the_positions_suffice():
    whole = played(0.03, 0.05)
    found = identify_joint(dataclasses.replace(whole, velocity=np.full_like(whole.velocity, np.nan)), 1.0)
    assert found.delay[0] == pytest.approx(0.03, abs=3e-3) and found.time_constant[0] == pytest.approx(0.05, rel=0.1)
    assert found.velocity_noise == (0.0, 0.0, 0.0)


def test_a_joint_that_did_not_move_is_told_and_the_others_go_on():
    one = played(0.03, 0.05)
    still = np.random.default_rng(0).normal(0, 1e-3, one.position.shape)
    both = Recording("velocity", one.command_time, np.hstack([one.command, 0 * one.command]), one.state_time,
                     np.hstack([one.position, still]), np.hstack([one.velocity, still]))
    identified, refused = identify(both, ("moved", "stood"))
    assert set(identified.joints) == {"moved"} and "rad only" in refused["stood"]
    with pytest.raises(QgfError, match="no joint can be identified: 'stood': it moved by"):
        identify(both, ("moved", "stood"), {"stood": (-1.0, 0.0, 100.0)})
    with pytest.raises(QgfError, match="too few to identify"):
        identify_joint(one.joint(0, 0.0, 0.5))


def test_stamps_of_another_clock_are_not_believed():
    arrivals = 1e9 + np.arange(5.0)
    assert measured_times(arrivals - 0.003, arrivals)[1] == ""
    for stamps in (np.zeros(5), arrivals - 20.0, arrivals + 1.0, arrivals[::-1].copy()):
        times, note = measured_times(stamps, arrivals)
        assert (times == arrivals).all() and "not of this clock" in note


# ---- the motion ------------------------------------------------------------------------------------------------------

@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), speed=st.floats(0.05, 1.5), reach=st.floats(0.05, 0.4),
       rate=st.sampled_from([50.0, 100.0]))
def test_the_motion_stays_within_what_was_said(seed, speed, reach, rate):
    wanted = ExcitationSettings(speed, reach, 3.0, rate=rate, seed=seed)
    excitation = Excitation(PANDA, wanted, PANDA.home, (0, 3))
    moved = np.abs(excitation.position - PANDA.home)
    assert (moved <= reach).all() and not np.delete(moved, [0, 3], axis=1).any()
    assert moved[:, [0, 3]].max() > 0.2 * min(reach, speed)  # slow ones do not come far in 3 s
    assert np.abs(excitation.velocity).max() <= min(speed, 0.5 * 2.175) + 1e-9
    acceleration = np.diff(excitation.velocity, axis=0) / excitation.period
    assert (np.abs(acceleration) <= PANDA.acceleration_limit + 1e-6).all()
    assert not ((np.abs(excitation.velocity) > 1e-6).sum(axis=1) > 1).any(), "two joints move at once"
    assert np.abs(excitation.velocity[-1]).max() < 1e-9 and np.abs(excitation.position[-1] - PANDA.home).max() < 0.01


def test_it_refuses_to_begin_near_a_limit_or_out_of_the_workspace():
    near = PANDA.home.copy()
    near[3] = -0.2
    with pytest.raises(ConfigError, match=r"panda_joint4: stands at -0\.200 rad, nearer than 0\.15 rad"):
        Excitation(PANDA, ExcitationSettings(), near, (3,))
    walled = dataclasses.replace(PANDA, workspace=Box((-1.0, -0.04, 0.0), (1.0, 0.04, 1.0)))
    with pytest.raises(ConfigError, match="outside the workspace"):
        Excitation(walled, ExcitationSettings(), PANDA.home, (0,))
    Excitation(walled, ExcitationSettings(), PANDA.home, (6,))
    table = dataclasses.replace(PANDA, keep_out=(Box((-1.0, -1.0, 0.0), (1.0, 1.0, 0.40)),))
    with pytest.raises(ConfigError, match="in a keep_out box"):
        Excitation(table, ExcitationSettings(), PANDA.home, (1,))
    with pytest.raises(ValueError, match="speed nan must lie in"):
        ExcitationSettings(speed=float("nan"))


def test_the_guard_lets_a_lagging_arm_pass_and_stops_a_stuck_or_running_one():
    guard, home = Guard(PANDA), PANDA.home
    for i in range(100):
        asked = home.copy()
        asked[2] += 0.3 * i * 0.01
        guard.told(i * 0.01, asked)
        late = home.copy()
        late[2] += 0.3 * max(0.0, i * 0.01 - 0.3)
        assert guard.problem(i * 0.01, i * 0.01, late) == ""
    assert "'panda_joint3' is 0.1" in guard.problem(1.0, 1.0, home)
    assert "no joint state for 0.30 s" in guard.problem(1.3, 1.0, late)
    assert "not finite" in guard.problem(1.0, 1.0, np.full(7, np.nan))
    beyond = late.copy()
    beyond[5] = 4.0
    assert "'panda_joint6' is outside its position limits" in guard.problem(1.0, 1.0, beyond)


# ---- the YAML --------------------------------------------------------------------------------------------------------

JOINT = IdentifiedJoint((0.033, 0.03, 0.036), (0.05, 0.048, 0.052), gain=(0.9, 0.89, 0.91), coulomb=(0.2, 0.1, 0.3),
                        position_noise=(0.001, 0.0009, 0.0011), velocity_noise=(0.03, 0.02, 0.04))


def identified_panda(tmp_path: Path, joint: IdentifiedJoint = JOINT) -> RobotSpec:
    from qgf_core.config import find_config

    path = tmp_path / "panda.yaml"
    text = find_config("robots", "panda").read_text(encoding="utf-8")
    path.write_text(with_identified(text, IdentifiedSpec("today", dict.fromkeys(PANDA.joint_names, joint))))
    return load_robot(str(path))


def test_the_block_comes_and_goes_and_every_other_line_stays(tmp_path):
    text = "# mine\nname: x  # a comment\nidentified: null  # nothing yet\n\n# after it\nstop_time: 0.5\n"
    once = with_identified(text, IdentifiedSpec("one", {"a": JOINT}))
    twice = with_identified(once, IdentifiedSpec("two", {"b": JOINT}))
    kept = [line for line in text.splitlines() if not line.startswith("identified")]
    assert [line for line in twice.splitlines() if line in kept] == kept
    assert twice.count("identified:") == 1 and "one" not in twice
    assert set(yaml.safe_load(twice)["identified"]["joints"]) == {"b"}
    assert yaml.safe_load(with_identified("name: x", IdentifiedSpec("one", {"a": JOINT})))["name"] == "x"
    assert identified_panda(tmp_path).identified.joints["panda_joint1"] == JOINT


def test_the_simulation_and_its_randomiser_stand_on_what_was_measured(tmp_path):
    robot = identified_panda(tmp_path)
    actuator = actuator_of(robot.drive)
    assert (actuator.delay, actuator.time_constant, actuator.gain, actuator.coulomb) == (0.033, 0.05, 0.9, 0.2)
    random = np.random.default_rng(0)
    around = Perturbation(delay=Distribution(uniform=(-0.01, 0.01)), time_constant=Distribution(uniform=(0.8, 1.2)))
    drawn = [draw(around, robot, SensorSpec(0.5, 0.5), random) for _ in range(300)]
    assert np.mean([d.actuator.delay for d in drawn]) == pytest.approx(0.033, abs=1e-3)
    assert np.mean([d.actuator.time_constant for d in drawn]) == pytest.approx(0.05, rel=0.02)
    assert drawn[0].sensor.position_noise == 0.001 and drawn[0].sensor.velocity_noise == 0.03
    assert draw(Perturbation(), robot, SensorSpec(), random).sensor.position_noise == 0.0, "noise that is off stays off"
    plain = draw(Perturbation(), PANDA, SensorSpec(0.5, 0.4), random)
    assert (plain.actuator.delay, plain.sensor.position_noise, plain.sensor.velocity_noise) == (0.02, 0.5, 0.4)
    slack = dataclasses.replace(JOINT, coulomb=(0.2, 0.0, 0.5))
    assert identified_panda(tmp_path, slack).drive.coulomb == 0.0, "friction that may be none is none"


@pytest.mark.parametrize(("joint", "message"), [
    (["elbow", [0.03, 0.02, 0.04]], "identified: there is no joint 'elbow'"),
    (["panda_joint1", [0.03, 0.04, 0.05]], r"delay: \[0.03, 0.04, 0.05\] must be \[estimate, lower, upper\]"),
    (["panda_joint1", [0.03, 0.02]], "expected 3 entries, got 2"),
])
def test_a_wrong_block_is_refused(tmp_path, joint, message):
    from qgf_core.config import find_config

    data = yaml.safe_load(find_config("robots", "panda").read_text(encoding="utf-8"))
    data["identified"] = {"measured": "by hand", "joints": {joint[0]: {"delay": joint[1], "time_constant": [0.1] * 3}}}
    path = tmp_path / "panda.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        load_robot(str(path))


# ---- a bag -----------------------------------------------------------------------------------------------------------

def write_bag(path: Path, recording: Recording, joint: str, names: tuple[str, ...] = ()) -> None:
    """All joints of the Panda, of which one moves, and a gripper's messages between; with a real bag writer."""
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)
    state, array, header, stamp, layout = (types.types[name] for name in (
        "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray", "std_msgs/msg/Header",
        "builtin_interfaces/msg/Time", "std_msgs/msg/MultiArrayLayout"))
    names = names or PANDA.joint_names
    at, origin = PANDA.joint_names.index(joint), 1_700_000_000.0

    def full(value: float, others: np.ndarray) -> np.ndarray:
        row = others.astype(np.float64).copy()
        row[at] = value
        return row

    def joints(names: list[str], time: float, position: np.ndarray, velocity: np.ndarray) -> object:
        seconds = int(time)
        return state(header(stamp(seconds, round((time - seconds) * 1e9) % 10**9), ""), names, position, velocity,
                     np.zeros(0))

    with Writer(path, version=9) as writer:
        def topic(name: str, kind: type) -> object:
            return writer.add_connection(name, kind.__msgtype__, typestore=types)

        states, commands = topic("/joint_states", state), topic("/forward_velocity_controller/commands", array)
        entries: list[tuple[float, object, object]] = []
        for time, value in zip(recording.command_time + origin, recording.command[:, 0], strict=True):
            entries.append((time, commands, array(layout([], 0), full(value, np.zeros(7)))))
        for time, q, v in zip(recording.state_time + origin, recording.position[:, 0], recording.velocity[:, 0],
                              strict=True):
            order = list(reversed(names))
            message = joints(order, time, full(q, PANDA.home)[::-1].copy(),
                             full(v, np.zeros(7))[::-1].copy())
            entries += [(time + 0.001, states, message),
                        (time + 0.002, states, joints(["finger"], time, np.zeros(1), np.zeros(1)))]
        for time, connection, message in sorted(entries, key=lambda entry: entry[0]):
            writer.write(connection, round(time * 1e9), types.serialize_cdr(message, message.__msgtype__))


def test_a_bag_tells_what_a_live_arm_tells(tmp_path):
    write_bag(tmp_path / "bag", played(0.03, 0.05), "panda_joint2")
    recording, note = read_bag(tmp_path / "bag", PANDA, "velocity", "")
    assert note == ""
    identified, refused = identify(recording, PANDA.joint_names)
    assert set(identified.joints) == {"panda_joint2"} and len(refused) == 6
    found = identified.joints["panda_joint2"]
    assert found.delay[0] == pytest.approx(0.03, abs=1.5e-3) and found.time_constant[0] == pytest.approx(0.05, rel=0.05)


def test_bags_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read as a bag"):
        read_bag(tmp_path / "none", PANDA, "velocity", "")
    write_bag(tmp_path / "bag", played(0.03, 0.05), "panda_joint2", names=("a", "b", "c", "d", "e", "f", "g"))
    with pytest.raises(ConfigError, match=r"/arm/joint_states: is not in the bag; record it; there are: /forward_vel"):
        read_bag(tmp_path / "bag", PANDA, "velocity", "arm")
    with pytest.raises(RobotError, match="no message holds all joints; missing: panda_joint1"):
        read_bag(tmp_path / "bag", PANDA, "velocity", "")
    with pytest.raises(RobotError, match="7 values for 6 joints; choose the --robot"):
        read_bag(tmp_path / "bag", load_robot("ur5e"), "velocity", "")


def test_joints_that_are_to_stand_are_held_where_they_belong():
    asked, measured = np.array([0.0, 1.0, -1.0, 0.5]), np.array([0.1, 0.5, -1.005, 0.5])
    # The first one moves, whatever it is off by; the second has sagged far, the third a little, the fourth not at all.
    assert held(np.array([0.3, 0.0, 0.0, 0.0]), asked, measured) == pytest.approx([0.3, 0.02, 0.005, 0.0])
    position, sag = 0.0, 0.005  # [rad], [rad/s]: a minute of it, at 100 Hz
    for _ in range(6000):
        position += 0.01 * (sag + held(np.zeros(1), np.zeros(1), np.array([position]))[0])
    assert position == pytest.approx(0.005, abs=1e-4), "and not 0.3"

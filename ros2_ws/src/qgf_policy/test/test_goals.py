# SPDX-License-Identifier: Apache-2.0
"""Policies that follow joint references or are told poses: what is taken, refused, held and observed."""

import dataclasses

import numpy as np
import pytest

from qgf_core.errors import ConfigError, StateError
from qgf_core.manifest import OrientationRegion
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot
from qgf_core.rotation import quaternion_of, turned
from qgf_policy.references import MOST_POINTS, ReferenceMessage
from qgf_policy.status import Mode

S = 10**9
PANDA = load_robot("panda")
HOME, NAMES = PANDA.home, PANDA.joint_names
GOAL = (0.5, 0.1, 0.4)


@pytest.fixture(scope="module")
def middle(manifest):
    """The tool's orientation at home."""
    return quaternion_of(manifest.kinematics().tool_pose(HOME)[1])


@pytest.fixture
def follower(rig, manifest):
    """Makes a rig with a policy that is told references and always asks for a tenth."""
    terms = (ObservationTerm("reference_error", preview=(0.0, 0.1)), ObservationTerm("reference_velocity"))
    contract = dataclasses.replace(manifest, goal_region=None, reference_speed=0.6, observation=terms)
    return lambda **settings: rig(0.1, contract=contract, **settings)


def message(times=(0.0, 2.0), positions=None, names=NAMES, velocities=None, begins=0):
    positions = [HOME, HOME + 0.2] if positions is None else positions
    return ReferenceMessage(names, [round(t * S) for t in times], [list(p) for p in positions],
                            [[] for _ in times] if velocities is None else velocities, begins, 99)


def tell(r, *arguments, **changes):
    r.runner.set_reference(message(*arguments, **changes), r.state(), r.clock.now())


def test_it_holds_until_it_has_a_reference_and_then_follows(follower):
    r = follower(ramp_duration=0.0)
    r.activate(goal=None)
    command, status = r.step()
    assert status.mode == Mode.HOLDING and status.fault == "no reference was received yet"
    assert np.all(command.values == 0.0) and r.runner.counters.faults_stale_goal == 1 and not r.policy.observations
    tell(r)
    command, status = r.step()
    assert status.mode == Mode.ACTIVE and command.goal_stamp == 99 and np.any(command.values != 0.0)


def test_the_observation_looks_at_the_reference_now_and_ahead(follower):
    r = follower(ramp_duration=0.0)
    r.activate(goal=None)
    tell(r)
    for _ in range(101):  # until 1 s: half way, at 1.5 times the mean speed
        r.position = HOME.copy()
        r.step()
    seen = r.policy.observations[-1]
    s = 1.1 / 2.0
    np.testing.assert_allclose(seen[:7], -0.1, atol=1e-6)
    np.testing.assert_allclose(seen[7:14], -0.2 * (3 * s**2 - 2 * s**3), atol=1e-6)
    np.testing.assert_allclose(seen[14:], 0.15 / PANDA.policy_velocity, atol=1e-6)


@pytest.mark.parametrize(("changes", "words"), [
    ({"names": NAMES[:-1]}, "joints missing"),
    ({"positions": [HOME, np.full(7, np.nan)]}, "not finite"),
    ({"times": (1.0, 0.5)}, "is not after"),
    ({"positions": [HOME, HOME + 9.0]}, "takes joint 'panda_joint1' to"),
    ({"times": (0.0, 0.2)}, r"moves joint 'panda_joint1' at up to 1.500 rad/s, allowed are 0.720"),
    ({"begins": -9 * S}, "ended 7.00 s ago"),
    ({"times": np.arange(MOST_POINTS + 1.0), "positions": np.tile(HOME, (MOST_POINTS + 1, 1))}, "at most 1000"),
    # The way to a first point that is not due yet counts as well.
    ({"times": (0.1, 2.0), "positions": [HOME + 0.2, HOME]}, "moves joint 'panda_joint1' at up to"),
])
def test_a_bad_reference_is_refused_counted_and_told_and_the_one_before_stays(follower, changes, words):
    r = follower(ramp_duration=0.0)
    r.activate(goal=None)
    tell(r)
    r.step()
    with pytest.raises(StateError, match=words) as caught:
        tell(r, **changes)
    assert caught.value.kind == "rejected_goal" and r.runner.counters.faults_rejected_goal == 1
    assert r.runner.goal_refusal == str(caught.value) and r.runner.events[-1].kind == "rejected_goal"
    command, status = r.step()
    assert command.goal_stamp == 99 and status.mode == Mode.ACTIVE
    tell(r)
    assert r.runner.goal_refusal == ""


def test_one_that_ended_longer_ago_than_allowed_is_stale_and_held(follower):
    r = follower(ramp_duration=0.0, goal_timeout=0.5)
    r.activate(goal=None)
    tell(r, (0.0, 0.5), positions=[HOME, HOME + 0.02])
    modes = [r.step()[1].mode for _ in range(110)]
    assert set(modes[:100]) == {Mode.ACTIVE} and modes[103] == Mode.HOLDING
    assert "the reference ended 0.5" in r.runner.status().fault
    tell(r, (0.0, 0.5), positions=[r.position, r.position])
    assert r.step()[1].mode != Mode.HOLDING


def test_a_goal_for_one_that_follows_and_a_reference_for_one_that_reaches_are_refused(rig, follower):
    with pytest.raises(StateError, match=r"follows joint references, on ~/reference"):
        follower().runner.set_goal(GOAL, "panda_link0", 1, 1)
    with pytest.raises(StateError, match=r"is told goals, on ~/goal"):
        tell(rig())


@pytest.mark.parametrize("end", ["estop", "deactivate"])
def test_a_stop_forgets_the_reference(follower, end):
    r = follower()
    r.activate(goal=None)
    tell(r)
    r.step()
    if end == "estop":
        r.runner.estop("test")
        with pytest.raises(StateError, match="an emergency stop is latched"):
            tell(r)
        r.run(30)
        r.runner.reset_estop()
    else:
        r.runner.deactivate()
    while r.step()[0] is not None:
        pass
    r.runner.activate(r.state(), r.clock.now())
    assert r.step()[1].fault == "no reference was received yet"


def test_a_state_that_is_not_known_is_no_place_to_begin_from(follower):
    r = follower()
    with pytest.raises(StateError, match="own state is not known"):
        r.runner.set_reference(message(), r.state(missing=("panda_joint3",)), r.clock.now())
    with pytest.raises(StateError, match="own state is not known"):
        r.runner.set_reference(message(), r.state(position=np.full(7, np.nan)), r.clock.now())


def test_a_policy_of_another_aim_cannot_be_swapped_in(follower, rig):
    r = follower()
    with pytest.raises(ConfigError, match="kind of goal is not that of the running policy"):
        r.runner.replace(rig(0.0).policy, r.clock.now())


# ---- poses ----------------------------------------------------------------------------------------------------------


def test_a_pose_reaches_the_observation_and_one_turned_too_far_is_refused(rig, middle, manifest):
    region = OrientationRegion(tuple(middle.tolist()), 0.4)
    terms = (*manifest.observation, ObservationTerm("tool_orientation_error"))
    contract = dataclasses.replace(manifest, goal_orientation=region, observation=terms)
    r = rig(0.1, contract=contract, ramp_duration=0.0)
    r.runner.activate(r.state(), r.clock.now())
    turn = np.array([0.1, -0.2, 0.15])
    r.runner.set_goal(GOAL, "panda_link0", 5, r.clock.now(), orientation=turned(middle, turn))
    r.step()
    np.testing.assert_allclose(r.policy.observations[-1][-3:], -turn, atol=1e-6)
    for orientation, words in ((turned(middle, 2.0 * turn), "turned further than the 0.4 rad trained on"),
                               ([0.0] * 4, "not a quaternion of length 1"), (None, "not a quaternion"),
                               ([np.nan] * 4, "not a quaternion")):
        with pytest.raises(StateError, match=words):
            r.runner.set_goal(GOAL, "panda_link0", 6, r.clock.now(), orientation=orientation)
    assert r.step()[0].goal_stamp == 5


def test_a_policy_that_is_told_positions_ignores_the_orientation(rig):
    r = rig()
    r.runner.set_goal(GOAL, "panda_link0", 5, r.clock.now(), orientation=[0.0] * 4)
    r.runner.activate(r.state(), r.clock.now())
    assert r.step()[0].goal_stamp == 5


# ---- actions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_a_position_target_is_approached_and_kept_on_both_interfaces(rig, manifest, interface):
    action = dataclasses.replace(manifest.action, kind="joint_position", scale=(1.0,) * 7)
    contract = dataclasses.replace(manifest, action=action)
    r = rig(0.1, contract=contract, command_interface=interface, ramp_duration=0.0)
    r.activate()
    r.run(150)
    np.testing.assert_allclose(r.position, HOME + 0.1, atol=1e-3)


def test_the_posture_is_pulled_home_on_the_robot_too(rig, manifest):
    """A policy that asks for nothing: the joints go home in the null space, the tool stays."""
    action = dataclasses.replace(manifest.action, posture_rate=2.0)
    away = HOME + np.array([0.3, 0.1, -0.3, 0.0, 0.5, 0.0, 0.6])
    r = rig(0.0, contract=dataclasses.replace(manifest, action=action), ramp_duration=0.0)
    r.position = away.copy()
    kinematics = manifest.kinematics()
    before = kinematics.tool_position(away)
    r.activate()
    r.run(300)
    assert np.linalg.norm(r.position - HOME) < 0.6 * np.linalg.norm(away - HOME)
    assert np.linalg.norm(kinematics.tool_position(r.position) - before) < 0.01


def test_a_stream_of_single_points_is_one_smooth_motion(follower):
    """As a teleoperator sends it: every 20 ms a position 0.1 s ahead, without velocities. Each begun from rest, the
    speed would swing between a quarter and twice the stream's."""
    r = follower(ramp_duration=0.0)
    r.activate(goal=None)
    speed, speeds = 0.3, []
    for k in range(100):
        here = HOME + max(0.0, speed * (0.02 * k - 0.05))  # the arm, a little behind
        message_now = message((0.1,), [HOME + speed * (0.02 * k + 0.1)])
        r.runner.set_reference(message_now, r.state(position=here), r.clock.now())
        for _ in range(round(0.02 * r.runner.manifest.control_rate)):
            r.step()
        reference = r.runner._goals.reference
        speeds += [reference.at(t)[1][0] for t in np.linspace(0.0, 0.02, 5)]
    after = np.array(speeds[250:])
    assert abs(after.mean() - speed) < 0.01 and np.abs(after - speed).max() < 0.02


def test_a_new_reference_goes_on_from_the_one_before_unless_the_arm_does_not_follow(follower):
    r = follower(ramp_duration=0.0)
    r.activate(goal=None)
    tell(r, (0.0, 2.0), [HOME, HOME + 0.2])
    moved = r.runner._goals.reference
    for _ in range(round(1.0 * r.runner.manifest.control_rate)):
        r.step()
    now = r.clock.now()
    time = r.runner._goals.time(now)
    r.runner.set_reference(message((1.0,), [HOME]), r.state(position=moved.at(time)[0] + 0.1), now)
    position, velocity = r.runner._goals.reference.at(0.0)
    np.testing.assert_allclose(position, moved.at(time)[0])
    np.testing.assert_allclose(velocity, moved.at(time)[1])
    assert velocity[0] > 0.1
    away = HOME + 0.5
    r.runner.set_reference(message((3.0,), [HOME]), r.state(position=away), r.clock.now())
    position, velocity = r.runner._goals.reference.at(0.0)
    np.testing.assert_allclose(position, away)
    np.testing.assert_allclose(velocity, 0.0)

# SPDX-License-Identifier: Apache-2.0
"""Joint references as they arrive: joints by name, signs, the way to the first point, and what is refused."""

import dataclasses

import numpy as np
import pytest

from qgf_core.robot import load_robot
from qgf_policy.references import ReferenceMessage, read_reference

S = 10**9
PANDA = load_robot("panda")
NAMES = PANDA.joint_names
HERE, SPEED = PANDA.home + 0.1, np.full(7, 0.03)


def message(times=(1.0, 2.0), positions=None, velocities=None, names=NAMES, begins=0.0):
    if positions is None:
        positions = [PANDA.home + 0.1 * k for k in range(len(times))]
    return ReferenceMessage(names, [round(t * S) for t in times], [list(p) for p in positions],
                            [[] for _ in times] if velocities is None else velocities, round(begins * S), 5)


def read(*arguments, robot=PANDA, **changes):
    return read_reference(message(*arguments, **changes), robot, HERE, SPEED)


def test_the_way_to_the_first_point_begins_where_the_arm_is():
    points = read()
    np.testing.assert_allclose(points.times, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(points.positions, [HERE, PANDA.home, PANDA.home + 0.1])
    assert points.velocities is None
    points = read(velocities=[[0.2] * 7, [0.0] * 7])
    np.testing.assert_allclose(points.velocities, [SPEED, [0.2] * 7, [0.0] * 7])


def test_a_point_that_is_due_or_past_needs_no_way_to_it():
    points = read((0.0, 1.0))
    np.testing.assert_allclose(points.times, [0.0, 1.0])
    np.testing.assert_allclose(read(begins=-1.5).times, [-0.5, 0.5])
    np.testing.assert_allclose(read(begins=3.0).times, [0.0, 4.0, 5.0])


def test_joints_are_matched_by_name_and_turned_by_their_sign():
    joints = list(PANDA.joints)
    joints[2] = dataclasses.replace(joints[2], sign=-1)
    robot = dataclasses.replace(PANDA, joints=tuple(joints))
    positions = [np.arange(7.0), np.arange(7.0) + 1]
    points = read((0.0, 1.0), [p[::-1] for p in positions], [[0.1] * 7, [0.0] * 7], names=NAMES[::-1], robot=robot)
    np.testing.assert_allclose(points.positions, [[0, 1, -2, 3, 4, 5, 6], [1, 2, -3, 4, 5, 6, 7]])
    np.testing.assert_allclose(points.velocities[0], [0.1, 0.1, -0.1, 0.1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(("changes", "words"), [
    ({"names": NAMES[:-1]}, r"joints missing \['panda_joint7'\], unknown \[\], 6 named for 7"),
    ({"names": (*NAMES[:-1], "wrist")}, r"missing \['panda_joint7'\], unknown \['wrist'\]"),
    ({"names": (*NAMES[:-1], NAMES[0])}, r"joints missing \['panda_joint7'\]"),
    ({"times": ()}, "the reference has no points"),
    ({"positions": [[0.0] * 6, [0.0] * 7]}, "point 0 of the reference has 6 positions for 7 joints"),
    ({"positions": [[0.0] * 7, [np.nan] * 7]}, "point 1 of the reference: positions that are not finite"),
    ({"velocities": [[0.0] * 7, []]}, "some points of the reference have velocities and some have none"),
    ({"velocities": [[0.0] * 7, [0.0] * 8]}, "point 1 of the reference has 8 velocities for 7 joints"),
    ({"velocities": [[np.inf] * 7, [0.0] * 7]}, "point 0 of the reference: velocities that are not finite"),
    ({"times": (1.0, 1.0)}, "time_from_start 1 s of point 1 is not after"),
    ({"times": (2.0, 1.0)}, "time_from_start 1 s of point 1 is not after"),
    ({"times": (-1.0, 1.0)}, "time_from_start -1 s of point 0 is not after"),
    ({"begins": -4.5}, r"the reference ended 2\.50 s ago"),
])
def test_what_is_no_reference_is_refused_in_words(changes, words):
    with pytest.raises(ValueError, match=words) as refused:
        read(**changes)
    assert "\n" not in str(refused.value)

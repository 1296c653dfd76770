# SPDX-License-Identifier: Apache-2.0
"""The decoder against two other implementations (rclpy's and that of rosbags), and on damaged messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from qgf_core.cdr import SCHEMAS, Decoder

STORE = get_typestore(Stores.ROS2_HUMBLE)
JOINT_STATE, ARRAY = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray"
TRAJECTORY, COMMAND = "trajectory_msgs/msg/JointTrajectory", "qgf_msgs/msg/PolicyCommand"

NAMES = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9), max_size=4)
FLOATS = st.lists(st.floats(), max_size=5)


def header(stamp: int = 0, frame: str = ""):
    types = STORE.types
    return types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9), frame)


def joint_state(names, position, velocity, effort, stamp=0, frame="", little=True) -> bytes:
    message = STORE.types[JOINT_STATE](header(stamp, frame), list(names), *map(np.array, (position, velocity, effort)))
    return bytes(STORE.serialize_cdr(message, JOINT_STATE, little_endian=little))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NAMES, FLOATS, FLOATS, FLOATS, st.integers(0, 2**30 * 10**9), st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5), st.integers(1, 3)), max_size=6),
    st.booleans())
def test_joint_states_of_any_content(messages, little):
    payloads, expected = [], []
    for names, position, velocity, effort, stamp, frame, repeats in messages:
        for k in range(repeats):
            payloads.append(joint_state(names, position, velocity, effort, stamp + k, frame, little))
            expected.append((tuple(names), position, velocity, effort, stamp + k, frame))
    batches, malformed = Decoder(JOINT_STATE).decode(payloads)
    assert malformed == 0
    assert [i for batch in batches for i in batch.indices] == list(range(len(payloads)))
    for batch in batches:
        for row, index in enumerate(batch.indices):
            names, position, velocity, effort, stamp, frame = expected[index]
            assert (batch.texts["name"], batch.texts["frame_id"]) == (names, (frame,))
            for name, values in (("position", position), ("velocity", velocity), ("effort", effort)):
                assert np.array_equal(batch.numbers[name][row], np.array(values), equal_nan=True)
            assert batch.numbers["stamp"][row] == stamp


def test_equal_messages_become_one_batch():
    payloads = [joint_state(["a", "bb"], [k, 2.0], [], [0.1, k], stamp=10**18 + k) for k in range(50)]
    (batch,), _ = Decoder(JOINT_STATE).decode(payloads)
    assert batch.numbers["position"].tolist() == [[k, 2.0] for k in range(50)]
    assert batch.numbers["velocity"].shape == (50, 0)
    assert batch.numbers["stamp"].tolist() == [10**18 + k for k in range(50)]


def test_other_types_written_by_rclpy():
    serialization, numpy = pytest.importorskip("rclpy.serialization"), np
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Float64MultiArray, MultiArrayDimension
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    from qgf_msgs.msg import PolicyCommand
    array = Float64MultiArray(data=[1.0, -2.5])
    array.layout.dim.append(MultiArrayDimension(label="joints", size=2, stride=2))
    (batch,), _ = Decoder(ARRAY).decode([serialization.serialize_message(array)])
    assert batch.numbers["data"].tolist() == [[1.0, -2.5]]

    points = [JointTrajectoryPoint(positions=[0.1, 0.2], velocities=[1.0, 2.0]), JointTrajectoryPoint(positions=[9.0])]
    trajectory = JointTrajectory(joint_names=["a", "b"], points=points)
    (batch,), _ = Decoder(TRAJECTORY).decode([serialization.serialize_message(trajectory)])
    assert batch.numbers["position"].tolist() == [[0.1, 0.2]] and batch.numbers["velocity"].tolist() == [[1.0, 2.0]]
    assert batch.texts["name"] == ("a", "b")

    command = PolicyCommand(state_stamp=Time(sec=3, nanosec=4), sequence=2**63 + 1, period=0.02, observation=[0.5] * 3,
                            raw_action=[-1.0, 0.25, 1.0], command=[1.0, 2.0, 3.0], command_interface="velocity",
                            joint_names=["a", "b", "c"], fault="held: no goal")
    (batch,), _ = Decoder(COMMAND).decode([serialization.serialize_message(command)] * 2)
    assert batch.numbers["raw_action"].tolist() == [[-1.0, 0.25, 1.0]] * 2
    assert batch.numbers["observation"].dtype == numpy.float32
    assert batch.numbers["command"].tolist() == [[1.0, 2.0, 3.0]] * 2
    assert batch.numbers["sequence"].tolist() == [2**63 + 1] * 2 and batch.numbers["period"].tolist() == [0.02] * 2
    assert batch.numbers["state_stamp"].tolist() == [3 * 10**9 + 4] * 2
    assert batch.texts == {"frame_id": ("",), "command_interface": ("velocity",), "name": ("a", "b", "c"),
                           "fault": ("held: no goal",)}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SCHEMAS)), st.binary(max_size=120))
def test_no_bytes_are_fatal(kind, payload):
    batches, malformed = Decoder(kind).decode([payload, b"\0\1\0\0" + payload])
    assert malformed + sum(len(batch.indices) for batch in batches) == 2


def test_a_message_cut_short_is_malformed_wherever_it_is_cut_and_its_neighbours_are_not():
    whole = joint_state(["a", "b"], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    for size in range(len(whole)):
        batches, malformed = Decoder(JOINT_STATE).decode([whole, whole[:size], whole])
        assert malformed == 1, size
        assert [len(batch.indices) for batch in batches] == [1, 1]

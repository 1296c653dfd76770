# SPDX-License-Identifier: Apache-2.0
"""Single messages against other implementations of the encoding: rosbags' and rclpy's."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from qgf_core.cdr import MalformedMessage
from qgf_core.cdr_single import JointStateReader, MessageTemplate

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
JOINT_STATE, ARRAY = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
FLOATS = st.lists(st.floats(), max_size=4)


def joint_state(names, position=(), velocity=(), effort=(), stamp=0, frame="", little=True) -> bytes:
    header = TYPES["std_msgs/msg/Header"](
        TYPES["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9), frame)
    arrays = (np.array(values, dtype=np.float64) for values in (position, velocity, effort))
    message = TYPES[JOINT_STATE](header, list(names), *arrays)
    return bytes(STORE.serialize_cdr(message, JOINT_STATE, little_endian=little))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.lists(TEXT, max_size=3), FLOATS, FLOATS, FLOATS, st.integers(0, 2**30 * 10**9), TEXT,
                          st.booleans(), st.integers(1, 2)), max_size=6))
def test_one_reader_reads_whatever_comes(messages):
    reader = JointStateReader()
    for names, position, velocity, effort, stamp, frame, little, repeats in messages:
        for k in range(repeats):
            read = reader.read(joint_state(names, position, velocity, effort, stamp + k, frame, little))
            assert (read.names, read.effort_length, read.stamp) == (tuple(names), len(effort), stamp + k)
            assert np.array_equal(read.position, np.array(position), equal_nan=True)
            assert np.array_equal(read.velocity, np.array(velocity), equal_nan=True)


def test_two_publishers_whose_messages_have_the_same_size_are_told_apart():
    reader = JointStateReader()
    left, right = joint_state(["a", "b"], [1, 2], [3, 4]), joint_state(["b", "a"], [5, 6], [7, 8])
    assert len(left) == len(right)
    names = reader.read(left).names, reader.read(right).names
    for _ in range(3):
        assert reader.read(left).names is names[0] and reader.read(right).names is names[1], "learned anew"
        assert (reader.read(left).names, reader.read(left).position.tolist()) == (("a", "b"), [1, 2])
        assert (reader.read(right).names, reader.read(right).velocity.tolist()) == (("b", "a"), [7, 8])
    # The same size and names, but the numbers lie elsewhere.
    moved = joint_state(["a", "b"], [1, 2, 3], [4])
    assert len(moved) == len(left) and len(reader.read(moved).position) == 3


def test_padding_that_is_not_constant_changes_nothing():
    reader, payload = JointStateReader(), bytearray(joint_state(["abcd"], [1.5], [2.5], [3.5]))
    clean = reader.read(bytes(payload))
    # By hand: texts end at 17 and 33, and numbers of 8 bytes begin at multiples of 8 behind the 4 bytes of encoding.
    padding = [17, 18, 19, 33, 34, 35, *range(40, 44), *range(56, 60), *range(72, 76)]
    assert struct.unpack_from("<d", payload, 44) == (1.5,) and struct.unpack_from("<d", payload, 60) == (2.5,)
    for value in (1, 77, 255):
        for i in padding:
            payload[i] = value
        read = reader.read(bytes(payload))
        assert read.names is clean.names, "learned anew, which takes the loop's time"
        assert (read.position, read.velocity) == (clean.position, clean.velocity)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=8)))
def test_damaged_messages_are_refused_or_read_and_never_worse(damage):
    reader, good = JointStateReader(), joint_state(["j1", "j2"], [1, 2], [3, 4], [5, 6], 10**18, "base")
    reader.read(good)
    payload = damage
    if isinstance(damage, tuple):
        place, extra = damage
        payload = good[:place] + extra + good[place + len(extra):]
    for _ in range(2):
        try:
            read = reader.read(payload)
        except MalformedMessage:
            continue
        assert all(isinstance(name, str) for name in read.names)
    assert reader.read(good).position.tolist() == [1, 2]


@given(st.lists(st.floats(), min_size=3, max_size=3))
def test_a_template_writes_what_the_middleware_would(values):
    layout = TYPES["std_msgs/msg/MultiArrayLayout"]([], 0)

    def array(data):
        return bytes(STORE.serialize_cdr(TYPES[ARRAY](layout, np.array(data, dtype=np.float64)), ARRAY))

    template = MessageTemplate(ARRAY, array([0.0, 0.0, 0.0]))
    template.set("data", values)
    assert template.payload() == array(values)


def test_a_template_refuses_another_length_and_a_broken_message():
    template = MessageTemplate(JOINT_STATE, joint_state(["a"], [1.0], [2.0]))
    with pytest.raises(struct.error):
        template.set("position", [1.0, 2.0])
    template.set("velocity", [9.0])
    template.set_time("stamp", 12 * 10**9 + 34)
    assert template.payload() == joint_state(["a"], [1.0], [9.0], stamp=12 * 10**9 + 34)
    with pytest.raises(MalformedMessage):
        MessageTemplate(JOINT_STATE, joint_state(["a"], [1.0], [2.0])[:-9])


def test_layouts_without_end_do_not_fill_the_memory():
    reader = JointStateReader()
    for i in range(200):
        assert reader.read(joint_state([f"j{i:03}"], [i], [0.0])).position.tolist() == [i]
    assert sum(map(len, reader._known.values())) <= 32


@pytest.mark.parametrize(("time", "told"), [
    (2**31 * 10**9 + 5, (2**31 - 1, 10**9 - 1)), ((2**31 - 1) * 10**9 + 4294967295, (2**31 - 1, 10**9 - 1)),
    (-(2**40) * 10**9, (-(2**31), 0)), (-1, (-1, 10**9 - 1))])
def test_a_time_that_no_message_can_hold_is_the_nearest_that_one_can(time, told):
    template = MessageTemplate(JOINT_STATE, joint_state(["a"], [1.0], [2.0]))
    template.set_time("stamp", time)
    assert struct.unpack_from("<iI", template.payload(), 4) == told

# SPDX-License-Identifier: Apache-2.0
"""Bags of known signals for the tests, written with the rosbags library; processes, for tests over DDS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
JOINT_STATE, ARRAY = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray"
START = 1_700_000_000_000_000_000
RATE = 100.0


def joint_state(names, position, velocity, stamp: int) -> bytes:
    types = STORE.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9), "")
    message = types[JOINT_STATE](header, list(names), np.asarray(position, float), np.asarray(velocity, float),
                                 np.zeros(0))
    return bytes(STORE.serialize_cdr(message, JOINT_STATE))


def array(values) -> bytes:
    types = STORE.types
    message = types[ARRAY](types["std_msgs/msg/MultiArrayLayout"]([], 0), np.asarray(values, float))
    return bytes(STORE.serialize_cdr(message, ARRAY))


def signal(k: int, amplitude: float, frequency: float = 31.0) -> float:
    t = k / RATE
    return 0.3 * np.sin(2 * np.pi * 0.5 * t) + amplitude * np.sin(2 * np.pi * frequency * t + 0.2)


def write_bag(path: Path, seconds: float = 6.0, amplitude: float = 0.0, plugin=StoragePlugin.SQLITE3, messages=None,
              commands: bool = True) -> Path:
    """Two joints; the second one chatters. `messages`: (topic, payload, received [ns]) to write instead."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {"/arm/joint_states": writer.add_connection("/arm/joint_states", JOINT_STATE, typestore=STORE)}
        if commands:
            connections["/arm/commands"] = writer.add_connection("/arm/commands", ARRAY, typestore=STORE)
        for topic, payload, received in recorded(seconds, amplitude) if messages is None else messages:
            if commands or topic != "/arm/commands":
                writer.write(connections[topic], received, payload)
    return path


def recorded(seconds: float, amplitude: float) -> list[tuple[str, bytes, int]]:
    found = []
    for k in range(round(seconds * RATE)):
        stamp = START + round(k * 1e9 / RATE)
        values = [signal(k, 0.0), signal(k, amplitude)]
        found.append(("/arm/commands", array(values), stamp - 100_000))
        found.append(("/arm/joint_states", joint_state(("a", "b"), values, values, stamp), stamp + 200_000))
    return found


@pytest.fixture(scope="session")
def bags() -> SimpleNamespace:
    """The functions and constants above."""
    return SimpleNamespace(RATE=RATE, START=START, array=array, joint_state=joint_state, recorded=recorded,
                           signal=signal, write=write_bag)


# -------------------------------------------------------------------------------------- processes, for tests over DDS


@contextlib.contextmanager
def children(harness: ModuleType, domain: int, folder: Path) -> Iterator[Callable[[list[str]], Any]]:
    """Begins child processes; all are killed at the end."""
    begun: list[Any] = []

    def begin(command: list[str]) -> Any:
        begun.append(harness.Process(command, domain, folder / f"stderr-{len(begun)}"))
        return begun[-1]

    yield begin
    for child in begun:
        child.kill()


@pytest.fixture
def start(harness: ModuleType, domain: int, tmp_path: Path) -> Iterator[Callable[[list[str]], Any]]:
    """`children` of one test."""
    with children(harness, domain, tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_once(harness: ModuleType, domain: int,
               tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[list[str]], Any]]:
    """`children` of all of a module's tests."""
    with children(harness, domain, tmp_path_factory.mktemp("children")) as begin:
        yield begin

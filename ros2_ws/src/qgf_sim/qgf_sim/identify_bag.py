# SPDX-License-Identifier: Apache-2.0
"""The commands and joint states in a bag, as a recording for the identification; no ROS installation is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from qgf_core.errors import ConfigError, RobotError
from qgf_core.robot import RobotSpec
from qgf_sim.identification import Recording, measured_times


def read_bag(path: Path, robot: RobotSpec, interface: Literal["velocity", "position"],
             namespace: str) -> tuple[Recording, str]:
    """The recording in a bag of ROS 2, and a note on its clock.

    :raises ConfigError: no bag, or a topic is missing in it.
    :raises RobotError: the joint states lack a joint, or a command has another number of values than the arm joints.
    """
    prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
    topics = [prefix + name.lstrip("/") for name in (robot.topics.joint_states, getattr(robot.topics, interface))]
    commands: list[tuple[float, np.ndarray]] = []
    states: list[tuple[float, float, np.ndarray, np.ndarray]] = []
    names, missing = robot.joint_names, set[str]()
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            present = {connection.topic for connection in reader.connections}
            for topic in topics:
                if topic not in present:
                    raise ConfigError(path, topic, "is not in the bag",
                                      f"record it; there are: {', '.join(sorted(present))}")
            wanted = [connection for connection in reader.connections if connection.topic in topics]
            for connection, arrival, raw in reader.messages(connections=wanted):
                message: Any = reader.deserialize(raw, connection.msgtype)
                if connection.topic == topics[1]:
                    value = np.array(message.data, dtype=np.float64)
                    if value.shape != (len(names),):
                        raise RobotError(path, topics[1], f"{value.size} values for {len(names)} joints",
                                         "choose the --robot that was recorded")
                    commands.append((arrival * 1e-9, value))
                    continue
                order = {name: i for i, name in enumerate(message.name)}
                lacking = set(names) - set(order)
                if lacking:  # a gripper's own messages are normal
                    missing |= lacking
                    continue
                at = [order[name] for name in names]
                speeds = message.velocity if len(message.velocity) == len(order) else np.full(len(order), np.nan)
                stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
                states.append((stamp, arrival * 1e-9, message.position[at], np.asarray(speeds)[at]))
    except (AnyReaderError, OSError) as error:
        remedy = "give the folder that ros2 bag wrote"
        raise ConfigError(path, "", f"cannot be read as a bag ({error})", remedy) from error
    if not states:
        raise RobotError(path, topics[0], f"no message holds all joints; missing: {', '.join(sorted(missing))}",
                         "choose the --robot that was recorded")
    if not commands:
        raise ConfigError(path, topics[1], "holds no message", "record while the arm is commanded")
    stamps, arrivals, position, velocity = (np.array(column) for column in zip(*states, strict=True))
    times, note = measured_times(stamps, arrivals)
    fresh = np.concatenate([[True], np.diff(times) > 0])
    return Recording(interface, np.array([time for time, _ in commands]), np.array([value for _, value in commands]),
                     times[fresh], position[fresh], velocity[fresh]), note

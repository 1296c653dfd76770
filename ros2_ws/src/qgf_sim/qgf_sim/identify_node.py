# SPDX-License-Identifier: Apache-2.0
"""`identify`: moves a live arm a little, within limits, and measures its drives; or reads a bag of such a motion."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from tqdm import tqdm

from qgf_core.clocks import Pacer, SteadyClock
from qgf_core.errors import ConfigError, QgfError
from qgf_core.robot import RobotSpec, load_robot
from qgf_sim.excitation import Excitation, Guard, held
from qgf_sim.identification import Recording, identify, measured_times
from qgf_sim.identify_bag import read_bag
from qgf_sim.identify_cli import Wanted, agreed, joint_indices, parse, plan, report, write

_PATIENCE = 5.0
"""With discovery and the first joint states [s]."""
_LOOK_ROUND = 1.5
"""How long the arm is watched before it is moved [s]."""
_DISCOVERY = 3.5
"""How long others who command it are looked for [s]: where the first word of a participant is lost, on a busy machine,
Fast DDS says it again every 3 s."""
_LOOK_AGAIN = 0.1
"""Others who command the arm are looked for so often while it is moved [s]."""
_HALTED = 0.3
"""How long the standstill is commanded in the end [s]."""


_LONGEST_GAP = 0.2
"""Between two commands [s]; a velocity-controlled arm runs on in it."""


class _State(NamedTuple):
    heard: float
    """On the steady clock [s]."""
    arrival: float
    """On the node's clock [s]."""
    stamp: float
    """[s]"""
    position: NDArray[np.float64]
    """(n,) [rad], driver's sign."""
    velocity: NDArray[np.float64]


class Aborted(Exception):
    """The arm was halted; the text says why."""


class ArmNode(Node):
    """Hears the arm and commands it; `states` grows while it is spun."""

    def __init__(self, robot: RobotSpec, interface: str, namespace: str) -> None:
        super().__init__("identify", namespace=namespace)
        self.robot, self.states, self.partial = robot, list[_State](), set[str]()
        qos = QoSProfile(depth=200, reliability=qos_profile_sensor_data.reliability,
                         durability=qos_profile_sensor_data.durability)
        self._states = self.create_subscription(JointState, robot.topics.joint_states, self._on_state, qos)
        self._commands = self.create_publisher(Float64MultiArray, getattr(robot.topics, interface),
                                               QoSProfile(depth=10))
        self.state_topic, self.command_topic = self._states.topic_name, self._commands.topic_name

    def seconds(self) -> float:
        """The node's clock [s]."""
        return self.get_clock().now().nanoseconds * 1e-9

    def _on_state(self, message: JointState) -> None:
        heard, arrival = time.monotonic(), self.seconds()
        order = {name: i for i, name in enumerate(message.name)}
        names = self.robot.joint_names
        if not all(name in order for name in names) or len(message.position) != len(message.name):
            self.partial |= set(names) - set(order)
            return
        at = [order[name] for name in names]
        told = len(message.velocity) == len(message.name)
        velocity = np.array(message.velocity)[at] if told else np.full(len(at), np.nan)
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        self.states.append(_State(heard, arrival, stamp, np.array(message.position)[at], velocity))

    def ready(self) -> NDArray[np.float64]:
        """Where the arm stands (n,) [rad, URDF's sign]. :raises ConfigError: it cannot be moved now."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and not (len(self.states) > 20 and self.count_subscribers(self.command_topic)):
            time.sleep(0.02)
        if not self.states:
            what = f"joint states lack {sorted(self.partial)}" if self.partial else "no joint states"
            raise ConfigError("identify", self.state_topic, f"{what} within {_PATIENCE:g} s",
                              "start the arm's driver, or correct --robot or --namespace")
        if not self.count_subscribers(self.command_topic):
            raise ConfigError("identify", self.command_topic, "nobody listens",
                              "activate that controller, or choose another --command-interface")
        # The arm may be heard of sooner than others who command it.
        began, begin, watched = time.monotonic(), len(self.states), False
        while (elapsed := time.monotonic() - began) < _DISCOVERY:
            if not watched and elapsed >= _DISCOVERY - _LOOK_ROUND:
                begin, watched = len(self.states), True
            if self.rivals:
                raise ConfigError("identify", self.command_topic, "somebody else commands the arm", "stop it first")
            time.sleep(0.05)
        positions = np.array([state.position for state in self.states[begin:]])
        if len(positions) < 10 * _LOOK_ROUND:
            raise ConfigError("identify", self.state_topic, "fewer than 10 joint states a second", "mend the driver")
        if not np.isfinite(positions).all():
            raise ConfigError("identify", self.state_topic, "a position is not finite", "mend the driver")
        third = max(1, len(positions) // 3)  # means, or noise would count as motion
        drift = np.abs(positions[-third:].mean(axis=0) - positions[:third].mean(axis=0))
        if drift.max() > 0.01:
            joint = self.robot.joint_names[int(np.argmax(drift))]
            raise ConfigError("identify", joint, f"moves ({drift.max():.3f} rad in {_LOOK_ROUND:g} s)",
                              "bring the arm to rest first")
        return np.asarray(self.robot.signs * positions.mean(axis=0))

    @property
    def rivals(self) -> int:
        """How many others command the arm."""
        return int(self.count_publishers(self.command_topic)) - 1

    def send(self, value: NDArray[np.float64]) -> float:
        """Publish a command (n,) in the URDF's sign. :return: when [s]."""
        message = Float64MultiArray(data=(self.robot.signs * value).tolist())
        now = self.seconds()
        self._commands.publish(message)
        return now


def move(node: ArmNode, excitation: Excitation, start: NDArray[np.float64], interface: str, stop: threading.Event,
         progress: tqdm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The motion, from rest to rest. However it ends, the arm is brought to rest within its limits.

    :return: when commands were sent (k,) [s] and what (k, n), in the driver's sign.
    :raises Aborted: `stop` was set or the guard found something; the arm is at rest then, as far as it listens.
    """
    robot, limiter, guard = node.robot, excitation.limiter(start), Guard(node.robot)
    pacer = Pacer(SteadyClock(), round(1e9 * excitation.period))
    times: list[float] = []
    values: list[NDArray[np.float64]] = []
    problem, row, rest = "", 0, round(_HALTED / excitation.period)
    look = max(1, round(_LOOK_AGAIN / excitation.period))
    while rest > 0:
        before = pacer.skipped
        pacer.wait()
        held_up = (pacer.skipped - before) * excitation.period
        state = node.states[-1]
        measured = robot.signs * state.position
        if not problem:
            problem = "interrupted" if stop.is_set() else guard.problem(time.monotonic(), state.heard, measured)
            if held_up > _LONGEST_GAP and not problem:
                problem = f"no command could be sent for {held_up:.2f} s: the machine is too busy"
            if len(times) % look == 0 and node.rivals and not problem:
                problem = "somebody else commands the arm too"
        moving = row < len(excitation.wanted) and not problem
        target = excitation.wanted[row] if moving else np.zeros(start.size)
        # The limiter keeps a velocity-controlled arm from its limits by where it is; a state that failed is not used.
        feedback = measured if interface == "velocity" and not problem else None
        if moving and feedback is not None:
            target = held(target, excitation.position[row], feedback)
        command = limiter.step(target, feedback)
        value = command.velocity if interface == "velocity" else command.position
        times.append(node.send(value))
        values.append(robot.signs * value)
        guard.told(time.monotonic(), excitation.position[min(row, len(excitation.wanted) - 1)])
        row += moving
        progress.update(int(moving))
        rest -= not moving and limiter.at_rest
    if problem:
        raise Aborted(problem)
    return np.array(times), np.array(values)


def live(wanted: Wanted, robot: RobotSpec, stop: threading.Event) -> tuple[Recording, dict, str]:
    """Move the arm. :return: the recording, the joints' parts of it, and a note on the clock."""
    with rclpy.init(signal_handler_options=SignalHandlerOptions.NO):
        node, executor = ArmNode(robot, wanted.interface, wanted.namespace), SingleThreadedExecutor()
        executor.add_node(node)
        spinning = threading.Thread(target=executor.spin, daemon=True)
        spinning.start()
        try:
            start = node.ready()
            excitation = Excitation(robot, wanted.excitation, start, joint_indices(robot, wanted.joints))
            print(plan(excitation, node.command_topic), file=sys.stderr)
            if not agreed(wanted.yes):
                raise ConfigError("identify", "", "the motion was not agreed to", "answer yes, or give --yes")
            first = len(node.states)
            bar = tqdm(total=len(excitation.wanted), desc="moving", unit="command", file=sys.stderr,
                       disable=wanted.quiet)
            with bar:
                times, values = move(node, excitation, start, wanted.interface, stop, bar)
            states = node.states[first:]
            stamps, arrivals, position, velocity = (np.array([getattr(state, name) for state in states])
                                                    for name in ("stamp", "arrival", "position", "velocity"))
        finally:
            executor.shutdown()
            spinning.join(2.0)
            node.destroy_node()
    state_times, note = measured_times(stamps, arrivals)
    age = 1e3 * float(np.median(arrivals - stamps))
    note = note or f"states arrive {age:.1f} ms after they are measured"
    fresh = np.concatenate([[True], np.diff(state_times) > 0])
    recording = Recording(wanted.interface, times, values, state_times[fresh], position[fresh], velocity[fresh])
    parts = {name: tuple(times[0] + t for t in part) for name, part in excitation.parts.items()}
    return recording, parts, note


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 the arm was halted early, 2 a user's error, 130 interrupted."""
    wanted, stop = parse(arguments), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        robot = load_robot(wanted.robot)
        if wanted.bag:
            recording, note = read_bag(Path(wanted.bag), robot, wanted.interface, wanted.namespace)
            parts, how = None, f"{wanted.interface} commands of the bag {Path(wanted.bag).name}"
        else:
            recording, parts, note = live(wanted, robot, stop)
            how = f"{wanted.interface} commands at {wanted.excitation.rate:g} Hz"
        identified, refused = identify(recording, robot.joint_names, parts, how,
                                       lambda name: print(f"fitting {name}", file=sys.stderr))
        print(report(identified, refused, note, wanted.json))
        write(wanted, identified)
    except Aborted as reason:
        print(f"qgf: the arm was halted: {reason}; nothing was written", file=sys.stderr)
        return 130 if stop.is_set() else 1
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What is to be known of a live arm before a policy may command it, judged from what was heard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qgf_core.errors import QgfError
from qgf_policy.interfaces import REMEDY
from qgf_policy.joint_state import JointState, JointStateMerger
from qgf_policy.preflight import Preflight
from qgf_policy.watch import fits, velocity_ratio

FAR_FROM_HOME = 1.0
"""A joint further from home than this [rad] stands where the policy hardly trained."""


class Finding(NamedTuple):
    """One line of the checklist."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject:<20} {self.found}" + (f" -> {self.remedy}" if self.remedy else "")


class HeardState(NamedTuple):
    """A joint state as it arrived."""

    names: tuple[str, ...]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    effort_length: int
    stamp: int
    """[ns], 0 where it had none."""
    arrival: int
    """[ns] on the steady clock."""
    age: int
    """Arrival minus stamp on the node's clock [ns]."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """Everything that was heard of the arm."""

    seconds: float
    states: Sequence[HeardState]
    state_topic: str
    command_topic: str
    listeners: Sequence[str]
    """Nodes that take commands."""
    commanders: Sequence[str]
    """Nodes that send commands."""
    realtime_notes: Sequence[str] = ()
    """What the operating system would not permit."""


def check_bundle(flight: Preflight) -> Finding:
    """The line of a bundle that `preflight.prepare` found good."""
    manifest = flight.bundle.manifest
    signed = f"signed by {flight.bundle.signer}" if flight.bundle.signer else "not signed"
    found = (
        f"{flight.path.name}, SHA-256 {flight.bundle.sha256[:12]}, {signed}, for {flight.robot.name}, "
        f"{manifest.control_rate:g} Hz: seal, code, probes, joints, limits and kinematics agree"
    )
    return Finding("ok", "bundle", found)


def refused_bundle(error: QgfError) -> Finding:
    """The line of one that it refused."""
    text, _, remedy = str(error).rpartition("; ")
    return Finding("fail", "bundle", text or str(error), remedy if text else "")


def checklist(flight: Preflight, heard: Heard) -> Iterator[Finding]:
    """All lines on the live arm, in the order in which they are to be mended."""
    if not heard.states:
        remedy = "start the robot's driver, and compare ROS_DOMAIN_ID, namespace and the robot YAML's topics"
        yield Finding("fail", "joint states", f"none on {heard.state_topic} within {heard.seconds:g} s", remedy)
        yield from _command_side(flight, heard)
        return
    merger = JointStateMerger(flight.robot, flight.runner.state_limit)
    now = heard.states[-1].arrival
    refusals: dict[str, str] = {}
    for s in heard.states:
        merger.add(s.names, s.position, s.velocity, s.stamp, s.arrival, s.age if s.stamp else 0, s.effort_length)
        state = merger.snapshot()
        flight.runner.step(state, s.arrival)  # not activated, it only watches
        refusals |= {refusal.kind: str(refusal) for refusal in state.refusals}
    names = flight.robot.joint_names
    ours = [s for s in heard.states if set(names) & set(s.names)]
    yield Finding("ok", "joint states", f"{len(heard.states)} on {heard.state_topic} in {heard.seconds:g} s")
    for kind, text in refusals.items():
        yield Finding("fail", kind.replace("_", " "), text, "mend the driver: such a message stops the arm")
    if ours:
        yield _clock(flight, ours)
    if state.missing:
        named = ", ".join(sorted({name for s in heard.states for name in s.names}))
        remedy = f"the driver names {named}; correct the robot YAML"
        yield Finding("fail", "joints", f"not heard of: {', '.join(state.missing)}", remedy)
        yield from _command_side(flight, heard)
        return
    yield Finding("ok", "joints", f"all {len(names)} by name")
    yield _rate(flight, ours)
    yield from _place(flight, state)
    yield _signs(flight, ours)
    refusal = flight.runner.judge_activation(dataclasses.replace(state, refusals=()), now)
    if refusal is not None:
        yield Finding("fail", "activation", str(refusal), "mend this first: activate would refuse it")
    yield from _command_side(flight, heard)


def _rate(flight: Preflight, states: Sequence[HeardState]) -> Finding:
    arrivals = np.array([s.arrival for s in states])
    longest = 1e-9 * float(np.diff(arrivals).max()) if len(arrivals) > 1 else np.inf
    limit = 1e-9 * flight.runner.state_limit
    rate = 1e9 * (len(arrivals) - 1) / max(int(arrivals[-1] - arrivals[0]), 1)
    found = f"{rate:.1f} Hz, longest silence {1e3 * longest:.1f} ms; stale after {1e3 * limit:.1f} ms"
    if longest > limit:
        return Finding("fail", "state rate", found, "raise the driver's rate, or stale_periods of the policy node")
    if rate < 0.8 * flight.robot.state_rate:
        return Finding("warn", "state rate", found, f"the robot YAML says {flight.robot.state_rate:g} Hz; correct one")
    return Finding("ok", "state rate", found)


def _clock(flight: Preflight, states: Sequence[HeardState]) -> Finding:
    ages = np.array([s.age for s in states if s.stamp])
    if not len(ages):
        return Finding("warn", "stamps", "none: age counts from the arrival", "let the driver stamp its joint states")
    worst, limit = 1e-6 * ages[np.abs(ages).argmax()], 1e-6 * flight.runner.state_limit
    found = f"median age {1e-6 * np.median(ages):.2f} ms, worst {worst:.2f} ms"
    if abs(worst) > limit:
        return Finding("fail", "stamps", found, "let the clocks agree (NTP, PTP), or set state_age_from to arrival")
    return Finding("ok", "stamps", found)


def _place(flight: Preflight, state: JointState) -> Iterator[Finding]:
    robot = flight.robot
    away = np.abs(state.position - robot.home)
    worst = int(away.argmax())
    found = f"{away[worst]:.2f} rad at most, joint '{robot.joint_names[worst]}'"
    if away[worst] > FAR_FROM_HOME:
        yield Finding("warn", "distance from home", found, "jog the arm nearer to home: the policy learned round there")
    else:
        yield Finding("ok", "distance from home", found)
    tool = flight.bundle.manifest.kinematics().tool_position(state.position)
    found = f"at {np.round(tool, 3).tolist()} m in {robot.base_frame}"
    yield Finding("ok", "tool", f"{found}; compare with the robot's own display")


def _signs(flight: Preflight, states: Sequence[HeardState]) -> Finding:
    """Whether the measured velocities are the derivatives of the positions, joint by joint."""
    wrong, shown = [], 0
    for name in flight.robot.joint_names:
        samples = [(1e-9 * s.arrival, s.position[s.names.index(name)], s.velocity[s.names.index(name)])
                   for s in states if name in s.names and len(s.position) == len(s.velocity) == len(s.names)]
        ratio = velocity_ratio(*zip(*samples, strict=True)) if samples else None
        if ratio is None:
            continue
        shown += 1
        if not fits(ratio):
            wrong.append(f"'{name}' ({ratio:+.2f})")
    if wrong:
        remedy = "correct the driver, or the robot YAML's signs and joints"
        found = f"velocity over change of position is not 1 for {', '.join(wrong)}"
        return Finding("fail", "velocity signs", found, remedy)
    if shown < len(flight.robot.joint_names):
        missing = len(flight.robot.joint_names) - shown
        return Finding("warn", "velocity signs", f"{missing} joints did not move", "jog each joint a little meanwhile")
    return Finding("ok", "velocity signs", "all joints moved, and their velocities with them")


def _command_side(flight: Preflight, heard: Heard) -> Iterator[Finding]:
    if heard.commanders:
        yield Finding("fail", "commanders", f"{', '.join(heard.commanders)} on {heard.command_topic}", "end them first")
    else:
        yield Finding("ok", "commanders", f"nobody else on {heard.command_topic}")
    if heard.listeners:
        yield Finding("ok", "controller", f"{', '.join(heard.listeners)} on {heard.command_topic}")
    else:
        remedy = "activate the controller, or correct command_interface or the robot YAML's topics"
        yield Finding("fail", "controller", f"nobody listens on {heard.command_topic}", remedy)
    if flight.robot.runs_on(flight.settings.command_interface):
        found = "without a timeout: the arm runs on at its last velocity if the policy node dies"
        yield Finding("warn", "command timeout", found, f"{REMEDY}; configure refuses it otherwise")
    for note in heard.realtime_notes:
        text, _, remedy = note.partition("; ")
        yield Finding("warn", "real time", text, remedy)

# SPDX-License-Identifier: Apache-2.0
"""The checklist before a policy may move an arm, from made-up recordings; and the command against a live arm."""

import dataclasses
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from std_msgs.msg import Float64MultiArray

from qgf_core.errors import BundleError
from qgf_core.robot import load_robot
from qgf_policy.checklist import Heard, HeardState, check_bundle, checklist, refused_bundle
from qgf_policy.parameters import defaults
from qgf_policy.preflight import prepare
from qgf_policy.preflight_node import listen

PANDA = load_robot("panda")
NAMES = PANDA.joint_names


@pytest.fixture(scope="module")
def flight(bundle_path):
    """On an arm whose controller stops it when commands stay away."""
    checked = prepare(dataclasses.replace(
        defaults(), bundle=str(bundle_path), robot="panda", allow_controller_without_timeout=True))
    return dataclasses.replace(checked, robot=dataclasses.replace(checked.robot, command_timeout=0.1))


def recording(rate=200.0, seconds=1.0, age=0.001, names=NAMES, position=None, speed=0.05, sign=1.0):
    """Every joint moves up at `speed` [rad/s]; velocities are reported with `sign`."""
    states = []
    for k in range(int(rate * seconds)):
        q = (PANDA.home if position is None else position) + speed * k / rate
        order = {name: i for i, name in enumerate(NAMES)}
        columns = [order[name] for name in names if name in order]
        states.append(
            HeardState(tuple(names), q[columns], np.full(len(columns), sign * speed), 0,
                       stamp=10**9 + round(1e9 * k / rate), arrival=5 * 10**9 + round(1e9 * k / rate),
                       age=round(1e9 * age)))
    return states


def judge(flight, states=None, **changes):
    heard = Heard(1.0, recording() if states is None else states, "/joint_states", "/commands", ["controller"], [])
    return {f.subject: f for f in checklist(flight, dataclasses.replace(heard, **changes))}


def test_a_good_arm_passes_every_line(flight):
    findings = judge(flight)
    assert {f.level for f in findings.values()} == {"ok"}, "\n".join(map(str, findings.values()))
    assert set(findings) == {"joint states", "joints", "state rate", "stamps", "distance from home", "tool",
                             "velocity signs", "commanders", "controller"}
    assert "200.0 Hz" in findings["state rate"].found
    tool = flight.bundle.manifest.kinematics().tool_position(PANDA.home + 0.05 * 199 / 200)
    assert str(np.round(tool, 3).tolist()) in findings["tool"].found


def test_an_arm_that_would_run_on_without_commands_is_told(flight):
    finding = judge(dataclasses.replace(flight, robot=PANDA))["command timeout"]
    assert finding.level == "warn" and "runs on at its last velocity" in finding.found
    assert "allow_controller_without_timeout" in finding.remedy


@pytest.mark.parametrize(
    ("arguments", "subject", "level", "words"),
    [
        ({"age": 0.2}, "stamps", "fail", "median age 200.00 ms"),
        ({"age": -0.2}, "stamps", "fail", "-200.00 ms"),
        ({"rate": 20.0}, "state rate", "fail", "longest silence 50.0 ms"),
        ({"rate": 100.0}, "state rate", "warn", "100.0 Hz"),
        ({"sign": -1.0}, "velocity signs", "fail", "'panda_joint1' (-1.00)"),
        ({"speed": 0.0}, "velocity signs", "warn", "7 joints did not move"),
        ({"names": NAMES[:-1]}, "joints", "fail", "panda_joint7"),
        ({"position": PANDA.home + np.array([1.5, 0, 0, 0, 0, 0, 0])}, "distance from home", "warn", "'panda_joint1'"),
        ({"position": PANDA.home + np.array([3.5, 0, 0, 0, 0, 0, 0])}, "activation", "fail", "outside its limits"),
    ],
)
def test_each_defect_is_found_and_named(flight, arguments, subject, level, words):
    finding = judge(flight, recording(**arguments))[subject]
    assert finding.level == level and words in finding.found + finding.remedy
    assert finding.remedy and "\n" not in str(finding)


def test_an_order_of_velocities_that_is_not_that_of_the_positions_is_found(flight):
    states = []
    for k, s in enumerate(recording(speed=0.0)):
        q, dq = s.position.copy(), np.zeros(7)
        q[0] += 0.1 * np.sin(k / 30)
        dq[1] = 0.1 / 30 * 200 * np.cos(k / 30)  # joint 1 moves, joint 2 reports it
        states.append(s._replace(position=q, velocity=dq))
    assert judge(flight, states)["velocity signs"].level == "fail"


def test_silence_malformed_states_and_the_command_side(flight):
    assert judge(flight, [])["joint states"].level == "fail"
    states = recording()
    states[50] = states[50]._replace(velocity=states[50].velocity[:-1])
    states[60] = states[60]._replace(position=np.full(7, np.nan))
    found = judge(flight, states)
    assert found["malformed state"].level == found["non finite state"].level == "fail"
    found = judge(flight, listeners=[], commanders=["teleop"], realtime_notes=["no rights; raise the limit"])
    assert found["controller"].level == "fail" and "nobody listens" in found["controller"].found
    assert "teleop" in found["commanders"].found and found["real time"].remedy == "raise the limit"


def test_lines_on_the_bundle(flight):
    assert check_bundle(flight).level == "ok" and flight.bundle.sha256[:12] in check_bundle(flight).found
    finding = refused_bundle(BundleError("x.pt: cut short; export it again"))
    assert (finding.level, finding.found, finding.remedy) == ("fail", "x.pt: cut short", "export it again")


@pytest.mark.ros
def test_the_command_against_a_live_arm_says_what_is_missing_and_moves_nothing(domain, operator, arm, bundle_path):
    operator.until(lambda: operator.joint_states, "the arm")
    operator.forget()
    command = [sys.executable, "-m", "qgf_policy.preflight_node", str(bundle_path), "--robot", "panda", "--json"]
    command += ["--seconds", "0.5"]  # less than the middleware may need to find the arm, which it is given
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    findings = {f["subject"]: f for f in json.loads(done.stdout)}
    assert findings["bundle"]["level"] == findings["joints"]["level"] == "ok"
    assert findings["velocity signs"]["level"] == "warn", "the arm stands still"
    assert "fake_arm" in findings["controller"]["found"]
    assert done.returncode == int(any(f["level"] == "fail" for f in findings.values()))
    operator.listen(0.1)
    assert operator.sent == []


@pytest.mark.ros
def test_a_commander_that_is_heard_of_late_is_told_all_the_same(domain, arm, flight, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    context, ended = Context(), threading.Event()

    def command():
        ended.wait(0.6)
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("teleop", context=context)
        node.create_publisher(Float64MultiArray, PANDA.topics.velocity, 1)
        ended.wait(60.0)
        node.destroy_node()
        rclpy.shutdown(context=context)

    commander = threading.Thread(target=command)
    commander.start()
    try:
        found = {finding.subject: finding for finding in listen(flight, 0.5, "")}["commanders"]
    finally:
        ended.set()
        commander.join()
    # On a busy machine its topic may be known by then and its name not yet: that it is there must be told.
    assert found.level == "fail" and ("teleop" in found.found or "a node whose name is not known" in found.found)


def test_a_bad_bundle_is_a_line_and_code_1_and_a_bad_option_code_2(tmp_path):
    (tmp_path / "bundle.pt").write_bytes(b"nothing")
    command = [sys.executable, "-m", "qgf_policy.preflight_node", str(tmp_path / "bundle.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout.startswith("fail  bundle") and "Traceback" not in done.stderr
    done = subprocess.run([*command, "--seconds", "-1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--seconds -1" in done.stderr

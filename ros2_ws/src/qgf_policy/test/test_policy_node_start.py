# SPDX-License-Identifier: Apache-2.0
"""How policy_node starts, ends and refuses, as a process over DDS."""

import collections
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import GetParameters
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from qgf_msgs.msg import PolicyStatus

pytestmark = pytest.mark.ros


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


@pytest.fixture
def start(harness, domain, tmp_path):
    """Starts policy_node with parameters; ends it in any case."""
    children = []

    def begin(**parameters):
        children.append(harness.policy_node(domain, tmp_path / f"node-{len(children)}", **parameters))
        return children[-1]

    yield begin
    for child in children:
        child.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_halts_the_arm_and_ends_the_node_with_0(start, operator, arm, reaching_bundle, number):
    node = start(bundle=reaching_bundle, autostart="true")
    operator.reach(PolicyStatus.HOLDING, timeout=60.0)
    operator.forget()
    operator.until_moving()
    node.popen.send_signal(number)
    begun = time.monotonic()
    assert node.popen.wait(5.0) == 0
    assert time.monotonic() - begun < 2.0
    operator.listen(0.3)
    assert not np.any(operator.sent[-1]), "the last command is a standstill"
    operator.check_limits()
    assert "Traceback" not in node.text() and "error" not in node.text().lower()


@pytest.mark.parametrize("delay", [0.5, 1.5])
def test_a_signal_while_starting_ends_without_a_traceback(start, reaching_bundle, delay):
    node = start(bundle=reaching_bundle, autostart="true")
    time.sleep(delay)
    node.popen.send_signal(signal.SIGINT)
    # Before Python is up to the handlers, the system's or Python's own ending of a signal is what there is.
    assert node.popen.wait(10.0) in (0, -signal.SIGINT)
    assert "Traceback" not in node.text()


MISTAKES = [
    ({"bundle": "/nowhere/bundle.pt"}, "/nowhere/bundle.pt: cannot be read"),
    ({"bundle": "GOOD", "robot": "iiwa"}, "the robot 'iiwa' has"),
    ({"bundle": "GOOD", "control_rate": "50"}, "50 Hz is not the 100 Hz"),
    ({"bundle": "GOOD", "speed_scale": "7.0"}, "speed_scale"),
    ({"bundle": "GOOD", "autostart": "maybe"}, "autostart"),
    ({"bundle": "GOOD", "qos_overrides./policy_node/status.publisher.reliability": "much"}, "qos_overrides"),
    ({"bundle": "GOOD", "qos_overrides./joint_states.subscription.history": "all"}, "qos_overrides"),
    ({"bundle": "GOOD", "qos_overrides./joint_states.subscription.depth": "-1"}, "qos_overrides"),
]
# Takes pairs of words for the node and a file for its standard error, one pair a line; each line is run as a process
# of its own, which has what takes two seconds to import from this one. Its exit code is printed.
FORKING = """
import json, os, signal, sys
import qgf_policy.policy_node
from qgf_policy.start import main
for line in sys.stdin:
    words, errors = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        sys.argv[1:] = words
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def node_once(harness, domain):
    """`node_once(errors, parameter=value, ...)` -> the exit code of a node that ends by itself."""
    forking = subprocess.Popen([sys.executable, "-c", FORKING], env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(errors, **parameters):
        words = [str(word) for word in harness.words_for_policy_node(**parameters)]
        print(json.dumps([words, str(errors)]), file=forking.stdin, flush=True)
        return int(forking.stdout.readline())

    yield run
    forking.stdin.close()
    assert forking.wait(10.0) == 0


@pytest.mark.parametrize(("parameters", "words"), MISTAKES)
def test_a_users_mistake_is_one_line_and_exit_code_2(node_once, tmp_path, reaching_bundle, parameters, words):
    given = {"autostart": "true"} | {k: reaching_bundle if v == "GOOD" else v for k, v in parameters.items()}
    assert node_once(tmp_path / "stderr", **given) == 2
    text = (tmp_path / "stderr").read_text()
    lines = [line for line in text.splitlines() if line.startswith("qgf: error:")]
    assert len(lines) == 1 and words in lines[0], text
    assert "Traceback" not in text


def test_a_refusal_without_autostart_is_told_and_the_position_interface_holds(start, operator, arm, reaching_bundle):
    node = start(bundle="/nowhere/bundle.pt", command_interface="position", command_rate=200)
    assert operator.reach(PolicyStatus.UNCONFIGURED, timeout=60.0).fault == ""
    assert not operator.transition(Transition.TRANSITION_CONFIGURE)
    status = operator.reach(PolicyStatus.UNCONFIGURED)
    assert status.fault.startswith("configure refused: /nowhere/bundle.pt: cannot be read")
    assert operator.put("bundle", str(reaching_bundle)).successful
    assert operator.transition(Transition.TRANSITION_CONFIGURE)
    assert len(operator.reach(PolicyStatus.INACTIVE).bundle_sha256) == 64
    operator.forget()
    assert operator.transition(Transition.TRANSITION_ACTIVATE), node.text()
    operator.until(lambda: len(operator.positions) > 200 and operator.joint_states, "position commands")
    # Without a goal the position at activation is held; the arm does not follow positions and stands there still.
    assert np.ptp(np.array(operator.positions), axis=0).max() < 1e-9
    np.testing.assert_allclose(operator.positions[-1], operator.measured(), atol=1e-6)
    assert operator.commands[-1].command_interface == "position" and operator.sent == []
    assert len(operator.positions) == pytest.approx(2 * len(operator.commands), abs=20)
    assert operator.transition(Transition.TRANSITION_DEACTIVATE)
    assert operator.transition(Transition.TRANSITION_CLEANUP)
    assert operator.reach(PolicyStatus.UNCONFIGURED).bundle == ""
    # An emergency stop counts also while nothing is loaded.
    assert operator.call(Trigger, "estop").success
    assert operator.transition(Transition.TRANSITION_CONFIGURE)
    assert operator.reach(PolicyStatus.ESTOPPED).estops == 1
    assert not operator.transition(Transition.TRANSITION_ACTIVATE)
    assert operator.call(Trigger, "reset_estop").success
    assert operator.transition(Transition.TRANSITION_ACTIVATE)
    node.popen.send_signal(signal.SIGINT)
    assert node.popen.wait(5.0) == 0


def test_topics_are_renamed_and_their_quality_of_service_is_set_from_outside(start, operator, reaching_bundle):
    """A rename changes the topic's name in qos_overrides too."""
    setting = {
        "qos_overrides./arm/states.subscription.reliability": "reliable",
        "qos_overrides./arm/states.subscription.depth": 7,
        "qos_overrides./arm/velocities.publisher.reliability": "best_effort",
        "qos_overrides./policy_node/command.publisher.durability": "transient_local",
        "qos_overrides./policy_node/status.publisher.depth": 3,
        "qos_overrides./goals.subscription.durability": "transient_local",
    }
    renames = ("joint_states:=arm/states", "forward_velocity_controller/commands:=arm/velocities", "~/goal:=/goals")
    node = start(remap=renames, bundle=reaching_bundle, **setting)
    operator.reach(PolicyStatus.UNCONFIGURED, timeout=60.0)
    assert operator.transition(Transition.TRANSITION_CONFIGURE), node.text()

    def quality(kind, topic):
        ask = getattr(operator.node, f"get_{kind}_info_by_topic")
        operator.until(lambda: [e for e in ask(topic) if e.node_name == "policy_node"], f"the {kind} of {topic}")
        return next(e.qos_profile for e in ask(topic) if e.node_name == "policy_node")

    assert quality("subscriptions", "/arm/states").reliability == ReliabilityPolicy.RELIABLE
    assert quality("publishers", "/arm/velocities").reliability == ReliabilityPolicy.BEST_EFFORT
    assert quality("publishers", "/policy_node/command").durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert quality("subscriptions", "/goals").durability == DurabilityPolicy.TRANSIENT_LOCAL
    names = ["qos_overrides./arm/states.subscription.depth", "qos_overrides./policy_node/status.publisher.depth"]
    values = operator.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
    assert [value.integer_value for value in values] == [7, 3]
    # What was made at configure goes at cleanup, and comes again with the same settings.
    assert operator.transition(Transition.TRANSITION_CLEANUP) and operator.transition(Transition.TRANSITION_CONFIGURE)
    assert quality("subscriptions", "/arm/states").reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_stamped_commands_carry_names_and_a_stamp(start, operator, arm, reaching_bundle, interface):
    heard = []
    subscription = operator.node.create_subscription(JointState, "/joint_command", heard.append, 1000)
    start(remap=[f"forward_{interface}_controller/commands:=joint_command"], bundle=reaching_bundle, autostart="true",
          stamped_commands="true", command_interface=interface, ramp_duration=0.0, tracking_limit=0.0)
    operator.reach(PolicyStatus.HOLDING, timeout=60.0)
    operator.send_far_goal()
    operator.until(lambda: operator.commands and np.ptp([c.command for c in operator.commands], axis=0).max() > 1e-3,
                   "commands that change")
    operator.listen(0.2)
    operator.node.destroy_subscription(subscription)
    told, sent = collections.defaultdict(list), collections.defaultdict(list)
    for command in operator.commands:
        told[tuple(command.command)].append(nanoseconds(command.header.stamp))
    for message in heard:
        sent[tuple(getattr(message, interface))].append(nanoseconds(message.header.stamp))
        assert list(message.name) == list(operator.robot.joint_names) and len(message.effort) == 0
        assert len(message.velocity if interface == "position" else message.position) == 0
    stamps = np.array([nanoseconds(message.header.stamp) for message in heard])
    assert np.all(np.diff(stamps) > 0) and np.median(np.diff(stamps)) == pytest.approx(1e7, rel=0.1)
    # The report of a period is stamped right after its command; values that came once are surely the same period's.
    delays = [told[v][0] - sent[v][0] for v in told if len(told[v]) == len(sent[v]) == 1]
    assert len(delays) > 1 and min(delays) > 0 and np.median(delays) < 5e6


def test_a_dry_run_computes_and_sends_nothing(start, operator, arm, reaching_bundle):
    start(bundle=reaching_bundle, autostart="true", dry_run="true")
    operator.reach(PolicyStatus.HOLDING, timeout=60.0)
    operator.forget()
    operator.send_far_goal()
    operator.reach(PolicyStatus.ACTIVE)
    assert len(operator.commands) > 40 and np.any(operator.commands[-1].command) and operator.sent == []


def test_an_arm_outside_its_limits_is_not_activated(start, operator, arm, reaching_bundle):
    operator.until(lambda: operator.arm_fault.get_subscription_count() > 0, "the arm's subscription")
    operator.arm_fault.publish(String(data="outside"))
    start(bundle=reaching_bundle, autostart="true")
    operator.reach(PolicyStatus.INACTIVE, timeout=60.0)
    operator.until(lambda: "joint 'panda_joint4' stands at" in operator.statuses[-1].fault, "the reason told")
    operator.forget()
    operator.listen(1.0)
    assert operator.sent == [] and operator.commands == []

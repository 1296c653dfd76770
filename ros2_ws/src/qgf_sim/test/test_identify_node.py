# SPDX-License-Identifier: Apache-2.0
"""`identify` as a process of its own against sim_node, over DDS: it finds what is hidden, and halts when it must."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from qgf_core.config import find_config
from qgf_core.robot import load_robot

pytestmark = pytest.mark.ros

SIM_NODE = ("-c", "from qgf_sim.start import main; main()")
PANDA = load_robot("panda")
NUMBERS = itertools.count()


@pytest.fixture
def arm(start, ros, tmp_path):
    """A sim_node in a namespace of its own, and its true states; `arm(hidden={...}, name=value, ...)`."""
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import JointState

    def begin(hidden=None, **parameters):
        namespace = f"/identify_{next(NUMBERS)}"
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        if hidden is not None:
            (tmp_path / "hidden.yaml").write_text(yaml.safe_dump({k: {"fixed": v} for k, v in hidden.items()}))
            words += ["-p", f"perturb:={tmp_path / 'hidden.yaml'}"]
        process = start(*SIM_NODE, "--ros-args", "-r", f"__ns:={namespace}", *words)
        truths = []
        ros.create_subscription(JointState, f"{namespace}/sim_node/ground_truth", truths.append, QoSProfile(depth=1000))
        ros.until(lambda: truths, what="the arm")
        return namespace, process, truths

    return begin


@pytest.fixture
def robot_yaml(tmp_path):
    path = tmp_path / "panda.yaml"
    path.write_text(find_config("robots", "panda").read_text(encoding="utf-8"))
    return path


class Identify:
    """The running command."""

    def __init__(self, namespace, robot_yaml, *arguments, yes=True):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qgf_sim.identify_node", "--robot", str(robot_yaml), "--namespace", namespace,
             "--quiet", "--allow-controller-without-timeout", *(["--yes"] if yes else []), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self, ros=None):
        """Exit code, stdout, stderr; `ros` is spun meanwhile."""
        while ros is not None and self.process.poll() is None:
            ros.spin_for(0.1)
        out, err = self.process.communicate(timeout=180)
        return self.process.returncode, out, err


@pytest.mark.alone
def test_hidden_delay_and_lag_are_found_and_written(arm, robot_yaml, ros):
    """Delay within 10 % or half a period of the states, time constant within 15 %."""
    namespace, _, truths = arm({"delay": 0.017, "time_constant": 1.5, "gain": 0.9}, physics_rate=400.0)
    before = robot_yaml.read_text()
    code, out, err = Identify(namespace, robot_yaml, "--joints", "panda_joint2", "panda_joint6", "--seconds", "5",
                              "--json").result(ros)
    assert code == 0, err
    assert "THE ARM WILL MOVE" in err
    found = json.loads(out)["joints"]
    assert set(found) == {"panda_joint2", "panda_joint6"}
    for joint in found.values():
        assert joint["delay"][0] == pytest.approx(0.037, abs=max(0.0037, 0.0025))
        assert joint["time_constant"][0] == pytest.approx(0.06, rel=0.15)
        assert joint["gain"][0] == pytest.approx(0.9, abs=0.03)
        assert joint["position_noise"][0] == pytest.approx(0.002, rel=0.3)
    robot = load_robot(str(robot_yaml))
    assert robot.drive.latency == pytest.approx(0.037, abs=0.0037)
    assert robot_yaml.read_text().startswith(before)  # the block is appended, no line is changed
    positions = np.array([message.position[:7] for message in truths])
    moved = np.abs(positions - PANDA.home).max(axis=0)
    assert (moved <= 0.16).all() and moved[1] > 0.05
    assert moved[[0, 2, 3, 4, 6]].max() < 0.05  # under gravity a velocity servo creeps
    assert np.abs(np.array(truths[-1].velocity[:7])).max() < 0.01


def moving(truths):
    return lambda: truths and np.abs(truths[-1].velocity[:7]).max() > 0.05


def until_moving(ros, truths, command):
    """Until the arm moves; a command that has ended instead is told with what it said."""
    ros.until(lambda: command.process.poll() is not None or moving(truths)(), timeout=40, what="motion")
    assert command.process.poll() is None, command.process.communicate()


def at_rest(truths):
    return lambda: len(truths) > 20 and all(np.abs(m.velocity[:7]).max() < 0.01 for m in truths[-20:])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_brings_the_arm_to_rest(arm, robot_yaml, ros, number):
    namespace, _, truths = arm()
    before = robot_yaml.read_bytes()
    command = Identify(namespace, robot_yaml, "--seconds", "20")
    until_moving(ros, truths, command)
    began = len(truths)
    command.process.send_signal(number)
    code, _, err = command.result()
    assert code == 130 and "qgf: the arm was halted: interrupted; nothing was written" in err and "Traceback" not in err
    ros.until(at_rest(truths), what="rest")
    speeds = np.array([m.velocity[:7] for m in truths[began:]])
    assert np.abs(np.diff(speeds, axis=0)).max() < 0.1, "no jump: within the limiter"
    assert robot_yaml.read_bytes() == before


def test_a_joint_that_does_not_follow_halts_it(arm, robot_yaml, ros):
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    namespace, _, truths = arm()
    command = Identify(namespace, robot_yaml, "--seconds", "20", "--reach", "0.4", "--speed", "0.4")
    until_moving(ros, truths, command)
    client = ros.create_client(SetParameters, f"{namespace}/sim_node/set_parameters")
    ros.until(client.service_is_ready)
    stop = Parameter("fault.protective_stop", value=True).to_parameter_msg()
    future = client.call_async(SetParameters.Request(parameters=[stop]))
    ros.until(future.done)
    code, _, err = command.result()
    assert code == 1 and "'panda_joint1' is 0.1" in err and "from where it was asked to be" in err


def test_states_that_stop_halt_it(arm, robot_yaml, ros):
    namespace, process, truths = arm()
    command = Identify(namespace, robot_yaml, "--seconds", "20")
    until_moving(ros, truths, command)
    process.kill()
    code, _, err = command.result()
    assert code == 1 and "the arm was halted: no joint state for 0.2" in err


def test_somebody_else_who_commands_halts_it(arm, robot_yaml, ros):
    from std_msgs.msg import Float64MultiArray

    namespace, _, truths = arm()
    before = robot_yaml.read_bytes()
    command = Identify(namespace, robot_yaml, "--seconds", "20")
    until_moving(ros, truths, command)
    rival = ros.create_publisher(Float64MultiArray, f"{namespace}/forward_velocity_controller/commands", 10)
    code, _, err = command.result(ros)
    assert code == 1 and "the arm was halted: somebody else commands the arm too" in err and "Traceback" not in err
    ros.until(at_rest(truths), what="rest")
    assert robot_yaml.read_bytes() == before
    ros.destroy_publisher(rival)


def test_it_does_not_begin_unasked_alone_or_against_another(arm, robot_yaml, ros):
    from std_msgs.msg import Float64MultiArray

    code, _, err = Identify("/nobody", robot_yaml).result()
    assert code == 2 and "identify: /nobody/joint_states: no joint states within 5 s; start the arm's driver" in err
    namespace, _, truths = arm()
    code, _, err = Identify(namespace, robot_yaml, yes=False).result()
    assert code == 2 and "THE ARM WILL MOVE" in err and "was not agreed to; answer yes, or give --yes" in err
    code, _, err = Identify(namespace, robot_yaml, "--command-interface", "position").result()
    assert code == 2 and "forward_position_controller/commands: nobody listens; activate that controller" in err
    ros.create_publisher(Float64MultiArray, f"{namespace}/forward_velocity_controller/commands", 10)
    time.sleep(0.5)
    code, _, err = Identify(namespace, robot_yaml).result()
    assert (code, "somebody else commands the arm; stop it first" in err) == (2, True), err
    assert np.abs(np.array([m.position[:7] for m in truths]) - PANDA.home).max() < 0.01


@pytest.mark.parametrize(("arguments", "message"), [
    (["--robot", "ur5000"], "unknown robot 'ur5000'"),
    (["--robot", "panda", "--speed", "9"], "speed 9.0 must lie in 0.02 .. 2"),
    (["--robot", "panda", "--joints", "elbow"], "--joints: there is no joint 'elbow'"),
    (["--robot", "panda"], "the arm runs on at its last velocity if this process dies: forward_velocity_controller"),
    (["--robot", "panda", "--bag", "/none"], "/none: cannot be read as a bag"),
])
def test_a_users_error_is_one_line_and_code_2(arguments, message):
    done = subprocess.run([sys.executable, "-m", "qgf_sim.identify_node", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1

# SPDX-License-Identifier: Apache-2.0
"""sim_node as a process of its own, over DDS."""

import itertools
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from qgf_core.robot import load_robot

pytestmark = pytest.mark.ros

SIM_NODE = ("-c", "from qgf_sim.start import main; main()")
PANDA = load_robot("panda")
FINGERS = ["panda_finger_joint1", "panda_finger_joint2"]
PUBLISHER = """
import sys, time, rclpy
from std_msgs.msg import Float64MultiArray
rclpy.init()
node = rclpy.create_node("commander")
publisher = node.create_publisher(Float64MultiArray, sys.argv[1], 10)
while True:
    publisher.publish(Float64MultiArray(data=[float(word) for word in sys.argv[2:]]))
    time.sleep(0.02)
"""


class Arm:
    """A running sim_node with its topics, in a namespace of its own."""

    numbers = itertools.count()

    def __init__(self, start, ros, **parameters):
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Float64MultiArray
        from std_srvs.srv import Trigger
        from trajectory_msgs.msg import JointTrajectory

        self.namespace = f"/arm_{next(self.numbers)}"
        arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        self.process = start(*SIM_NODE, "--ros-args", "-r", f"__ns:={self.namespace}", *arguments)
        self.ros, self.states, self.truths, self.diagnoses = ros, [], [], []
        self.interface = parameters.get("command_interface", "velocity")
        trajectory = self.interface == "joint_trajectory"
        self.command_topic = self.namespace + ("/joint_trajectory_controller/joint_trajectory" if trajectory
                                               else f"/forward_{self.interface}_controller/commands")
        profile = QoSProfile(depth=1000)
        ros.create_subscription(JointState, f"{self.namespace}/joint_states", self.states.append, profile)
        ros.create_subscription(JointState, f"{self.namespace}/sim_node/ground_truth", self.truths.append, profile)
        ros.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        kind = JointTrajectory if trajectory else Float64MultiArray
        self.commands = ros.create_publisher(kind, self.command_topic, 10)
        self.reset_client = ros.create_client(Trigger, f"{self.namespace}/sim_node/reset")
        ros.until(lambda: self.states and self.truths and self.commands.get_subscription_count(),
                  what="the arm's topics")

    def _on_diagnostics(self, message):
        self.diagnoses += [status for status in message.status if status.name.startswith(self.namespace[1:] + "/")]

    def send(self, values):
        from std_msgs.msg import Float64MultiArray

        self.commands.publish(Float64MultiArray(data=[float(value) for value in values]))

    def follow(self, names, *points):
        """Send a trajectory of points (time from start [s], positions, velocities)."""
        from builtin_interfaces.msg import Duration
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        self.commands.publish(JointTrajectory(joint_names=names, points=[
            JointTrajectoryPoint(positions=list(positions), velocities=list(velocities),
                                 time_from_start=Duration(sec=int(time), nanosec=round(time % 1 * 1e9)))
            for time, positions, velocities in points]))

    def parameters(self, kind, **request):
        """Ask one of sim_node's parameter services."""
        import rcl_interfaces.srv

        service = getattr(rcl_interfaces.srv, kind)
        name = "".join("_" + c.lower() if c.isupper() else c for c in kind)[1:]
        client = self.ros.create_client(service, f"{self.namespace}/sim_node/{name}")
        self.ros.until(client.service_is_ready, what=name)
        future = client.call_async(service.Request(**request))
        self.ros.until(future.done, what=f"an answer of {name}")
        return future.result()

    def fault(self, **faults):
        """Switch faults; returns "" or why that was refused."""
        from rclpy.parameter import Parameter

        wanted = [Parameter(f"fault.{name}", value=value).to_parameter_msg() for name, value in faults.items()]
        return "; ".join(result.reason for result in self.parameters("SetParameters", parameters=wanted).results
                         if not result.successful)

    def fresh_states(self, count=40):
        """The next joint states, without those that were on their way."""
        self.ros.spin_for(0.1)
        self.states.clear()
        self.ros.until(lambda: len(self.states) >= count, what=f"{count} states")
        return list(self.states)

    def drive(self, values, duration):
        """Send a command at 50 Hz for `duration` [s]."""
        end = time.monotonic() + duration
        while time.monotonic() < end:
            self.send(values)
            self.ros.spin_for(0.02)

    def reset(self):
        from std_srvs.srv import Trigger

        self.ros.until(self.reset_client.service_is_ready, what="~/reset")
        future = self.reset_client.call_async(Trigger.Request())
        self.ros.until(future.done, what="an answer of ~/reset")
        return future.result()

    def position(self):
        return np.array(self.truths[-1].position[:7])

    def velocity(self):
        return np.array(self.truths[-1].velocity[:7])

    def latest(self, key):
        """A figure of the next diagnosis."""
        self.diagnoses.clear()
        self.ros.until(lambda: self.diagnoses, what="a diagnosis")
        return {value.key: value.value for value in self.diagnoses[-1].values}[key]


@pytest.fixture
def arm(start, ros):
    return lambda **parameters: Arm(start, ros, **parameters)


def stamps(messages):
    """[s], from the first on."""
    times = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages]
    return (np.array(times) - times[0]) * 1e-9


def test_states_come_at_their_rate_complete_noisy_and_with_the_truth_beside(arm, ros):
    panda = arm()
    measured = []

    def rate_is_right():
        panda.states.clear()
        panda.truths.clear()
        ros.spin_for(2.0)
        # By the stamps: what had queued up before is received in one burst and says nothing of the rate.
        measured.append((len(panda.states) - 1) / stamps(panda.states)[-1])
        return measured[-1] == pytest.approx(200.0, rel=0.02)

    # Other work on the machine takes states away for a while, never adds any, and leaves the others in their places.
    ros.until(rate_is_right, timeout=60.0, what=f"200 Hz, measured {measured}")
    assert max(measured) < 200.5
    received, gaps = len(panda.states), np.diff(stamps(panda.states))
    assert (gaps > 0).all()
    assert np.median(np.abs(gaps - 0.005 * np.round(gaps / 0.005))) < 1e-4
    for message in (panda.states[0], panda.truths[-1]):
        assert list(message.name) == [*PANDA.joint_names, *FINGERS]
        assert len(message.position) == len(message.velocity) == 9
    truths = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in panda.truths}
    pairs = [(m, truths[key]) for m in panda.states if (key := (m.header.stamp.sec, m.header.stamp.nanosec)) in truths]
    assert len(pairs) > 0.98 * received
    noise = np.array([np.subtract(m.position, t.position) for m, t in pairs])
    assert noise[:, :7].std() == pytest.approx(0.002, rel=0.06) and not noise[:, 7:].any()
    noise = np.array([np.subtract(m.velocity, t.velocity) for m, t in pairs])
    assert noise[:, :7].std() == pytest.approx(0.02, rel=0.06)
    ros.until(lambda: float(panda.latest("real_time_factor")) == 1.0, what="a real-time factor of 1")


def test_a_gripper_may_have_a_publisher_of_its_own(arm, ros):
    panda = arm(gripper_publisher="true")
    assert ros.count_publishers(f"{panda.namespace}/joint_states") == 2
    ros.until(lambda: len(panda.states) > 50, what="states of both")
    assert {tuple(message.name) for message in panda.states} == {PANDA.joint_names, tuple(FINGERS)}
    kinds = [len(message.name) for message in panda.states]
    assert abs(kinds.count(7) - kinds.count(2)) <= 1
    for message in panda.states:
        assert len(message.position) == len(message.velocity) == len(message.name)
        assert (np.abs(message.position) > 0.05).any() == (len(message.name) == 7), "only fingers stand at zero"


def test_a_camera_shows_the_arm_where_it_is(arm, start, ros):
    """Against the renderer itself; nothing before the whole arm is known, nor a picture that was never asked for."""
    from sensor_msgs.msg import Image

    from qgf_sim.camera import Camera

    panda, images = arm(position_noise=0.0), []
    start("-m", "qgf_sim.camera_node", "--ros-args", "-r", f"__ns:={panda.namespace}", "-p", "rate:=10.0",
          "-p", "width:=160", "-p", "height:=120")
    topic = f"{panda.namespace}/camera_node/image"
    subscription = ros.create_subscription(Image, topic, images.append, 2)
    ros.until(lambda: images, what="a picture")

    def shown(message):
        assert (message.encoding, message.width, message.height, message.step) == ("rgb8", 160, 120, 480)
        return np.frombuffer(message.data, dtype=np.uint8).reshape(120, 160, 3).astype(int)

    with Camera(PANDA) as camera:
        at_home = camera.image(PANDA.home, 160, 120).astype(int)
        assert np.abs(shown(images[-1]) - at_home).mean() < 1.0
        panda.drive([0.8, 0, 0, 0, 0, 0, 0], 0.8)
        panda.drive(np.zeros(7), 0.5)
        images.clear()
        ros.until(lambda: len(images) > 1, what="a later picture")
        assert np.abs(at_home - shown(images[-1])).mean() > 2.0, "it has turned"
        # The loop of the arm goes on while it is drawn; the picture is of a moment ago.
        assert np.abs(shown(images[-1]) - camera.image(panda.position(), 160, 120).astype(int)).mean() < 1.0
    ros.destroy_subscription(subscription)


@pytest.mark.parametrize(("wrong", "said"), [("robot:=nobody", "nobody"), ("rate:=-1.0", "rate"), ("width:=3", "16")])
def test_a_camera_with_wrong_settings_says_so_in_one_line(start, wrong, said):
    camera = start("-m", "qgf_sim.camera_node", "--ros-args", "-p", wrong)
    assert camera.wait(20.0) == 2
    errors = [line for line in camera.text().splitlines() if line.startswith("qgf: error")]
    assert len(errors) == 1 and said in errors[0] and "Traceback" not in camera.text()


def test_a_velocity_command_moves_only_its_joint_and_with_its_sign(arm):
    panda = arm()
    for sign in (1.0, -1.0):
        before = panda.position()
        panda.drive([0, 0, 0, 0.3 * sign, 0, 0, 0], 1.0)
        assert panda.velocity()[3] == pytest.approx(0.3 * sign, rel=0.05)
        moved = panda.position() - before
        assert 0.2 < sign * moved[3] < 0.35
        assert np.abs(np.delete(moved, 3)).max() < 0.01
        panda.drive(np.zeros(7), 0.4)


def test_a_position_command_is_reached(arm):
    panda = arm(command_interface="position")
    target = PANDA.home + 0.2
    panda.send(target)
    panda.ros.until(lambda: np.abs(panda.position() - target).max() < 2e-3, what="the target")


def test_the_last_command_is_kept_when_its_publisher_is_killed(arm, start, ros):
    panda, stopping = arm(), arm(command_timeout=0.2)
    command = ["0", "0", "0", "0", "0.25", "0", "0"]
    publishers = [start("-c", PUBLISHER, one.command_topic, *command) for one in (panda, stopping)]
    for one in (panda, stopping):
        ros.until(lambda one=one: one.velocity()[4] > 0.24, what="the command's speed")
    for publisher in publishers:
        assert publisher.end(signal.SIGKILL)[0] == -signal.SIGKILL
    ros.until(lambda: abs(stopping.velocity()[4]) < 0.005, what="the timeout")
    ros.spin_for(0.5)
    assert panda.velocity()[4] == pytest.approx(0.25, rel=0.05)
    assert (stopping.latest("timed_out"), panda.latest("timed_out")) == ("True", "False")
    assert "no command within the timeout" in stopping.diagnoses[-1].message


def test_malformed_commands_are_refused_counted_and_told(arm):
    panda = arm()
    panda.drive([0, 0, 0, 0, 0.2, 0, 0], 0.5)
    assert panda.latest("malformed_commands") == "0"
    for count, bad in enumerate(([float("nan")] * 7, [0.0] * 6 + [float("inf")], [1.0] * 3, []), start=1):
        panda.send(bad)
        panda.ros.until(lambda count=count: panda.latest("malformed_commands") == str(count), what=f"{count} refusals")
    assert panda.velocity()[4] == pytest.approx(0.2, rel=0.05)
    assert np.abs(np.delete(panda.velocity(), 4)).max() < 0.01
    assert panda.process.is_running() and "command refused: not finite" in panda.process.text()


def test_a_trajectory_is_followed_by_names_and_a_partial_one_is_refused(arm):
    panda = arm(command_interface="joint_trajectory")
    names, goal = list(reversed(PANDA.joint_names)), PANDA.home + 0.3
    panda.follow(names, (1.0, goal[::-1], [0.0] * 7))
    panda.ros.until(lambda: np.abs(panda.velocity()).max() > 0.3, what="the way there")
    assert np.abs(panda.velocity()).max() < 1.1 * 1.5 * 0.3  # the cubic's peak: 1.5 times the mean speed
    panda.ros.until(lambda: np.abs(panda.position() - goal).max() < 2e-3, what="the goal")
    panda.follow(names[1:], (1.0, goal[:6], []))
    panda.ros.until(lambda: panda.latest("malformed_commands") == "1", what="the first refusal")
    panda.follow(names, (1.0, [float("nan")] * 7, []))
    panda.ros.until(lambda: panda.latest("malformed_commands") == "2", what="two refusals")
    assert np.abs(panda.position() - goal).max() < 2e-3
    assert panda.process.text().count("command refused: joints missing ['panda_joint7']") == 1
    panda.follow(names, (0.5, PANDA.home[::-1], []), (1.0, goal[::-1], []))
    panda.ros.until(lambda: np.abs(panda.position() - PANDA.home).max() < 0.05, what="the first point")
    panda.follow(names, (0.5, PANDA.home[::-1], []))  # in place of the rest of it
    panda.ros.until(lambda: np.abs(panda.position() - PANDA.home).max() < 2e-3, what="home")


def test_an_effort_turns_its_joint_and_gravity_takes_the_rest(arm):
    panda = arm(command_interface="effort")
    panda.ros.spin_for(0.3)
    assert panda.position() == pytest.approx(PANDA.home, abs=0.01)  # brakes hold until the first command
    panda.send([0.0] * 7)
    panda.ros.until(lambda: panda.velocity()[1] > 0.3, what="the fall of the upper arm")


def test_faults_of_the_states_are_switched_while_it_runs(arm):
    panda = arm()
    assert panda.fault(permute=True, missing_joint=FINGERS[0], frozen_joint="panda_joint2", nan=True) == ""
    states = panda.fresh_states()
    for message in states:
        assert list(message.name) == [FINGERS[1], *reversed(PANDA.joint_names)]
        assert np.isnan(message.position).tolist() == [False, True] + [False] * 6
        assert len(message.velocity) == len(message.position) == 8
    assert len({message.position[6] for message in states}) == 1 and len({m.position[5] for m in states}) > 30
    assert panda.fault(permute=False, missing_joint="", frozen_joint="", nan=False, noise=10.0) == ""
    states = panda.fresh_states(200)
    assert list(states[-1].name) == [*PANDA.joint_names, *FINGERS]
    positions = np.array([message.position for message in states])
    assert np.isfinite(positions).all() and positions[:, :7].std(0) == pytest.approx(np.full(7, 0.02), rel=0.25)
    assert panda.fault(dropout=1.0) == ""
    panda.ros.spin_for(0.1)
    panda.states.clear()
    panda.truths.clear()
    panda.ros.until(lambda: len(panda.truths) > 40, what="the truth, which goes on")
    assert panda.states == [] and int(panda.latest("dropped_states")) > 40
    assert panda.fault(dropout=0.0, delay_s=0.25) == ""
    panda.ros.until(lambda: panda.states, what="delayed states")
    ages = []
    for _ in range(20):
        panda.states.clear()
        panda.ros.until(lambda: panda.states, what="a delayed state")
        stamp = panda.states[-1].header.stamp
        ages.append(panda.ros.get_clock().now().nanoseconds * 1e-9 - stamp.sec - stamp.nanosec * 1e-9)
    assert 0.25 <= min(ages) < 0.30


def test_a_protective_stop_and_an_inactive_controller(arm):
    panda = arm()
    for fault, told in (("protective_stop", "protective stop"), ("inactive_controller", "controller not active")):
        panda.drive([0, 0, 0, 0, 0.3, 0, 0], 0.5)
        assert panda.velocity()[4] == pytest.approx(0.3, rel=0.1)
        assert panda.fault(**{fault: True}) == ""
        panda.drive([0, 0, 0, 0, 0.3, 0, 0], 0.5)
        assert np.abs(panda.velocity()).max() < 0.01 and panda.fresh_states()
        assert int(panda.latest("ignored_commands")) > 10 and told in panda.diagnoses[-1].message
        assert panda.fault(**{fault: False}) == ""
        panda.ros.spin_for(0.3)
        assert np.abs(panda.velocity()).max() < 0.01


def test_a_harsh_arm_on_the_second_engine(arm):
    panda = arm(engine="mujoco", perturb="harsh")
    panda.drive([0.5, 0, 0, 0, 0, 0, 0], 0.8)
    assert panda.velocity()[0] == pytest.approx(0.5 * 0.8 - 0.5 / 50.0, rel=0.05)  # gain, then dry friction
    values = panda.parameters("GetParameters", names=["fault.dropout", "fault.delay_s"]).values
    assert [value.double_value for value in values] == [0.05, 0.0]
    panda.ros.until(lambda: int(panda.latest("dropped_states")) > 5, what="lost states")


def test_fault_parameters_tell_their_ranges_and_refuse_what_is_none(arm):
    panda = arm(**{"fault.noise": "0.0"})
    assert len({tuple(message.position) for message in panda.fresh_states(5)}) <= 5
    names = ["fault.delay_s", "fault.dropout", "fault.permute", "fault.noise"]
    delay, dropout, permute, _ = panda.parameters("DescribeParameters", names=names).descriptors
    assert (delay.floating_point_range[0].from_value, delay.floating_point_range[0].to_value) == (0.0, 10.0)
    assert dropout.floating_point_range[0].to_value == 1.0 and "Share of joint states" in dropout.description
    assert not permute.floating_point_range and not permute.read_only and "by name" in permute.description
    assert panda.fault(dropout=1.5) and panda.fault(delay_s=-1.0) and panda.fault(permute=3)
    assert "there is no joint 'elbow'; choose one of: panda_joint1" in panda.fault(frozen_joint="elbow")
    values = panda.parameters("GetParameters", names=names).values
    assert [values[0].double_value, values[1].double_value, values[3].double_value] == [0.0, 0.0, 0.0]


def test_reset_brings_the_arm_to_its_start_at_rest(arm):
    start = [0.1, -0.2, 0.3, -2.0, 0.1, 1.9, 0.5]
    panda = arm(start_position=str(start).replace(" ", ""))
    assert panda.position() == pytest.approx(start, abs=0.01)
    panda.drive([0.5] * 7, 0.8)
    assert np.abs(panda.position() - start).min() > 0.2
    response = panda.reset()
    assert response.success and response.message
    panda.truths.clear()
    panda.ros.until(lambda: len(panda.truths) > 60, what="states after the reset")
    for message in panda.truths[10:]:
        assert message.position[:7] == pytest.approx(start, abs=0.01)
        assert np.abs(message.velocity).max() < 0.02


def test_simulated_time_goes_with_the_states(arm, ros):
    from rosgraph_msgs.msg import Clock

    clocks = []
    ros.create_subscription(Clock, "/clock", clocks.append, 10)
    panda = arm(publish_clock="true", state_rate="100.0", use_sim_time="true")
    ros.until(lambda: len(clocks) > 50)
    told = {(c.clock.sec, c.clock.nanosec) for c in clocks}
    assert all(nanoseconds % 5_000_000 == 0 for _, nanoseconds in told)  # whole steps of the physics
    stamped = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in panda.states]
    assert len(told.intersection(stamped)) > 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_and_leaves_nothing(start, number):
    before = set(Path("/dev/shm").iterdir())
    process = start(*SIM_NODE)
    process.until_text("/joint_states at 200 Hz")
    time.sleep(0.3)
    own = process.shared_memory() - before
    code, took = process.end(number)
    assert (code, "Traceback" in process.text()) == (0, False), process.text()
    assert took < 5.0
    assert [path for path in own if path.exists()] == []


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.4, 0.6])
def test_it_ends_cleanly_while_it_starts(start, delay):
    process = start(*SIM_NODE)
    process.until_handling(signal.SIGTERM)
    time.sleep(delay)
    assert process.end(signal.SIGINT)[0] == 0
    assert "Traceback" not in process.text()


@pytest.mark.parametrize(("parameter", "message"), [
    ("robot:=ur5000", "config/robots: unknown robot 'ur5000'; choose one of: iiwa, panda, ur5e"),
    ("state_rate:=77", "sim_node: physics_rate: 200.0 Hz is no multiple of state_rate 77.0 Hz"),
    ("physics_rate:=fast", "sim_node: physics_rate: expected float, got 'fast'"),
    ("command_interface:=torque", "sim_node: command_interface: 'torque' is not known"),
    ("perturb:=cruel", "config/perturb: unknown perturb 'cruel'; choose one of: harsh, train"),
    ("start_position:=[0.0,0.0]", "sim_node: start_position: 2 values for 7 joints"),
    ("seed", "failed to initialize rcl: Couldn't parse parameter override rule: '-p seed'"),
    ("robot:=panda --turbo", "unknown ROS arguments ['--turbo']"),
])
def test_a_users_error_is_one_line_and_code_2(start, parameter, message):
    process = start(*SIM_NODE, "--ros-args", "-p", *parameter.split())
    assert process.wait(20.0) == 2
    lines = [line for line in process.text().splitlines() if line.startswith("qgf: ")]
    assert len(lines) == 1 and lines[0].startswith("qgf: error: " + message)
    assert "Traceback" not in process.text()

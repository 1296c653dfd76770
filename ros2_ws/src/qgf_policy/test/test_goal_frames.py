# SPDX-License-Identifier: Apache-2.0
"""Goals in other frames: the arithmetic, the refusals, and, where tf2 is installed, a node that hears /tf."""

import importlib.util

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from scipy.spatial.transform import Rotation

from qgf_core.errors import ConfigError
from qgf_core.kinematics import Kinematics
from qgf_core.robot import read_urdf
from qgf_msgs.msg import PolicyStatus
from qgf_policy import goal_frames
from qgf_policy.goal_frames import BaseFrameOnly, TransformedGoals, in_parent
from qgf_policy.loop import GoalMessage

pytestmark = pytest.mark.ros
HAS_TF2 = importlib.util.find_spec("tf2_ros") is not None
REASON = "tf2_ros is not installed: it comes with a ROS distribution only"


def test_by_hand_a_quarter_turn_about_z_and_a_shift():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(in_parent((1.0, 2.0, 3.0), (10.0, 0.0, 0.0), (0.0, 0.0, half, half)), (8.0, 1.0, 3.0))
    np.testing.assert_allclose(in_parent((1.0, 2.0, 3.0), (0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 1.0)), (1.0, 2.0, 3.5))


def test_any_rotation_as_scipy_turns_it_whatever_the_quaternions_length():
    generator = np.random.default_rng(0)
    for _ in range(100):
        rotation, shift, point = generator.normal(size=4), generator.normal(size=3), generator.normal(size=3)
        np.testing.assert_allclose(
            in_parent(point, shift, rotation), Rotation.from_quat(rotation).apply(point) + shift, atol=1e-12)


def test_without_transforms_a_goal_of_the_base_frame_passes_and_another_is_told_what_to_do(monkeypatch):
    frames, goal = BaseFrameOnly("base"), GoalMessage((0.1, 0.2, 0.3), "base", 5)
    assert frames.to_base(goal) is goal
    for installed, remedy in ((None, "tf2_ros, which could turn it, is not installed here"),
                              (object(), "set transform_goals")):
        monkeypatch.setattr(goal_frames, "tf2_ros", installed)
        assert frames.to_base(goal._replace(frame="table")).unusable == (
            f"frame 'table' is not the base frame 'base', the only one understood; {remedy}")


def test_transforms_without_tf2_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(goal_frames, "tf2_ros", None)
    with pytest.raises(ConfigError) as refused:
        TransformedGoals(None, "base")
    assert str(refused.value) == (
        "policy_node: transform_goals: tf2_ros is not installed here, so that goals are understood in the robot's base "
        "frame only; install it from the ROS distribution, or leave transform_goals false")


@pytest.fixture
def node(harness, domain, operator, arm, reaching_bundle, tmp_path):
    """policy_node with transform_goals, not configured yet."""
    child = harness.policy_node(domain, tmp_path / "node", bundle=reaching_bundle, transform_goals="true")
    operator.reach(PolicyStatus.UNCONFIGURED, timeout=60.0)
    yield child
    assert "Traceback" not in child.text()
    child.end()


@pytest.mark.skipif(HAS_TF2, reason="tf2_ros is installed: nothing to refuse")
def test_the_node_says_at_configure_that_tf2_is_missing(node, operator):
    assert not operator.transition(Transition.TRANSITION_CONFIGURE)
    fault = operator.reach(PolicyStatus.UNCONFIGURED).fault
    assert fault.startswith("configure refused: policy_node: transform_goals: tf2_ros is not installed here")


@pytest.mark.skipif(not HAS_TF2, reason=REASON)
def test_goals_are_turned_by_tf_and_refused_where_it_does_not_lead(node, operator):
    import tf2_ros
    from geometry_msgs.msg import TransformStamped

    def told(child, parent="panda_link0", age=0.0):
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        now = operator.node.get_clock().now().nanoseconds - round(1e9 * age)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
        # A table in front of the arm, turned by a quarter about z.
        message.transform.translation.x, message.transform.translation.z = 0.5, 0.4
        message.transform.rotation.z = message.transform.rotation.w = float(np.sqrt(0.5))
        return message

    static, moving = tf2_ros.StaticTransformBroadcaster(operator.node), tf2_ros.TransformBroadcaster(operator.node)
    assert operator.transition(Transition.TRANSITION_CONFIGURE), node.text()
    operator.until(lambda: operator.node.count_subscribers("/tf") and operator.node.count_subscribers("/tf_static"),
                   "the listener")
    static.sendTransform(told("table"))
    assert operator.transition(Transition.TRANSITION_ACTIVATE)
    kinematics = Kinematics(read_urdf(operator.robot), operator.robot.joint_names, operator.robot.tool)

    def goal_of_the_last_observation():
        observation = np.array(operator.commands[-1].observation)
        return kinematics.tool_position(observation[:7] + operator.robot.home) - observation[-3:] / 5.0

    def arrives(frame, position, expected):
        goal = operator.send_goal(*position, frame=frame)
        operator.until(lambda: operator.commands and operator.commands[-1].goal_stamp == goal.header.stamp
                       and len(operator.commands[-1].observation), f"a goal in {frame}", 5.0)
        np.testing.assert_allclose(goal_of_the_last_observation(), expected, atol=1e-5)

    operator.listen(0.5)
    arrives("table", (0.1, 0.05, 0.02), (0.45, 0.1, 0.42))
    moving.sendTransform(told("cart", age=0.2))
    operator.listen(0.3)
    arrives("cart", (0.1, 0.05, 0.02), (0.45, 0.1, 0.42))
    moving.sendTransform(told("gone", age=3.0))
    operator.listen(0.3)
    for frame, words in (("gone", "the newest transform of frame 'gone' is 3."),
                         ("nowhere", "frame 'nowhere' cannot be turned into 'panda_link0': "),
                         ("", "frame '' cannot be turned into 'panda_link0': ")):
        operator.send_goal(0.1, 0.05, 0.02, frame=frame)
        operator.until(lambda words=words: f"goal refused: {words}" in operator.statuses[-1].fault, words, 5.0)
    refused = operator.statuses[-1].faults_rejected_goal
    assert refused == 3
    arrives("panda_link0", (0.5, 0.1, 0.4), (0.5, 0.1, 0.4))
    # Its subscriptions go with it.
    assert operator.transition(Transition.TRANSITION_DEACTIVATE) and operator.transition(Transition.TRANSITION_CLEANUP)
    operator.until(lambda: operator.node.count_subscribers("/tf") == 0, "the end of the listener", 5.0)

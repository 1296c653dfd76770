# SPDX-License-Identifier: Apache-2.0
"""The training as an action, beside or far from any arm.

    ros2 launch qgf_bringup train.launch.py output_root:=runs
    ros2 action send_goal --feedback /trainer_node/train qgf_msgs/action/TrainPolicy \
        "{robot: panda, task: reach, algorithm: td3, output_directory: mine, hand_over_to: /policy_node}"

On Ctrl-C a training that runs saves a checkpoint; its goal with `resume: true` goes on from there.
"""

from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch_ros.actions import Node, PushRosNamespace
from qgf_launch.arguments import (
    BOOLEAN,
    NAMESPACE,
    argument,
    chosen,
    existing,
    parameters_argument,
    typed,
)
from qgf_launch.bring_up import required

from launch import LaunchDescription

TRAINER = {"queue": 0, "output_root": "", "hand_over_timeout": 0.0}
ARGUMENTS = (
    argument("train", "trainer_node", "queue", "Goals that may wait while another is trained; others are refused."),
    argument("train", "trainer_node", "output_root",
             "Folder that the goals' output_directory must lie in; empty: anywhere."),
    argument("train", "trainer_node", "hand_over_timeout",
             "Longest wait for each answer of the policy node that a bundle is handed over to [s]."),
    DeclareLaunchArgument(
        "respawn", default_value="false", choices=BOOLEAN,
        description="Start a trainer node that has died again; its goals are lost, to be sent again with resume."),
    NAMESPACE,
    parameters_argument("train"),
)


def start(context):
    """The node, by the arguments' values."""
    respawn = chosen(context, "respawn") == "true"
    trainer = Node(
        package="qgf_trainer", executable="trainer_node", name="trainer_node", output="screen",
        parameters=[str(existing(context, "parameters")), typed(context, TRAINER)], respawn=respawn,
        respawn_delay=1.0, on_exit=None if respawn else required)
    return [GroupAction([PushRosNamespace(chosen(context, "namespace")), trainer])]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])

# SPDX-License-Identifier: Apache-2.0
"""Policy and monitor beside an arm whose driver and controller run already.

    ros2 launch qgf_bringup deploy.launch.py bundle:=bundle.pt robot:=panda speed_scale:=0.2

Nothing moves before the policy node is configured and activated (`ros2 lifecycle set /policy_node configure`, then
`activate`) and has a goal, unless autostart is true.
"""

from launch.actions import DeclareLaunchArgument, GroupAction, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, PushRosNamespace
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

BOOLEAN = ["true", "false"]
ARGUMENTS = (
    DeclareLaunchArgument("bundle", description="Path of the policy bundle."),
    DeclareLaunchArgument(
        "robot", default_value="", description="Arm: a name in config/robots or a YAML path; empty: the bundle's."),
    DeclareLaunchArgument(
        "command_interface", default_value="", choices=["", "velocity", "position", "joint_trajectory"],
        description="What the arm's active controller takes; empty: as the robot's description says."),
    DeclareLaunchArgument(
        "allow_controller_without_timeout", default_value="false", choices=BOOLEAN,
        description="Send velocities although the arm's controller has no timeout and would run on by itself."),
    DeclareLaunchArgument(
        "control_rate", default_value="0.0",
        description="Rate of the policy [Hz]; 0: the bundle's, and no other is taken."),
    DeclareLaunchArgument(
        "command_rate", default_value="0.0",
        description="Rate of the commands to the arm [Hz], a multiple of control_rate; 0: the robot's own."),
    DeclareLaunchArgument(
        "speed_scale", default_value="1.0",
        description="Factor on the velocities that the policy asks for, 0.1 .. 1; begin with little on a new arm."),
    DeclareLaunchArgument(
        "dry_run", default_value="false", choices=BOOLEAN, description="Compute everything, send nothing to the arm."),
    DeclareLaunchArgument(
        "autostart", default_value="false", choices=BOOLEAN,
        description="Let the policy node configure and activate itself as soon as joint states arrive."),
    DeclareLaunchArgument(
        "realtime_priority", default_value="0",
        description="SCHED_FIFO priority of the control loop, 1 .. 98; 0: none. Needs the rtprio limit."),
    DeclareLaunchArgument(
        "monitor", default_value="true", choices=BOOLEAN, description="Start the monitor of smoothness and timing."),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes and topics of the arm."),
)
POLICY_PARAMETERS = {
    "bundle": str, "robot": str, "command_interface": str, "control_rate": float, "command_rate": float,
    "speed_scale": float, "dry_run": bool, "autostart": bool, "realtime_priority": int,
    "allow_controller_without_timeout": bool,
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    parameters = {name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                  for name, kind in POLICY_PARAMETERS.items()}
    policy = Node(package="qgf_policy", executable="policy_node", name="policy_node", output="screen",
                  parameters=[parameters], on_exit=Shutdown(reason="policy_node has ended"))
    # The arm does not depend on its monitor: if that ends, the policy goes on.
    monitor = Node(package="qgf_monitor", executable="monitor_node", name="monitor_node", output="screen",
                   condition=IfCondition(LaunchConfiguration("monitor")))
    return LaunchDescription([
        *ARGUMENTS, GroupAction([PushRosNamespace(LaunchConfiguration("namespace")), policy, monitor])])

# SPDX-License-Identifier: Apache-2.0
"""An arm in Gazebo in place of a driver, with policy and monitor as deploy.launch.py starts them.

    ros2 launch qgf_bringup gazebo.launch.py bundle:=bundle.pt robot:=panda

It needs gz_ros2_control, ros_gz_sim, ros_gz_bridge, xacro, robot_state_publisher, controller_manager and
ros2_controllers of the ROS distribution. Everything runs by Gazebo's time.
"""

from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, PushRosNamespace
from launch_ros.parameter_descriptions import ParameterValue
from qgf_launch.arguments import (
    BOOLEAN,
    NAMESPACE,
    chosen,
    existing,
    include,
    parameters_argument,
    policy_arguments,
)
from qgf_launch.bring_up import after, required
from qgf_launch.gazebo import FOLDER, gazebo_urdf

from launch import LaunchDescription
from qgf_core.config import config_root
from qgf_core.errors import QgfError

NEEDED = ("ros_gz_sim", "ros_gz_bridge", "robot_state_publisher", "controller_manager")
ARGUMENTS = (
    *policy_arguments("gazebo"),
    DeclareLaunchArgument(
        "world", default_value=str(config_root() / FOLDER / "world.sdf"),
        description="World that Gazebo loads: an SDF file."),
    DeclareLaunchArgument(
        "headless", default_value="false", choices=BOOLEAN, description="Run Gazebo without its window."),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=BOOLEAN,
        description="Activate the policy node as soon as the arm's joint states allow it, instead of waiting for it."),
    NAMESPACE,
    parameters_argument("gazebo"),
)


def start(context):
    """Gazebo with the arm, by the arguments' values. :raises QgfError: something is missing."""
    from ament_index_python.packages import PackageNotFoundError, get_package_share_path

    for package in NEEDED:
        try:
            share = get_package_share_path(package)
        except PackageNotFoundError as error:
            remedy = f"apt-get install ros-$ROS_DISTRO-{package.replace('_', '-')}"
            raise QgfError(f"the package {package} is not installed; {remedy}") from error
    share = get_package_share_path("ros_gz_sim")
    name, namespace = chosen(context, "robot"), chosen(context, "namespace")
    words = f"-r {'-s ' if chosen(context, 'headless') == 'true' else ''}{existing(context, 'world')}"
    description = ParameterValue(gazebo_urdf(name, namespace), value_type=str)
    gazebo = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "gz_sim.launch.py")),
        launch_arguments=[("gz_args", words), ("on_exit_shutdown", "true")])
    publisher = Node(package="robot_state_publisher", executable="robot_state_publisher", output="screen",
                     parameters=[{"robot_description": description, "use_sim_time": True}])
    bridge = Node(package="ros_gz_bridge", executable="parameter_bridge", name="clock_bridge", output="screen",
                  parameters=[{"config_file": str(config_root() / FOLDER / "bridge.yaml")}],
                  on_exit=required)
    arm = Node(package="ros_gz_sim", executable="create", output="screen",
               arguments=["-topic", "robot_description", "-name", "arm"])
    states = Node(package="controller_manager", executable="spawner", output="screen",
                  arguments=["joint_state_broadcaster", "--controller-manager", "controller_manager"])
    pushed = PushRosNamespace(namespace)
    then = [GroupAction([pushed, states])]
    return [GroupAction([pushed, gazebo, bridge, publisher, *after(arm, then, "Gazebo did not take the arm")])]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    # The controller's spawner waits for the controller manager, which is there with the arm.
    deploy = include("deploy.launch.py", {
        "bundle": LaunchConfiguration("bundle"), "controllers": "true", "use_sim_time": "true"})
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start), deploy])

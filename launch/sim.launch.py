# SPDX-License-Identifier: Apache-2.0
"""A simulated arm in place of a driver, with policy and monitor as deploy.launch.py starts them.

    ros2 launch qgf_bringup sim.launch.py bundle:=bundle.pt robot:=panda gui:=true
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, PushRosNamespace
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

BOOLEAN = ["true", "false"]
ARGUMENTS = (
    DeclareLaunchArgument("bundle", description="Path of the policy bundle."),
    DeclareLaunchArgument(
        "robot", default_value="panda", description="Arm: a name in config/robots or the path of a YAML file."),
    DeclareLaunchArgument(
        "command_interface", default_value="velocity", choices=["velocity", "position"],
        description="What is sent to the arm: velocities [rad/s] or positions [rad]."),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=BOOLEAN,
        description="Let the policy node configure and activate itself as soon as joint states arrive."),
    DeclareLaunchArgument(
        "allow_controller_without_timeout", default_value="true", choices=BOOLEAN,
        description="Send velocities although nothing stops the simulated arm if the policy node dies."),
    DeclareLaunchArgument("gui", default_value="false", choices=BOOLEAN, description="Show the physics in a window."),
    DeclareLaunchArgument(
        "command_timeout", default_value="0.0",
        description="Time without commands after which the arm stops [s]; 0: never, as a real forward controller."),
    DeclareLaunchArgument("seed", default_value="0", description="Seed of the simulated sensors' noise."),
)
SIM_PARAMETERS = {"robot": str, "command_interface": str, "gui": bool, "command_timeout": float, "seed": int}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    parameters = {name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                  for name, kind in SIM_PARAMETERS.items()}
    sim = Node(package="qgf_sim", executable="sim_node", name="sim_node", output="screen", parameters=[parameters],
               on_exit=Shutdown(reason="sim_node has ended"))
    # It sees all arguments, declared here or there, but wants those without a default handed over.
    deploy = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(Path(__file__).parent / "deploy.launch.py")),
                                      launch_arguments=[("bundle", LaunchConfiguration("bundle"))])
    return LaunchDescription([
        *ARGUMENTS, deploy, GroupAction([PushRosNamespace(LaunchConfiguration("namespace")), sim])])

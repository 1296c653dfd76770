# SPDX-License-Identifier: Apache-2.0
"""A simulated arm in place of a driver, with policy and monitor as deploy.launch.py starts them.

    ros2 launch qgf_bringup sim.launch.py bundle:=bundle.pt robot:=panda gui:=true dashboard:=true

The policy node is configured, and activated as soon as joint states arrive; it then waits for a goal on
/policy_node/goal.
"""

from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, PushRosNamespace
from qgf_launch.arguments import (
    BOOLEAN,
    NAMESPACE,
    argument,
    chosen,
    existing,
    include,
    parameters_argument,
    policy_arguments,
    typed,
)
from qgf_launch.bring_up import required

from launch import LaunchDescription

SIM = {"robot": "", "command_interface": "", "gui": False, "command_timeout": 0.0, "engine": "", "perturb": "",
       "seed": 0, "publish_clock": False}
"""Parameters of sim_node that are launch arguments, and their types."""
ARGUMENTS = (
    argument("sim", "sim_node", "robot", "Arm: a name in config/robots or the path of a YAML file."),
    argument("sim", "sim_node", "command_interface", "What is sent to the arm, and what it takes.",
             ["velocity", "position", "joint_trajectory"]),
    argument("sim", "sim_node", "gui", "Show the physics in a window."),
    argument("sim", "sim_node", "command_timeout",
             "Time without commands after which the arm stops [s]; 0: never, as a real forward controller."),
    argument("sim", "sim_node", "engine", "Physics: that of the training, or the one no policy has seen.",
             ["pybullet", "mujoco"]),
    argument("sim", "sim_node", "perturb",
             "How the arm differs from its description: a name in config/perturb, such as harsh; empty: not at all."),
    argument("sim", "sim_node", "seed", "Seed of the simulated sensors' noise and of the perturbation."),
    argument("sim", "sim_node", "publish_clock",
             "Publish simulated time on /clock; give use_sim_time:=true with it, and only one arm may do so."),
    *policy_arguments("sim"),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=BOOLEAN,
        description="Activate the policy node as soon as the arm's joint states allow it, instead of waiting for it."),
    DeclareLaunchArgument(
        "dashboard", default_value="false", choices=BOOLEAN, description="Open the dashboard beside it."),
    NAMESPACE,
    parameters_argument("sim"),
)


def start(context):
    """The simulated arm, by the arguments' values."""
    sim = Node(package="qgf_sim", executable="sim_node", name="sim_node", output="screen",
               parameters=[str(existing(context, "parameters")), typed(context, SIM)],
               on_exit=required)
    return [GroupAction([PushRosNamespace(chosen(context, "namespace")), sim])]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([
        *ARGUMENTS, OpaqueFunction(function=start),
        include("deploy.launch.py", {"bundle": LaunchConfiguration("bundle")}),  # it sees all others by itself
        include("dashboard.launch.py", {}, "dashboard")])

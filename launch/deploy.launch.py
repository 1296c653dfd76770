# SPDX-License-Identifier: Apache-2.0
"""Policy and monitor beside an arm whose driver runs already.

    ros2 launch qgf_bringup deploy.launch.py bundle:=bundle.pt robot:=panda speed_scale:=0.2

The policy node is configured, which checks the bundle and commands nothing. It waits to be activated by
`ros2 lifecycle set /policy_node activate` or the dashboard, unless autostart is true, and then for a goal. On Ctrl-C it
brings the arm to rest before it ends.
"""

from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch_ros.actions import LifecycleNode, Node, PushRosNamespace
from qgf_launch.arguments import (
    BOOLEAN,
    NAMESPACE,
    POLICY,
    chosen,
    existing,
    include,
    parameters_argument,
    policy_arguments,
    typed,
)
from qgf_launch.bring_up import BringUp, after, required
from qgf_launch.gazebo import controllers_of

from launch import LaunchDescription
from qgf_core.manifest import read_manifest
from qgf_core.robot import load_robot
from qgf_policy.parameters import PARAMETERS

RESPAWN_DELAY = 2.0
"""Between the end of a policy node and its next start [s]: its topics have faded from the graph by then."""
DEFAULTS = {spec.name: spec.default for spec in PARAMETERS if spec.name in POLICY}
ARGUMENTS = (
    *policy_arguments("deploy"),
    DeclareLaunchArgument(
        "autostart", default_value="false", choices=BOOLEAN,
        description="Activate the policy node as soon as the arm's joint states allow it, instead of waiting for it."),
    DeclareLaunchArgument(
        "respawn", default_value="false", choices=BOOLEAN,
        description="Start a policy node that has died again; it stays inactive until somebody activates it. Otherwise "
        "its end ends the launch."),
    DeclareLaunchArgument(
        "controllers", default_value="false", choices=BOOLEAN,
        description="First load and activate the controller of the command interface, from config/controllers, in the "
        "controller manager that runs in the namespace."),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=BOOLEAN,
        description="Run by the time of /clock, as a simulator publishes it."),
    DeclareLaunchArgument(
        "monitor", default_value="true", choices=BOOLEAN, description="Start the monitor of smoothness and timing."),
    NAMESPACE,
    parameters_argument("deploy"),
)


def start(context):
    """The actions that depend on the arguments' values. :raises QgfError: one of them is wrong."""
    bundle = existing(context, "bundle")
    given = typed(context, DEFAULTS)
    autostart, respawn, controllers, sim_time = (
        chosen(context, name) == "true" for name in ("autostart", "respawn", "controllers", "use_sim_time"))
    robot = load_robot(given["robot"] or read_manifest(bundle).robot.name)
    policy = LifecycleNode(
        package="qgf_policy", executable="policy_node", name="policy_node", namespace="", output="screen",
        parameters=[str(existing(context, "parameters")), given,
                    {"bundle": str(bundle), "autostart": False, "use_sim_time": sim_time}],
        respawn=respawn, respawn_delay=RESPAWN_DELAY,
        on_exit=None if respawn else required)
    namespace = PushRosNamespace(chosen(context, "namespace"))
    actions = [GroupAction([namespace, BringUp(policy, autostart).handler(), policy])]
    if controllers:
        interface = given["command_interface"] or robot.command_interface
        controller = getattr(robot.topics, interface).partition("/")[0]
        return [GroupAction([namespace, *spawned_first(robot.name, controller, actions)])]
    return actions


def spawned_first(robot, controller, actions):
    """The actions, once the robot's controller is active. :raises QgfError: none is described for it."""
    path = controllers_of(robot)
    spawner = Node(package="controller_manager", executable="spawner", output="screen",
                   arguments=[controller, "--controller-manager", "controller_manager", "--param-file", str(path)])
    return after(spawner, actions, f"the controller manager did not take {controller}")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start), include("monitor.launch.py", {}, "monitor")])

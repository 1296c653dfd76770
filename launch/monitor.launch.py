# SPDX-License-Identifier: Apache-2.0
"""The monitor of smoothness and timing, and the governor that acts upon it, beside a policy node that runs already.

    ros2 launch qgf_bringup monitor.launch.py namespace:=left governor:=true

The arm does not depend on its monitor: if that ends, the policy goes on.
"""

from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch_ros.actions import Node, PushRosNamespace
from qgf_launch.arguments import BOOLEAN, NAMESPACE, argument, chosen, parameter_file

from launch import LaunchDescription

ARGUMENTS = (
    argument("monitor", "monitor_node", "policy", "Policy node to watch, by name in the namespace or by full name."),
    argument("monitor", "monitor_node", "config", "Settings of the monitor (YAML); empty: config/monitor.yaml.",
             called="monitor_config"),
    argument("monitor", "monitor_node", "replay",
             "Let ~/explain also ask the policy again, which loads torch: seconds and 200 MB."),
    DeclareLaunchArgument(
        "governor", default_value="false", choices=BOOLEAN,
        description="Start the governor too: lasting roughness is smoothed, then held, then stopped. It needs a policy "
        "node whose governor_lag is not 0."),
    argument("monitor", "governor_node", "config", "Settings of the governor (YAML); empty: config/governor.yaml.",
             called="governor_config"),
    NAMESPACE,
)


def start(context):
    """The actions that depend on the arguments' values."""
    parameters, policy = str(parameter_file("monitor")), chosen(context, "policy")
    nodes = [Node(package="qgf_monitor", executable="monitor_node", name="monitor_node", output="screen",
                  parameters=[parameters, {"policy": policy, "config": chosen(context, "monitor_config"),
                                           "replay": chosen(context, "replay") == "true"}])]
    if chosen(context, "governor") == "true":
        nodes.append(Node(package="qgf_monitor", executable="governor_node", name="governor_node", output="screen",
                          parameters=[parameters, {"policy": policy, "config": chosen(context, "governor_config")}]))
    return [GroupAction([PushRosNamespace(chosen(context, "namespace")), *nodes])]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])

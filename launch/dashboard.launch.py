# SPDX-License-Identifier: Apache-2.0
"""The dashboard: a window on the running policies, alone or inside rqt.

    ros2 launch qgf_bringup dashboard.launch.py arm:=/left theme:=dark
    ros2 launch qgf_bringup dashboard.launch.py rqt:=true

Closing the window ends nothing but itself.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import FindExecutable
from launch_ros.actions import Node
from qgf_launch.arguments import BOOLEAN, chosen

from launch import LaunchDescription
from qgf_core.config import config_root

ARGUMENTS = (
    DeclareLaunchArgument(
        "theme", default_value="", choices=["", "light", "dark"], description="Colours; empty: those of the desktop."),
    DeclareLaunchArgument(
        "arm", default_value="", description="Namespace of the arm to show first, such as /left; empty: the first."),
    DeclareLaunchArgument(
        "rqt", default_value="false", choices=BOOLEAN,
        description="Open it inside rqt, with the layout of config/layouts/qgf.perspective."),
)


def start(context):
    """The window that the arguments ask for."""
    if chosen(context, "rqt") == "true":
        layout = config_root() / "layouts" / "qgf.perspective"
        return [ExecuteProcess(cmd=[FindExecutable(name="rqt"), "--perspective-file", str(layout)], output="screen")]
    words = []
    for name in ("theme", "arm"):
        words += [f"--{name}", chosen(context, name)] if chosen(context, name) else []
    return [Node(package="rqt_qgf", executable="dashboard", name="dashboard", output="screen", arguments=words)]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])

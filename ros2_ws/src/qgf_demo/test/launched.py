# SPDX-License-Identifier: Apache-2.0
"""A launch file in a process of its own, as `ros2 launch` runs it, and what is looked at when it has ended."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

LAUNCH = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [word.split(":=", 1) for word in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(
    IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments))
sys.exit(service.run())
"""


def installed(name):
    """The launch file as `ros2 launch qgf_bringup` finds it."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("qgf_bringup")) / "launch" / name


class Launched:
    """A launch file in a process of its own, with its children."""

    numbers = itertools.count()

    def __init__(self, folder, name, *arguments, command=None, environment=None):
        self.namespace = f"launched_{next(self.numbers)}"
        self._log = folder / f"{self.namespace}.log"
        if name != "dashboard.launch.py":
            arguments = (f"namespace:={self.namespace}", *arguments)
        with self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*(command or [sys.executable, "-c", LAUNCH, str(installed(name))]), *arguments],
                stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1",
                                  "ROS_LOG_DIR": str(folder / "ros"), **(environment or {})})

    def text(self):
        return self._log.read_text(encoding="utf-8", errors="replace")

    def interrupt(self):
        """Ctrl-C, which a terminal sends to all of a group.

        :return: exit code, time it took [s], and names of processes that are left.
        """
        children = psutil.Process(self.process.pid).children(recursive=True)
        began = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(30.0)
        return code, time.monotonic() - began, [child.name() for child in children if child.is_running()]

    def left(self):
        """Processes of its session that are left."""
        return [process.name() for process in psutil.process_iter() if os.getsid(process.pid) == self.process.pid]

    def end(self):
        if self.process.poll() is None:
            for child in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                child.kill()
            self.process.wait()


def names_of(ros):
    """All nodes that it sees, by full name."""
    return {f"{namespace.rstrip('/')}/{name}" for name, namespace in ros.get_node_names_and_namespaces()}


def left_in_shared_memory(before):
    """What was put there since and nobody uses any more."""
    used = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            used |= {line.split()[-1] for line in maps.read_text().splitlines() if "/dev/shm/" in line}
        except OSError:
            continue  # it has ended
    return {path for path in map(str, Path("/dev/shm").iterdir()) if path not in before | used and "fast" in path}

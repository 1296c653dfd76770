# SPDX-License-Identifier: Apache-2.0
"""A launch file in a process of its own, as `ros2 launch` runs it, and what is looked at when it has ended."""

import contextlib
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
        self._before, self._shared = set(Path("/dev/shm").iterdir()), set()
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
        children = self._look()
        began = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(30.0)
        return code, time.monotonic() - began, [child.name() for child in children if child.is_running()]

    def wait(self, within):
        """Its exit code. :param within: longest wait [s]."""
        end = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text()
            self._look()
            time.sleep(0.1)
        return self.process.returncode

    def _look(self):
        """Its children; remembers what they hold in shared memory."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            self._shared |= shared_memory([self.process.pid, *(child.pid for child in children)])
            return children
        return []

    def left(self):
        """What is left when it has ended: processes of its session, and what they put into shared memory and nobody
        holds now."""
        running = [process.name() for process in psutil.process_iter() if os.getsid(process.pid) == self.process.pid]
        used = shared_memory(psutil.pids())
        return running + [path.name for path in self._shared - self._before - used if path.exists()]

    def end(self):
        if self.process.poll() is None:
            for child in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                child.kill()
            self.process.wait()


def names_of(ros):
    """All nodes that it sees, by full name."""
    return {f"{namespace.rstrip('/')}/{name}" for name, namespace in ros.get_node_names_and_namespaces()}


def shared_memory(pids):
    """The files in shared memory that these processes hold, as far as they still run. Others' on this machine come and
    go meanwhile."""
    held = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue  # it has ended
        held |= {Path(line.split()[5]) for line in lines if "/dev/shm/" in line}
    return held

# SPDX-License-Identifier: Apache-2.0
"""``./qgf doctor``: looks for what may be wrong on this machine, and says how to mend it.

Each check yields one line: ok, warn or fail, what was looked at, what was found, and the remedy. Exits with 1 if a line
says fail. Imports stand inside the checks, because a broken library is what a check is there to report.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import importlib
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DISCOVERY_LIMIT = 10.0  # [s]; discovery takes 0.1 s as a rule, at times 2 s
# Nodes that are there make themselves known within a fraction of a second; where that got lost, Fast DDS announces them
# anew every 3 s.
LISTENING = 4.0  # [s]
NAP = 0.1  # [s]
COMMAND_TOPICS = ("_controller/commands", "_controller/joint_trajectory")
SHARED_MEMORY = Path("/dev/shm")
LIBRARIES = ("numpy", "scipy", "torch", "pinocchio", "yaml", "cryptography")
TRAINING_LIBRARIES = ("pybullet", "gymnasium", "safetensors", "matplotlib")
DISTRIBUTIONS = {"pinocchio": "pin", "yaml": "PyYAML"}  # names on the package index where they differ


class Finding(NamedTuple):
    """One line of the report; ``level`` is "ok", "warn" or "fail", ``remedy`` empty where there is nothing to mend."""

    level: str
    subject: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject:<22} {self.found}" + (f" -> {self.remedy}" if self.remedy else "")


def check_machine() -> Iterator[Finding]:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    system = release.get("PRETTY_NAME", platform.platform())
    found = f"{system}, {platform.machine()}, {os.cpu_count()} cores, kernel {platform.release()}"
    yield Finding("ok", "machine", found)
    yield Finding("ok", "python", f"{platform.python_version()} in {sys.prefix}")
    for tool in ("g++", "cmake"):
        path = shutil.which(tool)
        if path is None:
            yield Finding("fail", tool, "not found", f"sudo apt-get install -y {tool}")
        else:
            version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            yield Finding("ok", tool, version.splitlines()[0] if version else path)


def check_libraries() -> Iterator[Finding]:
    scope = Path(sys.prefix) / ".qgf-scope"  # written by the set-up
    for_robot = scope.exists() and scope.read_text().strip() == "robot"
    for name in LIBRARIES + (() if for_robot else TRAINING_LIBRARIES):
        try:
            importlib.import_module(name)
            version = metadata.version(DISTRIBUTIONS.get(name, name))
        except (ImportError, OSError, metadata.PackageNotFoundError) as error:
            yield Finding("fail", name, f"does not import: {error}", "rm -r .venv, then ./qgf setup")
        else:
            yield Finding("ok", name, version)


def check_torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError):
        return  # check_libraries has said so
    device = f"CUDA, {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "CPU"
    scripted = torch.jit.script(torch.nn.Linear(3, 1))
    scripted(torch.zeros(1, 3))
    threads = torch.get_num_threads()
    found = f"TorchScript runs; {device}; {threads} threads"
    if threads > 1:
        yield Finding("warn", "torch threads", found, "OMP_NUM_THREADS=1: more only disturb networks this small")
    else:
        yield Finding("ok", "torch threads", found)


def check_updates() -> Iterator[Finding]:
    """Whether training has its machine code."""
    try:
        import torch

        from qgf_trainer.native_library import functions
    except ImportError:
        return  # a robot's computer, or check_libraries has said so
    if functions(torch.float32) is None:
        yield Finding("warn", "updates", "run on torch alone, which is slower", "sudo apt-get install -y g++")
    else:
        yield Finding("ok", "updates", "in machine code")


def check_ros() -> Iterator[Finding]:
    for name in ("rclpy", "qgf_msgs.msg"):
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield Finding("fail", name, f"does not import: {error}", "./qgf build")
        else:
            yield Finding("ok", name, str(Path(module.__file__ or "").parent))
    distribution, middleware = os.environ.get("ROS_DISTRO", "?"), os.environ.get("RMW_IMPLEMENTATION", "the default")
    yield Finding("ok", "ROS", f"{distribution}, middleware {middleware}")
    try:
        importlib.import_module("launch_ros")
    except ImportError:
        yield Finding("ok", "launch_ros", "not here: launch files need a distribution; ./qgf run and ./qgf demo do not")
    else:
        yield Finding("ok", "launch_ros", "ros2 launch qgf_bringup works")


def check_domain() -> Iterator[Finding]:
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if not text:
        yield Finding("ok", "ROS_DOMAIN_ID", "not set, so 0; ./qgf demo and ./qgf test take a free one of their own")
    elif not text.isdecimal() or int(text) > 101:
        yield Finding("fail", "ROS_DOMAIN_ID", repr(text), "set a number from 0 to 101, or unset it")
    else:
        yield Finding("ok", "ROS_DOMAIN_ID", text)
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    yield Finding("ok", "discovery range", reach + (": this machine only" if reach == "LOCALHOST" else ""))
    if os.environ.get("ROS_LOCALHOST_ONLY", "0") != "0":
        yield Finding("warn", "ROS_LOCALHOST_ONLY", "is deprecated and overrides the range", "unset ROS_LOCALHOST_ONLY")


def check_neighbours() -> Iterator[Finding]:
    """Listens for other nodes in the domain: on a robot they belong there, on a desk shared with others they do not."""
    try:
        import rclpy
    except ImportError:
        return  # check_ros has said so
    context = rclpy.Context()
    try:
        rclpy.init(context=context)
        node = rclpy.create_node("qgf_doctor_listener", context=context)
        for _ in range(round(LISTENING / NAP)):  # counted, so that a machine that stood still has not listened
            time.sleep(NAP)
        others = [namespace.rstrip("/") + "/" + name for name, namespace in node.get_node_names_and_namespaces()
                  if name != node.get_name()]
        yield neighbours(others, commanders(node))
        node.destroy_node()
    except RuntimeError as error:  # rclpy's own errors are RuntimeErrors
        yield Finding("fail", "other nodes", str(error).splitlines()[0], "./qgf build")
    finally:
        context.try_shutdown()


def commanders(node: Any) -> dict[str, list[str]]:
    """Who publishes on each topic that an arm's controller takes commands from."""
    found = {}
    for topic, _ in node.get_topic_names_and_types():
        if topic.endswith(COMMAND_TOPICS):
            found[topic] = sorted(end.node_namespace.rstrip("/") + "/" + end.node_name
                                  for end in node.get_publishers_info_by_topic(topic))
    return found


def neighbours(others: list[str], commands: dict[str, list[str]]) -> Finding:
    """The line on the nodes `others` of this domain, and on the publishers of command topics."""
    domain = os.environ.get("ROS_DOMAIN_ID", "") or "0"
    elsewhere = f"if they are not yours, export another ROS_DOMAIN_ID than {domain} (1 to 101)"
    for topic, nodes in commands.items():
        if len(nodes) > 1:
            return Finding("fail", "other nodes", f"{' and '.join(nodes)} all command {topic}", "end all but one")
    twice = sorted({name for name in others if others.count(name) > 1})
    if twice:
        return Finding("fail", "other nodes", f"two nodes are called {twice[0]}", f"end one, or {elsewhere}")
    if not others:
        return Finding("ok", "other nodes", f"none in domain {domain}")
    shown = ", ".join(sorted(others)[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return Finding("warn", "other nodes", f"in domain {domain}: {shown}", elsewhere)


def check_discovery() -> Iterator[Finding]:
    """Sends a message to a second process and waits for its answer, over the middleware in use."""
    try:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from std_msgs.msg import String
    except ImportError:
        return  # check_ros has said so
    subject = "DDS between processes"
    remedy = "let UDP multicast through the firewall on the loopback interface (ip link set lo multicast on)"
    topic = f"qgf_doctor_{os.getpid()}"
    child = subprocess.Popen([sys.executable, __file__, "--answer", topic], stdout=subprocess.DEVNULL)
    context = rclpy.Context()
    try:
        rclpy.init(context=context)
        node = rclpy.create_node("qgf_doctor", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        answers: list[str] = []
        node.create_subscription(String, f"{topic}/answer", lambda message: answers.append(message.data), 10)
        publisher = node.create_publisher(String, f"{topic}/call", 10)
        begun = time.monotonic()
        while not answers and time.monotonic() - begun < DISCOVERY_LIMIT and child.poll() is None:
            publisher.publish(String(data=socket.gethostname()))
            executor.spin_once(timeout_sec=0.05)
        took = time.monotonic() - begun
        if answers:
            yield Finding("ok", subject, f"a message came back {took:.1f} s after the second process began")
        elif child.poll() is not None:
            yield Finding("fail", subject, f"the second process ended with {child.returncode}", "./qgf build")
        else:
            yield Finding("fail", subject, f"no answer within {DISCOVERY_LIMIT:.0f} s", remedy)
    except RuntimeError as error:  # rclpy's own errors are RuntimeErrors
        yield Finding("fail", subject, str(error).splitlines()[0], remedy)
    finally:
        child.terminate()
        child.wait(timeout=10)
        context.try_shutdown()


def answer(topic: str) -> int:
    """The second process of check_discovery: answers each call until it is terminated, or after a while by itself."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from std_msgs.msg import String

    rclpy.init()
    node = rclpy.create_node("qgf_doctor_answer")
    publisher = node.create_publisher(String, f"{topic}/answer", 10)
    node.create_subscription(String, f"{topic}/call", publisher.publish, 10)
    end = time.monotonic() + 2 * DISCOVERY_LIMIT
    # A signal may invalidate the context between rclpy's look at it and its use.
    with contextlib.suppress(ExternalShutdownException, rclpy_implementation.RCLError):
        while time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
    return 0


def check_disk() -> Iterator[Finding]:
    free = shutil.disk_usage(ROOT).free / 1e9
    level = "fail" if free < 0.5 else "warn" if free < 3.0 else "ok"
    remedy = "" if level == "ok" else "free some; old runs/ can go"
    yield Finding(level, "disk", f"{free:.1f} GB free at {ROOT}", remedy)


def check_shared_memory(folder: Path = SHARED_MEMORY) -> Iterator[Finding]:
    """What processes that were killed have left: files of this user that no process has mapped. Locks and semaphores
    have no contents and do not count."""
    held: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            held |= {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if str(folder) in line}
    left = [path for pattern in ("fastdds_*", "fastrtps_*") for path in folder.glob(pattern)
            if not path.name.endswith("_el") and str(path) not in held and path.stat().st_uid == os.geteuid()]
    if left:
        size = 1e-6 * sum(path.stat().st_size for path in left)
        remedy = f"with no ROS process running: rm {folder}/*fastdds_* {folder}/*fastrtps_*"
        yield Finding("warn", "shared memory", f"{len(left)} segments of killed processes in {folder}, {size:.0f} MB",
                      remedy)
    else:
        yield Finding("ok", "shared memory", "nothing left behind")


def check_clock() -> Iterator[Finding]:
    """Stamps of another machine's messages are compared with this one's clock."""
    year = time.gmtime().tm_year
    if year < 2024:
        yield Finding("fail", "clock", f"says that it is {year}", "set it: sudo timedatectl set-ntp true")
    else:
        synchronised = clock_is_synchronised()
        remedy = "with a driver on another machine: sudo apt-get install -y chrony"
        if synchronised is False:
            yield Finding("warn", "clock", "is not synchronised with a time server", remedy)
        else:
            yield Finding("ok", "clock", "synchronised" if synchronised else "the kernel does not tell how it goes")
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source.is_file():
        name = source.read_text().strip()
        slow = name in ("hpet", "acpi_pm")
        remedy = "every look at the clock is slow: boot with tsc=reliable where the processor allows it"
        yield Finding("warn" if slow else "ok", "clock source", name, remedy if slow else "")


def clock_is_synchronised() -> bool | None:
    """What the kernel says (adjtimex, which changes nothing here); None where it does not say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR: not synchronised


def check_realtime() -> Iterator[Finding]:
    user = os.environ.get("USER", "USER")
    limits = "in /etc/security/limits.d/qgf.conf, then log in again"
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(80))"
    fifo = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    if fifo:
        yield Finding("ok", "real-time priority", "SCHED_FIFO may be used")
    else:
        yield Finding("warn", "real-time priority", "SCHED_FIFO refused", f"'{user} - rtprio 98' {limits}")
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if locked == resource.RLIM_INFINITY or os.geteuid() == 0:
        yield Finding("ok", "memory lock", "unlimited")
    else:
        yield Finding("warn", "memory lock", f"{locked / 1e6:.0f} MB", f"'{user} - memlock unlimited' {limits}")
    latency, own = Path("/dev/cpu_dma_latency"), Path("/sys/devices/system/cpu/cpu0/power/pm_qos_resume_latency_us")
    if os.access(own, os.W_OK):
        yield Finding("ok", "processor sleep", "the policy node can keep its own processor awake")
    elif os.access(latency, os.W_OK):
        yield Finding("ok", "processor sleep", f"{latency} may be written: the policy node can keep processors awake")
    else:
        rule = 'KERNEL=="cpu_dma_latency", GROUP="realtime", MODE="0660"'
        remedy = f"'{rule}' in /etc/udev/rules.d/99-qgf.rules, and be in that group; in a container, pass the device in"
        yield Finding("warn", "processor sleep", f"{latency} cannot be written: processors wake late", remedy)
    paths = Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")
    governors = {path.read_text().strip() for path in paths}
    if governors - {"performance"}:
        remedy = "sudo cpupower frequency-set -g performance"
        yield Finding("warn", "CPU governor", ", ".join(sorted(governors)), remedy)
    elif governors:
        yield Finding("ok", "CPU governor", "performance")
    yield sleeping_lateness()


def check_kernel() -> Iterator[Finding]:
    cmdline, config = Path("/proc/cmdline"), Path(f"/boot/config-{platform.release()}")
    settings = config.read_text() if os.access(config, os.R_OK) else ""
    if not settings and Path("/proc/config.gz").is_file():
        settings = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    yield preemption(platform.version(), cmdline.read_text() if cmdline.is_file() else "", settings)
    processors = Path("/proc/cpuinfo")
    if processors.is_file():
        yield virtualisation(processors.read_text())


def preemption(version: str, cmdline: str, config: str) -> Finding:
    """Whether a thread of the kernel lets the loop's thread run at once.

    :param version: `uname -v`. :param cmdline: what the kernel was booted with. :param config: what it was built with,
        empty where that is not to be had.
    """
    if "PREEMPT_RT" in version:
        return Finding("ok", "preemption", "PREEMPT_RT")
    models = ("none", "voluntary", "lazy", "full")
    chosen = [word.partition("=")[2] for word in cmdline.split() if word.startswith("preempt=")]
    built = [model for model in models[:3] if f"\nCONFIG_PREEMPT_{model.upper()}=y" in f"\n{config}"]
    if "\nCONFIG_PREEMPT=y" in f"\n{config}":
        built = ["full"]
    dynamic = "PREEMPT_DYNAMIC" in version
    if dynamic and chosen:
        model = chosen[-1]
    elif built:
        model = built[0]
    else:
        model = "full" if "PREEMPT" in version and not dynamic else ""
    if model in ("full", "lazy"):
        return Finding("ok", "preemption", model)
    remedy = "boot with preempt=full, or a kernel with PREEMPT_RT"
    if not model:
        return Finding("ok", "preemption", "the kernel does not tell; if the loop is late by ms, " + remedy)
    return Finding("warn", "preemption", f"{model}: the kernel's own threads may keep the loop waiting for ms", remedy)


def virtualisation(processors: str) -> Finding:
    """Whether somebody else's processors are shared.

    :param processors: /proc/cpuinfo.
    """
    flags = {word for line in processors.splitlines() if line.startswith("flags") for word in line.split()}
    if "hypervisor" not in flags:
        return Finding("ok", "processors", "the machine's own")
    remedy = (
        "run an arm's loop on a machine of its own; if its host limits this one's processor time, a processor that is "
        "kept awake uses it up: look whether stay_awake:=false does better"
    )
    return Finding("warn", "processors", "a virtual machine's: the host may stop the loop for ms, at any time", remedy)


def sleeping_lateness(period: float = 0.002, cycles: int = 250) -> Finding:
    """Wakes at absolute deadlines ``period`` [s] apart and reports how late it was."""
    late = []
    deadline = time.monotonic()
    for _ in range(cycles):
        deadline += period
        time.sleep(max(0.0, deadline - time.monotonic()))
        late.append(time.monotonic() - deadline)
    late.sort()
    typical, worst = late[cycles // 2], late[-1]
    found = f"wakes {typical * 1e3:.2f} ms late as a rule, {worst * 1e3:.1f} ms at worst over {cycles * period:.1f} s"
    if worst > 0.005:
        return Finding("warn", "timing", found, "end other loads on this machine")
    return Finding("ok", "timing", found)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_machine,
    check_libraries,
    check_torch,
    check_updates,
    check_ros,
    check_domain,
    check_discovery,
    check_neighbours,
    check_clock,
    check_disk,
    check_shared_memory,
    check_kernel,
    check_realtime,
)


def main() -> int:
    if sys.argv[1:2] == ["--answer"]:
        return answer(sys.argv[2])
    failed = False
    for check in CHECKS:
        for finding in check():
            print(finding, flush=True)
            failed = failed or finding.level == "fail"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

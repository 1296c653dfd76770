# SPDX-License-Identifier: Apache-2.0
"""Asks every running node what it has: the text of docs/reference/nodes.md. Used by reference.py.

The nodes are started with their defaults, in a ROS domain of their own; policy_node is then configured with a
bundle, because it has most of its topics only then. What a node makes later still, from the topics that it meets, is
not listed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.action import get_action_names_and_types
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.robot import load_robot, read_urdf
from qgf_demo.domain import Domain

INSTALL = Path(__file__).resolve().parent.parent / "ros2_ws/install/lib"
NODES = (
    ("qgf_policy", "policy_node", "Runs a bundle at a fixed rate; a lifecycle node."),
    ("qgf_sim", "sim_node", "The robot's double: a simulated arm behind the topics of a ros2_control driver."),
    ("qgf_monitor", "monitor_node", "Measures smoothness and timing live."),
    ("qgf_monitor", "governor_node", "Acts upon lasting roughness: smoothes, holds, stops."),
    ("qgf_trainer", "trainer_node", "Trains, as an action."),
)
INTRODUCTION = (
    "# Nodes", "",
    "Names with `~` are the node's own (`~/status` is `/policy_node/status`), the others relative, so that namespaces "
    "work; topics that a robot's YAML names stand here as it has them by default. QoS can be overridden where a node "
    "has the parameters `qos_overrides.*`. Every node also has the usual parameter services.")
READY_WITHIN = 120.0
"""Time that a node may take to its parameters [s]: some import torch and PyBullet, on a machine that may be busy."""
EVERY_NODE = {"/parameter_events", "/rosout"}
LIFECYCLE = ("change_state", "get_available_states", "get_available_transitions", "get_state", "get_transition_graph")
PARAMETER_SERVICES = ("describe_parameters", "get_parameter_types", "get_parameters", "get_type_description",
                      "list_parameters", "set_parameters", "set_parameters_atomically")
OVERRIDE = re.compile(r"^qos_overrides\.(?P<topic>.+)\.(?P<end>publisher|subscription)\.\w+$")


class Questioner:
    """A node that asks others for what they are."""

    def __init__(self, domain: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, args=[], domain_id=domain)
        self.node = Node("qgf_questioner", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def spin_until(self, condition: Any, what: str, processes: list[subprocess.Popen[bytes]]) -> None:
        """:raises RuntimeError: it takes too long, or one of the processes has ended."""
        deadline = time.monotonic() + READY_WITHIN
        while not condition():
            ended = [process.args[0] for process in processes if process.poll() is not None]  # type: ignore[index]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"no {what}; " + (f"{ended[0]} has ended" if ended else f"not in {READY_WITHIN} s"))
            self._executor.spin_once(timeout_sec=0.05)

    def ask(self, kind: Any, service: str, processes: list[subprocess.Popen[bytes]], **fields: Any) -> Any:
        """The answer of a service."""
        client = self.node.create_client(kind, service)
        self.spin_until(client.service_is_ready, service, processes)
        future = client.call_async(kind.Request(**fields))
        self.spin_until(future.done, f"answer of {service}", processes)
        self.node.destroy_client(client)
        return future.result()


def page() -> str:
    """The page, without its first line."""
    with Domain() as domain:
        return _page(domain.id)


def _page(domain: int) -> str:
    processes: list[subprocess.Popen[bytes]] = []
    asker = Questioner(domain)
    try:
        for package, name, _ in NODES:
            processes.append(subprocess.Popen(
                [INSTALL / package / name, "--ros-args", "--log-level", "fatal"], start_new_session=True,
                env={**os.environ, "ROS_DOMAIN_ID": str(domain)}))
        lines = list(INTRODUCTION)
        for package, name, meaning in NODES:
            start = f"`ros2 run {package} {name}` or `./qgf run {package} {name}`."
            lines += ["", f"## {name}", "", f"{start} {meaning}", "", *_node(asker, name, processes)]
    finally:
        asker.close()
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return "\n".join(lines) + "\n"


def _node(asker: Questioner, name: str, processes: list[subprocess.Popen[bytes]]) -> Iterator[str]:
    described = _parameters(asker, name, processes)  # answered by a node that is up
    if name == "policy_node":
        with tempfile.TemporaryDirectory() as folder:
            configure(asker, name, _bundle(Path(folder)), processes)
        yield from ("As configured, with `command_interface` position:", "")
    node = asker.node
    services = [(service, types[0]) for service, types in node.get_service_names_and_types_by_node(name, "/")
                if _own(service, name) not in PARAMETER_SERVICES and "/_action/" not in service]
    lifecycle = [service for service, _ in services if _own(service, name) in LIFECYCLE]
    if lifecycle:
        yield from ("A managed node: `ros2 lifecycle set` and its services.", "")
    rows = [(service, kind) for service, kind in services if service not in lifecycle]
    outgoing = _topics(node.get_publisher_names_and_types_by_node(name, "/"), name, lifecycle)
    incoming = _topics(node.get_subscriber_names_and_types_by_node(name, "/"), name, lifecycle)
    for title, topics, info in (("publishes", outgoing, node.get_publishers_info_by_topic),
                                ("subscribes to", incoming, node.get_subscriptions_info_by_topic)):
        if topics:
            yield from (f"| {title} | type | QoS |", "|---|---|---|")
            for topic, kind in topics:
                ends = [end for end in info(topic) if end.node_name == name]
                yield f"| `{_shown(topic, name)}` | {_type(kind)} | {_qos(ends[0].qos_profile)} |"
            yield ""
    actions = [(action, types[0]) for action, types in get_action_names_and_types(node)
               if action.startswith(f"/{name}/")]
    if rows or actions:
        yield from ("| service or action | type |", "|---|---|")
        yield from (f"| `{_shown(service, name)}` | {_type(kind)} |" for service, kind in sorted(rows + actions))
        yield ""
    yield from described


def configure(asker: Questioner, name: str, bundle: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """:raises RuntimeError: the node refuses the bundle."""
    values = [Parameter("bundle", value=str(bundle)), Parameter("command_interface", value="position")]
    asked = [parameter.to_parameter_msg() for parameter in values]
    results = asker.ask(SetParameters, f"/{name}/set_parameters", processes, parameters=asked).results
    transition = Transition(id=Transition.TRANSITION_CONFIGURE)
    done = asker.ask(ChangeState, f"/{name}/change_state", processes, transition=transition)
    if not done.success:
        raise RuntimeError(f"{name} was not configured: {[result.reason for result in results]}")


def _bundle(folder: Path) -> Path:
    """A policy for the Panda that never does anything."""
    robot = load_robot("panda")
    manifest = make_manifest(
        task="reach", robot=robot, observation=(ObservationTerm("joint_position"),),
        action=ActionSpec("joint_velocity", tuple(robot.policy_velocity.tolist())), control_rate=50.0,
        delay_range=(0.0, 0.02), goal_region=Box((0.4, -0.2, 0.3), (0.6, 0.2, 0.6)), training={}, evaluation={},
        urdf=read_urdf(robot))
    layer = torch.nn.Linear(7, 7)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    path = folder / "bundle.pt"
    save_bundle(path, torch.nn.Sequential(layer, torch.nn.Tanh()), manifest, np.zeros((1, 7)))
    return path


def _own(service: str, name: str) -> str:
    return service.removeprefix(f"/{name}/")


def _topics(found: list[tuple[str, list[str]]], name: str, lifecycle: list[str]) -> list[tuple[str, str]]:
    hidden = EVERY_NODE | ({f"/{name}/transition_event"} if lifecycle else set())
    return sorted((topic, types[0]) for topic, types in found if topic not in hidden and "/_action/" not in topic)


def _shown(topic: str, name: str) -> str:
    if topic.startswith(f"/{name}/"):
        return f"~/{_own(topic, name)}"
    return topic if topic in ("/diagnostics", "/clock", "/tf", "/tf_static") else topic.lstrip("/")


def _type(kind: str) -> str:
    package, _, rest = kind.partition("/")
    anchor = rest.rpartition("/")[2].lower()
    return f"[{kind}](messages.md#{anchor})" if package == "qgf_msgs" else f"`{kind}`"


def _qos(profile: QoSProfile) -> str:
    reliable = "reliable" if profile.reliability == ReliabilityPolicy.RELIABLE else "best effort"
    kept = ", transient local" if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL else ""
    return f"{reliable}{kept}"  # a queue's depth is not told in the graph


def _parameters(asker: Questioner, name: str, processes: list[subprocess.Popen[bytes]]) -> list[str]:
    names = sorted(asker.ask(ListParameters, f"/{name}/list_parameters", processes).result.names)
    names = [one for one in names if one not in ("use_sim_time", "start_type_description_service")]
    overrides = sorted({f"`{_shown(match['topic'], name)}`" for match in map(OVERRIDE.match, names) if match})
    names = [one for one in names if not OVERRIDE.match(one)]
    lines = []
    if names:
        told = asker.ask(DescribeParameters, f"/{name}/describe_parameters", processes, names=names).descriptors
        values = asker.ask(GetParameters, f"/{name}/get_parameters", processes, names=names).values
        lines += ["| parameter | default | meaning |", "|---|---|---|"]
        for parameter, value in zip(told, values, strict=True):
            notes = [parameter.description]
            for span in (*parameter.floating_point_range, *parameter.integer_range):
                notes.append(f"Range {span.from_value:g} .. {span.to_value:g}.")
            if parameter.additional_constraints:
                notes.append(f"{parameter.additional_constraints}.")
            if parameter.read_only and "ixed at the start" not in parameter.description:
                notes.append("Read-only.")
            text = " ".join(" ".join(notes).split()).replace("|", "\\|")
            lines.append(f"| `{parameter.name}` | {_default(parameter_value_to_python(value))} | {text} |")
        lines.append("")
    if overrides:  # of what is there before a node is configured
        lines += [f"`qos_overrides.*` of {', '.join(overrides)}.", ""]
    return lines


def _default(value: Any) -> str:
    if value is None or value == "" or list(value if hasattr(value, "__len__") else [1]) in ([], [""]):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value)}`" if hasattr(value, "__len__") and not isinstance(value, str) else f"`{value}`"

# SPDX-License-Identifier: Apache-2.0
"""The live stage: simulated arm, policy and monitor as processes that talk over DDS, and the demo node beside them."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from qgf_core.errors import QgfError
from qgf_demo import dds
from qgf_demo.policies import Trained
from qgf_demo.processes import ENDED, Child, Nursery
from qgf_demo.progress import Progress, say
from qgf_demo.session import Plan

NODES = (("qgf_sim", "sim_node"), ("qgf_policy", "policy_node"), ("qgf_monitor", "monitor_node"))
SILENCE = 30.0
"""Without any event from the demo node for so long, beyond its own time-outs, something is wrong [s]."""


def find_executable(package: str, name: str) -> Path:
    """lib/<package>/<name> of the workspace, as `ros2 run` finds it. :raises QgfError: there is none."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / package / name
        if prefix and path.is_file():
            return path
    raise QgfError(
        f"lib/{package}/{name}: not found under AMENT_PREFIX_PATH; run ./qgf demo, or enter the environment: "
        'eval "$(./qgf env)"'
    )


def find_nodes() -> list[Path]:
    """Executables of all nodes, in the order of NODES. :raises QgfError: one is missing."""
    return [find_executable(package, name) for package, name in NODES]


def _arguments(**parameters: object) -> list[str]:
    """ROS parameters on a command line; JSON is YAML, so that any path is taken as it stands."""
    values = [f"{name}:={json.dumps(value, ensure_ascii=False)}" for name, value in parameters.items()]
    return ["--ros-args", *(word for value in values for word in ("-p", value))]


@dataclasses.dataclass(frozen=True)
class LiveRun:
    """One policy on the arm."""

    folder: Path
    """For logs, the plan and the recording."""
    robot: str
    trained: Trained
    plan: Plan
    domain: int
    gui: bool = False
    engine: str = "pybullet"
    """The arm's physics."""
    perturb: str = ""
    """How the arm differs from its description: a name in config/perturb."""

    def start_nodes(self, nursery: Nursery) -> list[Child]:
        """Start arm, policy and monitor."""
        parameters: Sequence[dict[str, object]] = (
            {
                "robot": self.robot,
                "command_interface": "velocity",
                "gui": self.gui,
                "seed": self.trained.seed,
                "engine": self.engine,
                "perturb": self.perturb,
            },
            {
                "robot": self.robot,
                "bundle": str(self.trained.bundle.absolute()),
                "command_interface": "velocity",
                "allow_controller_without_timeout": True,  # no real arm
                "control_rate": 0.0,
                "autostart": True,
                # As in training the limiter alone stands between policy and arm. Both are compared to their end: the
                # plain one chatters joints into their torque limits, which the node would else end.
                "ramp_duration": 0.0,
                "tracking_limit": 0.0,
                "saturation_time": 0.0,
            },
            {"policy": "policy_node"},
        )
        environment = dds.environment(self.domain, self.folder)
        return [
            nursery.start(
                name, [sys.executable, str(path), *_arguments(**values)], self.folder / f"{name}.log", environment
            )
            for (_, name), path, values in zip(NODES, find_nodes(), parameters, strict=True)
        ]

    def run(self, nursery: Nursery, name: str) -> None:
        """Start the nodes, send the goals and record. The nodes are left running.

        :raises QgfError: a node died, or the nodes do not hear each other, or the policy does not follow.
        """
        path = self.folder / "plan.json"
        self.plan.write(path)
        nodes = self.start_nodes(nursery)
        client = nursery.start(
            "demo_node",
            [sys.executable, "-m", "qgf_demo.demo_node", str(path)],
            self.folder / "demo_node.log",
            dds.environment(self.domain, self.folder),
        )
        silence = max(self.plan.start_timeout, self.plan.goal_timeout) + SILENCE
        saved, what = False, f"live run of the {name} policy"
        with Progress({f"{name} live": self.plan.commands}, "period") as progress:
            while True:
                event = nursery.event(silence)
                if event is None:
                    raise QgfError(f"{what}: nothing was heard of its demo_node for {silence:g} s (log: {client.log})")
                kind = event.values.get("event")
                if kind == ENDED and event.child in nodes:
                    raise event.child.failure(what)
                if event.child is not client:
                    continue
                if kind == "waiting":
                    progress.update(f"{name} live", 0, f"waiting for {event.values['what']}")
                elif kind == "progress":
                    progress.update(
                        f"{name} live", event.values["done"], f"goal {event.values['goal']} of {len(self.plan.goals)}"
                    )
                elif kind == "error":
                    raise QgfError(f"{what}: {event.values['message']} (logs: {self.folder})")
                elif kind == "saved":
                    saved = True
                elif kind == ENDED:
                    if not saved:
                        raise client.failure(what)
                    nursery.stop([client])
                    return


def stay(nursery: Nursery, domain: int) -> None:
    """Tell how to look at the nodes, and wait until the demo is interrupted. :raises ChildError: a node died."""
    nodes = list(nursery.children)
    say(
        f"{', '.join(node.name for node in nodes)} go on running until Ctrl-C; to look, in another terminal:\n"
        f'    eval "$(./qgf env)"; export ROS_DOMAIN_ID={domain}\n'
        "    topics: joint_states, sim_node/ground_truth, forward_velocity_controller/commands, policy_node/command,\n"
        "            policy_node/status, monitor_node/report, monitor_node/spectrum, diagnostics\n"
        "    another goal, x y z [m]: python -m qgf_demo.send_goal 0.5 0.1 0.4"
    )
    while True:
        event = nursery.event(1.0)
        if event is not None and event.values.get("event") == ENDED and event.child in nodes:
            raise event.child.failure("after the demo")

# SPDX-License-Identifier: Apache-2.0
"""Whose roughness it is: every cause is injected alone into a running arm, and the monitor is asked.

    ./qgf bench attribution [--runs 10] [--only policy,actuator] [--smooth BUNDLE --rough BUNDLE] [--seed 0] [--json]

sim_node, policy_node and monitor_node run as processes over DDS, afresh for each run, while goals are sent for some
seconds; then ~/explain is called. About 15 s a run. Printed is the confusion table: rows what was injected, columns
what was named. Causes:

  policy             a policy whose action flips by 0.15 to 0.35 against its last one, or --rough
  observation_noise  sensor noise of 4 to 8 times the arm's own
  loop_timing        by turns: the policy node is stopped for 6 to 14 ms at random, and states arrive 0 to 40 ms late
  actuator           by turns: drives with a resonance at 6 to 10 Hz, 50 to 90 ms more delay, 0.05 to 0.1 rad of play
  none               nothing: a cause named here is a false alarm

The policies go to the goal by the Jacobian's pseudo-inverse, with gains drawn for each run, and carry the smoothness
that they have in simulation like any exported policy; --smooth and --rough take trained ones in their place. Exits with
1 where a cause was named in less than nine of ten runs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rclpy
import torch
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from tqdm import tqdm

from qgf_core.bundle import save_bundle
from qgf_core.errors import QgfError
from qgf_core.kinematics import Kinematics
from qgf_core.manifest import make_manifest, read_manifest
from qgf_core.robot import strip_meshes
from qgf_msgs.msg import PolicyStatus
from qgf_sim.env import ArmEnv
from qgf_trainer.evaluation import run_episode
from qgf_trainer.export import baselines

CAUSES = ("policy", "observation_noise", "loop_timing", "actuator", "none")
LEAST_SHARE = 0.9
KEPT = 5.0
"""What the monitor looks back on [s]; the injection lasts a little longer."""
GOAL_EVERY = 1.2
EPISODES = 4
FIRST_EPISODE = 50_000
"""Seed; apart from those of training and evaluation."""


class Reaching(torch.nn.Module):
    """Calm is tanh(-slope J^+ error / v_max); a flip above 0 adds that much of the sign of calm - last action."""

    def __init__(self, env: ArmEnv, slope: float, flip: float) -> None:
        super().__init__()
        robot, n, place = env.robot, len(env.robot.joints), 0
        kinematics = Kinematics(strip_meshes(env.urdf), robot.joint_names, robot.tool)
        weight = np.zeros((n, env.observation_space.shape[0]))
        inverse = np.linalg.pinv(kinematics.tool_jacobian(robot.home))
        for term in env.config.observation:
            if term.name == "tool_position_error":
                weight[:, place:place + 3] = -slope * inverse / robot.policy_velocity[:, None] / term.scale
            elif term.name == "previous_action":
                self.last: int = place
            place += term.width(n) * term.history
        self.flip: float = flip
        self.linear = torch.nn.Linear(weight.shape[1], n, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(weight))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Action (B, n) for observations (B, n_obs)."""
        calm = torch.tanh(self.linear(observation))
        last = observation[:, self.last:self.last + 7]
        return torch.clamp(calm + self.flip * torch.tanh(8.0 * (calm - last) / 0.2 + 0.1), -1.0, 1.0)


def make_policy(path: Path, rough: bool, random: np.random.Generator) -> Path:
    """A bundle with the baselines of its episodes in simulation."""
    env = ArmEnv("panda", "reach")
    module = Reaching(env, random.uniform(1.2, 2.5), random.uniform(0.15, 0.35) if rough else 0.0).eval()

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(observation[None]))[0].numpy()

    episodes = [run_episode(env, act, FIRST_EPISODE + i) for i in range(EPISODES)]
    rate, drive = env.config.control_rate, env.robot.drive
    manifest = make_manifest(
        task="reach", robot=env.robot, observation=env.config.observation, action=env.action_spec, control_rate=rate,
        delay_range=(drive.latency, drive.latency), **env.task.fields()._asdict(), training={},
        evaluation={}, command_rate=env.config.command_rate, baseline=baselines(episodes, rate), urdf=env.urdf)
    env.close()
    save_bundle(path, module, manifest, np.concatenate([e.observation for e in episodes])[::40])
    return path


@dataclasses.dataclass
class Injection:
    """What is wrong in a run."""

    words: str
    perturb: dict[str, float] = dataclasses.field(default_factory=dict)
    """Of the simulated arm, from the start."""
    faults: dict[str, float] = dataclasses.field(default_factory=dict)
    """Parameters fault.* of sim_node, once the policy is active: it refuses to begin with some of them."""
    stumbles: bool = False
    """Whether the policy node is stopped now and then."""


def injected(cause: str, number: int, random: np.random.Generator) -> Injection:
    """The cause in a kind and a size that go with the run's number and the generator."""
    if cause == "observation_noise":
        factor = random.uniform(4.0, 8.0)
        return Injection(f"noise x {factor:.1f}", faults={"noise": factor})
    if cause == "loop_timing":
        return Injection("uneven periods", stumbles=True) if number % 2 else Injection(
            "states of uneven age", faults={"jitter_s": 0.04})
    if cause == "actuator":
        kind = ("resonance", "delay", "backlash")[number % 3]
        perturb = {
            "resonance": {"damping_ratio": 0.04, "time_constant": 1.0 / (2 * np.pi * random.uniform(6, 10)) / 0.04},
            "delay": {"delay": random.uniform(0.05, 0.09)}, "backlash": {"backlash": random.uniform(0.05, 0.1)}}[kind]
        return Injection(kind, perturb=perturb)
    return Injection(cause)


class Operator:
    """Sends goals and asks."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("operator")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.mode = -1
        self.node.create_subscription(PolicyStatus, "policy_node/status", self._note, 10)
        self.goal = self.node.create_publisher(PoseStamped, "policy_node/goal", 10)
        self.explain = self.node.create_client(Trigger, "monitor_node/explain")
        self.set = self.node.create_client(SetParameters, "sim_node/set_parameters")

    def _note(self, message: PolicyStatus) -> None:
        self.mode = message.mode

    def until(self, condition, what: str, timeout: float = 60.0) -> None:
        """Listen until the condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise QgfError(f"not within {timeout:g} s: {what}; run it on a machine that does less")
            self.executor.spin_once(timeout_sec=0.05)

    def listen(self, seconds: float) -> None:
        """For a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def set_faults(self, faults: dict[str, float]) -> None:
        """Of the simulated arm."""
        self.until(self.set.service_is_ready, "sim_node's parameters")
        answer = self.set.call_async(SetParameters.Request(parameters=[
            Parameter(f"fault.{name}", value=float(value)).to_parameter_msg() for name, value in faults.items()]))
        self.until(answer.done, "sim_node's answer")

    def send(self, goal: np.ndarray, frame: str) -> None:
        """A goal [m]."""
        message = PoseStamped()
        message.header.frame_id = frame
        message.pose.position.x, message.pose.position.y, message.pose.position.z = map(float, goal)
        self.goal.publish(message)


@contextlib.contextmanager
def running(commands: list[list[str]], log: Path) -> Iterator[list[subprocess.Popen]]:
    """Processes that end with the block."""
    with log.open("w") as file, contextlib.ExitStack() as stack:
        processes = []
        for command in commands:
            processes.append(subprocess.Popen([sys.executable, "-m", *command], stderr=file))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        yield processes


def stumble(process: subprocess.Popen, random: np.random.Generator, stop: threading.Event) -> None:
    """Stop the process for moments, until told not to."""
    while not stop.wait(random.uniform(0.01, 0.05)):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(random.uniform(0.006, 0.014))
        os.kill(process.pid, signal.SIGCONT)


def run(operator: Operator, cause: str, number: int, bundle: Path, random: np.random.Generator,
        folder: Path) -> tuple[str, dict]:
    """One run: what was injected in words, and what the monitor answers."""
    injection = injected(cause, number, random)
    perturb = folder / "perturb.yaml"
    perturb.write_text(json.dumps({name: {"fixed": float(value)} for name, value in injection.perturb.items()}))
    arguments = ["-p", f"perturb:={perturb}"] if injection.perturb else []
    config = folder / "monitor.yaml"
    shipped = (Path(os.environ["QGF_CONFIG"]) if "QGF_CONFIG" in os.environ else
               Path(__file__).resolve().parents[1] / "config") / "monitor.yaml"
    config.write_text(shipped.read_text().replace("movement_window: 10.0", f"movement_window: {KEPT}"))
    commands = [
        ["qgf_sim.sim_node", "--ros-args", "-p", f"seed:={1000 + number}", *arguments],
        ["qgf_policy.policy_node", "--ros-args", "-p", f"bundle:={bundle}", "-p", "autostart:=true", "-p",
         "allow_controller_without_timeout:=true", "-p", "stale_periods:=50.0", "-p", "overrun_share:=1.0"],
        ["qgf_monitor.monitor_node", "--ros-args", "-p", f"config:={config}", "-p", f"bundle:={bundle}"]]
    manifest = read_manifest(bundle)
    low, high = (np.array(corner) for corner in (manifest.goal_region.lower, manifest.goal_region.upper))
    with running(commands, folder / "log") as processes:
        operator.mode = -1
        operator.until(lambda: operator.mode == PolicyStatus.HOLDING, "the policy waits for a goal")
        operator.send(random.uniform(low, high), manifest.robot.base_frame)
        operator.until(lambda: operator.mode == PolicyStatus.ACTIVE, "the policy is active")
        stop = threading.Event()
        thread = threading.Thread(target=stumble, args=(processes[1], np.random.default_rng(number), stop))
        if injection.stumbles:
            thread.start()
        if injection.faults:
            operator.set_faults(injection.faults)
        for _ in range(round((KEPT + 1.0) / GOAL_EVERY)):
            operator.listen(GOAL_EVERY)
            operator.send(random.uniform(low, high), manifest.robot.base_frame)
        operator.until(operator.explain.service_is_ready, "~/explain")
        answer = operator.explain.call_async(Trigger.Request())
        operator.until(answer.done, "an answer")
        stop.set()
        if injection.stumbles:
            thread.join()
    return injection.words, json.loads(answer.result().message)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf bench attribution", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="of each cause (default: 10)")
    parser.add_argument("--only", default=",".join(CAUSES), help="causes, comma-separated (default: all)")
    parser.add_argument("--smooth", type=Path, help="bundle of a smooth policy")
    parser.add_argument("--rough", type=Path, help="bundle of a policy that is rough in simulation")
    parser.add_argument("--seed", type=int, default=0, help="of policies, goals and sizes (default: 0)")
    parser.add_argument("--verbose", action="store_true", help="print what the monitor says in each run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if not set(wanted) <= set(CAUSES) or options.runs < 1:
        parser.error(f"--only {options.only}, --runs {options.runs}: choose of {', '.join(CAUSES)}, at least one run")
    table = {cause: dict.fromkeys(CAUSES, 0) for cause in wanted}
    operator = Operator()
    with tempfile.TemporaryDirectory() as name, tqdm(total=len(wanted) * options.runs, unit="run") as bar:
        folder = Path(name)
        for cause in wanted:
            for number in range(options.runs):
                random = np.random.default_rng([options.seed, CAUSES.index(cause), number])
                given = options.rough if cause == "policy" else options.smooth
                bundle = given or make_policy(folder / "bundle.pt", cause == "policy", random)
                try:
                    words, told = run(operator, cause, number, bundle, random, folder)
                except QgfError as error:
                    print(f"qgf: error: {error}; {(folder / 'log').read_text()[-500:]}", file=sys.stderr)
                    return 2
                table[cause][told["likeliest"]] += 1
                bar.update()
                if options.verbose or told["likeliest"] != cause:
                    bar.write(f"{cause} ({words}): {told['text']}", file=sys.stderr)
    if options.json:
        print(json.dumps({f"{row}.{column}": number for row, line in table.items() for column, number in line.items()}))
    else:
        print(f"{'injected':>18}" + "".join(f"{column:>19}" for column in CAUSES))
        for row, line in table.items():
            print(f"{row:>18}" + "".join(f"{number:>19}" for number in line.values()))
    return 0 if all(table[cause][cause] >= LEAST_SHARE * options.runs for cause in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())

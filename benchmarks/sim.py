# SPDX-License-Identifier: Apache-2.0
"""How much of the physics engine's own speed the environment leaves, on one core.

    ./qgf bench sim [--robot NAME ...] [--perturb train] [--seconds S] [--json]

Per robot, in the same run and by turns, all by processor time: `bare`, the engine's stepSimulation and nothing else, as
many physics steps to a control step as the task has, of an arm that moves (one that stands still lets the engine's
solver end early); `calls`, the same arm moved as in the environment by the engine's own calls and nothing else, a
command to the motors in each physics step and a reading of the state in each control step, which no environment can do
without; and the environment with limiter, observation, sensor and actuator models and a new randomised arm in each
episode. `two_processes`: speed of two environments in two processes by that of one, by the clock on the wall, so that
it means something only on a machine with two free cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pybullet

from qgf_core.errors import QgfError
from qgf_sim.arm import PyBulletArm
from qgf_sim.env import ArmEnv
from qgf_sim.perturb import load_perturbation

_ROUNDS = 5
_HELD = 10
"""Control steps that an action is held."""


def rate(work: Callable[[int], None], seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Control steps of `work(steps)` per second of `clock`: by default of this core's time, whoever else is at work."""
    done, began = 0, clock()
    while clock() - began < seconds:
        work(50)
        done += 50
    return done / (clock() - began)


class Bare:
    """The same arm at the same settings, stepped by the engine alone: its motors were told a speed once, and after an
    episode's steps it is put back to where it began, as in the environment."""

    def __init__(self, env: ArmEnv) -> None:
        self._arm = PyBulletArm(env.robot, env.config.physics_rate, payload=True)
        self._substeps, self._episode, self._left = env.config.substeps, env.config.episode_steps, 0
        self._speed = (0.3 * env.robot.policy_velocity).tolist()

    def __call__(self, steps: int) -> None:
        """Make so many control steps."""
        arm = self._arm
        client = arm._client
        while steps > 0:
            if self._left == 0:
                arm.reset(arm.robot.home)
                arm._drive_velocity(self._speed, arm.period)
                self._left = self._episode
            now = min(steps, self._left)
            for _ in range(now * self._substeps):
                pybullet.stepSimulation(physicsClientId=client)
            steps, self._left = steps - now, self._left - now


class Calls:
    """The same arm with the commands that the drives gave in an episode of the environment, over and over."""

    def __init__(self, complete: Complete) -> None:
        env = complete.env
        self._arm = PyBulletArm(env.robot, env.config.physics_rate, payload=True)
        self._periods: list[tuple[list[list[float]], float]] = []
        self._start, arm, self._at = env.reset()[1]["start"], env._arm, 0
        follow = arm._follow

        def recorded(velocities: list[list[float]], period: float) -> None:
            self._periods.append((velocities, period))
            follow(velocities, period)

        arm._follow = recorded  # type: ignore[method-assign]
        complete(env.config.episode_steps)
        del arm._follow

    def __call__(self, steps: int) -> None:
        """Make so many control steps."""
        arm = self._arm
        for _ in range(steps):
            if self._at == 0:
                arm.reset(self._start)
            arm._follow(*self._periods[self._at])
            pybullet.getJointStates(arm._body, arm._joints, arm._client)
            self._at = (self._at + 1) % len(self._periods)


class Complete:
    """The environment with random held actions, episode after episode."""

    def __init__(self, robot: str, perturb: str) -> None:
        self.env = ArmEnv(robot, perturbation=load_perturbation(perturb) if perturb else None)
        self.env.reset(seed=0)
        actions = np.random.default_rng(0).uniform(-1, 1, (1000, len(self.env.robot.joints))).astype(np.float32)
        self._actions = itertools.cycle(actions.repeat(_HELD, axis=0))

    def __call__(self, steps: int) -> None:
        """Make so many control steps."""
        for action in itertools.islice(self._actions, steps):
            if self.env.step(action)[3]:
                self.env.reset()


def _child(robot: str, perturb: str, seconds: float) -> float:
    return rate(Complete(robot, perturb), seconds, time.perf_counter)


def measure(robot: str, perturb: str, seconds: float) -> dict[str, float]:
    """Flat figures of one robot; medians over rounds."""
    complete = Complete(robot, perturb)
    bare, calls = Bare(complete.env), Calls(complete)
    rounds = [[rate(work, seconds / _ROUNDS) for work in (bare, calls, complete)] for _ in range(_ROUNDS)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        alone = pool.apply(_child, (robot, perturb, seconds))
        both = sum(pool.starmap(_child, [(robot, perturb, seconds)] * 2))
    return {
        f"{robot}.bare_steps_per_s": statistics.median(a for a, _, _ in rounds),
        f"{robot}.calls_steps_per_s": statistics.median(b for _, b, _ in rounds),
        f"{robot}.steps_per_s": statistics.median(c for _, _, c in rounds),
        f"{robot}.share_of_bare": statistics.median(c / a for a, _, c in rounds),
        f"{robot}.share_of_calls": statistics.median(c / b for _, b, c in rounds),
        f"{robot}.two_processes": both / alone,
    }


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="qgf bench sim", description=__doc__.splitlines()[0])
    parser.add_argument("--robot", nargs="+", default=["panda", "iiwa", "ur5e"], metavar="NAME",
                        help="names in config/robots (default: panda iiwa ur5e)")
    parser.add_argument("--perturb", default="train", help="name in config/perturb; '' for none (default: train)")
    parser.add_argument("--seconds", type=float, default=5.0, help="per figure (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    try:
        for robot in options.robot:
            figures |= measure(robot, options.perturb, options.seconds)
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>24}  {value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

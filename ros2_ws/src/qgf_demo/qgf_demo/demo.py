# SPDX-License-Identifier: Apache-2.0
"""The demo from beginning to end: train, run live, judge, report."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from qgf_core.config import find_config
from qgf_core.errors import ConfigError, QgfError
from qgf_core.files import write_atomic
from qgf_core.robot import RobotSpec, load_robot
from qgf_demo.cli import Options
from qgf_demo.domain import Domain
from qgf_demo.interruption import Interrupted
from qgf_demo.live import LiveRun, find_nodes, stay
from qgf_demo.metrics import Value, assemble, text_table, write_metrics
from qgf_demo.page import CAPTIONS, REPORT
from qgf_demo.policies import ROLES, Trained, check_bundles, copy_bundles, read_trained, train_both
from qgf_demo.processes import Nursery
from qgf_demo.progress import duration, say
from qgf_demo.recording import load_recording
from qgf_demo.session import Plan
from qgf_sim.reach import load_reach, seeded_episode

INCOMPLETE = "INCOMPLETE.txt"
"""Lies in the output folder until the report is written."""


def run(options: Options) -> int:
    """The whole demo. :returns: the exit code.

    :raises QgfError: anything that the user can mend.
    :raises Interrupted: after all processes have ended.
    """
    robot = check(options)
    out = make_folder(options)
    try:
        with Domain(os.environ.get("ROS_DOMAIN_ID")) as domain, Nursery() as nursery:
            _run_in(out, options, robot, domain, nursery)
    except Interrupted:
        if (out / INCOMPLETE).exists():
            say(f"interrupted; what lies in {out} is partial: there is no report")
        raise
    except QgfError:
        if (out / INCOMPLETE).exists():
            say(f"what lies in {out} is partial: there is no report")
        raise
    return 0


def check(options: Options) -> RobotSpec:
    """The robot, after everything that can be wrong with the options was looked at. :raises QgfError: what is."""
    robot = load_robot(options.robot)
    load_reach()
    find_config("eval", "reach")
    find_nodes()
    if options.gui and not os.environ.get("DISPLAY"):
        raise ConfigError(
            "--gui", "", "there is no display (DISPLAY is not set)", "run the demo on a desktop or without --gui"
        )
    if options.bundles is not None:
        if options.steps is not None:
            raise ConfigError(
                "--steps",
                "",
                f"{options.steps} has no meaning with --bundles, which trains nothing",
                "give one of the two",
            )
        if options.out is not None and options.out.resolve() == options.bundles.resolve():
            raise ConfigError("--out", "", f"{options.out} is the folder of --bundles", "choose another folder")
        check_bundles(options.bundles, robot.name)
    return robot


def make_folder(options: Options) -> Path:
    """The output folder, new or cleared of an earlier demo. :raises QgfError: it exists, or cannot be made."""
    out = options.out
    try:
        if out is None:
            base = Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
            out, count = base, 1
            base.parent.mkdir(parents=True, exist_ok=True)
            while True:
                with contextlib.suppress(FileExistsError):  # another demo began in this second
                    out.mkdir()
                    break
                count += 1
                out = base.with_name(f"{base.name}-{count}")
        elif out.exists() and not (options.overwrite and out.is_dir()):
            raise QgfError(
                f"--out {out}: exists already; choose another folder" + (", or --overwrite" if out.is_dir() else "")
            )
        else:
            out.mkdir(parents=True, exist_ok=True)
            clear(out)
    except OSError as error:
        raise QgfError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from error
    return out


def clear(out: Path) -> None:
    """Remove what an earlier demo has written beside its trainings, and nothing else."""
    files = [out / name for name in ("metrics.json", REPORT, *(f"{name}.png" for name in CAPTIONS))]
    for role in ROLES:
        files += [
            out / f"train-{role.name}.log",
            *(out / f"live-{role.name}").glob("*.log"),
            *(out / f"live-{role.name}" / name for name in ("recording.npz", "plan.json")),
        ]
    for path in files:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _timed(times: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    times[stage] = round(time.monotonic() - begun, 2)


def _run_in(out: Path, options: Options, robot: RobotSpec, domain: Domain, nursery: Nursery) -> None:
    write_atomic(out / INCOMPLETE, b"This demo has not reached its end: what lies here is partial.\n")
    say(f"writing to {out}; ROS_DOMAIN_ID {domain.id}, this machine only")
    times: dict[str, float] = {}
    begun = time.monotonic()
    with _timed(times, "training"):
        if options.bundles is not None:
            copy_bundles(options.bundles, out)
        else:
            train_both(
                nursery,
                out,
                robot=options.robot,
                steps=options.steps,
                seed=options.seed,
                form=options.form,
                overwrite=options.overwrite,
            )
    trained = {role.name: read_trained(out / role.name) for role in ROLES}
    runs = {name: _live_run(out, options, robot, policy, domain) for name, policy in trained.items()}
    for name, live in runs.items():
        say(
            f"running the {name} policy through the ROS nodes: {options.episodes} goals, "
            f"{duration(live.plan.commands * live.plan.period)}"
        )
        with _timed(times, f"live_{name}"):
            live.run(nursery, name)
            if not (options.keep_running and live is list(runs.values())[-1]):
                _end(nursery)
    table = _report(out, options, robot, trained, runs, times, begun)
    (out / INCOMPLETE).unlink()
    print(table, flush=True)
    print(f"\nreport: {out / 'report.html'}", flush=True)
    if options.keep_running:
        stay(nursery, domain.id)


def _live_run(out: Path, options: Options, robot: RobotSpec, policy: Trained, domain: Domain) -> LiveRun:
    from qgf_trainer.evaluation import load_evaluation  # loads the simulation, which takes a second

    task, evaluation = load_reach(), load_evaluation()
    goals = [seeded_episode(task, robot, evaluation.first_seed + i)[1].tolist() for i in range(options.episodes)]
    folder = out / f"live-{policy.folder.name}"
    plan = Plan(
        robot.joint_names,
        robot.base_frame,
        robot.topics.joint_states,
        tuple((x, y, z) for x, y, z in goals),
        task.episode_steps,
        1.0 / policy.manifest.control_rate,
        str((folder / "recording.npz").absolute()),
    )
    return LiveRun(folder, options.robot, policy, plan, domain.id, options.gui)


def _end(nursery: Nursery) -> None:
    killed = nursery.stop()
    if killed:
        say(f"had to be killed, as it did not end when asked to: {', '.join(killed)}")


def _report(
    out: Path,
    options: Options,
    robot: RobotSpec,
    trained: dict[str, Trained],
    runs: dict[str, LiveRun],
    times: dict[str, float],
    begun: float,
) -> str:
    from qgf_demo.judge import (
        judge_live,
        live_episodes,
    )  # these load the simulation and matplotlib, which takes seconds
    from qgf_demo.report import Live, write_report
    from qgf_trainer.evaluation import load_evaluation

    reporting = time.monotonic()
    task, evaluation = load_reach(), load_evaluation()
    live: dict[str, Live] = {}
    figures: dict[str, dict[str, float]] = {}
    for name, run_ in runs.items():
        recording = load_recording(Path(run_.plan.recording))
        episodes = live_episodes(recording, robot, trained[name].manifest.kinematics(), task)
        figures[name] = judge_live(recording, episodes, robot, task, evaluation)
        live[name] = Live(recording, episodes)
    plain, stabilised = (trained[role.name] for role in ROLES)
    facts: dict[str, Value] = {
        "robot": robot.name,
        "task": stabilised.manifest.task,
        "steps": stabilised.steps,
        "seed": stabilised.seed,
        "form": stabilised.form,
        "live.episodes": options.episodes,
        **{f"{policy.folder.name}.bundle_sha256": policy.sha256 for policy in trained.values()},
        **{f"time.{stage}_s": seconds for stage, seconds in times.items()},
    }
    metrics = assemble(
        plain.figures, stabilised.figures, figures[plain.folder.name], figures[stabilised.folder.name], facts
    )
    write_report(out, metrics, trained, live, task)
    metrics |= {
        f"time.{name}_s": round(time.monotonic() - since, 2)
        for name, since in (("report", reporting), ("total", begun))
    }
    write_metrics(out / "metrics.json", metrics)
    return text_table(metrics)

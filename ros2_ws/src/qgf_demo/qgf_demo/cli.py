# SPDX-License-Identifier: Apache-2.0
"""Command line of the demo."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from qgf_core.errors import QgfError

_DESCRIPTION = """\
Trains two policies that bring a simulated arm's tool to a goal: a plain one, and one with the stabilised Q-gradient
critic. Then runs each through the ROS nodes (sim_node, policy_node, monitor_node; separate processes over DDS) at the
policy's rate, sends the same goals to both, and reports how they compare in success and smoothness.
"""
_EPILOG = """\
examples:
  ./qgf demo                                        the whole story, about five minutes on two cores
  ./qgf demo --steps 12000 --episodes 4             a quick look; the policies are not trained well yet
  ./qgf demo --robot iiwa --seed 3 --out runs/iiwa
  ./qgf demo --bundles runs/demo-A --keep-running   run the policies of an earlier demo, and leave the nodes up

writes to the output folder:
  report.html                       figures and table, self-contained; the figures also as PNG files
  metrics.json                      flat keys: plain.success, ratio.sm, live.ratio.sm, live.late10, ...
  plain/ stabilised/                bundle.pt, evaluation.json, progress.csv, TensorBoard events
  live-plain/ live-stabilised/      recording.npz and the logs of the nodes
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """What the demo was asked for."""

    robot: str = "panda"
    steps: int | None = None
    """None: those of the training's configuration."""
    seed: int = 0
    episodes: int = 20
    out: Path | None = None
    """None: a new folder runs/demo-<time>."""
    form: str = "scale_free"
    overwrite: bool = False
    keep_running: bool = False
    gui: bool = False
    bundles: Path | None = None
    """Folder of an earlier demo whose policies are taken in place of a training."""


class _Parser(argparse.ArgumentParser):
    """Its errors are one line, like all errors of QGF."""

    def error(self, message: str) -> NoReturn:
        print(f"qgf: error: {message}; ./qgf demo --help tells more", file=sys.stderr)
        sys.exit(2)


def _integer(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least {minimum}")
        return value

    return convert


def parser() -> argparse.ArgumentParser:
    """The options with their help."""
    p = _Parser(
        prog="qgf demo", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--robot", default="panda", metavar="NAME", help="panda, iiwa or ur5e; a name in config/robots (default: panda)"
    )
    p.add_argument(
        "--steps",
        type=_integer(1),
        metavar="N",
        help="control steps of each training (default: 60000, as in "
        "config/train/reach.yaml; far fewer give policies that do not reach their goals)",
    )
    p.add_argument(
        "--seed",
        type=_integer(0),
        default=0,
        metavar="S",
        help="seed of both trainings and of the sensor noise "
        "(default: 0); the goals are always those of config/eval/reach.yaml",
    )
    p.add_argument(
        "--episodes",
        type=_integer(1),
        default=20,
        metavar="N",
        help="goals sent to each policy through the nodes, 3 s each (default: 20)",
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder, a new one unless --overwrite (default: runs/demo-<time>)",
    )
    p.add_argument("--overwrite", action="store_true", help="replace an earlier demo in the folder")
    p.add_argument(
        "--form",
        choices=["scale_free", "paper"],
        default="scale_free",
        help="form of the stabilised critic's losses: scale_free needs no search (default), paper is the published one",
    )
    p.add_argument(
        "--bundles",
        type=Path,
        metavar="DIR",
        help="train nothing: take plain/bundle.pt and stabilised/bundle.pt of an earlier demo's folder",
    )
    p.add_argument(
        "--keep-running",
        action="store_true",
        help="leave arm, stabilised policy and monitor running after the "
        "report, until Ctrl-C, and tell how to look at them",
    )
    window = p.add_mutually_exclusive_group()
    window.add_argument(
        "--headless", dest="gui", action="store_false", default=False, help="without a window (default)"
    )
    window.add_argument("--gui", dest="gui", action="store_true", help="show the simulated arm in a window")
    return p


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options from a command line; a mistake ends the process with code 2 and one line."""
    given = parser().parse_args(arguments)
    return Options(**vars(given))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. :returns: 0; 2 for an error; 130 after Ctrl-C."""
    options = parse(arguments)
    from qgf_demo.interruption import (
        Interrupted,
        Interruption,
    )  # --help and mistakes answer before the libraries are loaded

    with Interruption():
        try:
            from qgf_demo.demo import run

            return run(options)
        except Interrupted as interruption:
            return interruption.exit_code
        except QgfError as error:
            for line in getattr(error, "log", ()):
                print(f"    {line}", file=sys.stderr)
            print(f"qgf: error: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())

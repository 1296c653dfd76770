# SPDX-License-Identifier: Apache-2.0
"""`./qgf explain`: whose roughness it is that a bag holds."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from qgf_core.errors import QgfError
from qgf_monitor.analysis import Selection, choose, play
from qgf_monitor.attribution import Cause, describe
from qgf_monitor.bags import Bag
from qgf_monitor.config import MonitorConfig, load_config
from qgf_monitor.explanation import combine, explain, policy_of, to_json
from qgf_monitor.recorder import Recorder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf explain",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Tell whose roughness a bag holds, with evidence: the policy's, the observations' noise, the\n"
        "loop's timing or the actuators'. With the policy's bundle it is asked again about the recorded observations,\n"
        "and noise is compared with the simulation's; without one, and for other controllers' bags, what can be told\n"
        "is told.\n\n"
        "example:  ./qgf explain runs/monday --bundle runs/mine/bundle.pt",
    )
    parser.add_argument("bag", type=Path, help="folder of a bag, or its .db3 or .mcap file")
    parser.add_argument("--bundle", default="", help="the policy that ran")
    parser.add_argument("--states", default="", metavar="TOPIC", help="joint states (default: .../joint_states)")
    parser.add_argument("--command", default="", metavar="TOPIC",
                        help="PolicyCommand, Float64MultiArray, JointTrajectory or JointState (default: found by type)")
    parser.add_argument("--quantity", default="", choices=("position", "velocity", "effort"),
                        help="what the commands are, where they do not tell (default: velocity)")
    parser.add_argument("--config", default=None, help="settings (default: config/monitor.yaml)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def explain_bag(path: Path, config: MonitorConfig, selection: Selection, bundle: str) -> list[Cause]:
    """The causes, over all stretches of `config.kept` seconds of a bag.

    :raises QgfError: no bag, nothing in it to explain, or a bad bundle.
    """
    bag = Bag(path)
    states, command = choose(bag, selection)
    manifest, act = policy_of(bundle) if bundle else (None, None)
    recorder = Recorder(config, selection.joints)
    rankings = [explain(recorder, config, manifest, act)
                for _ in play(bag, recorder, states, command, selection.quantity, config.kept)]
    if not rankings or all(math.isnan(cause.score) for ranking in rankings for cause in ranking):
        why = "; ".join([*bag.notes, *(f"{cause.name}: {cause.evidence}" for cause in (rankings or [[]])[-1])])
        raise QgfError(f"{path}: nothing to explain ({why or 'no messages'}); record the policy's ~/command and "
                       "joint_states while it runs")
    return combine(rankings)


def main() -> int:
    """Entry point."""
    options = _parser().parse_args()
    try:
        config = load_config(options.config)
        causes = explain_bag(options.bag, config, Selection(options.states, options.command, options.quantity),
                             options.bundle)
    except QgfError as error:
        print("qgf: error:", *str(error).split(), file=sys.stderr)
        return 2
    print(to_json(causes) if options.json else describe(causes))
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""`./qgf analyse`: how smooth a recorded run was."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from qgf_core.errors import QgfError
from qgf_monitor.analysis import Analysis, Selection, analyse, to_json
from qgf_monitor.config import load_config
from qgf_monitor.health import Level

_TABLE = ("band_rms", "baseline_ratio", "delta_high_frequency_ratio", "spectral_centroid", "rate", "period_jitter_p99",
          "response_lag", "tracking_error")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qgf analyse",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure how smooth a recorded run was: the monitor's figures over the time of a bag (rosbag2 in\n"
        "sqlite3 or mcap; no ROS is needed), also of other controllers' bags with joint states and a command topic.\n\n"
        "examples:\n"
        "  ./qgf analyse runs/monday --html monday.html\n"
        "  ./qgf analyse runs/monday --compare runs/tuesday --max command.band_rms.p95=0.05 --max-ratio 1.2\n\n"
        "exit code: 0 within the bounds, 1 beyond one, 2 nothing could be judged",
    )
    parser.add_argument("bag", type=Path, help="folder of a bag, or its .db3 or .mcap file")
    parser.add_argument("--compare", type=Path, metavar="BAG",
                        help="a second bag; ratios are its figures over the first's")
    parser.add_argument("--bundle", default="", help="compare with how smooth this policy was in simulation")
    parser.add_argument("--states", default="", metavar="TOPIC", help="joint states (default: .../joint_states)")
    parser.add_argument("--command", default="", metavar="TOPIC",
                        help="PolicyCommand, Float64MultiArray, JointTrajectory or JointState (default: found by type)")
    parser.add_argument("--quantity", default="", choices=("position", "velocity", "effort"),
                        help="what the commands are, where they do not tell (default: velocity)")
    parser.add_argument("--joints", default="", help="comma-separated (default: those commanded, or all)")
    parser.add_argument("--config", default=None, help="settings (default: config/monitor.yaml)")
    parser.add_argument("--step", type=float, default=0.5, help="time between two judgements [s] (default: 0.5)")
    parser.add_argument("--fail-on", choices=("warn", "error", "never"), default="error",
                        help="the verdict from which the exit code is 1 (default: error)")
    parser.add_argument("--max", action="append", default=[], metavar="FIGURE=VALUE",
                        help="exit code 1 if a figure of --json is above VALUE or not there; may be repeated")
    parser.add_argument("--max-ratio", type=float, metavar="R",
                        help="with --compare: exit code 1 if a median band_rms has grown more than R times")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON object")
    return parser


def _bounds(texts: list[str]) -> dict[str, float]:
    bounds = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            bounds[name] = float(value)
        except ValueError as error:
            raise QgfError(f"--max {text}: give FIGURE=NUMBER, as command.band_rms.p95=0.05") from error
    return bounds


def _ratios(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    """Of the medians that both have."""
    return {key: second[key] / first[key] for key in first
            if key.endswith(".median") and key in second and first[key] > 0.0}


def _print(analysis: Analysis) -> None:
    print(f"{analysis.path}: {analysis.duration:.1f} s, {analysis.messages} messages of "
          f"{' and '.join(filter(None, (analysis.states, analysis.command)))}")
    for note in analysis.notes:
        print(f"  note: {note}")
    summary = analysis.summary()
    for source, series in analysis.series.items():
        level, said = series.worst
        print(f"{source}: {level.name}{f', {said}' if said else ''}")
        for name in _TABLE:
            if f"{source}.{name}.median" in summary:
                median, high = (summary[f"{source}.{name}.{kind}"] for kind in ("median", "p95"))
                print(f"{name:>28}  median {median:<9.4g} p95 {high:.4g}")


def _run(options: argparse.Namespace) -> int:
    bounds = _bounds(options.max)
    if not (options.step > 0.0 and math.isfinite(options.step)):
        raise QgfError(f"--step {options.step}: give seconds above 0")
    if options.max_ratio is not None and options.compare is None:
        raise QgfError("--max-ratio: needs a second bag; add --compare BAG")
    config = load_config(options.config)
    joints = tuple(filter(None, options.joints.split(",")))
    selection = Selection(options.states, options.command, options.quantity, joints)
    paths = [options.bag] + ([options.compare] if options.compare else [])
    analyses = [analyse(path, config, selection, options.bundle, options.step) for path in paths]
    if options.html is not None:
        # Costs a second to import, and only a page needs it.
        from qgf_monitor.bag_page import write_page
        try:
            write_page(options.html, analyses)
        except OSError as error:
            raise QgfError(f"--html {options.html}: cannot be written ({error.strerror}); choose another") from error
    summary = analyses[0].summary()
    ratios = _ratios(summary, analyses[1].summary()) if options.compare else {}
    failures = [f"{name} is {f'{summary[name]:.4g}' if name in summary else 'not known'}, allowed is {bound:g}"
                for name, bound in bounds.items() if not summary.get(name, math.inf) <= bound]
    failures += [f"{name} grew {ratio:.2f} times, allowed is {options.max_ratio:g}" for name, ratio in ratios.items()
                 if options.max_ratio is not None and name.endswith(".band_rms.median") and ratio > options.max_ratio]
    if options.fail_on != "never":
        failures += [f"{a.path}: {a.level.name}" for a in analyses if _level(a) >= Level[options.fail_on.upper()]]
    if options.json:
        data = to_json(analyses[0]) | {"failures": failures}
        print(json.dumps(data | {"compared": to_json(analyses[1]), "ratios": ratios} if options.compare else data))
    else:
        for analysis in analyses:
            _print(analysis)
        for name, ratio in ratios.items():
            if name.split(".")[1] in _TABLE:
                print(f"{name}: {ratio:.3f} times")
        for failure in failures:
            print(f"beyond: {failure}")
    return 1 if failures else 0


def _level(analysis: Analysis) -> Level:
    """The worst that is a matter of smoothness or timing: that a recording ends, or a topic in it, is none."""
    levels = [level for series in analysis.series.values() for level in series.levels if level != Level.STALE]
    return max(levels, default=Level.OK)


def main() -> int:
    """Entry point."""
    options = _parser().parse_args()
    try:
        return _run(options)
    except QgfError as error:
        print("qgf: error:", *str(error).split(), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The report's HTML page, self-contained: style and pictures are part of it."""

from __future__ import annotations

import base64
import platform
import sys
from collections.abc import Iterable, Mapping
from html import escape
from importlib import metadata
from string import Template

from qgf_demo.metrics import LIVE_ROWS, ROWS, Bound, Row, Value, bounds_of, cells
from qgf_demo.policies import Trained
from qgf_demo.style import CSS

REPORT = "report.html"
CAPTIONS = {
    "traces": (
        "Actions and joint velocities, live",
        "One goal, in the three joints where the plain policy's action moves most. The action in [-1, 1] is what the "
        "policy asks for; limiter and drive stand between it and the joint velocity, which is the true one, without "
        "sensor noise.",
    ),
    "spectra": (
        "Spectra, live",
        "Welch's power density over all goals, mean over the joints. A reach is over in a second or two and lives "
        "below a few hertz; what stands in the shaded band, above a fifth of the control rate, is chatter.",
    ),
    "distance": (
        "Distance to the goal, live",
        "Every goal, each from home, as in training. Smoothness counts only for a policy that arrives.",
    ),
    "training": (
        "Training",
        "Means over the last 40 episodes while training, exploration noise included: success comes late, and Sm is "
        "higher than that of the finished policy.",
    ),
    "timing": (
        "Loop timing, live",
        "Lengths of the control periods by the stamps of the commands: an ordinary Python process on an ordinary "
        "kernel.",
    ),
    "monitor": (
        "What the monitor saw",
        "Means over the joints of what monitor_node published ten times a second while it happened, each over its "
        "sliding window.",
    ),
}
"""Title and caption of each figure, by the name of its file, in the order of the report."""
_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<main>
<h1>A smooth policy on a simulated arm, over ROS 2</h1>
<p class="lead">$title. <b class="plain">plain</b>: TD3 as it is. <b class="stabilised">stabilised</b>: TD3 with the
stabilised Q-gradient critic, $form form.</p>
$tiles
<section>
<h2>Figures of merit</h2>
$tables
<p class="note">A ratio is stabilised / plain. Bounds are meant for a full training of the scale-free form. success: the
tool within 30 mm of the goal at the end of the episode; settled: all through the last 0.5 s; final distance: mean over
the last 0.2 s; hold RMS: content of the true joint velocity above a fifth of the control rate in the last second of
successful episodes; Sm in the paper's form over the samples of an episode.</p>
</section>
$figures
<section>
<h2>What was run</h2>
$facts
</section>
</main>
</body>
</html>
""")
_FIGURE = Template("""\
<section>
<h2>$title</h2>
<figure>
<picture>
<source media="(prefers-color-scheme: dark)" srcset="$dark">
<img src="$light" alt="$title">
</picture>
<figcaption>$caption</figcaption>
</figure>
</section>
""")
_TILES = (
    ("live.stabilised.success", "of the goals reached live by the stabilised policy", "{:.0%}"),
    ("live.ratio.mean_abs_delta", "of the plain policy's mean |Δa| live", "{:.0%}"),
    ("live.ratio.hold_rms", "of its chatter in the joints while holding", "{:.0%}"),
    ("live.late10", "of the control periods late by over 10 %", "{:.2%}"),
)
_VERSIONS = (
    "torch",
    "numpy",
    "scipy",
    "gymnasium",
    "pybullet",
    "pin",
    "ros-rclpy",
    "ros-rmw-fastrtps-cpp",
    "matplotlib",
)


def headline(metrics: Mapping[str, Value]) -> str:
    """What this demo was about."""
    steps = f"{int(metrics['steps'] or 0):,}"
    return f"QGF demo: {metrics['robot']}, {metrics['task']}, {steps} steps, seed {metrics['seed']}"


def page(
    metrics: Mapping[str, Value],
    trained: Mapping[str, Trained],
    pictures: Mapping[str, tuple[bytes, bytes]],
) -> str:
    """The page.

    :param pictures: PNG files of those of CAPTIONS that there are, light and dark.
    """
    return _PAGE.substitute(
        title=escape(headline(metrics)),
        style=CSS,
        form=escape(str(metrics["form"])),
        tiles=_tiles(metrics),
        tables=_table("In simulation", "", ROWS, metrics) + _table("Live, over ROS 2", "live.", LIVE_ROWS, metrics),
        figures="".join(_figure(*CAPTIONS[name], *pictures[name]) for name in CAPTIONS if name in pictures),
        facts=_facts(metrics, trained),
    )


def _figure(title: str, caption: str, light: bytes, dark: bytes) -> str:
    return _FIGURE.substitute(
        title=escape(title), caption=escape(caption), light=_embedded(light), dark=_embedded(dark)
    )


def _embedded(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _tiles(metrics: Mapping[str, Value]) -> str:
    """The four figures to look at first."""
    tiles = []
    for key, label, form in _TILES:
        value = metrics.get(key)
        text = form.format(value).replace("%", " %") if isinstance(value, (int, float)) else "–"
        tiles.append(f"<li><b>{text}</b>{escape(label)}</li>\n")
    return f'<ul class="tiles">\n{"".join(tiles)}</ul>'


def _table(title: str, prefix: str, rows: Iterable[Row], metrics: Mapping[str, Value]) -> str:
    lines = [
        f"<tr><th>{escape(title)}</th><td>plain</td><td>stabilised</td><td>ratio</td>"
        '<td class="bound">bound</td></tr></thead>\n<tbody>'
    ]
    for row in rows:
        unit = f' <span class="unit">{escape(row.unit)}</span>' if row.unit else ""
        figures = "".join(f"<td>{cell}</td>" for cell in cells(metrics, prefix, row))
        bounds = "<br>".join(_bound(bound, metrics) for bound in bounds_of(metrics, prefix, row))
        lines.append(f'<tr><th>{escape(row.label)}{unit}</th>{figures}<td class="bound">{bounds}</td></tr>')
    return "<table>\n<thead>" + "\n".join(lines) + "</tbody>\n</table>\n"


def _bound(bound: Bound, metrics: Mapping[str, Value]) -> str:
    style, mark = ("kept", "✓") if bound.kept(metrics) else ("broken", "✗")
    return f'<span class="{style}">{mark} {escape(str(bound))}</span>'


def _facts(metrics: Mapping[str, Value], trained: Mapping[str, Trained]) -> str:
    times = {key[len("time.") : -len("_s")]: value for key, value in metrics.items() if key.startswith("time.")}
    facts = [
        ("robot, task", f"{metrics['robot']}, {metrics['task']}"),
        ("training", f"{int(metrics['steps'] or 0):,} steps, seed {metrics['seed']}, {metrics['form']} form"),
        ("live", f"{metrics['live.episodes']} goals; sim_node, policy_node and monitor_node as processes of their own"),
        *((f"{role} bundle", f"SHA-256 {policy.sha256}") for role, policy in trained.items()),
        ("time", ", ".join(f"{stage.replace('_', ' ')} {value} s" for stage, value in times.items())),
        ("machine", f"{platform.system()} {platform.release()}, {platform.machine()}, Python {sys.version.split()[0]}"),
        ("versions", ", ".join(versions())),
    ]
    lines = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    return f'<table class="facts">\n{lines}\n</table>'


def versions() -> list[str]:
    """Installed versions of what the result depends on, as far as they are Python packages."""
    found = []
    for name in _VERSIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found

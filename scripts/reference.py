# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of docs/reference from the code itself: `./qgf docs --update`.

commands.md   what `./qgf COMMAND --help` prints, of every file in scripts/commands
messages.md   the interfaces of qgf_msgs, with the comments of their fields
settings.md   the fields of the dataclasses that the files below config/ are read into
nodes.md      topics, services, actions and parameters of every node, asked of the running node

Nothing here is typed by hand, so a page that differs from what this writes is out of date, which a test looks for.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from qgf_core.files import write_atomic
from qgf_trainer.settings_help import descriptions

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/reference"
NOTE = "<!-- Written by ./qgf docs --update from the code; do not edit. -->\n"
INTERFACES = ROOT / "ros2_ws/src/qgf_msgs"
PARSER_CALL = re.compile(r"^ *parser_help (?P<module>\S+)(?P<rest>.*)$", re.MULTILINE)
CONFIGURATIONS = (
    ("robots/NAME.yaml", "qgf_core.robot", "RobotSpec"),
    ("tasks/NAME.yaml, kind: reach", "qgf_sim.reach", "ReachConfig"),
    ("tasks/NAME.yaml, kind: reach_pose", "qgf_sim.reach_pose", "ReachPoseConfig"),
    ("tasks/NAME.yaml, kind: track", "qgf_sim.track", "TrackConfig"),
    ("tasks/NAME.yaml, kind: hold", "qgf_sim.hold", "HoldConfig"),
    ("train/NAME.yaml", "qgf_trainer.config", "TrainConfig"),
    ("perturb/NAME.yaml", "qgf_sim.perturb", "Perturbation"),
    ("eval/reach.yaml", "qgf_trainer.evaluation", "EvaluationConfig"),
    ("monitor.yaml", "qgf_monitor.config", "MonitorConfig"),
    ("governor.yaml", "qgf_monitor.governor", "GovernorConfig"),
)
"""File below config/, and the dataclass that it is read into."""


# ----------------------------------------------------------------------------------------------------- commands


def command_names() -> list[str]:
    """Every subcommand of ./qgf."""
    return sorted(path.stem for path in (ROOT / "scripts/commands").glob("*.sh"))


def parser_text(module: str, arguments: list[str]) -> str:
    """What ``python -m module arguments --help`` prints, without starting a process for it."""
    shown = io.StringIO()
    command = [module, *arguments, "--help"]
    with (mock.patch.object(sys, "argv", command), mock.patch.dict(os.environ, {"COLUMNS": "120"}),
          contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit)):
        importlib.import_module(module).main()
    return shown.getvalue()


def command_help(name: str) -> str:
    """The text of ``./qgf NAME --help``."""
    script = (ROOT / f"scripts/commands/{name}.sh").read_text()
    # The shell prints its own part; the parser's part is printed here, in one process for all commands.
    prelude = f'ROOT="{ROOT}"; . "$ROOT/scripts/common.sh"; . "$ROOT/scripts/commands.sh"; parser_help() {{ :; }}; '
    own = subprocess.run(["bash", "-c", f'{prelude} . "$ROOT/scripts/commands/{name}.sh"; help_{name}'],
                         capture_output=True, text=True, check=True).stdout
    parts = [own.rstrip()]
    for call in PARSER_CALL.finditer(script):
        parts.append(parser_text(call["module"], call["rest"].split()).rstrip())
    return "\n\n".join(parts)


def commands_page() -> str:
    """docs/reference/commands.md"""
    names = command_names()
    lines = [NOTE, "# Commands", "", "`./qgf` does everything; `./qgf help` is the short list, `./qgf COMMAND --help` "
             "what stands below. In a sourced ROS 2 workspace the same code runs as `ros2 run PACKAGE EXECUTABLE`:", "",
             "| `ros2 run` | is |", "|---|---|"]
    lines += [f"| `{package} {executable}` | `{module}` |" for package, executable, module in executables()]
    for name in names:
        lines += ["", f"## {name}", "", "```text", command_help(name), "```"]
    return "\n".join(lines) + "\n"


def executables() -> list[tuple[str, str, str]]:
    """(package, executable, module) of every console script of the workspace's packages."""
    found = []
    for setup in sorted((ROOT / "ros2_ws/src").glob("*/setup.py")):
        for match in re.finditer(r'"(\w+) = ([\w.]+):\w+"', setup.read_text()):
            found.append((setup.parent.name, match[1], match[2]))
    return found


# ----------------------------------------------------------------------------------------------------- messages


def messages_page() -> str:
    """docs/reference/messages.md"""
    lines = [NOTE, "# Messages, services, actions", "", "The interfaces of `qgf_msgs`. Units stand in brackets."]
    for kind in ("msg", "srv", "action"):
        for path in sorted((INTERFACES / kind).glob(f"*.{kind}")):
            lines += ["", f"## {path.stem}", "", f"`qgf_msgs/{kind}/{path.stem}`", "", *interface(path.read_text())]
    return "\n".join(lines) + "\n"


def interface(text: str) -> Iterator[str]:
    """An interface's text as Markdown: what it is for, then each field with its comment."""
    comment: list[str] = []
    table = False
    for line in text.splitlines():
        if line.startswith("# SPDX"):
            continue
        if line.startswith("#"):
            comment.append(line.lstrip("# ").strip())
        elif line == "---":
            yield from ("", "---", "")
            table = False
        elif not line.strip():
            if comment and not table:
                yield from (" ".join(comment), "")
            comment = []
        else:
            if not table:
                yield from ("| field | | meaning |", "|---|---|---|")
                table = True
            kind, _, rest = line.partition(" ")
            yield f"| `{rest.strip()}` | `{kind}` | {cell(' '.join(comment))} |"
            comment = []


# ----------------------------------------------------------------------------------------------------- settings


def settings_page() -> str:
    """docs/reference/settings.md"""
    lines = [NOTE, "# Settings", "", "The files below `config/` and what may stand in them. An unknown key is an error "
             "that names the file and the keys that there are. `-` has no default: it must be given."]
    for file, module, name in CONFIGURATIONS:
        cls = getattr(importlib.import_module(module), name)
        lines += ["", f"## {file}", "", f"`{module}.{name}`", "", "| key | default | meaning |", "|---|---|---|"]
        lines += fields_of(cls)
    return "\n".join(lines) + "\n"


def fields_of(cls: Any, prefix: str = "") -> Iterator[str]:
    """A row for each field of a dataclass, those of nested ones with dotted keys."""
    told = descriptions(cls)
    for field in dataclasses.fields(cls):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        inner = type(default) if dataclasses.is_dataclass(default) else part_of(field.type, cls)
        if inner is not None and not isinstance(default, (tuple, dict)):
            key = f"{prefix}{field.name}"
            yield f"| `{key}` | | {cell(told.get(field.name, ''))} |"
            yield from fields_of(inner, f"{key}{'[]' if 'tuple' in str(field.type) else ''}.")
        else:
            shown = "-" if default is dataclasses.MISSING else plain(default)
            yield f"| `{prefix}{field.name}` | {shown} | {cell(told.get(field.name, ''))} |"


def part_of(annotation: Any, cls: type) -> Any:
    """The dataclass that a required field holds, or holds many of; None where it holds plain values."""
    modules = [sys.modules[base.__module__] for base in cls.__mro__]  # a field of a base is annotated there
    for name in re.findall(r"\w+", str(annotation)):
        for module in modules:
            found = getattr(module, name, None)
            if dataclasses.is_dataclass(found):
                return found
    return None


def plain(value: Any) -> str:
    """A default as YAML would have it, in one cell."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "see its own fields"
    if isinstance(value, tuple):
        return f"`[{', '.join(str(part) for part in value)}]`" if value else "`[]`"
    if value is None or value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def cell(text: str) -> str:
    """Text that may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


# -------------------------------------------------------------------------------------------------------- pages


def nodes_page() -> str:
    """docs/reference/nodes.md: starts every node and asks it."""
    from reference_nodes import page  # the only part that needs ROS

    return NOTE + page()


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page, "messages.md": messages_page, "settings.md": settings_page, "nodes.md": nodes_page}


def outdated(names: list[str]) -> list[str]:
    """Which of the pages differ from what the code says now."""
    return [name for name in names
            if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != PAGES[name]()]


def main() -> int:
    """Writes the pages, or with --check tells which are out of date and exits with 1."""
    parser = argparse.ArgumentParser(description=textwrap.dedent(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    parser.add_argument("names", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)} (default: all)")
    options = parser.parse_args()
    names = options.names or list(PAGES)
    unknown = [name for name in names if name not in PAGES]
    if unknown:
        parser.error(f"no page '{unknown[0]}'; choose of: {', '.join(PAGES)}")
    if options.check:
        late = outdated(names)
        for name in late:
            print(f"docs/reference/{name} is out of date; run: ./qgf docs --update", file=sys.stderr)
        return int(bool(late))
    for name in names:
        write_atomic(FOLDER / name, PAGES[name]().encode())
        print(f"written: docs/reference/{name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

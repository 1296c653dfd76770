# SPDX-License-Identifier: Apache-2.0
"""The shell blocks of the documentation, which are those marked ```bash, and how a test is to run them.

A comment right before a block, which no reader sees, says what a test does otherwise than a reader:

    <!-- test: with A -> B -->            B in place of A, for example a shorter training
    <!-- test: background NAME until T --> starts it and goes on as soon as it has printed T (or at once)
    <!-- test: stop NAME -->               ends that one (Ctrl-C) before this block
    <!-- test: needs ros2 -->              only where `ros2 launch` is
    <!-- test: never REASON -->            not run at all
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
BLOCK = re.compile(
    r"^(?P<before>(?:[ ]*<!-- test: .*? -->\n)*)(?P<indent>[ ]*)```(?:bash|sh|shell)\n(?P<text>.*?)^[ ]*```\s*$",
    re.MULTILINE | re.DOTALL)
OTHER = re.compile(r"^[ ]*```(?:text|python|yaml|dockerfile)\n.*?^[ ]*```\s*$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"<!-- test: (.*?) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """A shell block of a page."""

    page: str
    line: int
    text: str
    replace: tuple[tuple[str, str], ...] = ()
    background: str = ""
    until: str = ""
    stop: tuple[str, ...] = ()
    needs_ros2: bool = False
    never: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The words of each line; lines that end in a backslash are one. Assignments of the shell stay words."""
        for line in re.sub(r"\\\n\s*", " ", self.text).splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words

    def short(self) -> str:
        """The text as the test runs it. :raises ValueError: something to replace is not there."""
        text = self.text
        for old, new in self.replace:
            if old not in text:
                raise ValueError(f"{self.place}: no '{old}' to replace")
            text = text.replace(old, new)
        return text


def pages() -> list[Path]:
    """Every page that a reader of the repository may come to."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found += [path for folder in ("config", "docker", "launch", "benchmarks") for path in (ROOT / folder).glob("*.md")]
    return sorted(found)


def blocks(path: Path) -> list[Block]:
    """The shell blocks of a page, in order."""
    # What is no shell is blanked, so that the lines keep their numbers.
    content = OTHER.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), path.read_text(encoding="utf-8"))
    found = []
    for match in BLOCK.finditer(content):
        indent = len(match["indent"])
        text = "\n".join(line[indent:] for line in match["text"].splitlines())
        line = content[:match.start("text")].count("\n") + 1
        found.append(_block(str(path.relative_to(ROOT)), line, text, DIRECTIVE.findall(match["before"])))
    return found


def _block(page: str, line: int, text: str, directives: list[str]) -> Block:
    values: dict[str, object] = {}
    replace: list[tuple[str, str]] = []
    stop: list[str] = []
    for directive in directives:
        word, _, rest = directive.partition(" ")
        if word == "with" and " -> " in rest:
            old, new = rest.split(" -> ", 1)
            replace.append((old, new))
        elif word == "background" and rest:
            values["background"], _, values["until"] = rest.partition(" until ")
        elif word == "stop" and rest:
            stop.append(rest)
        elif directive == "needs ros2":
            values["needs_ros2"] = True
        elif word == "never" and rest:
            values["never"] = rest
        else:
            raise ValueError(f"{page}:{line}: unknown directive '{directive}'")
    return Block(page, line, text, tuple(replace), stop=tuple(stop), **values)  # type: ignore[arg-type]

# SPDX-License-Identifier: Apache-2.0
"""Hooks of mkdocs: pages that stand outside docs/, and a place in the contents for pages that mkdocs.yml does not name.

The sources are read on their own too, so their links are those of the repository (``../CHANGELOG.md``); here they are
led to the pages of the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "QUALITY_DECLARATION.md", "README.md", "benchmarks/RESULTS.md",
           "benchmarks/HISTORY.md", "docker/README.md", "launch/README.md")
"""Pages from outside docs/. On the site they lie below ``repository/``."""
LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<target>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Appends the pages that the contents do not name, so that a new page needs no entry."""
    named = set(_pages(config.nav or []))
    folder = Path(config.docs_dir)
    others = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.md"))
    more = [name for name in others if name not in named]
    config.nav = [*(config.nav or []), *([{"More": more}] if more else []),
                  {"Repository": [f"repository/{name}" for name in OUTSIDE]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside."""
    for name in OUTSIDE:
        files.append(File.generated(config, f"repository/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Leads links between the repository's files to the site's pages; those to anything else become plain text."""
    name = page.file.src_uri
    source = ROOT / name.removeprefix("repository/") if name.startswith("repository/") else ROOT / "docs" / name

    def lead(match: re.Match[str]) -> str:
        target = (source.parent / match["target"]).resolve()
        place = site_place(target)
        if place and files.get_file_from_path(place):
            return f"[{match['text']}]({_relative(place, name)}{match['anchor'] or ''})"
        return match["text"] if target.exists() else match[0]

    return LINK.sub(lead, markdown)


def site_place(target: Path) -> str:
    """Where the site keeps the file ``target``; "" for a file that it does not have."""
    if target.is_relative_to(ROOT / "docs"):
        return target.relative_to(ROOT / "docs").as_posix()
    name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
    return f"repository/{name}" if name in OUTSIDE else ""


def _relative(place: str, page: str) -> str:
    return "../" * page.count("/") + place


def _pages(nav: list[Any]) -> list[str]:
    """Names of the pages in a tree of contents."""
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += _pages(value) if isinstance(value, list) else [value]
    return found

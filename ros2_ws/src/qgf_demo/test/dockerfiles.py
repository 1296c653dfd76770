# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles, read; and their steps, run in a root folder of their own where no container engine is.

The root is Debian's, made by debootstrap; each RUN line runs there as its USER by unshare and chroot, with the
machine's settings of pip. That takes root's rights, and no process outlives its step.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
NEEDED = ("debootstrap", "unshare", "chroot", "tar")
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
ENTER = """
root=$1; shift
mount --rbind /proc "$root/proc"; mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do mkdir -p "$root$1"; mount --bind "$1" "$root$1"; shift; done
shift
exec "$@"
"""


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined, comments left out."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def steps(path: Path, target: str) -> Iterator[tuple[str, str]]:
    """The instructions that lead to a stage, those of the stages below it first, without FROM."""
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    own: list[tuple[str, str]] = []
    for word, rest in instructions(path):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            own = []
            stages[name] = base, own
        else:
            own.append((word, rest))
    base, own = stages[target]
    if base in stages:
        yield from steps(path, base)
    yield from own


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves it out."""
    patterns = (ROOT / ".dockerignore").read_text().split()
    return any(path == pattern or path.startswith(pattern + "/") for pattern in patterns)


def missing() -> str:
    """What is not here that the steps need, or ""."""
    if os.geteuid() != 0:
        return "root's rights"
    return ", ".join(name for name in NEEDED if shutil.which(name) is None)


def pip_settings() -> tuple[dict[str, str], list[str]]:
    """pip's variables, and the local folders that its settings name."""
    variables = {name: value for name, value in os.environ.items()
                 if name.startswith("PIP_") or name.lower() in ("http_proxy", "https_proxy", "no_proxy")}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    words = re.findall(r"/[^\s'\"]+", " ".join([listed.stdout, *variables.values()]))
    return variables, sorted({word for word in words if Path(word).is_dir()})


def debian(folder: Path, packages: str) -> None:
    """A bare Debian 12 in the folder, from the mirror that apt has here, and what this machine knows of the network."""
    listed = subprocess.run(["apt-get", "indextargets", "Created-By: Packages", "--format", "$(SITE) $(CODENAME)"],
                            capture_output=True, text=True, check=False).stdout
    mirror = next((line.split()[0] for line in listed.splitlines() if line.endswith(" bookworm")), "")
    command = ["debootstrap", "--variant=minbase", f"--include=ca-certificates,{packages}", "bookworm", str(folder)]
    done = subprocess.run([*command, *filter(None, [mirror])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    for name in ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).is_file():
            shutil.copyfile(Path("/", name), folder / name)


@dataclasses.dataclass
class Container:
    """What a container engine would hold: a root folder, and what the steps so far have set."""

    root: Path
    arguments: dict[str, str]
    environment: dict[str, str] = dataclasses.field(default_factory=lambda: {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    user: str = "0"
    folder: str = "/"
    entrypoint: list[str] = dataclasses.field(default_factory=list)
    declared: dict[str, str] = dataclasses.field(default_factory=dict)

    def step(self, word: str, rest: str) -> None:
        """Does what an instruction says. :raises AssertionError: a command failed, or nobody here knows the word."""
        if word == "ARG":
            name, _, default = rest.partition("=")
            self.declared[name] = self.arguments.get(name, default.strip('"'))
        elif word == "ENV":
            self.environment |= dict(pair.split("=", 1) for pair in shlex.split(self._filled(rest)))
        elif word == "USER":
            self.user = self._filled(rest)
        elif word == "WORKDIR":
            self.folder = self._filled(rest)
            (self.root / self.folder[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            self._copy(shlex.split(self._filled(rest)))
        elif word == "RUN":
            self.run(["/bin/sh", "-c", rest])
        elif word == "ENTRYPOINT":
            self.entrypoint = [str(part) for part in shlex.split(rest.strip("[]").replace(",", " "))]
        else:
            assert word in ("VOLUME", "CMD"), word

    def command(self, command: list[str]) -> list[str]:
        """The command line that runs the command as the user in the root."""
        variables, folders = pip_settings()
        users = [line.split(":") for line in (self.root / "etc/passwd").read_text().splitlines()]
        home = next(user[5] for user in users if user[2] == self.user)
        values = {**variables, "HOME": home, **self.declared, **self.environment}
        inside = ["chroot", f"--userspec={self.user}:{self.user}", str(self.root), "env", "-i",
                  *(f"{name}={value}" for name, value in values.items()), "/bin/sh", "-c", 'cd "$0" && exec "$@"',
                  self.folder, *command]
        return ["unshare", "--mount", "--fork", "sh", "-euc", ENTER, "sh", str(self.root), *folders, "--", *inside]

    def run(self, command: list[str], timeout: float = 2400.0) -> str:
        """What it printed. :raises AssertionError: it failed."""
        done = subprocess.run(self.command(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def _filled(self, text: str) -> str:
        values = self.declared | self.environment
        return VARIABLE.sub(lambda match: values[match[1] or match[2]], text)

    def _copy(self, words: list[str]) -> None:
        """COPY --chown=qgf SOURCE... TARGET, without what .dockerignore leaves out."""
        *sources, target = [word for word in words if not word.startswith("--")]
        owner = ["--owner=qgf", "--group=qgf"] if "--chown=qgf" in words else []
        patterns = [line.removeprefix("**/") if line.startswith("**/") else f"./{line}"
                    for line in (ROOT / ".dockerignore").read_text().split()]
        place = self.root / self.folder[1:] / target
        place.mkdir(parents=True, exist_ok=True)
        for source in sources:
            # A folder's contents go into the target, a file goes there under its name.
            path = ROOT / source
            what = [str(path), "."] if path.is_dir() else [str(path.parent), path.name]
            pack = ["tar", *(f"--exclude={pattern}" for pattern in patterns), "-c", "-C", *what]
            with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
                subprocess.run(["tar", "-C", str(place), "-x"], stdin=packing.stdout, check=True)
            assert packing.returncode == 0, source
        if owner:
            uid = int(self.declared["UID"])
            made = [parent for parent in place.parents if self.root / self.folder[1:] in parent.parents]
            for path in [*made, place, *place.rglob("*")]:
                os.chown(path, uid, uid, follow_symlinks=False)

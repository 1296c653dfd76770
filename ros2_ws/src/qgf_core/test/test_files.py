# SPDX-License-Identifier: Apache-2.0
"""Atomic writing on disks that are full, folders that are not, and processes that die half way."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from qgf_core.errors import QgfError
from qgf_core.files import write_atomic

CORE = Path(__file__).resolve().parents[1]


def run_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CORE)}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], env=environment,
                          capture_output=True, text=True, timeout=60)


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_atomic(path, b"one")
    assert path.read_bytes() == b"one" and stat.S_IMODE(path.stat().st_mode) == 0o644
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["file.bin"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A real file system of 64 KiB, where mounting is allowed, and a limit on the size of files."""
    path = tmp_path / "disk" / "file.bin"
    path.parent.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path.parent)], capture_output=True).returncode == 0
    try:
        write_atomic(path, b"old")
        code = """
            import resource, signal, sys
            from pathlib import Path
            from qgf_core.errors import QgfError
            from qgf_core.files import write_atomic
            if sys.argv[2] == "limit":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            try:
                write_atomic(Path(sys.argv[1]), bytes(200_000))
            except QgfError as error:
                print(error)
        """
        for kind in ("disk", "limit") if mounted else ("limit",):
            done = run_child(code, path, kind)
            reason = os.strerror(28 if kind == "disk" else 27)  # ENOSPC, EFBIG
            assert done.stdout == f"{path}: cannot be written ({reason}); free space or choose another folder\n", done
            assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["file.bin"]
    finally:
        if mounted:
            subprocess.run(["umount", str(path.parent)], check=True)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("kept")
    for path in (tmp_path / "file" / "x.bin", tmp_path / "folder", tmp_path / ("n" * 300), Path("/proc/none/x.bin")):
        with pytest.raises(QgfError, match="cannot be written") as caught:
            write_atomic(path, b"data")
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == ["inside"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file.bin"]


def test_a_reader_never_sees_half_of_a_file(tmp_path):
    """A process that is killed while it writes over and over leaves one of the two whole contents."""
    path = tmp_path / "file.bin"
    contents = (b"a" * 3_000_000, b"b" * 3_000_000)
    write_atomic(path, contents[0])
    code = f"""
        import itertools, sys
        from pathlib import Path
        from qgf_core.files import write_atomic
        print("writing", flush=True)
        for letter in itertools.cycle(b"ab"):
            write_atomic(Path({str(path)!r}), bytes([letter]) * 3_000_000)
    """
    environment = {**os.environ, "PYTHONPATH": str(CORE)}
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        for _ in range(100):
            assert path.read_bytes() in contents
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    assert path.read_bytes() in contents

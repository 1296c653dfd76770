# SPDX-License-Identifier: Apache-2.0
"""Runs every shell block of README and tutorial, in order, as a reader would, with shorter trainings.

    ./qgf test -m slow -k documented_commands

In a folder of its own, which looks like the checkout: config/ is a copy that the commands may write into.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pybullet_data
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shell_blocks import ROOT, Block, blocks

pytestmark = [pytest.mark.slow, pytest.mark.ros]
PRINTS_WITHIN = 120.0
"""[s]: until a process in the background tells that it is ready."""
ENDS_WITHIN = 30.0
"""[s]: after Ctrl-C."""
BLOCK_TIMEOUT = 900.0


def hear_ctrl_c() -> None:
    """A shell without a terminal lets what it starts in the background ignore Ctrl-C, these tests included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A reader at a terminal, with further ones for what goes on running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "QGF_CONFIG_DIR": str(folder / "config"), "CI": "true"}
        self.running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def do(self, block: Block) -> str:
        """Runs a block as bash does with -e; returns what it printed."""
        for name in block.stop:
            if name in self.running:  # not where starting it needs what is not here
                self.stop(name)
        if block.background:
            return self._start(block)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.short()], cwd=self.folder, env=self.environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                              timeout=BLOCK_TIMEOUT, check=False)
        assert done.returncode == 0, f"{block.place}: exit {done.returncode}\n{block.short()}\n{done.stdout}"
        return done.stdout

    def _start(self, block: Block) -> str:
        log = self.folder / f"{block.background}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", f"exec {block.short()}"], cwd=self.folder,
                                       env=self.environment, stdout=stream, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=hear_ctrl_c)
        self.running[block.background] = process, log
        deadline = time.monotonic() + PRINTS_WITHIN
        while block.until not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, f"{block.place}:\n{log.read_text()}"
            time.sleep(0.1)
        return log.read_text()

    def stop(self, name: str) -> None:
        """Ctrl-C, after which it is to end by itself, cleanly."""
        process, log = self.running[name]
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(ENDS_WITHIN)
        del self.running[name]  # only now: what does not end is killed by close
        assert code in (0, -signal.SIGINT), f"{name} ended with {code}\n{log.read_text()}"
        assert "Traceback" not in log.read_text(), log.read_text()

    def close(self) -> None:
        for process, _ in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def terminal(tmp_path):
    checkout = tmp_path / "my checkout"
    checkout.mkdir()
    for entry in ("qgf", ".venv", "docs", "launch", "benchmarks", "requirements", "scripts", "ros2_ws"):
        (checkout / entry).symlink_to(ROOT / entry)
    shutil.copytree(ROOT / "config", checkout / "config")
    terminal = Terminal(checkout)
    yield terminal
    terminal.close()


def has_ros2() -> bool:
    return shutil.which("ros2") is not None and subprocess.run(
        ["ros2", "launch", "--help"], capture_output=True, check=False).returncode == 0


def read_aloud(page: str, terminal: Terminal) -> None:
    """Does what the page says."""
    ros2 = has_ros2()
    begin = time.monotonic()
    for block in blocks(ROOT / page):
        if block.never or (block.needs_ros2 and not ros2):
            print(f"{block.place}: not run: {block.never or 'no ros2 launch here'}")
            continue
        begun = time.monotonic()
        terminal.do(block)
        print(f"{block.place}: done in {time.monotonic() - begun:.1f} s")
    for name in list(terminal.running):
        terminal.stop(name)
    print(f"{page}: all of it in {time.monotonic() - begin:.0f} s")


def test_documented_commands_of_the_tutorial(terminal):
    read_aloud("docs/your_arm.md", terminal)
    assert (terminal.folder / "config/robots/my_arm.png").is_file()
    assert "identified:" in (terminal.folder / "config/robots/my_arm.yaml").read_text()


def test_documented_commands_of_the_readme(terminal):
    shutil.copytree(Path(pybullet_data.getDataPath()) / "xarm", terminal.folder / "my_arm")  # the reader's own arm
    shutil.move(terminal.folder / "my_arm/xarm6_robot.urdf", terminal.folder / "my_arm/my_arm.urdf")
    read_aloud("README.md", terminal)

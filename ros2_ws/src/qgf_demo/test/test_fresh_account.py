# SPDX-License-Identifier: Apache-2.0
"""README's two commands by a user who has nothing but the clone: no rights, no environment, a path with spaces.

    ./qgf test -m slow -k fresh_account

Six minutes and 2.5 GB; it takes root's rights to become somebody else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
UID = 54321
pytestmark = [pytest.mark.slow, pytest.mark.ros,
              pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root's rights")]


@pytest.fixture
def clone():
    """What a clone holds, as somebody else's. Outside of pytest's folders, which nobody else may enter."""
    home = Path(tempfile.mkdtemp(prefix="qgf-fresh-account."))
    home.chmod(0o755)
    place = home / "my work" / "q g f"
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                             capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, tracked):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, place / name)
    subprocess.run(["chown", "-R", f"{UID}:{UID}", home], check=True)
    yield place
    shutil.rmtree(home)


def test_fresh_account(clone):
    home = clone.parents[1]
    # How packages are found belongs to the machine; all else is that of a first login.
    environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "CI": "true",
                   **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "QGF_TORCH"))}}
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs"]

    def run(*command):
        begun = time.monotonic()
        done = subprocess.run([*become, *command], cwd=clone, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=3000, check=False)
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-5000:]}"
        print(f"{time.monotonic() - begun:6.0f} s  {' '.join(command)}")
        return done.stdout

    told = run("./qgf", "demo", "--steps", "1500", "--episodes", "1", "--out", "runs/my demo")
    assert "report: runs/my demo/report.html" in told and (clone / "runs/my demo/report.html").is_file()
    assert " passed" in run("./qgf", "test", "-k", "test_limiter")
    findings = run("./qgf", "doctor")
    assert "ok    DDS between processes" in findings and "\nfail" not in findings, findings
    for folder in (clone, clone / ".venv", home / ".cache"):
        if folder.exists():
            size = subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True).stdout.split()[0]
            print(f"{size:>6} MB {folder.relative_to(home)}")
    assert {path.name for path in home.iterdir()} <= {"my work", ".cache", ".config", ".ros"}

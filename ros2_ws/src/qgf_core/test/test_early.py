# SPDX-License-Identifier: Apache-2.0
"""A node's executable that is interrupted while its module is being imported, or ends by itself."""

import signal
import subprocess
import sys
import time

import pytest

SLOW = """
import time
open("importing", "w").close()
time.sleep(30)
def main():
    return 0
"""
QUICK = "import atexit\natexit.register(print, 'unloaded')\ndef main():\n    print('ran')\n    return 3\n"


def started(folder, text, **options):
    (folder / "slow_module.py").write_text(text)
    code = f"from qgf_core.early import run; run(lambda: __import__('slow_module').main(), **{options})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_import_ends_it_quietly(tmp_path, number):
    process = started(tmp_path, SLOW)
    while not (tmp_path / "importing").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.parametrize(("unload", "said"), [(True, b"ran\nunloaded\n"), (False, b"ran\n")])
def test_the_code_of_main_is_that_of_the_process(tmp_path, unload, said):
    process = started(tmp_path, QUICK, unload=unload)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (3, said, b"")

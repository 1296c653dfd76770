# SPDX-License-Identifier: Apache-2.0
"""Points the CMake files of the ROS wheels at this virtual environment.

The wheels' CMake files carry the paths of the machine that built them: an interpreter under
``/opt/python/cp3XY-cp3XY``. Headers are in this interpreter's include folder, everything else in the virtual
environment. Running it again changes nothing.

Run with the virtual environment's python: ``.venv/bin/python scripts/mend_ros_wheels.py``.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from pathlib import Path

BUILDER_INCLUDE = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")
BUILDER_PREFIX = re.compile(r"/opt/python/cp3\d+-cp3\d+")


def mend_text(text: str, include: str, prefix: str) -> str:
    """Returns ``text`` with the builder's include folder replaced by ``include`` and its prefix by ``prefix``."""
    text = BUILDER_INCLUDE.sub(lambda _: include, text)
    return BUILDER_PREFIX.sub(lambda _: prefix, text)


def mend_tree(root: Path, include: str, prefix: str) -> int:
    """Mends every ``*.cmake`` file below ``root`` in place; returns how many changed."""
    changed = 0
    for path in sorted(root.rglob("*.cmake")):
        text = path.read_text(encoding="utf-8")
        mended = mend_text(text, include, prefix)
        if mended != text:
            scratch = path.with_name(path.name + ".qgf")
            scratch.write_text(mended, encoding="utf-8")
            os.replace(scratch, path)  # never half a file, wherever this is interrupted
            changed += 1
    return changed


def main() -> int:
    prefix = Path(sys.prefix)
    include = sysconfig.get_path("include")
    changed = sum(mend_tree(prefix / part, include, str(prefix)) for part in ("share", "lib/cmake"))
    print(f"mended {changed} CMake files under {prefix}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

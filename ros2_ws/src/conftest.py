# SPDX-License-Identifier: Apache-2.0
"""What the tests of all packages share: the two passes of `./qgf test`, a ROS domain of their own, their harness.

Most tests do not care what else runs and are spread over the cores; those marked `alone` (and the slow ones) judge real
time or need the whole machine, and follow one after another. What belongs to which pass is decided here, so that every
test that is collected belongs to one of them.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from qgf_core.files import write_atomic
from qgf_demo import dds
from qgf_demo.domain import Domain

PASSES = ("together", "alone")

# How long an example takes says something of the machine's load, not of the code.
settings.register_profile("qgf", settings.default, deadline=None)
settings.load_profile("qgf")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("qgf")
    group.addoption("--pass", dest="qgf_pass", choices=PASSES, help="run only this pass's tests; without it, all")
    group.addoption("--left", dest="qgf_left", type=Path, metavar="FILE",
                    help="how many tests the pass 'together' has left: it writes this file, and the pass 'alone' fails "
                         "where it finds another number")


def pytest_configure(config: pytest.Config) -> None:
    """Claim a ROS domain. One that is set already stays, but for the second worker and those after it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker not in (None, "gw0") or not os.environ.get("ROS_DOMAIN_ID"):
        claimed = Domain()
        config.add_cleanup(claimed.close)
        os.environ["ROS_DOMAIN_ID"] = str(claimed.id)
    if worker is not None:
        # Fast DDS numbers its ports in shared memory anew for all domains of the machine together: nodes that start
        # side by side find each other's locked, and say so in words that tests take for an error. UDP alone, then;
        # shared memory is used in the second pass.
        folder = tempfile.TemporaryDirectory(prefix="qgf-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ.update(dds.environment(int(os.environ["ROS_DOMAIN_ID"]), Path(folder.name)))


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which, file = config.getoption("qgf_pass"), config.getoption("qgf_left")
    if which is None:
        return
    chosen = {name: [item for item in items if pass_of(item) == name] for name in PASSES}
    left = len(chosen["alone"])
    if file is not None and which == "together":
        write_atomic(file, f"{left}\n".encode())
    elif file is not None and file.read_text(encoding="utf-8") != f"{left}\n":
        raise pytest.UsageError(f"{file}: this pass has {left} tests, but {file.read_text().strip()} were left for it")
    config.hook.pytest_deselected(items=[item for item in items if pass_of(item) != which])
    # Files with nodes and processes take longest: begun first, none of them is left for the end.
    long = {item.path for item in chosen[which] if item.get_closest_marker("ros")}
    items[:] = sorted(chosen[which], key=lambda item: item.path not in long)


def pass_of(item: pytest.Item) -> str:
    """The pass that a test belongs to."""
    return "alone" if any(item.get_closest_marker(name) for name in ("alone", "slow")) else "together"


@pytest.fixture(scope="module")
def harness(request: pytest.FixtureRequest) -> ModuleType:
    """ros_harness.py beside the test; loaded only where a test asks for it, because it needs ROS."""
    specification = importlib.util.spec_from_file_location("ros_harness", request.path.with_name("ros_harness.py"))
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    """A ROS domain that no other run on this machine uses, by the lock files that ./qgf takes too."""
    with Domain() as claimed:
        yield claimed.id

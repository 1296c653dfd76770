# SPDX-License-Identifier: Apache-2.0
"""What the tests of several packages share: a ROS domain of their own, and the harness beside them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest

from qgf_demo.domain import Domain


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

# SPDX-License-Identifier: Apache-2.0
"""Kernels where their machine code cannot be kept, and arguments that are not theirs."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from qgf_core.limiter import Limiter
from qgf_core.limiter_kernel import stop_distances
from qgf_core.robot import load_robot


def test_where_nothing_can_be_written_they_are_compiled_anew():
    """As for a service without a home on a read-only disk."""
    code = """
        import numba.core.caching as caching
        for kind in (caching.CacheImpl, caching.CompileResultCacheImpl):
            kind._locator_classes = []
        import numpy as np
        from qgf_core.limiter import stop_distance
        assert stop_distance(*(np.array([x]) for x in (3.0, 0.0, 2.0, 4.0)))[0] == 3.0
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_is_only_to_be_read_may_be_so_and_another_kind_of_number_is_refused():
    values = [np.full(3, x) for x in (1.0, 0.0, 2.0, 4.0)]
    for array in values:
        array.flags.writeable = False
    out = np.empty(3)
    stop_distances(*values, out)
    assert np.isfinite(out).all()
    before = len(stop_distances.signatures)
    with pytest.raises(TypeError):
        stop_distances(*(array.astype(np.float32) for array in values), out)
    with pytest.raises(TypeError):
        stop_distances(*(np.zeros((2, 3))[:, 0] for _ in values), out)  # not in C order
    assert len(stop_distances.signatures) == before, "nothing was compiled on the way"


def test_the_limiter_takes_what_lies_anywhere():
    """Read-only, strided, of another kind, and at an odd address: as a message's numbers do."""
    arm = load_robot("panda")
    wanted = np.linspace(-0.1, 0.1, 7)
    odd = np.frombuffer(b"xxxx" + wanted.tobytes(), np.float64, 7, 4)
    assert not odd.flags.aligned and not odd.flags.writeable
    expected = Limiter(arm, 0.01).step(wanted).velocity
    for same in (odd, np.repeat(wanted, 2)[::2], wanted.astype(object), list(wanted)):
        np.testing.assert_array_equal(Limiter(arm, 0.01).step(same).velocity, expected)

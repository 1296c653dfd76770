# SPDX-License-Identifier: Apache-2.0
"""Small loops over a handful of joints as machine code, by numba.

A call of numpy or torch on seven numbers is mostly interpreter, dispatch and memory: in a control loop, whose caches
are cold in each period, several times its time in a benchmark. A kernel is a plain function of floats and arrays in a
module named `*_kernel.py`, which imports nothing but math, numpy and this. As `kernel.py_func` it is Python still, with
which the tests compare it: the arithmetic is IEEE's in the order written, so both agree to the last bit.

The machine code is kept beside the byte code of its module (`__pycache__`, or NUMBA_CACHE_DIR) and is trusted as that
is: whoever can write there can change the program itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

REASSOCIATED = frozenset({"reassoc", "contract"})
"""For sums whose order does not matter, such as a network's: vectorised; what is not finite stays so."""


def compiled(function: F) -> F:
    """Machine code for `function`, compiled at its first call with arguments of these types."""
    kernel: F = numba.njit(cache=True, error_model="numpy")(function)
    return kernel


def compiled_sums(function: F) -> F:
    """The same where sums may be taken in another order."""
    kernel: F = numba.njit(cache=True, error_model="numpy", fastmath=set(REASSOCIATED))(function)
    return kernel

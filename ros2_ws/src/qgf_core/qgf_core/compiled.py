# SPDX-License-Identifier: Apache-2.0
"""Small loops over a handful of joints as machine code, by numba.

A call of numpy or torch on seven numbers is mostly interpreter, dispatch and memory: in a control loop, whose caches
are cold in each period, several times its time in a benchmark. A kernel is a plain function of floats and arrays in a
module named `*_kernel.py`, which imports nothing but math, numpy and this. As `kernel.py_func` it is Python still, with
which the tests compare it: the arithmetic is IEEE's in the order written, so both agree to the last bit.

The machine code is kept beside the byte code of its module (`__pycache__`, or NUMBA_CACHE_DIR) and is trusted as that
is: whoever can write there can change the program itself.

A kernel that is called from Python tells the types of its arguments (`kernel_for`) and is compiled, or read from there,
when its module is imported: nothing is ever compiled in a control loop. Other types are a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import types

F = TypeVar("F", bound=Callable[..., Any])

FLOAT, SINGLE, INTEGER, BOOLEAN, NOTHING = types.float64, types.float32, types.int64, types.boolean, types.void


def given(kind: Any = FLOAT, dimensions: int = 1) -> Any:
    """An array in C order that is only read, whether or not it may be written."""
    return types.Array(kind, dimensions, "C", readonly=True)


def written(kind: Any = FLOAT, dimensions: int = 1) -> Any:
    """An array in C order that is written to."""
    return types.Array(kind, dimensions, "C")


def kernel_for(result: Any, *arguments: Any, any_order_of_sums: bool = False) -> Callable[[F], F]:
    """Machine code for arguments of these types.

    :param any_order_of_sums: sums may be taken in another order, which lets them be vectorised. What is not finite
        stays so.
    """
    relaxed = {"reassoc", "contract"} if any_order_of_sums else False

    def compile_it(function: F) -> F:
        kernel: F = _machine_code(function, result(*arguments), fastmath=relaxed)
        return kernel

    return compile_it


def compiled(function: F) -> F:
    """A part of a kernel of the same module, or a kernel compiled for what it is first called with: whoever owns
    it calls it once when it is made."""
    part: F = _machine_code(function)
    return part


def _machine_code(function: Callable[..., Any], *signature: Any, **options: Any) -> Any:
    try:
        return numba.njit(*signature, cache=True, error_model="numpy", **options)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    # Nothing can be written, neither beside the module nor in the user's home: compiled anew at each start then.
    return numba.njit(*signature, error_model="numpy", **options)(function)

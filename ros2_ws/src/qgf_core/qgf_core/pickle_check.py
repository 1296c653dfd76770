# SPDX-License-Identifier: Apache-2.0
"""What the pickles of a policy may hold. torch reads them in C++: that runs no Python, but trusts their numbers.

Nothing is unpickled here: the opcodes are read one by one, on a stack of plain values.
"""

from __future__ import annotations

import math
import pickletools
import re
from typing import Any

from qgf_core.errors import BundleError

_REBUILD = "torch._utils _rebuild_tensor_v2"
_ITEM_SIZE = {"torch BoolStorage": 1, "torch DoubleStorage": 8, "torch FloatStorage": 4, "torch IntStorage": 4,
              "torch LongStorage": 8}
_PICKLE_GLOBALS = frozenset({
    "collections OrderedDict", _REBUILD, "torch.jit._pickle build_boollist",
    "torch.jit._pickle build_doublelist", "torch.jit._pickle build_intlist", *_ITEM_SIZE})
_PICKLE_VALUES = frozenset({
    "BINFLOAT", "BININT", "BININT1", "BININT2", "BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "LONG1",
    "NEWFALSE", "NEWTRUE", "NONE"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_TAKEN = {"APPEND": 1, "BUILD": 1, "SETITEM": 2}
# Classes whose code stands in the archive; not those of C++ libraries, __torch__.torch.classes.
_SCRIPT_CLASS = re.compile(r"__torch__(?!\.torch\.classes\b)(\.[A-Za-z0-9_]+)* [A-Za-z0-9_]+")


class _Mark:
    """Where a tuple, list or mapping begins on the stack."""


def check_pickle(data: bytes, path: object) -> dict[str, int]:
    """Reads a pickle of weights, or of source positions.

    :returns: size in bytes of each storage it takes, by the storage's name: torch takes it without asking whether the
        entry is that long.
    :raises BundleError: it names a class or function that a policy does not need, or a tensor reaches beyond its
        storage. `path` is for the message.
    """
    try:
        return _read_storages(data)
    except (ValueError, LookupError, OverflowError, TypeError) as error:
        raise BundleError(f"{path}: a pickle in it is not as torch writes it ({error}); refused") from error


def _read_storages(data: bytes) -> dict[str, int]:
    storages: dict[str, int] = {}
    stack: list[Any] = []  # None stands for whatever is of no interest
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "GLOBAL":
            if argument not in _PICKLE_GLOBALS and not _SCRIPT_CLASS.fullmatch(str(argument)):
                raise ValueError(f"it names {str(argument)[:100]!r}")
            stack.append(argument)
        elif name in _PICKLE_VALUES:
            stack.append(() if name == "EMPTY_TUPLE" else argument)
        elif name == "MARK":
            stack.append(_Mark)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[int(str(argument))] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(str(argument))])
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            start = len(stack) - 1 - stack[::-1].index(_Mark)
            stack[start:] = [tuple(stack[start + 1:])] if name == "TUPLE" else []
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name in _TAKEN:
            for _ in range(_TAKEN[name]):
                stack.pop()
        elif name == "BINPERSID":
            key, count, size = _storage(stack.pop())
            storages[key] = max(storages.get(key, 0), size)
            stack.append(("storage", count))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            if function == _REBUILD:
                _check_tensor(arguments)
            stack.append(None)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"it holds the opcode {name}")
    return storages


def _storage(identity: Any) -> tuple[str, int, int]:
    """Name, number of items and bytes of a storage."""
    kind, storage_type, key, device, count = identity
    if kind != "storage" or device != "cpu" or storage_type not in _ITEM_SIZE or type(count) is not int or count < 0:
        raise ValueError("a storage is malformed")
    return str(key), count, count * _ITEM_SIZE[storage_type]


def _check_tensor(arguments: Any) -> None:
    (_, count), offset, size, stride = arguments[:4]
    numbers = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
        raise ValueError("a tensor is malformed")
    last = offset + sum(max(n - 1, 0) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > count or (math.prod(size) > 0 and last >= count):
        raise ValueError("a tensor reaches beyond its storage")

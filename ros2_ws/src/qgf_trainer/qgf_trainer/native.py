# SPDX-License-Identifier: Apache-2.0
"""Perceptrons and the field's passes in machine code (`csrc/`), for float32 and float64 on the processor.

The same steps as `qgf_trainer.dense` and `qgf_trainer.field_function` take in torch, with fewer passes over memory:
what follows a product is done to its rows while the first-level cache still has them. One call is a whole pass of a
network.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qgf_trainer.native_library import functions


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "d_weight", "d_bias")),
        *((name, ctypes.c_ssize_t) for name in ("by_row", "by_column")),
        *((name, ctypes.c_int) for name in ("fan_in", "fan_out")),
    )


class _Network(ctypes.Structure):
    _fields_ = (("layers", ctypes.POINTER(_Layer)), ("depth", ctypes.c_int), ("heads", ctypes.c_int))


class _Functions(NamedTuple):
    climb_memory: Callable[..., int]
    climb: Callable[..., None]
    descend: Callable[..., None]
    regress_memory: Callable[..., int]
    regress: Callable[..., None]
    ascend_memory: Callable[..., int]
    ascend: Callable[..., None]
    adam: Callable[..., None]
    field_kept: Callable[..., int]
    field_memory: Callable[..., int]
    field_forward: Callable[..., None]
    field_backward: Callable[..., None]


class Parts(NamedTuple):
    """Where a perceptron's parameters are. Weights (in, out), biases (out,), of each layer."""

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    d_weights: Sequence[Tensor] | None
    """Where the derivatives by them are written, laid out like them; None: they are never wanted."""
    d_biases: Sequence[Tensor] | None


class Kept(NamedTuple):
    """What a forward pass leaves for the backward one."""

    inputs: Tensor
    memory: Tensor


class NativeNetwork:
    """A perceptron with SiLU between its layers, whose parameters stay where they are.

    Its methods raise ValueError where a tensor has not the size or type told: machine code would read beyond it.

    :param heads: the last so many layers all take what the last hidden layer gives; their outputs lie side by side.
    """

    def __init__(self, parts: Parts, heads: int = 1) -> None:
        self._parts = parts  # keeps their memory
        self._learns = parts.d_weights is not None and parts.d_biases is not None
        made = _functions(parts.weights[0].dtype)
        assert made is not None, "the caller looks"
        self._functions = made
        self._dtype, self._fan_in = parts.weights[0].dtype, parts.weights[0].shape[0]
        self._fan_out = sum(weight.shape[1] for weight in parts.weights[-heads:])
        self._layers = (_Layer * len(parts.weights))()
        nowhere: Sequence[Tensor | None] = [None] * len(self._layers)
        derivatives = parts.d_weights or nowhere, parts.d_biases or nowhere
        for layer, weight, bias, d_weight, d_bias in zip(
            self._layers, parts.weights, parts.biases, *derivatives, strict=True
        ):
            layer.weight, layer.bias = weight.data_ptr(), _start(bias)
            layer.by_row, layer.by_column = weight.stride()
            layer.fan_in, layer.fan_out = weight.shape
            if d_weight is not None and d_bias is not None:
                if d_weight.stride() != weight.stride():
                    raise ValueError(f"strides {d_weight.stride()} of a derivative and {weight.stride()} of its weight")
                layer.d_weight, layer.d_bias = d_weight.data_ptr(), _start(d_bias)
        self._network = _Network(ctypes.cast(self._layers, ctypes.POINTER(_Layer)), len(self._layers), heads)
        self._address = ctypes.addressof(self._network)
        self._sizes: dict[tuple[str | int, ...], int] = {}

    def climb(self, x: Tensor, keep: bool, out: Tensor | None = None) -> tuple[Tensor, Kept]:
        """z_L (B, out) of x (B, in), with what `descend` needs if it is to be kept."""
        x, rows = x.contiguous(), len(x)
        place = self._at(x, rows * self._fan_in)
        memory = x.new_empty(self._size("climb_memory", rows, keep))
        out = x.new_empty((rows, self._fan_out)) if out is None else out
        to = self._at(out, rows * self._fan_out)
        self._functions.climb(self._address, rows, place, to, keep, memory.data_ptr())
        return out, Kept(x, memory)

    def descend(self, d_z: Tensor, kept: Kept, own: bool, by_input_from: int | None = None) -> Tensor | None:
        """From the derivative by z_L (B, out) that by the inputs from this one on, and, if its own are wanted, those by
        the parameters, which are written to their places. :raises ValueError: they have none; here and below."""
        if own:
            self._check_learns()
        x, memory = kept
        rows, fan_in = x.shape
        d_x = None if by_input_from is None else x.new_empty((rows, fan_in - by_input_from))
        self._functions.descend(
            self._address, rows, x.data_ptr(), self._at(d_z, rows * self._fan_out), own, by_input_from or 0,
            None if d_x is None else d_x.data_ptr(), memory.data_ptr(),
        )  # fmt: skip
        return d_x

    def regress(self, x: Tensor, target: Tensor, weight: float, value: Tensor) -> None:
        """Writes the values (B,) of x (B, in), and what weight * mean (value - target)^2 has for derivatives to the
        parameters' places."""
        self._check_learns()
        rows = len(x)
        memory = x.new_empty(self._size("regress_memory", rows))
        self._functions.regress(
            self._address, rows, self._at(x, rows * self._fan_in), self._at(target, rows), weight / rows,
            self._at(value, rows * self._fan_out), memory.data_ptr(),
        )  # fmt: skip

    def ascend(self, critic: NativeNetwork, observation: Tensor) -> None:
        """Writes the derivatives of -mean Q(s, tanh of this), s (B, in), to the parameters' places."""
        self._check_learns()
        rows = len(observation)
        memory = observation.new_empty(self._size("ascend_memory", critic._address, rows))
        if critic._dtype != self._dtype or critic._fan_in != self._fan_in + self._fan_out or critic._fan_out != 1:
            raise ValueError("the critic does not take what the actor does")
        place = self._at(observation, rows * self._fan_in)
        self._functions.ascend(self._address, critic._address, rows, place, memory.data_ptr())

    def field_forward(self, rows: Tensor, probe: Tensor, value: Tensor, gradient: Tensor, second: Tensor) -> Tensor:
        """`FieldFunction` of this critic: writes Q (B,), g (3 n, n_act) and v^T H_aa v (n,); returns what
        `field_backward` needs."""
        n, n_act = probe.shape
        kept = rows.new_empty(self._size("field_kept", len(rows), n))
        memory = rows.new_empty(self._size("field_memory", len(rows), n))
        self._functions.field_forward(
            self._address, len(rows), n, n_act, *self._field(rows, probe, value, gradient, second), kept.data_ptr(),
            memory.data_ptr(),
        )  # fmt: skip
        return kept

    def field_backward(
        self, rows: Tensor, probe: Tensor, d_value: Tensor, d_gradient: Tensor, d_second: Tensor, kept: Tensor
    ) -> None:
        """Writes what the derivatives by the three make of those by the parameters to their places."""
        self._check_learns()
        memory = rows.new_empty(self._size("field_memory", len(rows), len(probe)))
        self._functions.field_backward(
            self._address, len(rows), *probe.shape, *self._field(rows, probe, d_value, d_gradient, d_second),
            kept.data_ptr(), memory.data_ptr(),
        )  # fmt: skip

    def _field(self, rows: Tensor, probe: Tensor, value: Tensor, gradient: Tensor, second: Tensor) -> list[int]:
        """Where these begin."""
        n, n_act = probe.shape
        valued = len(rows) - 2 * n
        if not (0 < n <= valued and 0 < n_act < self._fan_in and self._fan_out == 1):
            raise ValueError(f"{len(rows)} rows and a probe {tuple(probe.shape)} are no batch with a field")
        sizes = len(rows) * self._fan_in, n * n_act, valued, 3 * n * n_act, n
        return [self._at(x, size) for x, size in zip((rows, probe, value, gradient, second), sizes, strict=True)]

    def _at(self, x: Tensor, size: int) -> int:
        """Where an array of so many numbers of this network's kind begins."""
        if x.numel() != size or x.dtype != self._dtype or not x.is_cpu:
            found = f"{tuple(x.shape)}, {x.dtype}, {x.device}"
            raise ValueError(f"a tensor of {found}: {size} numbers of {self._dtype} on the processor are needed")
        return _start(x)

    def _check_learns(self) -> None:
        if not self._learns:
            raise ValueError("the derivatives by these parameters have no place to be written to")

    def _size(self, measure: str, *arguments: int) -> int:
        key: tuple[str | int, ...] = (measure, *arguments)
        if key not in self._sizes:
            self._sizes[key] = getattr(self._functions, measure)(self._address, *arguments)
        return self._sizes[key]


class NativeCache:
    """The native networks of modules, made anew when their parameters have moved."""

    def __init__(self) -> None:
        self._made: weakref.WeakKeyDictionary[nn.Module, tuple[Any, list[NativeNetwork] | None]] = (
            weakref.WeakKeyDictionary()
        )

    def of(
        self, module: nn.Module, first: Tensor, last: Tensor, make: Callable[[], list[NativeNetwork] | None]
    ) -> list[NativeNetwork] | None:
        """Those of `module`: what `make` last made.

        :param first, last: two of its parameters: all move together.
        """
        place = [None if x is None else x.data_ptr() for x in (first, last, first.grad, last.grad)]
        found = self._made.get(module)
        if found is None or found[0] != place:
            found = self._made[module] = (place, make())
        return found[1]


def twins(
    weights: Sequence[Tensor], biases: Sequence[Tensor], d_weights: Sequence[Tensor] | None,
    d_biases: Sequence[Tensor] | None,
) -> list[NativeNetwork] | None:  # fmt: skip
    """Two perceptrons stacked, weights (2, in, out) and biases (2, 1, out), or None where there is no machine code for
    them."""
    if not weights[0].is_cpu or _functions(weights[0].dtype) is None:
        return None

    def of(stacked: Sequence[Tensor] | None, *place: int) -> list[Tensor] | None:
        return None if stacked is None else [x[place] for x in stacked]

    return [
        NativeNetwork(Parts([w[i] for w in weights], [b[i, 0] for b in biases], of(d_weights, i), of(d_biases, i, 0)))
        for i in range(2)
    ]


class AdamVectors(NamedTuple):
    """Of one length each."""

    parameter: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor


def adam(vectors: AdamVectors, step: float, rate: float, decays: tuple[float, float], epsilon: float) -> bool:
    """A step of Adam; False, and nothing done, where there is no machine code for these vectors.

    :param step: how many there were, with this one.
    """
    parameter = vectors.parameter
    made = _functions(parameter.dtype) if parameter.is_cpu else None
    if made is None:
        return False
    if any(vector.shape != parameter.shape or vector.dtype != parameter.dtype for vector in vectors):
        raise ValueError("the vectors differ in length or type")
    made.adam(len(parameter), *map(_start, vectors), step, rate, *decays, epsilon)
    return True


@functools.cache
def _functions(dtype: torch.dtype) -> _Functions | None:
    addresses = functions(dtype)
    if addresses is None:
        return None
    integer, pointer = ctypes.c_int, ctypes.c_void_p
    kinds = {
        "climb_memory": (ctypes.c_ssize_t, [pointer, integer, integer]),
        "climb": (None, [pointer, integer, pointer, pointer, integer, pointer]),
        "descend": (None, [pointer, integer, pointer, pointer, integer, integer, pointer, pointer]),
        "regress_memory": (ctypes.c_ssize_t, [pointer, integer]),
        "regress": (None, [pointer, integer, pointer, pointer, ctypes.c_double, pointer, pointer]),
        "ascend_memory": (ctypes.c_ssize_t, [pointer, pointer, integer]),
        "ascend": (None, [pointer, pointer, integer, pointer, pointer]),
        "adam": (None, [ctypes.c_ssize_t, *[pointer] * 4, *[ctypes.c_double] * 5]),
        "field_kept": (ctypes.c_ssize_t, [pointer, integer, integer]),
        "field_memory": (ctypes.c_ssize_t, [pointer, integer, integer]),
        "field_forward": (None, [pointer, *[integer] * 3, *[pointer] * 7]),
        "field_backward": (None, [pointer, *[integer] * 3, *[pointer] * 7]),
    }
    return _Functions(
        **{name: ctypes.CFUNCTYPE(kind, *types)(addresses[name]) for name, (kind, types) in kinds.items()}
    )


def perceptron(layers: Sequence[nn.Linear], heads: int = 1) -> list[NativeNetwork] | None:
    """One perceptron of these layers, or None where there is no machine code for it."""
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    if not weights[0].is_cpu or _functions(weights[0].dtype) is None:
        return None
    gradients = [(w.grad, b.grad) for w, b in zip(weights, biases, strict=True)]
    d_weights = [w.T for w, _ in gradients if w is not None]
    d_biases = [b for _, b in gradients if b is not None]
    wanted = len(d_weights) == len(d_biases) == len(layers)
    parts = Parts([w.T for w in weights], biases, d_weights if wanted else None, d_biases if wanted else None)
    return [NativeNetwork(parts, heads)]


def _start(x: Tensor) -> int:
    """Where an array without gaps begins. :raises ValueError: it has gaps."""
    if not x.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(x.shape)} and strides {x.stride()} is not contiguous")
    return x.data_ptr()

# SPDX-License-Identifier: Apache-2.0
"""A policy's network read from its frozen TorchScript, to be run without torch's interpreter.

A policy of a bundle is a chain: subtract, divide, linear layers and activations. torch takes 20 µs for one observation
where it is called without a pause, and many times that, with a long tail, in a control loop, in which other programs
have emptied the processor's caches since the last period. The same chain as one small kernel has neither.

The TorchScript stays the contract. A network is read only where every operation is known, and is used only after it has
given the TorchScript's answers (`agrees`); every other policy is run by torch.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qgf_core import network_kernel as kernel

Floats = NDArray[np.float32]

AGREEMENT = 2e-5
"""Largest difference from TorchScript's action that different orders of summation may make."""
_ARITHMETIC = {"aten::add": kernel.ADD, "aten::sub": kernel.SUB, "aten::mul": kernel.MUL, "aten::div": kernel.DIV}
_ACTIVATIONS = {
    "aten::silu": kernel.SILU, "aten::relu": kernel.RELU, "aten::tanh": kernel.TANH, "aten::sigmoid": kernel.SIGMOID,
}


class _UnknownOperation(Exception):
    """The graph holds something else than a chain of known operations."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A chain of operations on one observation."""

    programme: NDArray[np.int64]
    """(k, 3), see `network_kernel.run_network`."""
    parameters: Floats
    work: Floats
    """(2, widest): overwritten by each run, which makes a network one thread's at a time."""
    outputs: int

    def act(self, observation: Floats) -> Floats:
        """The answer (outputs,) to an observation (n_obs,), float32."""
        action = np.empty(self.outputs, dtype=np.float32)
        kernel.run_network(self.programme, self.parameters, observation, self.work, action)
        return action


def read_network(frozen: torch.jit.ScriptModule, observation_size: int) -> Network | None:
    """The chain in a frozen module (`torch.jit.freeze`), or None if it is something else."""
    try:
        return _read(frozen.graph, observation_size)
    except _UnknownOperation:
        return None


def agrees(network: Network, module: torch.jit.ScriptModule, observations: Floats) -> bool:
    """Whether both give the same actions, within AGREEMENT, on observations (N, n_obs)."""
    with torch.inference_mode():
        expected = np.concatenate([module(torch.from_numpy(row[None])).numpy() for row in observations])
    found = np.stack([network.act(row) for row in observations])
    return expected.shape == found.shape and bool(np.abs(expected - found).max() <= AGREEMENT)


def _read(graph: Any, width: int) -> Network:
    inputs, outputs = list(graph.inputs()), list(graph.outputs())
    if len(inputs) != 2 or len(outputs) != 1:
        raise _UnknownOperation
    present, widest = inputs[1].debugName(), width
    programme: list[tuple[int, int, int]] = []
    parameters: list[Floats] = []
    at = 0
    for node in graph.nodes():
        if node.kind() == "prim::Constant":
            continue
        operands = list(node.inputs())
        if not operands or operands[0].debugName() != present or node.outputsSize() != 1:
            raise _UnknownOperation
        if any(value.node().kind() != "prim::Constant" for value in operands[1:]):
            raise _UnknownOperation
        code, new_width, values = _operation(node.kind(), [value.toIValue() for value in operands[1:]], width)
        numbers = [np.asarray(value, dtype=np.float32).reshape(-1) for value in values]
        programme.append((code, new_width, at))
        parameters += numbers
        at += sum(len(array) for array in numbers)
        width, present = new_width, node.output().debugName()
        widest = max(widest, width)
    if outputs[0].debugName() != present:
        raise _UnknownOperation
    rows = np.array(programme, dtype=np.int64).reshape(-1, 3)
    flat = np.concatenate([np.zeros(0, np.float32), *parameters])
    return Network(rows, flat, np.zeros((2, widest), dtype=np.float32), width)


def _operation(kind: str, rest: list[Any], width: int) -> tuple[int, int, list[Any]]:
    """Code, width of the result and parameters of one operation. :raises _UnknownOperation:"""
    if kind == "aten::linear" and len(rest) == 2:
        weight, bias = rest
        if _is_plain(weight) and weight.ndim == 2 and weight.shape[1] == width:
            size = int(weight.shape[0])
            if bias is None:
                return kernel.LINEAR, size, [weight.numpy(), np.zeros(size)]
            if _is_plain(bias) and tuple(bias.shape) == (size,):
                return kernel.LINEAR, size, [weight.numpy(), bias.numpy()]
    elif kind in _ARITHMETIC and len(rest) in (1, 2) and all(factor == 1 for factor in rest[1:]):
        other = rest[0]
        if isinstance(other, (int, float)) and math.isfinite(other):
            return _ARITHMETIC[kind], width, [np.full(width, other)]
        if _is_plain(other) and tuple(other.shape) in ((), (1,), (width,), (1, width)):
            return _ARITHMETIC[kind], width, [np.broadcast_to(other.numpy().reshape(-1), (width,))]
    elif kind in _ACTIVATIONS and not rest:
        return _ACTIVATIONS[kind], width, []
    elif kind == "aten::clamp" and len(rest) == 2:
        low, high = (-math.inf if rest[0] is None else rest[0]), (math.inf if rest[1] is None else rest[1])
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low <= high:
            return kernel.CLAMP, width, [[low, high]]
    elif kind == "aten::elu" and len(rest) == 3 and rest[1:] == [1, 1]:
        return kernel.ELU, width, [[rest[0]]]
    elif kind == "aten::leaky_relu" and len(rest) == 1:
        return kernel.LEAKY_RELU, width, [[rest[0]]]
    raise _UnknownOperation


def _is_plain(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.device.type == "cpu"

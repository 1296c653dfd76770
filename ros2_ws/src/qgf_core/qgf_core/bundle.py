# SPDX-License-Identifier: Apache-2.0
"""The policy bundle: one TorchScript file that carries its contract, and is checked before torch sees it.

The file is the zip archive that `torch.jit.save` writes, with `extra/manifest.json`, `extra/probes.json` and
`extra/robot.urdf` as entries. The archive comment holds the SHA-256 of all bytes before it: torch checks no CRC, so that a
flipped bit would change the policy without a word. TorchScript is code: before torch loads it, its source is parsed and every
operator outside an allow-list is refused.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from qgf_core.errors import BundleError, QgfError
from qgf_core.files import write_atomic
from qgf_core.manifest import Manifest, parse_manifest

MAXIMUM_SIZE = 256 * 1024 * 1024
PROBE_TOLERANCE = 1e-5
"""Of the action range, on the processor that exported."""
OTHER_PROCESSOR_FACTOR = 10.0
"""Kernels of another instruction set round differently."""

_END_RECORD = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_SEAL = b"qgf-bundle-1 sha256="
_SEAL_LENGTH = len(_SEAL) + 64
_EXTRA = ("manifest.json", "probes.json", "robot.urdf")

# What an actor with a frozen normaliser needs, and nothing that touches files, processes or unbounded memory.
_ALLOWED_OPERATORS = frozenset({
    "add", "addmm", "annotate", "cat", "clamp", "div", "elu", "elu_", "layer_norm", "leaky_relu", "leaky_relu_", "linear", "matmul",
    "mish", "mish_", "mm", "mul", "neg", "relu", "relu_", "rsub", "sigmoid", "silu", "silu_", "slice", "softplus", "squeeze", "sub",
    "t", "tanh", "transpose", "unsqueeze",
})
_ALLOWED_DEFINITIONS = _ALLOWED_OPERATORS | {"forward", "__len__"}  # torch writes __len__ for a Sequential
_FUNCTIONAL = ["__torch__", "torch", "nn", "functional"]
_ALLOWED_PLAIN_CALLS = frozenset({"annotate", "getattr"})  # getattr(self, "0"): a member whose name is no identifier


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A verified policy, ready to run."""

    manifest: Manifest
    sha256: str
    module: torch.jit.ScriptModule
    observation_size: int
    action_size: int

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The deterministic action (n_act,) in [-1, 1] for a raw observation (n_obs,) or (1, n_obs).

        :raises ValueError: wrong shape. A non-finite observation or action is passed through, for the caller to judge.
        """
        array = np.asarray(observation, dtype=np.float32)
        if array.shape not in ((self.observation_size,), (1, self.observation_size)):
            raise ValueError(f"observation has shape {array.shape}, expected ({self.observation_size},)")
        with torch.inference_mode():
            action = self.module(torch.from_numpy(array.reshape(1, -1)))
        return np.asarray(action.numpy()[0], dtype=np.float32)


def save_bundle(path: str | Path, module: torch.nn.Module, manifest: Manifest, probes: ArrayLike) -> str:
    """Export a policy; the file appears whole or not at all.

    :param module: raw observation (1, n_obs) float32 -> action (1, n_act) in [-1, 1]; it is scripted here.
    :param probes: raw observations (N, n_obs), whose actions are stored and replayed by whoever loads the bundle.
    :returns: the SHA-256 in hexadecimal.
    :raises BundleError: the module cannot be scripted, uses an operator that loading would refuse, or acts out of range.
    :raises QgfError: the file cannot be written.
    """
    observations = np.array(probes, dtype=np.float32)  # a copy: torch wants it writable
    if observations.ndim != 2 or len(observations) == 0 or not np.isfinite(observations).all():
        raise BundleError(f"{path}: probes of shape {observations.shape} must be finite and (N, n_obs) with N > 0; give observations")
    try:
        scripted = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module.cpu().eval())
    except (RuntimeError, torch.jit.frontend.NotSupportedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BundleError(f"{path}: the policy cannot be scripted ({reason}); use plain torch layers") from error
    with torch.inference_mode():
        actions = np.concatenate([scripted(torch.from_numpy(row[None])).numpy() for row in observations])
    if not np.isfinite(actions).all() or np.abs(actions).max() > 1.0:
        raise BundleError(f"{path}: the policy's actions on the probes leave [-1, 1]; end it with tanh or clamp")
    stored = {"observations": observations.tolist(), "actions": actions.tolist(), "tolerance": PROBE_TOLERANCE,
              "processor": _processor()}
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer, _extra_files={"manifest.json": manifest.to_json(), "probes.json": json.dumps(stored),
                                                   "robot.urdf": manifest.urdf})
    sealed = seal(buffer.getvalue())
    _verify(sealed, path)
    write_atomic(Path(path), sealed)
    return hashlib.sha256(sealed).hexdigest()


def seal(archive: bytes) -> bytes:
    """A zip archive with the SHA-256 of its bytes, end record included, as its comment. :raises BundleError: not a bare zip."""
    start = len(archive) - _END_RECORD.size
    if start < 0 or archive[start:start + 4] != _END_MAGIC:
        raise BundleError("archive: no zip end record; it must be what torch.jit.save wrote")
    fields = list(_END_RECORD.unpack(archive[start:]))
    fields[-1] = _SEAL_LENGTH
    head = archive[:start] + _END_RECORD.pack(*fields)
    return head + _SEAL + hashlib.sha256(head).hexdigest().encode()


def load_bundle(path: str | Path) -> Bundle:
    """Verify and load a policy: hash, archive, operators, manifest, then golden probes.

    :raises BundleError: any defect; the message names the file, the defect and the remedy.
    """
    data = _read(path)
    extra = _verify(data, path)
    manifest = parse_manifest(extra["manifest.json"], extra["robot.urdf"], path)
    try:
        observation_size = manifest.observation_builder().size
    except QgfError as error:
        raise BundleError(f"{path}: {error}") from error
    try:
        module = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()
        module = torch.jit.optimize_for_inference(torch.jit.freeze(module))
    except (RuntimeError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BundleError(f"{path}: torch cannot load it ({reason}); export it again with torch {torch.__version__}") from error
    bundle = Bundle(manifest, hashlib.sha256(data).hexdigest(), module, observation_size, len(manifest.robot.joints))
    _replay_probes(bundle, extra["probes.json"], path)
    return bundle


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a bundle whose hash is right, without running anything in it. :raises BundleError: any defect."""
    extra = _verify(_read(path), path)
    return parse_manifest(extra["manifest.json"], extra["robot.urdf"], path)


def _processor() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _read(path: str | Path) -> bytes:
    try:
        size = Path(path).stat().st_size
        if size > MAXIMUM_SIZE:
            raise BundleError(f"{path}: {size} bytes are more than a policy can have; check the path")
        return Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _verify(data: bytes, path: str | Path) -> dict[str, str]:
    """The extra files as text, after hash, archive and operators were found good. :raises BundleError: otherwise."""
    start = len(data) - _SEAL_LENGTH
    end_record = start - _END_RECORD.size
    if end_record < 0 or data[end_record:end_record + 4] != _END_MAGIC or not data[start:].startswith(_SEAL):
        raise BundleError(f"{path}: not a QGF bundle, or cut short; copy or export it again")
    if hashlib.sha256(data[:start]).hexdigest().encode() != data[start + len(_SEAL):]:
        raise BundleError(f"{path}: its SHA-256 does not match: it was changed or damaged; copy or export it again")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names) or sum(info.file_size for info in archive.infolist()) > MAXIMUM_SIZE:
                raise BundleError(f"{path}: the archive is malformed; export it again")
            texts = {}
            for name in names:
                inner = name.partition("/")[2]
                if inner.startswith("code/") and name.endswith(".py"):
                    _check_code(archive.read(name).decode("utf-8"), path)
                if inner.startswith("extra/"):
                    texts[inner[len("extra/"):]] = archive.read(name).decode("utf-8")
    except (zipfile.BadZipFile, UnicodeDecodeError, RuntimeError, NotImplementedError, EOFError) as error:
        raise BundleError(f"{path}: the archive cannot be read ({error}); export it again") from error
    for name in _EXTRA:
        if name not in texts:
            raise BundleError(f"{path}: it lacks {name}; export it again")
    return texts


def _check_code(source: str, path: str | Path) -> None:
    """:raises BundleError: the TorchScript source defines `__setstate__` or calls anything outside the allow-list."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BundleError(f"{path}: its code cannot be parsed ({error}); export it again") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name not in _ALLOWED_DEFINITIONS:
            raise BundleError(f"{path}: its code defines '{node.name}', which a policy does not need; refused")
        if isinstance(node, ast.Call) and not _is_allowed_call(node.func):
            raise BundleError(f"{path}: its code calls '{ast.unparse(node.func)}', which is not allowed in a policy; refused")
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.While, ast.For)):
            raise BundleError(f"{path}: its code contains an import or a loop, which a policy does not need; refused")


def _is_allowed_call(function: Any) -> bool:
    chain: list[str] = []
    while isinstance(function, ast.Attribute):
        chain.insert(0, function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return False
    chain.insert(0, function.id)
    if chain[:-1] == ["torch"]:
        return chain[-1] in _ALLOWED_OPERATORS
    if chain[:-1] == _FUNCTIONAL:  # its definition stands in the same archive and is checked like all code
        return chain[-1] in _ALLOWED_OPERATORS
    if len(chain) == 1:
        return chain[0] in _ALLOWED_PLAIN_CALLS
    # A submodule's forward, through self or a local variable, never a namespace of operators or classes.
    return chain[-1] == "forward" and chain[0] not in ("ops", "torch", "__torch__")


def _replay_probes(bundle: Bundle, text: str, path: str | Path) -> None:
    try:
        stored = json.loads(text)
        observations = np.array(stored["observations"], dtype=np.float32)
        expected = np.array(stored["actions"], dtype=np.float32)
        tolerance = min(float(stored["tolerance"]), PROBE_TOLERANCE)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: its probes are malformed ({error}); export it again") from error
    if observations.ndim != 2 or observations.shape[1] != bundle.observation_size or len(observations) == 0:
        raise BundleError(f"{path}: its probes have shape {observations.shape}, the manifest declares {bundle.observation_size} "
                          "observations; export it again")
    if expected.shape != (len(observations), bundle.action_size):
        raise BundleError(f"{path}: its probes' actions have shape {expected.shape}; export it again")
    if stored.get("processor") != _processor():
        tolerance *= OTHER_PROCESSOR_FACTOR
    try:
        actions = np.stack([bundle.act(row) for row in observations])
    except RuntimeError as error:
        raise BundleError(f"{path}: the policy cannot be run ({str(error).splitlines()[-1]}); export it again") from error
    if actions.shape != expected.shape:
        raise BundleError(f"{path}: the policy gives {actions.shape[1:]} actions for {bundle.action_size} joints; export it again")
    error_size = float(np.abs(actions - expected).max())
    if not error_size <= 2.0 * tolerance:  # the range of an action is 2; written so that NaN fails
        raise BundleError(f"{path}: golden probes differ by {error_size:.2e}, allowed {2.0 * tolerance:.0e}; "
                          "export it again on a machine like this one")

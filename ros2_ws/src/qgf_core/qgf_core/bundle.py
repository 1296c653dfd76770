# SPDX-License-Identifier: Apache-2.0
"""The policy bundle: one TorchScript file that carries its contract, and is checked before torch sees it.

See `qgf_core.archive` for the file and its seal, `qgf_core.script_check` for what its code may say, and
`qgf_core.manifest` for the contract. What was saved has been loaded once: nothing is written that loading would refuse.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from qgf_core.archive import CRITIC_FILE, critic_entry, open_sealed, read_archive, seal
from qgf_core.critic_file import parse_critic
from qgf_core.errors import BundleError, QgfError
from qgf_core.files import write_atomic
from qgf_core.manifest import Manifest, parse_manifest, read_manifest
from qgf_core.network import Network, agrees, read_network
from qgf_core.signing import check_signature

__all__ = ["Bundle", "load_bundle", "read_manifest", "save_bundle", "seal"]

PROBE_TOLERANCE = 1e-5
"""Of the action range, on the processor that exported."""
OTHER_PROCESSOR_FACTOR = 10.0
"""Kernels of another instruction set round differently."""

# What torch raises for a module that is not what it should be, beside RuntimeError.
_TORCH_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, OverflowError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A verified policy, ready to run."""

    manifest: Manifest
    sha256: str
    module: torch.jit.ScriptModule
    observation_size: int
    action_size: int
    signer: str = ""
    """Who signed it; empty if nobody has."""
    network: Network | None = None
    """The module's operations, where they are all known: the same answers in a fraction of the time."""

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The deterministic action (n_act,) in [-1, 1] for a raw observation (n_obs,) or (1, n_obs).

        One thread at a time: a network has one working memory.

        :raises ValueError: wrong shape. A number that is not finite is passed through, for the caller to judge.
        """
        array = np.asarray(observation, dtype=np.float32)
        if array.shape not in ((self.observation_size,), (1, self.observation_size)):
            raise ValueError(f"observation has shape {array.shape}, expected ({self.observation_size},)")
        if not (array.flags.c_contiguous and array.flags.writeable):  # as torch wants it
            array = np.array(array, order="C")
        if self.network is not None:
            return self.network.act(array.reshape(-1))
        with torch.inference_mode():
            action = self.module(torch.from_numpy(array.reshape(1, -1)))
        return np.asarray(action.numpy()[0], dtype=np.float32)


def save_bundle(path: str | Path, module: torch.nn.Module, manifest: Manifest, probes: ArrayLike,
                critic: bytes | None = None) -> str:
    """Export a policy; the file appears whole or not at all.

    :param module: raw observation (1, n_obs) float32 -> action (1, n_act) in [-1, 1]; a copy of it is scripted here.
    :param probes: raw observations (N, n_obs), whose actions are stored and replayed by whoever loads the bundle.
    :param critic: what `qgf_core.critic_file.pack_critic` gives, to carry along.
    :returns: the SHA-256 in hexadecimal.
    :raises BundleError: the module cannot be scripted, does not fit the manifest, says what loading would refuse, acts
        out of range, or acts otherwise once exported.
    :raises QgfError: the file cannot be written.
    """
    try:
        observations = np.array(probes, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: probes are no array ({error}); give observations (N, n_obs)") from error
    if observations.ndim != 2 or len(observations) == 0 or not np.isfinite(observations).all():
        raise BundleError(f"{path}: probes of shape {observations.shape} must be finite and (N, n_obs) with N > 0; "
                          "give observations")
    try:
        eager = module if isinstance(module, torch.jit.ScriptModule) else copy.deepcopy(module).cpu().eval()
        scripted = eager if isinstance(eager, torch.jit.ScriptModule) else torch.jit.script(eager)
        with torch.inference_mode():
            actions = np.concatenate([eager(torch.from_numpy(row[None])).numpy() for row in observations])
    except (*_TORCH_ERRORS, OSError, torch.jit.frontend.NotSupportedError) as error:
        raise BundleError(f"{path}: the policy cannot be exported ({_reason(error)}); use plain torch layers that take "
                          f"(1, {observations.shape[1]})") from error
    stored = {"observations": observations.tolist(), "actions": actions.tolist(), "tolerance": PROBE_TOLERANCE,
              "processor": _processor()}
    buffer = io.BytesIO()
    extra: dict[str, str | bytes] = {"manifest.json": manifest.to_json(), "probes.json": json.dumps(stored),
                                     "robot.urdf": manifest.urdf}
    if critic is not None:
        extra[CRITIC_FILE] = critic
    torch.jit.save(scripted, buffer, _extra_files=extra)
    sealed = seal(buffer.getvalue())
    _load(sealed, path)
    write_atomic(Path(path), sealed)
    return hashlib.sha256(sealed).hexdigest()


def load_bundle(path: str | Path, trusted: Mapping[bytes, str] | None = None) -> Bundle:
    """Verify and load a policy: hash, signature, archive, operators, manifest, then golden probes.

    :param trusted: keys one of which must have signed it (`qgf_core.signing`); None: an unsigned one will do.
    :raises BundleError: any defect; the message names the file, the defect and the remedy.
    """
    return _load(read_archive(path), path, trusted)


def _load(data: bytes, path: str | Path, trusted: Mapping[bytes, str] | None = None) -> Bundle:
    signer = check_signature(data, path, trusted)
    texts = open_sealed(data, path)
    manifest = parse_manifest(texts["manifest.json"], texts["robot.urdf"], path)
    try:
        observation_size = manifest.observation_builder().size
    except QgfError as error:
        raise BundleError(f"{path}: {error}") from error
    packed = critic_entry(data)
    if packed is not None:
        parse_critic(packed, observation_size, len(manifest.robot.joints), path)
    try:
        frozen = torch.jit.freeze(torch.jit.load(io.BytesIO(data), map_location="cpu").eval())
        network = read_network(frozen, observation_size)
        module = torch.jit.optimize_for_inference(frozen)
    except _TORCH_ERRORS as error:
        raise BundleError(f"{path}: torch cannot load it ({_reason(error)}); "
                          f"export it again with torch {torch.__version__}") from error
    bundle = Bundle(manifest, hashlib.sha256(data).hexdigest(), module, observation_size, len(manifest.robot.joints),
                    signer)
    probes = _replay_probes(bundle, texts["probes.json"], path)
    if network is not None and agrees(network, module, np.concatenate([probes, _drawn_probes(probes)])):
        return dataclasses.replace(bundle, network=network)
    return bundle


def _processor() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _reason(error: BaseException) -> str:
    """The telling line of torch's page-long messages: the error that a traceback in it ends with, or else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ends = [line for line in lines if re.match(r"\w*Error: ", line)]
    return (ends or lines or [type(error).__name__])[-1 if ends else 0][:200]


def _drawn_probes(probes: NDArray[np.float32]) -> NDArray[np.float32]:
    """More observations, about those that the bundle brings and further off than an arm gets."""
    drawn = np.random.default_rng(0).standard_normal((64, probes.shape[1]))
    spread = np.array([0.1, 1.0]).repeat(32)[:, None]
    return (probes[np.arange(64) % len(probes)] + spread * drawn).astype(np.float32)


def _replay_probes(bundle: Bundle, text: str, path: str | Path) -> NDArray[np.float32]:
    """The bundle's observations, once their actions are found to be those that it brings."""
    try:
        stored: dict[str, Any] = json.loads(text)
        observations = np.array(stored["observations"], dtype=np.float32)
        expected = np.array(stored["actions"], dtype=np.float32)
        tolerance = min(float(stored["tolerance"]), PROBE_TOLERANCE)
        same_processor = stored.get("processor") == _processor()
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{path}: its probes are malformed ({_reason(error)}); export it again") from error
    if observations.ndim != 2 or observations.shape[1] != bundle.observation_size or len(observations) == 0:
        raise BundleError(f"{path}: its probes have shape {observations.shape}, the manifest declares "
                          f"{bundle.observation_size} observations; export it again")
    if expected.shape != (len(observations), bundle.action_size):
        raise BundleError(f"{path}: its probes' actions have shape {expected.shape}, the robot has "
                          f"{bundle.action_size} joints; export it again")
    try:
        actions = np.stack([bundle.act(row) for row in observations])
    except _TORCH_ERRORS as error:
        raise BundleError(f"{path}: the policy cannot be run ({_reason(error)}); export it again") from error
    if actions.shape != expected.shape:
        raise BundleError(f"{path}: the policy gives {actions.shape[1:]} actions for {bundle.action_size} joints; "
                          "export it again")
    if not np.abs(actions).max() <= 1.0:  # written so that NaN fails, here and below
        raise BundleError(f"{path}: the policy's actions on the probes leave [-1, 1]; end it with tanh or clamp")
    allowed = 2.0 * tolerance * (1.0 if same_processor else OTHER_PROCESSOR_FACTOR)  # the range of an action is 2
    error_size = float(np.abs(actions - expected).max())
    if not error_size <= allowed:
        raise BundleError(f"{path}: golden probes differ by {error_size:.2e}, allowed {allowed:.0e}; "
                          "export it again on a machine like this one")
    return observations

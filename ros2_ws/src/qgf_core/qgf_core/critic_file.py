# SPDX-License-Identifier: Apache-2.0
"""The critic inside a bundle: tensors in the safetensors format, which holds numbers and no code.

It is optional. The bundle's seal covers it, as everything else in there; it has a name, a size and shapes that are
checked, and probes of its own, whose values are computed again when it is read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from qgf_core.archive import critic_entry, open_sealed, read_archive
from qgf_core.errors import BundleError, MetricError
from qgf_core.q_field import Critic

_TOLERANCE = 1e-6
"""Of the largest probe's value: sums in another order differ by some 1e-14 only."""


def pack_critic(critic: Critic, observation: npt.ArrayLike, action: npt.ArrayLike) -> bytes:
    """The critic as a bundle's entry, with probes (N, n_obs) and (N, n_act), N > 0; weights as float32.

    :raises MetricError: probes that do not fit.
    """
    stored = {f"weights.{i}": w.astype(np.float32) for i, w in enumerate(critic.weights)}
    stored |= {f"biases.{i}": b.astype(np.float32) for i, b in enumerate(critic.biases)}
    stored |= {"mean": critic.mean.astype(np.float32), "std": critic.std.astype(np.float32)}
    s, a = np.array(observation, dtype=np.float32), np.array(action, dtype=np.float32)
    value = _rebuilt(stored).value(s, a)
    return safetensors.numpy.save({**stored, "probes.observation": s, "probes.action": a, "probes.value": value})


def _rebuilt(tensors: dict[str, npt.NDArray[np.float32]]) -> Critic:
    layers = sum(name.startswith("weights.") for name in tensors)
    return Critic([tensors[f"weights.{i}"] for i in range(layers)], [tensors[f"biases.{i}"] for i in range(layers)],
                  tensors["mean"], tensors["std"])


def parse_critic(data: bytes, n_obs: int, n_act: int, source: object) -> Critic:
    """The critic from its entry.

    :param n_obs, n_act: of the policy that it goes with.
    :raises BundleError: anything but what `pack_critic` writes, of another size, or with values that differ.
    """
    try:
        tensors = safetensors.numpy.load(data)
        layers = (len(tensors) - 5) // 2
        names = {f"{kind}.{i}" for kind in ("weights", "biases") for i in range(layers)}
        if set(tensors) != names | {"mean", "std", "probes.observation", "probes.action", "probes.value"}:
            raise MetricError("it holds other tensors than a critic's")
        if any(array.dtype != (np.float64 if name == "probes.value" else np.float32)
               for name, array in tensors.items()):
            raise MetricError("its tensors are of another type")
        critic = _rebuilt(tensors)
        expected = tensors["probes.value"]
        found = critic.value(tensors["probes.observation"], tensors["probes.action"])
    except (SafetensorError, MetricError, ValueError, KeyError) as error:
        raise BundleError(f"{source}: its critic cannot be used ({error}); export it again") from error
    if (critic.n_obs, critic.n_act) != (n_obs, n_act):
        raise BundleError(f"{source}: its critic takes {critic.n_obs} observations and {critic.n_act} actions, the "
                          f"policy has {n_obs} and {n_act}; export it again")
    # Written so that NaN fails.
    if len(found) == 0 or found.shape != expected.shape \
            or not np.abs(found - expected).max() <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise BundleError(f"{source}: the values of its critic's probes differ; export it again")
    return critic


def read_critic(path: str | Path, n_obs: int, n_act: int) -> Critic | None:
    """The critic that a bundle carries, None where it carries none; nothing in it is run, torch is not needed.

    :param n_obs, n_act: by its manifest.
    :raises BundleError: a bad bundle or a bad critic.
    """
    data = read_archive(path)
    open_sealed(data, path)
    packed = critic_entry(data)
    return None if packed is None else parse_critic(packed, n_obs, n_act, path)

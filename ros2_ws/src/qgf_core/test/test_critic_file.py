# SPDX-License-Identifier: Apache-2.0
"""The critic in a bundle: it comes back as it went in, and is refused as strictly as the policy."""

import itertools
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch

from qgf_core.archive import MAXIMUM_TEXT
from qgf_core.bundle import load_bundle, save_bundle
from qgf_core.critic_file import pack_critic, parse_critic, read_critic
from qgf_core.errors import BundleError
from qgf_core.q_field import Critic


def critic(n_obs=24, n_act=7, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [n_obs + n_act, 16, 12, 1]
    weights = [rng.normal(size=shape).astype(np.float32) for shape in itertools.pairwise(sizes)]
    return Critic(weights, [rng.normal(size=n).astype(np.float32) for n in sizes[1:]], np.zeros(n_obs), np.ones(n_obs))


def packed(made=None, n_obs=24, n_act=7):
    rng = np.random.default_rng(1)
    return pack_critic(made or critic(n_obs, n_act), rng.normal(size=(8, n_obs)), rng.uniform(-1, 1, (8, n_act)))


@pytest.fixture
def bundle(tmp_path, manifest, actor, probes):
    path = tmp_path / "bundle.pt"
    save_bundle(path, actor, manifest, probes, packed())
    return path


def test_it_comes_back(bundle, actor, probes, tmp_path, manifest):
    found, original = read_critic(bundle, 24, 7), critic()
    s, a = np.random.default_rng(2).normal(size=(3, 24)), np.zeros((3, 7))
    assert found is not None and found.value(s, a) == pytest.approx(original.value(s, a), rel=1e-12)
    assert load_bundle(bundle).act(probes[0]) == pytest.approx(
        actor(torch.from_numpy(probes[:1])).detach().numpy()[0], abs=1e-5)
    save_bundle(tmp_path / "bare.pt", actor, manifest, probes)
    assert read_critic(tmp_path / "bare.pt", 24, 7) is None


def test_reading_it_needs_no_torch(bundle):
    code = ("import sys; from qgf_core.critic_file import read_critic; "
            f"assert read_critic({str(bundle)!r}, 24, 7).n_act == 7 and 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_seal_covers_it(bundle):
    data = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("critic.safetensors")]
        weights = archive.read(name)[-64:]
    place = data.index(weights)
    bundle.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
    with pytest.raises(BundleError, match="SHA-256"):
        read_critic(bundle, 24, 7)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(bundle)


def changed(**tensors):
    """The packed critic with tensors replaced, or left out where None."""
    stored = {**safetensors.numpy.load(packed()), **{k.replace("_", "."): v for k, v in tensors.items()}}
    return safetensors.numpy.save({k: v for k, v in stored.items() if v is not None})


def longer(data):
    return data + b"\0" * 8


def renamed_dtype(data):
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header["mean"]["dtype"] = "I32"
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size:]


WRONG = {
    "not a critic": lambda: b"nonsense", "empty": lambda: b"", "cut": lambda: packed()[:-1],
    "longer": lambda: longer(packed()), "other type": lambda: renamed_dtype(packed()),
    "a tensor more": lambda: changed(spare=np.zeros(3, np.float32)), "a tensor less": lambda: changed(mean=None),
    "not finite": lambda: changed(weights_0=np.full((31, 16), np.nan, np.float32)),
    "other weights": lambda: changed(weights_0=np.zeros((31, 16), np.float32)),
    "other shape": lambda: changed(weights_1=np.zeros((15, 12), np.float32)),
    "probes not finite": lambda: changed(probes_value=np.full(8, np.nan)),
    "other values": lambda: changed(probes_value=np.zeros(8)),
    "no probes": lambda: changed(probes_value=np.zeros(0), probes_observation=np.zeros((0, 24), np.float32),
                                 probes_action=np.zeros((0, 7), np.float32)),
    "of another policy": lambda: packed(n_obs=23),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bad_critic_is_refused_on_saving_and_on_reading(wrong, tmp_path, manifest, actor, probes):
    data = WRONG[wrong]()
    with pytest.raises(BundleError) as caught:
        parse_critic(data, 24, 7, "some.pt")
    assert str(caught.value).startswith("some.pt: ") and "; export it again" in str(caught.value)
    with pytest.raises(BundleError, match="critic"):
        save_bundle(tmp_path / "bundle.pt", actor, manifest, probes, data)
    assert not list(tmp_path.iterdir())


def test_a_huge_one_is_refused(tmp_path, manifest, actor, probes):
    with pytest.raises(BundleError, match="more than a policy needs"):
        save_bundle(tmp_path / "bundle.pt", actor, manifest, probes, bytes(MAXIMUM_TEXT + 1))

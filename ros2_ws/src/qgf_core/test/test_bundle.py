# SPDX-License-Identifier: Apache-2.0
"""Bundles that are as they should be: exported equals eager, what is kept, what is refused on saving."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
import textwrap
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from qgf_core.bundle import load_bundle, read_manifest, save_bundle
from qgf_core.errors import BundleError, QgfError
from qgf_core.manifest import SCHEMA_VERSION

CORE = Path(__file__).resolve().parents[1]
RANGE = 2.0
"""Of an action, from -1 to 1."""


class Net(torch.nn.Module):
    """A policy with any hidden layers."""

    def __init__(self, *layers: torch.nn.Module, width: int = 24) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(*layers)
        self.head = torch.nn.Linear(width, 7)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(self.body(observation)))


class Clipped(torch.nn.Module):
    """A policy with a clipped normaliser and a clamped head."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(24))
        self.register_buffer("std", torch.rand(24) + 0.1)
        self.linear = torch.nn.Linear(24, 7)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        normal = ((observation - self.mean) / self.std).clamp(-5.0, 5.0)
        return self.linear(normal).clamp(-1.0, 1.0)


def networks():
    linear = torch.nn.Linear
    torch.manual_seed(3)
    yield "256x256 SiLU", Net(linear(24, 256), torch.nn.SiLU(), linear(256, 256), torch.nn.SiLU(), width=256)
    for activation in (torch.nn.ReLU(), torch.nn.ELU(), torch.nn.LeakyReLU(), torch.nn.Mish(), torch.nn.Tanh(),
                       torch.nn.Sigmoid(), torch.nn.Softplus(), torch.nn.SiLU(inplace=True),
                       torch.nn.ReLU(inplace=True)):
        yield str(activation), Net(linear(24, 24), activation)
    yield "LayerNorm", Net(linear(24, 24), torch.nn.LayerNorm(24), torch.nn.SiLU())
    yield "no bias", Net(linear(24, 24, bias=False), torch.nn.SiLU())
    yield "nested", Net(torch.nn.Sequential(torch.nn.Sequential(linear(24, 24), torch.nn.ReLU()), linear(24, 24)))
    yield "clipped", Clipped()


@pytest.mark.parametrize(("name", "module"), list(networks()), ids=lambda x: x if isinstance(x, str) else "")
def test_exported_equals_eager(tmp_path, manifest, probes, name, module):
    path = tmp_path / "bundle.pt"
    save_bundle(path, module, manifest, probes)
    bundle = load_bundle(path)
    rng = np.random.default_rng(1)
    observations = (rng.normal(size=(1000, 24)) * 10.0 ** rng.uniform(-2, 2, (1000, 1))).astype(np.float32)
    with torch.no_grad():
        eager = np.concatenate([module(torch.from_numpy(row[None])).numpy() for row in observations])
    exported = np.stack([bundle.act(row) for row in observations])
    assert np.abs(exported - eager).max() <= 1e-5 * RANGE
    assert np.abs(exported).max() <= 1.0 and exported.std() > 0.01


def test_what_is_kept(tmp_path, manifest, actor, probes):
    path = tmp_path / "a folder" / "bundle.pt"
    told = save_bundle(path, actor, manifest, probes)
    bundle = load_bundle(path)
    assert told == bundle.sha256 and len(told) == 64 and os.listdir(path.parent) == ["bundle.pt"]
    assert bundle.manifest.to_json() == manifest.to_json() and bundle.manifest.urdf == manifest.urdf
    assert (bundle.observation_size, bundle.action_size) == (24, 7)
    assert read_manifest(path) == bundle.manifest == load_bundle(str(path)).manifest
    assert save_bundle(path, actor, manifest, probes) == told  # the same policy gives the same bytes


def test_readable_as_a_zip_without_torch(tmp_path, manifest, actor, probes):
    path = tmp_path / "bundle.pt"
    save_bundle(path, actor, manifest, probes)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        name = next(name for name in archive.namelist() if name.endswith("extra/manifest.json"))
        assert archive.read(name).decode() == manifest.to_json()
    code = f"""
        import sys
        sys.modules["torch"] = None
        from qgf_core.manifest import read_manifest
        print(read_manifest({str(path)!r}).robot.name)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": str(CORE)},
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == "panda\n", done.stderr


def test_another_process_loads_it_with_only_the_core(tmp_path, manifest, actor, probes):
    """What a robot computer has: no simulator, no trainer, no ROS, none of the classes that made the policy."""
    path = tmp_path / "bundle.pt"
    save_bundle(path, actor, manifest, probes)
    observation = np.linspace(-1, 1, 24, dtype=np.float32)
    code = f"""
        import sys
        for name in ("pybullet", "pybullet_data", "gymnasium", "mujoco", "rclpy", "qgf_sim", "qgf_trainer",
                     "qgf_policy", "qgf_monitor", "qgf_demo", "qgf_msgs"):
            sys.modules[name] = None
        import numpy as np
        from qgf_core.bundle import load_bundle
        bundle = load_bundle({str(path)!r})
        print(bundle.act(np.linspace(-1, 1, 24)).astype(float).tolist())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": str(CORE)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs = np.array([float(word) for word in done.stdout.strip("[]\n").split(",")])
    with torch.no_grad():
        np.testing.assert_allclose(theirs, actor(torch.from_numpy(observation[None]))[0].numpy(), atol=2e-5)


@pytest.fixture
def bundle(tmp_path, manifest, actor, probes):
    save_bundle(tmp_path / "bundle.pt", actor, manifest, probes)
    return load_bundle(tmp_path / "bundle.pt")


def test_act_takes_one_observation_flat_or_as_a_row(bundle):
    observation = np.linspace(-1, 1, 24)
    action = bundle.act(observation)
    assert action.shape == (7,) and action.dtype == np.float32
    for same in (observation.astype(np.float32), observation[None], observation.tolist(),
                 observation[::-1].copy()[::-1], np.asfortranarray(observation[None]), np.repeat(observation, 2)[::2]):
        np.testing.assert_array_equal(bundle.act(same), action)
    for wrong in (np.zeros(23), np.zeros(25), np.zeros((2, 24)), np.zeros((24, 1)), np.zeros((1, 1, 24)), np.zeros(()),
                  np.zeros((1, 23)), np.zeros(0)):
        with pytest.raises(ValueError, match=r"observation has shape .*, expected \(24,\)"):
            bundle.act(wrong)


def test_act_leaves_its_argument_and_its_results_alone(bundle):
    observation = np.linspace(-1, 1, 24).astype(np.float32)
    observation.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = bundle.act(observation)
    kept = first.copy()
    bundle.act(-observation)
    np.testing.assert_array_equal(first, kept)
    first += 1.0  # the caller's own
    np.testing.assert_array_equal(bundle.act(observation), kept)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_hidden(bundle, bad):
    observation = np.zeros(24)
    observation[3] = bad
    assert not np.isfinite(bundle.act(observation)).all()


def test_act_from_several_threads(bundle):
    observations = np.random.default_rng(2).normal(size=(200, 24))
    expected = np.stack([bundle.act(row) for row in observations])
    results = [np.zeros_like(expected) for _ in range(3)]

    def work(result: np.ndarray) -> None:
        for i, row in enumerate(observations):
            result[i] = bundle.act(row)
    threads = [threading.Thread(target=work, args=(result,)) for result in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_saving_leaves_the_module_as_it_was(tmp_path, manifest, probes):
    module = Net(torch.nn.Linear(24, 24), torch.nn.SiLU()).train()
    before = copy.deepcopy(module.state_dict())
    save_bundle(tmp_path / "bundle.pt", module, manifest, probes)
    assert module.training and all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_scripted_module_can_be_saved(tmp_path, manifest, actor, probes):
    path = tmp_path / "bundle.pt"
    save_bundle(path, torch.jit.script(actor.eval()), manifest, probes)
    np.testing.assert_allclose(load_bundle(path).act(probes[0]),
                               actor(torch.from_numpy(probes[:1])).detach().numpy()[0], atol=1e-5)


class Unbounded(torch.nn.Module):
    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return 10.0 * observation[:, :7]


class OtherOnceScripted(torch.nn.Module):
    """Acts otherwise once scripted."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        action = torch.tanh(observation[:, :7])
        if torch.jit.is_scripting():
            action = action * 0.99
        return action


class Tuple(torch.nn.Module):
    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return observation[:, :7], observation


class Random(torch.nn.Module):
    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.randn_like(observation)[:, :7])


class FromFile(torch.nn.Module):
    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.from_file("/etc/passwd", False, 7)[None] + observation[:, :7])


class Setstate(torch.nn.Module):
    """Code that would run while torch loads it."""

    @torch.jit.export
    def __getstate__(self):
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.training = state[1]

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.tanh(observation[:, :7])


class NotScriptable(torch.nn.Module):
    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        import random
        return observation * random.random()


class Loop(torch.nn.Module):
    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        for _ in range(int(observation.shape[1])):
            observation = torch.tanh(observation)
        return observation[:, :7]


@pytest.mark.parametrize(("module", "part"), [
    (Unbounded(), "leave [-1, 1]; end it with tanh or clamp"),
    (OtherOnceScripted(), "golden probes differ by "),
    (Tuple(), "the policy cannot be exported ("),
    (Random(), "which a policy does not need; refused"),
    (FromFile(), "its code calls 'torch.from_file', which a policy does not need; refused"),
    (torch.jit.script(Setstate()), "its code defines '__getstate__', which a policy does not need; refused"),
    (NotScriptable(), "the policy cannot be exported ("),
    (Loop(), "its code contains 'For', which a policy does not need; refused"),
    (torch.nn.Sequential(torch.nn.Linear(23, 7), torch.nn.Tanh()), "use plain torch layers that take (1, 24)"),
    (torch.nn.Sequential(torch.nn.Linear(24, 6), torch.nn.Tanh()), "its probes' actions have shape (16, 6), the robot"),
    (torch.nn.Sequential(torch.nn.Linear(24, 7), torch.nn.Dropout(), torch.nn.Tanh()), "which a policy does not need"),
], ids=lambda x: type(x).__name__ if isinstance(x, torch.nn.Module) else "")
def test_modules_that_are_refused_on_saving(tmp_path, manifest, probes, module, part):
    with pytest.raises(BundleError) as caught:
        save_bundle(tmp_path / "bundle.pt", module, manifest, probes)
    told = str(caught.value)
    assert part in told and told.startswith(f"{tmp_path / 'bundle.pt'}: ") and "\n" not in told
    assert os.listdir(tmp_path) == []


def test_a_module_with_nan_weights_is_refused(tmp_path, manifest, actor, probes):
    with torch.no_grad():
        actor.net[2].bias[3] = float("nan")
    with pytest.raises(BundleError, match=r"leave \[-1, 1\]"):
        save_bundle(tmp_path / "bundle.pt", actor, manifest, probes)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("bad", [np.zeros((0, 24)), np.zeros(24), np.zeros((3, 23)), np.full((2, 24), np.nan),
                                 [[1.0], [2.0, 3.0]], "words", np.zeros((2, 2, 24)), None])
def test_probes_that_are_refused(tmp_path, manifest, actor, bad):
    with pytest.raises(BundleError) as caught:
        save_bundle(tmp_path / "bundle.pt", actor, manifest, bad)
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == []


def test_a_manifest_that_does_not_fit_is_refused(tmp_path, manifest, actor, probes):
    shorter = dataclasses.replace(manifest, observation=manifest.observation[:3])
    for misfit in (shorter, dataclasses.replace(manifest, urdf=""), dataclasses.replace(manifest, urdf="<robot"),
                   dataclasses.replace(manifest, urdf=manifest.urdf.replace("panda_joint3", "other_joint"))):
        with pytest.raises(BundleError) as caught:
            save_bundle(tmp_path / "bundle.pt", actor, misfit, probes)
        assert "\n" not in str(caught.value) and os.listdir(tmp_path) == []


def test_a_failed_export_keeps_the_old_bundle(tmp_path, manifest, actor, probes):
    path = tmp_path / "bundle.pt"
    told = save_bundle(path, actor, manifest, probes)
    with pytest.raises(BundleError):
        save_bundle(path, Unbounded(), manifest, probes)
    assert load_bundle(path).sha256 == told and os.listdir(tmp_path) == ["bundle.pt"]


def test_a_place_that_cannot_be_written(tmp_path, manifest, actor, probes):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(QgfError, match="cannot be written"):
        save_bundle(tmp_path / "file" / "bundle.pt", actor, manifest, probes)


def test_the_schema_is_in_the_file(manifest):
    assert manifest.schema_version == SCHEMA_VERSION == 2

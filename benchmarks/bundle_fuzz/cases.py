# SPDX-License-Identifier: Apache-2.0
"""Changed copies of a good bundle, drawn at random: each must be refused before torch sees it.

Every kind is as strong as an attacker could be who lacks one thing: `bytes` mends no hash, `resealed` mends it,
`repacked`, `weight` and `wrong_key` make perfect bundles without the trusted key; `manifest`, `script`, `pickle` and
`archive` are even signed with it, as by a machine that was broken into, and must fail by what they say.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qgf_core.archive import read_seal, seal
from qgf_core.bundle import load_bundle
from qgf_core.errors import BundleError
from qgf_core.signing import load_private_key, load_trusted_keys, make_keys, sign_bytes

Random = np.random.Generator

KINDS = {"bytes": 25, "resealed": 15, "repacked": 10, "weight": 15, "wrong_key": 10, "manifest": 15, "script": 6,
         "pickle": 2, "archive": 2}
"""Shares of the cases [%]."""

FREE = ("training", "evaluation", "baseline")
"""What a manifest may say in any form."""
REQUIRED = {"task", "robot", "observation", "action", "control_rate", "delay_range", "goal_region", "schema_version",
            "name", "joints", "kind", "unit", "base_frame", "tool", "link"}
"""Keys that no manifest can do without."""

FILE_ACCESS = (
    '_x = torch.from_file("/etc/passwd", False, 8)', '_x = ops.aten.from_file("/etc/passwd", False, 8)',
    '_x = torch.load("{name}")', 'torch.save(x, "/tmp/{name}")', 'ops.aten.save(x, "/tmp/{name}")',
    '_x = ops.image.read_file("/etc/shadow")', 'ops.image.write_file("/tmp/{name}", x)', '_x = open("/etc/passwd")',
    'import os', 'from os import system', '_x = __import__("os")', '_x = eval("1")', 'exec("{name}")',
    '_x = getattr(torch, "from_file")("/etc/passwd", False, 8)', '_x = getattr(ops.aten, "from_file")("{name}")',
    'print("{name}")', '_x = __torch__.os.system("{name}")', '_x = torch.tensor([1.0] * {number})',
    '_x = torch.zeros([{number}])', '_x = torch.classes.dnnl.Stream("{name}")', 'raise Exception("{name}")',
    'with open("{name}") as f: pass', 'while True: pass', '_x = lambda: 0', 'torch = ops', '_x = ops', 'del self',
    '_x = torch.{name}(1)', '_x = ops.{name}.call(1)', '_x = self.__setstate__(1)', '_x = "\\\\x41"', '_x = 1 # {name}',
)
NAMES = ("{root}/code/../../../{name}.py", "/etc/{name}", "../{name}", "{name}", "{root}\\code\\{name}.py",
         "other/{name}",
         "{root}/model.json", "{root}/bytecode.pkl", "{root}/extra/{name}", "{root}/data/{name}", "{root}/{name}.pkl",
         "{root}/code/{name}.py", "{root}/CODE/__torch__.py", "{root}/Data.pkl", "{root}/", "{root}/tensors/0", "")
PICKLES = (b"cos\nsystem\n(S'{name}'\ntR0", b"c__builtin__\neval\n(S'{name}'\ntR0", b"cposix\nsystem\n0",
           b"ctorch.storage\n_load_from_bytes\n0", b"\x8c\x02os\x8c\x06system\x930", b"(S'x'\nios\nsystem\n0",
           b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"Pid\n0")

CRASHES = (ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError,
           MemoryError, NameError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error)
"""What a refusal must not be."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One changed copy."""

    kind: str
    what: str
    """What was done to it, for a person who looks into a miss."""
    data: bytes
    trusting: bool
    """The robot asks for signatures."""


class SeenByTorch(Exception):
    """A case got through to torch."""


def unpack(data: bytes) -> dict[str, bytes]:
    """The entries of an archive by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(entries: dict[str, bytes]) -> bytes:
    """A sealed archive of these entries, checksums and all."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return seal(buffer.getvalue())


class Fuzz:
    """Draws cases from one good bundle, and judges them.

    :param bundle: its file.
    :param folder: where the keys and the cases are written.
    """

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.folder = folder
        for name in ("trusted/lab", "other"):
            make_keys(folder / name)
        self.trusted = load_trusted_keys(str(folder / "trusted"))
        self.key, self.other = load_private_key(folder / "trusted/lab.key"), load_private_key(folder / "other.key")
        self.plain = bundle.read_bytes()
        self.signed = sign_bytes(self.plain, bundle, self.key)
        self.entries = unpack(self.plain)
        self.root = next(iter(self.entries)).partition("/")[0]
        self._draw: dict[str, Callable[[Random], tuple[str, bytes, bool]]] = {
            "bytes": self._bytes, "resealed": self._resealed, "repacked": self._repacked, "weight": self._weight,
            "wrong_key": self._wrong_key, "manifest": self._manifest, "script": self._script, "pickle": self._pickle,
            "archive": self._archive}

    def draw(self, kind: str, seed: int) -> Case:
        """A case; the same for the same seed, but for the keys."""
        rng = np.random.default_rng([seed, list(KINDS).index(kind)])
        what, data, trusting = self._draw[kind](rng)
        assert data not in (self.plain, self.signed), f"{kind} {seed}: nothing was changed"
        return Case(kind, what, data, trusting)

    def judge(self, case: Case) -> str:
        """"" if it was refused in one line before torch saw it; else what happened."""
        path = self.folder / "case.pt"
        path.write_bytes(case.data)
        original, torch.jit.load = torch.jit.load, _seen
        try:
            load_bundle(path, self.trusted if case.trusting else None)
        except BundleError as error:
            told = str(error)
            good = told.startswith(f"{path}: ") and "\n" not in told and len(told) < 600 + len(str(path))
            return "" if good else f"refused, but not in one line that names the file: {told[:200]}"
        except SeenByTorch:
            return "seen by torch"
        except CRASHES as error:
            return f"crashed: {type(error).__name__}: {error}"[:300]
        finally:
            torch.jit.load = original
        return "seen by torch"

    def still_good(self) -> None:
        """The unchanged bundle is loaded by torch, signed, with keys and without. :raises BundleError: it is not."""
        path = self.folder / "good.pt"
        for data, trusted in ((self.signed, self.trusted), (self.signed, None), (self.plain, None)):
            path.write_bytes(data)
            load_bundle(path, trusted)

    # ------------------------------------------------------------------------------------- without the trusted key

    def _bytes(self, rng: Random) -> tuple[str, bytes, bool]:
        what, data = damaged(self.signed if rng.random() < 0.5 else self.plain, rng)
        return what, data, bool(rng.random() < 0.5)

    def _resealed(self, rng: Random) -> tuple[str, bytes, bool]:
        """The signature kept; without keys it is wrong all the same."""
        length = read_seal(self.signed, "").length
        what, head = damaged(self.signed[:length], rng)
        if head == self.signed[:length]:
            head += b"\0"
        comment = self.signed[length:]
        return what, head + comment[:20] + sha256(head).hexdigest().encode() + comment[84:], bool(rng.random() < 0.5)

    def _repacked(self, rng: Random) -> tuple[str, bytes, bool]:
        """Some entry changed, everything round it made right again, but the signature."""
        name = str(rng.choice([name for name, content in self.entries.items() if content]))
        what, content = damaged(self.entries[name], rng)
        changed = pack({**self.entries, name: content if content != self.entries[name] else content + b"\0"})
        return f"{name}: {what}", self._by_others(changed, rng), True

    def _weight(self, rng: Random) -> tuple[str, bytes, bool]:
        names = [name for name in self.entries if "/data/" in name and self.entries[name]]
        name = names[rng.integers(len(names))]
        weights = bytearray(self.entries[name])
        bit = int(rng.integers(8 * len(weights)))
        weights[bit // 8] ^= 1 << bit % 8
        return f"{name}, bit {bit}", self._by_others(pack({**self.entries, name: bytes(weights)}), rng), True

    def _by_others(self, data: bytes, rng: Random) -> bytes:
        """Unsigned, with the good bundle's signature, or with somebody else's."""
        way = rng.integers(3)
        if way == 0:
            return data
        signed = sign_bytes(data, "", self.other)
        return signed if way == 1 else signed[:-206] + self.signed[-206:]

    def _wrong_key(self, rng: Random) -> tuple[str, bytes, bool]:
        way = int(rng.integers(5))
        if way == 0:
            return "a key of its own", sign_bytes(self.plain, "", Ed25519PrivateKey.generate()), True
        if way == 1:
            return "another key", sign_bytes(self.plain, "", self.other), True
        if way == 2:
            return "another's key, our signature", self._with(key=rng.bytes(32)), bool(rng.random() < 0.5)
        if way == 3:
            return "our key, a signature of random bits", self._with(signature=rng.bytes(64)), bool(rng.random() < 0.5)
        signature = bytearray(self.key.sign(self.signed[:read_seal(self.signed, "").length]))
        bit = int(rng.integers(512))
        signature[bit // 8] ^= 1 << bit % 8
        return f"bit {bit} of the signature", self._with(signature=bytes(signature)), bool(rng.random() < 0.5)

    def _with(self, key: bytes | None = None, signature: bytes | None = None) -> bytes:
        comment = self.signed[-206:]
        key_text = comment[5:69] if key is None else key.hex().encode()
        signature_text = comment[-128:] if signature is None else signature.hex().encode()
        return self.signed[:-206] + b" key=" + key_text + b" ed25519=" + signature_text

    # ------------------------------------------------------------------------------------------------- signed with it

    def _vouched(self, entries: dict[str, bytes]) -> bytes:
        return sign_bytes(pack(entries), "", self.key)

    def _manifest(self, rng: Random) -> tuple[str, bytes, bool]:
        if rng.random() < 0.1:
            name = self._entry("robot.urdf")
            cut = int(rng.integers(len(self.entries[name].rstrip()) - 1))
            return f"urdf cut at {cut}", self._vouched({**self.entries, name: self.entries[name][:cut]}), True
        name = self._entry("manifest.json")
        what, text = misstated(json.loads(self.entries[name]), rng)
        return what, self._vouched({**self.entries, name: text.encode()}), True

    def _script(self, rng: Random) -> tuple[str, bytes, bool]:
        names = [name for name in self.entries if name.endswith(".py")]
        name = names[rng.integers(len(names))]
        lines = self.entries[name].decode().split("\n")
        bodies = [i for i, line in enumerate(lines) if line.startswith("    ")]
        place = int(rng.choice(bodies)) if bodies else 0
        indent = len(lines[place]) - len(lines[place].lstrip())
        evil = FILE_ACCESS[rng.integers(len(FILE_ACCESS))]
        evil = evil.replace("{name}", word(rng)).replace("{number}", str(rng.integers(10**6, 10**12)))
        lines.insert(place, " " * indent + evil)
        return f"{name}:{place}: {evil}", self._vouched({**self.entries, name: "\n".join(lines).encode()}), True

    def _pickle(self, rng: Random) -> tuple[str, bytes, bool]:
        names = [name for name in self.entries if name.endswith("pkl")]
        name = names[rng.integers(len(names))]
        evil = PICKLES[rng.integers(len(PICKLES))].replace(b"{name}", word(rng).encode())
        content = self.entries[name]
        return f"{name}: {evil!r}", self._vouched({**self.entries, name: content[:2] + evil + content[2:]}), True

    def _archive(self, rng: Random) -> tuple[str, bytes, bool]:
        """An entry that does not belong there, or one too few."""
        if rng.random() < 0.2:
            name = self._entry(("manifest.json", "probes.json", "robot.urdf")[rng.integers(3)])
            return f"without {name}", self._vouched({k: v for k, v in self.entries.items() if k != name}), True
        name = NAMES[rng.integers(len(NAMES))].format(root=self.root, name=word(rng))
        added = {name: rng.bytes(int(rng.integers(1, 200)))}
        entries = {**added, **self.entries} if rng.random() < 0.5 else {**self.entries, **added}
        return f"entry {name!r}", self._vouched(entries), True

    def _entry(self, ending: str) -> str:
        return next(name for name in self.entries if name.endswith("/" + ending))


def _seen(*arguments: Any, **keywords: Any) -> None:
    raise SeenByTorch


def word(rng: Random) -> str:
    """A few letters."""
    return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), int(rng.integers(3, 12))))


def damaged(data: bytes, rng: Random) -> tuple[str, bytes]:
    """What was done, and the bytes after it: flipped bits, bytes written over, cut, put in, doubled or exchanged."""
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 65))
    rest = data[place + length:]
    way = int(rng.integers(6))
    if way == 0:
        changed = bytearray(data)
        bits = rng.choice(8 * len(data), min(int(rng.integers(1, 9)), 8 * len(data)), replace=False)
        for bit in bits:
            changed[bit // 8] ^= 1 << bit % 8
        return f"bits {bits.tolist()}", bytes(changed)
    if way == 1:
        other = bytes(255 - byte for byte in data[place:place + length])  # surely not what stands there
        return f"{length} bytes at {place} inverted", data[:place] + other + rest
    if way == 2:
        return f"cut at {place}", data[:place]
    if way == 3:
        return f"{length} bytes put in at {place}", data[:place] + rng.bytes(length) + data[place:]
    if way == 4:
        return f"{length} bytes at {place} taken out", data[:place] + rest
    return f"{length} bytes at {place} doubled", data[:place + length] + data[place:]


def misstated(manifest: dict[str, Any], rng: Random) -> tuple[str, str]:
    """What was done, and a manifest's JSON with one value of another type, not finite, left out, or one too many."""
    manifest = copy.deepcopy(manifest)
    places: list[tuple[Any, Any, str]] = []  # container, key, path

    def walk(value: Any, path: str) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if path or key not in FREE:
                places.append((value, key, f"{path}.{key}"))
                if isinstance(inner, (dict, list)):
                    walk(inner, f"{path}.{key}")
    walk(manifest, "")
    container, key, path = places[rng.integers(len(places))]
    value, way = container[key], int(rng.integers(4))
    if way == 0 and isinstance(container, dict):
        container[word(rng) + "_unknown"] = 1.0
        return f"an unknown key beside {path}", json.dumps(manifest)
    if way == 1 and key in REQUIRED and isinstance(container, dict):
        del container[key]
        return f"{path} left out", json.dumps(manifest)
    if way == 2 and isinstance(value, (int, float)) and not isinstance(value, bool):
        container[key] = "@"
        number = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")[rng.integers(5)]
        return f"{path} is {number}", json.dumps(manifest).replace('"@"', number)
    wrong: list[Any] = [{"a": 1}, [[{}]]] + ([] if isinstance(value, dict) else [{}])  # {} may be all defaults
    if not isinstance(value, str):
        wrong += ["text", ""]
    if not isinstance(value, (int, float)) and value is not None:
        wrong += [1.5, True, -7]
    container[key] = wrong[rng.integers(len(wrong))]
    return f"{path} is {container[key]!r}", json.dumps(manifest)

# SPDX-License-Identifier: Apache-2.0
"""Bundles that are damaged, tampered with, or none: each is refused in one line, before torch sees a byte."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from qgf_core.archive import MAXIMUM_SIZE, seal
from qgf_core.bundle import load_bundle, read_manifest, save_bundle
from qgf_core.errors import BundleError

CORE = Path(__file__).resolve().parents[1]
Entries = dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, manifest, probes) -> bytes:
    """The bytes of a good bundle."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.SiLU(), torch.nn.Linear(8, 7), torch.nn.Tanh())
    path = tmp_path_factory.mktemp("whole") / "bundle.pt"
    save_bundle(path, module, manifest, probes)
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path, monkeypatch) -> Callable[..., str]:
    """Loads bytes that must be refused before torch sees them (unless `by_torch`); returns what was said of them."""
    calls: list[object] = []
    original = torch.jit.load
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: (calls.append(a), original(*a, **k))[1])
    path = tmp_path / "bundle.pt"

    def check(data: bytes, by_torch: bool = False) -> str:
        path.write_bytes(data)
        calls.clear()
        with pytest.raises(BundleError) as caught:
            load_bundle(path)
        told = str(caught.value)
        assert told.startswith(f"{path}: ") and "\n" not in told and "; " in told and len(told) < 600 + len(str(path))
        assert bool(calls) == by_torch
        return told[len(f"{path}: "):]
    return check


def unpack(data: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A sealed archive, as somebody could make it who knows how."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return seal(buffer.getvalue())


def find(entries: Entries, ending: str) -> str:
    """The entry of this name; torch gives a class a second name where the process has scripted it before."""
    pattern = re.escape(ending).replace(r"\.py", r"(/___torch_mangle_\d+)?\.py") + "$"
    return next(name for name in entries if re.search(pattern, name))


def loads_in_torch(data: bytes) -> bool:
    """Whether torch by itself would take it: else refusing it proves little."""
    try:
        torch.jit.load(io.BytesIO(data))
    except RuntimeError:
        return False
    return True


def test_repacking_alone_does_no_harm(tmp_path, whole):
    """So that what is refused below is refused for what was changed."""
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        (tmp_path / "bundle.pt").write_bytes(pack(unpack(whole), compression))
        assert load_bundle(tmp_path / "bundle.pt").manifest.robot.name == "panda"


def test_cut_short_anywhere(refused, whole):
    lengths = {0, 1, 4, 21, 22, 84, 106, 107, len(whole) // 2, *range(len(whole) - 200, len(whole)),
               *np.random.default_rng(0).integers(0, len(whole), 100).tolist()}
    for length in lengths:
        assert "not a QGF bundle, or cut short; copy or export it again" in refused(whole[:length])


def test_one_bit_flipped_anywhere(refused, whole):
    rng = np.random.default_rng(1)
    places = [(int(p), int(rng.integers(8))) for p in rng.integers(0, len(whole), 300)]
    places += [(p, p % 8) for p in range(len(whole) - 200, len(whole))]
    for place, bit in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        told = refused(bytes(damaged))
        assert "its SHA-256 does not match" in told or "not a QGF bundle" in told


def test_bytes_added_at_either_end_or_between(refused, whole):
    for extra in (b"\0", b"\n", b"x" * 84, whole):
        refused(whole + extra)
        refused(extra + whole)
        refused(whole[:1000] + extra + whole[1000:])
    unsealed = whole[:-84]
    for prefix in (b"\0", b"#!/bin/sh\n", whole):  # a stub before the archive, sealed: two readers, two opinions
        assert "zip directory" in refused(seal(prefix + unsealed[:-2] + b"\0\0"))


def test_other_files(refused, tmp_path):
    module = torch.nn.Linear(24, 7)
    torch.jit.save(torch.jit.script(module), str(tmp_path / "plain.pt"))
    torch.save(module.state_dict(), tmp_path / "state.pt")
    files = [(tmp_path / name).read_bytes() for name in ("plain.pt", "state.pt")]
    for content in (b"", b"\0" * 1000, b"text\n", *files):
        assert "not a QGF bundle" in refused(content)
    assert "zip directory" in refused(seal_bare())
    with pytest.raises(BundleError, match="no zip end record"):
        seal(b"no zip")


def seal_bare() -> bytes:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    return seal(b"PK\x03\x04" + buffer.getvalue())


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, part in ((tmp_path, "not a file"), (tmp_path / "none.pt", "No such file or directory"),
                       (Path("/dev/zero"), "not a file"), (tmp_path / "pipe", "not a file"),
                       (tmp_path / "none.pt" / "x", "No such file or directory"), (Path("a\0b"), "null")):
        for load in (load_bundle, read_manifest):
            with pytest.raises(BundleError) as caught:
                load(path)
            assert part in str(caught.value) and "\n" not in str(caught.value)
    with open(tmp_path / "huge.pt", "wb") as stream:
        stream.truncate(MAXIMUM_SIZE + 1)  # sparse: takes no room
    with pytest.raises(BundleError, match="are more than a policy can have"):
        load_bundle(tmp_path / "huge.pt")


def test_no_permission(tmp_path, whole):
    """In a process of an ordinary user, since root may read everything."""
    path = tmp_path / "bundle.pt"
    path.write_bytes(whole)
    path.chmod(0)
    code = f"""
        import os
        from qgf_core.bundle import load_bundle
        from qgf_core.errors import BundleError
        os.chdir({str(tmp_path)!r})
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        try:
            load_bundle("bundle.pt")
        except BundleError as error:
            print(error)
    """
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": str(CORE)},
                          capture_output=True, text=True, timeout=120)
    assert done.stdout == "bundle.pt: cannot be read (Permission denied); check the path\n", done


@pytest.mark.parametrize("name", ["manifest.json", "probes.json", "robot.urdf"])
def test_an_extra_file_that_is_missing_or_no_text(refused, whole, name):
    entries = unpack(whole)
    full_name = find(entries, name)
    assert refused(pack({k: v for k, v in entries.items() if k != full_name})) == f"it lacks {name}; export it again"
    assert "the archive cannot be read" in refused(pack({**entries, full_name: b"\xff\xfe\xff"}))
    refused(pack({**entries, full_name: b""}), by_torch=name == "probes.json")


def altered(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def apply(text: bytes) -> bytes:
        data = json.loads(text)
        change(data)
        return json.dumps(data).encode()
    return apply


@pytest.mark.parametrize(("change", "part"), [
    (altered(lambda p: p["actions"][3].__setitem__(2, p["actions"][3][2] + 1e-3)), "probes differ by 1.00e-03"),
    (altered(lambda p: p["actions"][0].__setitem__(0, float("nan"))), "golden probes differ by nan"),
    (altered(lambda p: p["observations"][5].__setitem__(0, 9.0)), "golden probes differ by"),
    (altered(lambda p: p["observations"][5].__setitem__(0, float("nan"))), "leave [-1, 1]"),
    (altered(lambda p: p.update(tolerance=1.0) or p["actions"][3].__setitem__(2, 0.0)), "golden probes differ by"),
    (altered(lambda p: p.update(tolerance=float("nan"))), "golden probes differ by"),
    (altered(lambda p: p.update(tolerance=-1)), "golden probes differ by"),
    (altered(lambda p: p.update(tolerance="wide")), "its probes are malformed"),
    (altered(lambda p: p.update(processor="other") or p["actions"][3].__setitem__(2, 0.0)), "probes differ by"),
    (altered(lambda p: p.update(actions=p["actions"][:-1])), "its probes' actions have shape (15, 7)"),
    (altered(lambda p: p.update(actions=[], observations=[])), "its probes have shape (0,)"),
    (altered(lambda p: p.update(observations=[row[:-1] for row in p["observations"]])), "probes have shape (16, 23)"),
    (altered(lambda p: p["observations"].__setitem__(0, [1.0])), "its probes are malformed"),
    (altered(lambda p: p.update(observations={"a": 1})), "its probes are malformed"),
    (altered(lambda p: p.update(observations=[["x"] * 24])), "its probes are malformed"),
    (altered(lambda p: p.pop("actions")), "its probes are malformed"),
    (lambda text: b"[1]", "its probes are malformed"),
    (lambda text: b"[" * 100_000, "its probes are malformed"),
    (lambda text: b"{", "its probes are malformed"),
])
def test_probes_that_do_not_match(refused, whole, change, part):
    entries = unpack(whole)
    name = find(entries, "probes.json")
    assert part in refused(pack({**entries, name: change(entries[name])}), by_torch=True)


def test_weights_that_do_not_match(refused, whole):
    entries = unpack(whole)
    name = find(entries, "data/0")
    weights = np.frombuffer(entries[name], dtype=np.float32).copy()
    weights[5] += 0.01
    assert "golden probes differ by" in refused(pack({**entries, name: weights.tobytes()}), by_torch=True)


def test_a_manifest_that_does_not_match(refused, whole):
    entries = unpack(whole)
    name = find(entries, "manifest.json")
    manifest = json.loads(entries[name])
    manifest["observation"].pop()
    told = refused(pack({**entries, name: json.dumps(manifest).encode()}), by_torch=True)
    assert told.startswith("its probes have shape (16, 24), the manifest declares 21 observations")
    manifest = json.loads(entries[name])
    manifest["schema_version"] = 99
    assert refused(pack({**entries, name: json.dumps(manifest).encode()})).startswith("manifest schema 99 is not ")
    urdf = find(entries, "robot.urdf")
    for text in (b"<robot", b"<robot name='x'/>", entries[urdf].replace(b"panda_joint3", b"other")):
        refused(pack({**entries, urdf: text}))


STRANGE_NAMES = ["{root}/code/../../../evil.py", "/etc/passwd", "../evil", "{root}/extra/../manifest.json", "evil",
                 "{root}\\code\\x.py", "other/data/0", "{root}/model.json", "{root}/bytecode.pkl", "{root}/extra/x",
                 "{root}/data/0x", "{root}/data/-1", "{root}/code/__torch__/a b.py", "{root}/code/other.py",
                 "{root}/CODE/__torch__.py", "{root}/Data.pkl", "{root}/code/__torch__.PY", "{root}/", "{root}/data/",
                 "{root}/data/0\n", "{root}/tensors/0", "{root}/attributes.pkl", "", "{root}/data/\u0661"]


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_entries_of_other_names(refused, whole, name):
    entries = unpack(whole)
    root = next(iter(entries)).partition("/")[0]
    name = name.format(root=root)
    refused(pack({**entries, name: b"x = 1\n"}))
    refused(pack({name: b"x = 1\n", **entries}))


def test_names_that_hide_their_end(refused, whole):
    """zipfile ends a name at a null byte; torch does not."""
    entries = unpack(whole)
    name = find(entries, "code/__torch__/torch/nn/modules/linear.py")
    data = bytearray(pack({**entries, name[:-4] + "_evil.py": b""})[:-84])
    old, new = (name[:-4] + "_evil.py").encode(), (name[:-4] + ".py\0xxxx").encode()
    assert data.count(old) == 2
    sealed = seal(bytes(data).replace(old, new[:len(old)].ljust(len(old), b"x"))[:-2] + b"\0\0")
    refused(sealed)


def test_a_name_twice(refused, whole):
    entries = unpack(whole)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for name, content in entries.items():
            archive.writestr(name, content)
        archive.writestr(find(entries, "robot.urdf"), b"<robot/>")
    assert "names in the archive" in refused(seal(buffer.getvalue()))


def test_letters_in_either_case_are_one_file_to_torch(refused, whole):
    """Why names are allow-listed: torch runs the code of this entry, which no check of *.py would have read."""
    entries = unpack(whole)
    code = find(entries, "linear.py")
    root, _, inner = code.partition("/")
    shouting = {(f"{root}/{inner.upper()}" if name == code else name): entries[name] for name in entries}
    assert loads_in_torch(pack(shouting))
    assert "does not belong in a policy" in refused(pack(shouting))


def test_zip_bombs(refused, whole):
    entries = unpack(whole)
    for name, size in ((find(entries, "robot.urdf"), 64 << 20), (find(entries, "linear.py"), 1 << 20),
                       (find(entries, "data.pkl"), 1 << 20), (find(entries, "data/0"), MAXIMUM_SIZE + 1)):
        bomb = pack({**entries, name: bytes(size)}, zipfile.ZIP_DEFLATED)
        assert len(bomb) < 2_000_000
        assert "; refused" in refused(bomb)


@pytest.mark.parametrize("offset", [20, 24])  # of the sizes in an entry of the directory: packed, unpacked
def test_an_entry_that_lies_about_its_size(refused, whole, offset):
    plain = pack(unpack(whole), zipfile.ZIP_DEFLATED)[:-84]
    directory = struct.unpack_from("<L", plain, len(plain) - 6)[0]
    for lie in (0, 1, 7000, 0x7FFFFFFF, 0xFFFFFFFF):
        data = bytearray(plain)
        struct.pack_into("<L", data, directory + offset, lie)
        refused(seal(bytes(data[:-2]) + b"\0\0"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(refused, whole, compression):
    assert "packed as torch does not" in refused(pack(unpack(whole), compression))


def test_encrypted_entries(refused, whole):
    plain = bytearray(pack(unpack(whole))[:-84])
    directory = struct.unpack_from("<L", plain, len(plain) - 6)[0]
    plain[directory + 8] |= 1
    assert "packed as torch does not" in refused(seal(bytes(plain[:-2]) + b"\0\0"))


@pytest.mark.parametrize("field", range(7))
def test_an_end_record_that_does_not_fit(refused, whole, field):
    """Sealed, but counts, size or place of the directory, or the length of the comment, are changed."""
    for data in (whole, pack(unpack(whole))):
        plain = data[:-84]
        values = list(struct.unpack_from("<4H2LH", plain, len(plain) - 18))
        values[field] += 1
        forged = plain[:-18] + struct.pack("<4H2LH", *values)
        refused(forged + b"qgf-bundle-1 sha256=" + sha256(forged).hexdigest().encode())


def test_a_second_directory_behind_the_first(refused, whole):
    """The 64-bit end record may point elsewhere than the plain one: readers differ in which they believe."""
    plain = whole[:-84]
    start = len(plain) - 22 - 76
    assert plain[start:start + 4] == b"PK\x06\x06"
    for place in (start + 4, start + 24, start + 32, start + 40, start + 48, start + 56 + 8):
        forged = bytearray(plain)
        forged[place] ^= 1
        told = refused(bytes(forged) + b"qgf-bundle-1 sha256=" + sha256(forged).hexdigest().encode())
        assert told == "its zip directory is not as torch writes it; export it again"


def test_sealed_nonsense_never_ends_in_another_error(tmp_path, whole):
    """Bytes changed at random in each part, packed and sealed again: refused or the same policy, and torch lives on.

    In another process, since torch's reader is C++ and would take the tests with it.
    """
    entries = unpack(whole)
    rng = np.random.default_rng(4)
    count = 0
    for name, content in entries.items():
        for _ in range(40 if name.endswith("data.pkl") else 6):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), rng.integers(1, 4)) if content else ():
                damaged[place] = rng.integers(256)
            (tmp_path / f"{count}.pt").write_bytes(pack({**entries, name: bytes(damaged)}))
            count += 1
    code = f"""
        import sys
        from qgf_core.bundle import load_bundle
        from qgf_core.errors import BundleError
        loaded = 0
        for i in range({count}):
            try:
                load_bundle(f"{tmp_path}/{{i}}.pt")
                loaded += 1
            except BundleError as error:
                assert "\\n" not in str(error)
        print("refused", {count} - loaded)
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(CORE)}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) > count // 2

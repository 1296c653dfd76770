# SPDX-License-Identifier: Apache-2.0
"""Signed bundles: who signed them is told, what was changed or signed by others is refused; keys are kept safe."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from qgf_core.bundle import load_bundle, read_manifest, save_bundle
from qgf_core.errors import BundleError, ConfigError, QgfError
from qgf_core.signing import (
    check_signature,
    fingerprint,
    load_private_key,
    load_public_key,
    load_trusted_keys,
    make_keys,
    sign_bundle,
    sign_bytes,
)

CORE = Path(__file__).resolve().parents[1]
UNSIGNED, SIGNED = 84, 290
"""Length of the archive comment."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, manifest, probes):
    """bundle.pt, signed.pt, lab.key, lab.pub, other.key, other.pub."""
    folder = tmp_path_factory.mktemp("signing")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.SiLU(), torch.nn.Linear(8, 7), torch.nn.Tanh())
    save_bundle(folder / "bundle.pt", module, manifest, probes)
    for name in ("lab", "other"):
        make_keys(folder / name)
    sign_bundle(folder / "bundle.pt", load_private_key(folder / "lab.key"), folder / "signed.pt")
    return folder


def refusal(call, *arguments, kind=QgfError):
    with pytest.raises(kind) as caught:
        call(*arguments)
    told = str(caught.value)
    assert "\n" not in told and "; " in told
    return told


def test_a_signed_bundle_tells_who_signed_it(folder):
    trusted = load_trusted_keys(str(folder / "lab.pub"))
    name = fingerprint(load_public_key(folder / "lab.pub"))
    assert re.fullmatch("[0-9a-f]{16}", name)
    bundle = load_bundle(folder / "signed.pt", trusted)
    assert bundle.signer == f"lab ({name})" and load_bundle(folder / "signed.pt").signer == name
    unsigned = load_bundle(folder / "bundle.pt")
    assert unsigned.signer == "" and unsigned.sha256 != bundle.sha256
    observation = np.linspace(-1.0, 1.0, 24)
    assert np.array_equal(bundle.act(observation), unsigned.act(observation))
    assert read_manifest(folder / "signed.pt") == read_manifest(folder / "bundle.pt")
    torch.jit.load(str(folder / "signed.pt"))  # plain torch reads it too


def test_the_signature_is_ed25519_of_all_bytes_before_the_comment_as_openssl_makes_it(folder, tmp_path):
    plain, signed = ((folder / name).read_bytes() for name in ("bundle.pt", "signed.pt"))
    end = len(plain) - UNSIGNED - 22
    assert signed[:end] == plain[:end]  # nothing but the length of the comment has changed before it
    assert signed[end:end + 20] == plain[end:end + 20] and len(signed) == end + 22 + SIGNED
    assert struct.unpack_from("<H", signed, end + 20) == (SIGNED,)
    head, comment = signed[:-SIGNED], signed[-SIGNED:].decode()
    public = load_public_key(folder / "lab.pub")
    start = f"qgf-bundle-1 sha256={sha256(head).hexdigest()} key={public.hex()} ed25519="
    assert comment.startswith(start)
    (tmp_path / "head").write_bytes(head)
    (tmp_path / "signature").write_bytes(bytes.fromhex(comment[len(start):]))
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-in", tmp_path / "head", "-sigfile", tmp_path / "signature",
               "-pubin", "-inkey", folder / "lab.pub"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "Verified Successfully" in done.stdout, done


def test_signing_again_replaces_the_signature(folder):
    data = (folder / "signed.pt").read_bytes()
    lab, other = (load_private_key(folder / f"{name}.key") for name in ("lab", "other"))
    assert sign_bytes(data, "x", lab) == data  # Ed25519 is deterministic
    again = sign_bytes(data, "x", other)
    assert len(again) == len(data) and sign_bytes(again, "x", lab) == data
    assert check_signature(again, "x", load_trusted_keys(str(folder / "other.pub"))).startswith("other (")


def test_what_is_not_signed_by_a_trusted_key_is_refused_before_torch_sees_it(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("torch was asked"))
    other = load_trusted_keys(str(folder / "other.pub"))
    told = refusal(load_bundle, folder / "bundle.pt", other, kind=BundleError)
    assert told == f"{folder}/bundle.pt: is not signed, and trusted keys are set; sign it: ./qgf sign BUNDLE --key KEY"
    told = refusal(load_bundle, folder / "signed.pt", other, kind=BundleError)
    assert "which is not among the trusted keys" in told and fingerprint(load_public_key(folder / "lab.pub")) in told
    assert "is not signed" in refusal(load_bundle, folder / "bundle.pt", {}, kind=BundleError)  # no key: nothing runs


def forged(data: bytes, head: bytes) -> bytes:
    """The comment of `data` after other bytes, its hash mended."""
    comment = data[-SIGNED:]
    return head + comment[:20] + sha256(head).hexdigest().encode() + comment[84:]


@pytest.mark.parametrize("trusting", [False, True])
def test_a_wrong_signature_is_refused_whether_or_not_keys_are_set(folder, trusting, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("torch was asked"))
    trusted = load_trusted_keys(str(folder)) if trusting else None
    data = (folder / "signed.pt").read_bytes()
    flipped = bytearray(data[:-SIGNED])
    flipped[len(flipped) // 2] ^= 4
    key = data[-SIGNED + 89:-SIGNED + 153]
    assert bytes.fromhex(key.decode()) == load_public_key(folder / "lab.pub")
    other = load_public_key(folder / "other.pub").hex().encode()
    cases = [forged(data, bytes(flipped)), data.replace(key, other), data[:-1] + (b"0" if data[-1:] != b"0" else b"1"),
             data[:-128] + b"0" * 128, data[:-128] + b"f" * 128]
    for case in cases:
        (tmp_path / "bundle.pt").write_bytes(case)
        told = refusal(load_bundle, tmp_path / "bundle.pt", trusted, kind=BundleError)
        assert "its signature by key" in told and "is wrong" in told
    for case in (data.replace(key, key.upper()), data[:-128] + b"x" * 128, data[:-1], data + b"0", data[:-137]):
        (tmp_path / "bundle.pt").write_bytes(case)
        assert "not a QGF bundle" in refusal(load_bundle, tmp_path / "bundle.pt", trusted, kind=BundleError)
    # A key that is no point of the curve, and one of small order, for which one signature fits every message.
    for strange in (b"ff" * 32, b"01" + b"00" * 31):
        (tmp_path / "bundle.pt").write_bytes(data[:-128].replace(key, strange) + strange + b"00" * 32)
        refusal(load_bundle, tmp_path / "bundle.pt", load_trusted_keys(str(folder)), kind=BundleError)


def test_the_signature_cannot_be_taken_off_where_keys_are_trusted(folder, tmp_path):
    """Without keys an unsigned bundle is what it always was; a robot that wants signatures sets trusted_keys."""
    data = bytearray((folder / "signed.pt").read_bytes()[:-SIGNED])
    struct.pack_into("<H", data, len(data) - 2, UNSIGNED)
    bare = bytes(data) + b"qgf-bundle-1 sha256=" + sha256(data).hexdigest().encode()
    assert bare == (folder / "bundle.pt").read_bytes()
    assert "is not signed" in refusal(check_signature, bare, "x", load_trusted_keys(str(folder)))


# ------------------------------------------------------------------------------------------------------------ keys


def test_keys_have_sane_modes_and_are_never_written_over(tmp_path):
    old = os.umask(0)
    try:
        make_keys(tmp_path / "new" / "lab.v1")
    finally:
        os.umask(old)
    private, public = tmp_path / "new" / "lab.v1.key", tmp_path / "new" / "lab.v1.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600 and stat.S_IMODE(public.stat().st_mode) == 0o644
    assert sorted(os.listdir(private.parent)) == ["lab.v1.key", "lab.v1.pub"]
    before = private.read_bytes()
    assert "is there already" in refusal(make_keys, tmp_path / "new" / "lab.v1", kind=ConfigError)
    private.rename(tmp_path / "kept")
    assert "lab.v1.pub: is there already" in refusal(make_keys, tmp_path / "new" / "lab.v1", kind=ConfigError)
    assert (tmp_path / "kept").read_bytes() == before and not private.exists()
    secret = load_pem_private_key(before, None).private_bytes_raw()
    assert secret not in public.read_bytes() and load_public_key(public) != secret


def test_a_private_key_is_never_readable_by_others_not_even_while_it_is_written(tmp_path, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append((Path(b).suffix, stat.S_IMODE(os.stat(a).st_mode))),
                                                     replace(a, b)))
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(("fsync", stat.S_IMODE(os.fstat(fd).st_mode))))
    make_keys(tmp_path / "lab")
    assert seen == [("fsync", 0o600), (".key", 0o600), ("fsync", 0o600), (".pub", 0o644)]


def test_a_full_folder_leaves_nothing(tmp_path):
    if os.geteuid() == 0:
        place = Path("/proc/self")  # where nobody can write
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o500)
    assert "cannot be written" in refusal(make_keys, place / "lab")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
def test_a_private_key_that_others_may_read_is_refused(tmp_path, mode):
    make_keys(tmp_path / "lab")
    (tmp_path / "lab.key").chmod(mode)
    assert "chmod 600" in refusal(load_private_key, tmp_path / "lab.key", kind=ConfigError)


def test_damaged_and_foreign_key_files_are_told_in_one_line(tmp_path, folder):
    elliptic = ec.generate_private_key(ec.SECP256R1())
    pem = (Encoding.PEM, PrivateFormat.PKCS8)
    good = (folder / "lab.key").read_bytes(), (folder / "lab.pub").read_bytes()
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(*pem, BestAvailableEncryption(b"x"))
    cases = {
        b"": "damaged", b"\0" * 100: "damaged", b"text\n": "damaged", good[0][:60]: "damaged", good[1]: "damaged",
        good[0].replace(b"-----END", b"????-----END"): "damaged", locked: "is encrypted",
        elliptic.private_bytes(*pem, NoEncryption()): "another kind", b"x" * 20_000: "no key file",
    }
    for content, part in cases.items():
        path = tmp_path / "damaged.key"
        path.write_bytes(content)
        path.chmod(0o600)
        told = refusal(load_private_key, path, kind=ConfigError)
        assert told.startswith(f"{path}: ") and part in told
    public = elliptic.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    rng = np.random.default_rng(0)
    for content, part in {b"": "damaged", good[0]: "damaged", good[1][:50]: "damaged", public: "another kind",
                          rng.bytes(113): "damaged"}.items():
        path = tmp_path / "damaged.pub"
        path.write_bytes(content)
        for load in (load_public_key, lambda p: load_trusted_keys(str(p)), lambda p: load_trusted_keys(str(p.parent))):
            told = refusal(load, path, kind=ConfigError)
            assert told.startswith(f"{path}: ") and part in told
    for path in (tmp_path, tmp_path / "none", Path("a\0b")):
        refusal(load_private_key, path, kind=ConfigError)
        refusal(load_public_key, path, kind=ConfigError)


def test_bits_flipped_in_a_public_key_never_end_in_another_error(folder, tmp_path):
    """Refused, or another key; the good bundle is then not signed by it."""
    good, rng, path = (folder / "lab.pub").read_bytes(), np.random.default_rng(3), tmp_path / "lab.pub"
    data, refused = (folder / "signed.pt").read_bytes(), 0
    for _ in range(200):
        flipped = bytearray(good)
        flipped[rng.integers(len(good))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(flipped))
        try:
            key = load_public_key(path)
        except ConfigError:
            refused += 1
            continue
        if key != load_public_key(folder / "lab.pub"):
            refusal(check_signature, data, "x", {key: "lab"}, kind=BundleError)
    assert refused > 50


def test_trusted_keys_are_files_and_folders(tmp_path, folder):
    both = load_trusted_keys(str(folder))
    assert sorted(both.values()) == ["lab", "other"]  # neither bundles nor private keys count
    assert load_trusted_keys(f"{folder}/lab.pub:{folder}/other.pub") == both == load_trusted_keys(f":{folder}:")
    empty = tmp_path / "empty"
    empty.mkdir()
    for places, part in ((str(empty), "holds no *.pub file"), (str(tmp_path / "none"), "No such file"), (":", "no key"),
                         (f"{folder}/lab.pub:{tmp_path}/none", "No such file"), ("a\0b", "cannot be read")):
        assert part in refusal(load_trusted_keys, places, kind=ConfigError)
    (empty / "lab.pub").write_bytes((folder / "lab.pub").read_bytes())
    empty.chmod(0o777)
    assert "everybody may write" in refusal(load_trusted_keys, str(empty), kind=ConfigError)


def test_sign_refuses_what_is_no_good_bundle_and_changes_nothing(tmp_path, folder):
    path, key = tmp_path / "bundle.pt", load_private_key(folder / "lab.key")
    good = (folder / "bundle.pt").read_bytes()
    for content in (b"", b"text", good[:-1], good[:1000] + b"x" + good[1001:]):
        path.write_bytes(content)
        refusal(sign_bundle, path, key, path, kind=BundleError)
        assert path.read_bytes() == content and os.listdir(tmp_path) == ["bundle.pt"]


# ---------------------------------------------------------------------------------------------------- command line


def run(*arguments, cwd):
    code = "import sys; from qgf_core.signing_cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(CORE)}
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], cwd=cwd, env=environment,
                          capture_output=True, text=True, timeout=120)


def test_the_commands_from_keys_to_a_verified_bundle(tmp_path, folder):
    (tmp_path / "bundle.pt").write_bytes((folder / "bundle.pt").read_bytes())
    for arguments in (["keygen"], ["sign", "bundle.pt", "--key", "keys/qgf.key"]):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done
    name = fingerprint(load_public_key(tmp_path / "keys" / "qgf.pub"))
    assert done.stdout == f"bundle.pt: signed with key {name}\n"
    done = run("verify", "bundle.pt", "--trusted-keys", "keys", cwd=tmp_path)
    assert done.returncode == 0 and f"bundle.pt: good, signed by qgf ({name}); reach for panda" in done.stdout, done
    done = run("verify", "bundle.pt", "--trusted-keys", folder, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("qgf: error: bundle.pt: signed with key ")
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_the_archive_is_read_as_zip(folder):
    with zipfile.ZipFile(io.BytesIO((folder / "signed.pt").read_bytes())) as archive:
        assert len(archive.comment) == SIGNED and archive.testzip() is None

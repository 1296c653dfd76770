# SPDX-License-Identifier: Apache-2.0
"""Who made a bundle: Ed25519 signatures (RFC 8032), and the public keys that a robot trusts.

A signature covers every byte before the archive comment, which holds it (`qgf_core.archive`). Keys are PEM files, as
openssl reads and writes them: `NAME.key` (PKCS #8, readable by its owner alone) and `NAME.pub`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from qgf_core.archive import read_archive, read_seal, seal, unseal
from qgf_core.errors import BundleError, ConfigError
from qgf_core.files import write_atomic

PRIVATE, PUBLIC = ".key", ".pub"
LARGEST_KEY = 16 * 1024
"""Of a key file [bytes]; one has about 120."""


def fingerprint(key: bytes) -> str:
    """A public key (32 bytes) in short: the first 16 digits of its SHA-256."""
    return sha256(key).hexdigest()[:16]


def make_keys(stem: Path) -> str:
    """Write a new pair, `stem`.key and `stem`.pub. Returns the fingerprint.

    :raises ConfigError: one of them is there already. :raises QgfError: a file cannot be written.
    """
    private, public = stem.with_name(stem.name + PRIVATE), stem.with_name(stem.name + PUBLIC)
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise ConfigError(path, "", "is there already", "give another --out; a lost key cannot be made again")
    key = Ed25519PrivateKey.generate()
    # The secret first: a public key whose secret could not be written must not get into anybody's trusted keys.
    write_atomic(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    write_atomic(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return fingerprint(key.public_key().public_bytes_raw())


def _read_key(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_KEY:
            raise ConfigError(path, "", "is no key file", "make a pair by ./qgf keygen")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(path, "", f"the key cannot be read ({reason})", "check the path and its mode") from error


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The key to sign with. :raises ConfigError: unreadable, readable by others, damaged, encrypted, another kind."""
    data = _read_key(path)
    if path.stat().st_mode & 0o077:
        mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
        raise ConfigError(path, "", f"others may read or write this private key (mode {mode})", "chmod 600 it")
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise ConfigError(path, "", "the key is encrypted", "decrypt it first (openssl pkey)") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(path, "", "no private key, or damaged", "give the .key file of ./qgf keygen") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(path, "", f"a key of another kind ({type(key).__name__})", "make one by ./qgf keygen")
    return key


def load_public_key(path: Path) -> bytes:
    """A public key (32 bytes). :raises ConfigError: unreadable, damaged, another kind."""
    try:
        key = load_pem_public_key(_read_key(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(path, "", "no public key, or damaged", "give a .pub file of ./qgf keygen") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(path, "", f"a key of another kind ({type(key).__name__})", "make one by ./qgf keygen")
    return key.public_bytes_raw()


def load_trusted_keys(places: str) -> dict[bytes, str]:
    """Public keys (32 bytes) and their names.

    :param places: files, and folders whose *.pub files count, separated by ':'.
    :raises ConfigError: a place is not there, may be written by everybody, holds no key or a damaged one.
    """
    keys: dict[bytes, str] = {}
    for place in filter(None, places.split(os.pathsep)):
        path = Path(place).expanduser()
        files = [path]
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                files = sorted(path.glob(f"*{PUBLIC}"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(path, "trusted_keys", f"cannot be read ({reason})", "check the path") from error
        if mode & stat.S_IWOTH:
            problem = "everybody may write there, and so trust their own key"
            raise ConfigError(path, "trusted_keys", problem, "chmod o-w it")
        if not files:
            remedy = f"put the *{PUBLIC} files there whose bundles may run"
            raise ConfigError(path, "trusted_keys", f"the folder holds no *{PUBLIC} file", remedy)
        keys.update({load_public_key(file): file.stem for file in files})
    if not keys:
        raise ConfigError("trusted_keys", "", f"{places!r} names no key", "give a folder of *.pub files")
    return keys


def check_signature(data: bytes, path: object, trusted: Mapping[bytes, str] | None = None) -> str:
    """Judge the signature of a bundle's bytes.

    :param trusted: public keys and names; None: an unsigned bundle will do, but a wrong signature never.
    :returns: who signed it, for human readers; "" if nobody has.
    :raises BundleError: no bundle, changed, wrongly signed, or not signed by a trusted key.
    """
    found = read_seal(data, path)
    if not found.key:
        if trusted is None:
            return ""
        raise BundleError(f"{path}: is not signed, and trusted keys are set; sign it: ./qgf sign BUNDLE --key KEY")
    name = fingerprint(found.key)
    if trusted is not None and found.key not in trusted:
        raise BundleError(f"{path}: signed with key {name}, which is not among the trusted keys; "
                          "get a bundle signed with a trusted key, or trust this one")
    try:
        Ed25519PublicKey.from_public_bytes(found.key).verify(found.signature, data[:found.length])
    except (InvalidSignature, ValueError) as error:
        raise BundleError(f"{path}: its signature by key {name} is wrong: it was changed after it was signed; "
                          "get it again from who signed it") from error
    return f"{trusted[found.key]} ({name})" if trusted is not None else name


def sign_bytes(data: bytes, path: object, key: Ed25519PrivateKey) -> bytes:
    """A bundle's bytes with this signature in place of any other. :raises BundleError: no bundle."""
    public = key.public_key().public_bytes_raw()
    return seal(unseal(data, path), lambda head: (public, key.sign(head)))


def sign_bundle(path: Path, key: Ed25519PrivateKey, out: Path) -> str:
    """Sign the bundle file `path` and write it to `out`, which may be the same. Returns the key's fingerprint.

    What is signed has passed the checks that need no torch; `load_bundle` it first to have it run as well.

    :raises BundleError: no good bundle. :raises QgfError: it cannot be written.
    """
    signed = sign_bytes(read_archive(path), path, key)
    check_signature(signed, path)
    write_atomic(out, signed)
    return fingerprint(key.public_key().public_bytes_raw())

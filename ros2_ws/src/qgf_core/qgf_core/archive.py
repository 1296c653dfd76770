# SPDX-License-Identifier: Apache-2.0
"""The bundle as an archive: its seal, and every check that can be made before torch sees it.

The file is the zip archive that `torch.jit.save` writes, with `extra/manifest.json`, `extra/probes.json`,
`extra/robot.urdf` and, where it is wanted, `extra/critic.safetensors` as entries. The archive comment holds the SHA-256
of all bytes before it: torch checks no CRC, so that a flipped bit would change the policy without a word. Beside it may
stand an Ed25519 signature over the same bytes, with the public key that it was made with (`qgf_core.signing`).

A seal proves that nothing was damaged, a signature who made it, neither that its maker was honest; and two programs may
read one zip file differently (torch finds entries in either case of letters, prefers a legacy format where it finds
`model.json`, ...). So only archives that can be read in one way are accepted: entries of known names, and one
consistent directory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from qgf_core.errors import BundleError
from qgf_core.pickle_check import check_pickle
from qgf_core.script_check import check_script

MAXIMUM_SIZE = 256 * 1024 * 1024
"""Of the archive, and of all entries unpacked [bytes]."""
MAXIMUM_TEXT = 16 * 1024 * 1024
"""Of one manifest, probe file or URDF [bytes]."""
MAXIMUM_CODE = 256 * 1024
"""Of one source file or pickle [bytes]."""
EXTRA_FILES = ("manifest.json", "probes.json", "robot.urdf")
CRITIC_FILE = "critic.safetensors"
"""Optional: see `qgf_core.critic_file`."""

_LOCAL_HEADER = struct.Struct("<4s22x2H")
_END_RECORD = struct.Struct("<4s4H2LH")
_END64_RECORD = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_SEAL = b"qgf-bundle-1 sha256="
_COMMENT = re.compile(rb"qgf-bundle-1 sha256=([0-9a-f]{64})(?: key=([0-9a-f]{64}) ed25519=([0-9a-f]{128}))?")
_SEAL_LENGTH = len(_SEAL) + 64
_SIGNED_LENGTH = _SEAL_LENGTH + len(" key=") + 64 + len(" ed25519=") + 128
_FLAGS = 0x808  # names in UTF-8, sizes after the data: what torch writes

_TEXT_ENTRY = re.compile(r"extra/(manifest\.json|probes\.json|robot\.urdf)")
_CODE_ENTRY = re.compile(r"code/(__torch__|__torch__/[A-Za-z0-9_/]+)\.py")
_PICKLE_ENTRY = re.compile(r"(data\.pkl|constants\.pkl|code/(__torch__|__torch__/[A-Za-z0-9_/]+)\.py\.debug_pkl)")
_DATA_ENTRY = re.compile(
    r"(data|constants)/[0-9]+|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment")


def read_archive(path: str | Path) -> bytes:
    """The bytes of a file that may be a bundle. :raises BundleError: none, unreadable, or far too large."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: not a file; check the path")
        if status.st_size > MAXIMUM_SIZE:
            raise BundleError(f"{path}: {status.st_size} bytes are more than a policy can have; check the path")
        return Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:  # a null byte in the path
        raise BundleError(f"{path!r}: cannot be read ({error}); check the path") from error


@dataclasses.dataclass(frozen=True)
class Seal:
    """What the comment of an archive says, its SHA-256 found right; the signature is not judged here."""

    length: int
    """Of the bytes before the comment, which SHA-256 and signature are of."""
    key: bytes = b""
    """Public key (32 bytes) that the signature claims; empty in an unsigned bundle."""
    signature: bytes = b""


def seal(archive: bytes, sign: Callable[[bytes], tuple[bytes, bytes]] | None = None) -> bytes:
    """A zip archive with the SHA-256 of its bytes, end record included, as its comment.

    :param sign: gives the public key (32 bytes) and the signature (64 bytes) of these bytes; None: unsigned.
    :raises BundleError: not a zip archive without a comment.
    """
    start = len(archive) - _END_RECORD.size
    if start < 0 or archive[start:start + 4] != b"PK\x05\x06":
        raise BundleError("archive: no zip end record; it must be what torch.jit.save wrote")
    fields = list(_END_RECORD.unpack(archive[start:]))
    fields[-1] = _SEAL_LENGTH if sign is None else _SIGNED_LENGTH
    head = archive[:start] + _END_RECORD.pack(*fields)
    sealed = head + _SEAL + hashlib.sha256(head).hexdigest().encode()
    if sign is None:
        return sealed
    key, signature = sign(head)
    return sealed + f" key={key.hex()} ed25519={signature.hex()}".encode()


def unseal(data: bytes, path: object) -> bytes:
    """The archive as it was before `seal`, to be sealed anew. :raises BundleError: no bundle."""
    return data[:read_seal(data, path).length - 2] + b"\0\0"  # a comment of no length


def read_seal(data: bytes, path: object) -> Seal:
    """The seal of a bundle's bytes. :raises BundleError: none, or the bytes before it are not what was sealed."""
    for length in (_SEAL_LENGTH, _SIGNED_LENGTH):
        start = len(data) - length
        found = _COMMENT.fullmatch(data, start) if start >= _END_RECORD.size else None
        if found is not None:
            break
    else:
        raise BundleError(f"{path}: not a QGF bundle, or cut short; copy or export it again")
    if hashlib.sha256(data[:start]).hexdigest().encode() != found[1]:
        raise BundleError(f"{path}: its SHA-256 does not match: it was changed or damaged; copy or export it again")
    if found[2] is None:
        return Seal(start)
    return Seal(start, bytes.fromhex(found[2].decode()), bytes.fromhex(found[3].decode()))


def open_sealed(data: bytes, path: object) -> dict[str, str]:
    """The texts of EXTRA_FILES by name, after seal, archive, scripts and pickles were found good.

    :param path: for messages.
    :raises BundleError: anything else.
    """
    start = read_seal(data, path).length
    directory = _find_directory(data, start - _END_RECORD.size, path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_layout(data, archive.infolist(), directory, path)
            return _check_entries(archive, path)
    except (zipfile.BadZipFile, zlib.error, struct.error, UnicodeDecodeError, ValueError, LookupError, OverflowError,
            RuntimeError, EOFError, OSError) as error:
        raise BundleError(f"{path}: the archive cannot be read ({error}); export it again") from error


def _find_directory(data: bytes, end: int, path: object) -> int:
    """Offset of the directory. :raises BundleError: the end record at `end` does not describe what stands before it."""
    magic, disk, start_disk, here, entries, size, offset, comment = _END_RECORD.unpack_from(data, end)
    directory_end = offset + size
    good = (magic == b"PK\x05\x06" and disk == start_disk == 0 and here == entries
            and comment == len(data) - end - _END_RECORD.size)
    if good and directory_end + _END64_RECORD.size + _END64_LOCATOR.size == end:
        record = _END64_RECORD.unpack_from(data, directory_end)
        locator = _END64_LOCATOR.unpack_from(data, directory_end + _END64_RECORD.size)
        good = (record[:2] == (b"PK\x06\x06", _END64_RECORD.size - 12)
                and record[4:] == (0, 0, entries, entries, size, offset)
                and locator == (b"PK\x06\x07", 0, directory_end, 1))
    else:
        good = good and directory_end == end
    if not good or not data.startswith(b"PK\x03\x04"):
        raise BundleError(f"{path}: its zip directory is not as torch writes it; export it again")
    return int(offset)


def _check_layout(data: bytes, infos: list[zipfile.ZipInfo], directory: int, path: object) -> None:
    """:raises BundleError: entries overlap, or have another name in front of their data than in the directory."""
    infos = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in infos[1:]] + [directory]
    for info, end in zip(infos, ends, strict=True):
        start = info.header_offset + _LOCAL_HEADER.size
        magic, name_length, extra_length = _LOCAL_HEADER.unpack_from(data, info.header_offset)
        name = data[start:start + name_length]
        if (magic != b"PK\x03\x04" or name != info.orig_filename.encode("utf-8")
                or start + name_length + extra_length + info.compress_size > end):
            raise BundleError(f"{path}: its entries are not where its zip directory says; export it again")


def _check_entries(archive: zipfile.ZipFile, path: object) -> dict[str, str]:
    infos = archive.infolist()
    names = [info.orig_filename for info in infos]
    root = names[0].partition("/")[0] if names else ""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", root) or root.strip(".") == "" or len(set(names)) != len(names):
        raise BundleError(f"{path}: the names in the archive are malformed; export it again")
    if sum(info.file_size for info in infos) > MAXIMUM_SIZE:
        raise BundleError(f"{path}: it unpacks to more than {MAXIMUM_SIZE} bytes; refused")
    texts: dict[str, str] = {}
    wanted: dict[str, int] = {}
    for info, name in zip(infos, names, strict=True):
        inner = name[len(root) + 1:] if name.startswith(root + "/") else ""
        if info.flag_bits & ~_FLAGS or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{path}: entry {name!r} is packed as torch does not; export it again")
        if _DATA_ENTRY.fullmatch(inner):
            continue
        text = _TEXT_ENTRY.fullmatch(inner)
        critic = inner == f"extra/{CRITIC_FILE}"
        if info.file_size > (MAXIMUM_TEXT if text or critic else MAXIMUM_CODE):
            raise BundleError(f"{path}: entry {name!r} has {info.file_size} bytes, more than a policy needs; refused")
        if text:
            texts[text[1]] = archive.read(info).decode("utf-8")
        elif critic:
            archive.read(info)  # its checksum; what it holds is for `critic_entry` and whoever wants it
        elif _CODE_ENTRY.fullmatch(inner):
            check_script(archive.read(info).decode("utf-8"), path)
        elif _PICKLE_ENTRY.fullmatch(inner):
            folder = "constants/" if inner == "constants.pkl" else "data/"
            needed = check_pickle(archive.read(info), path)
            wanted.update({root + "/" + folder + key: size for key, size in needed.items()})
        else:
            raise BundleError(f"{path}: entry {name[:200]!r} does not belong in a policy; refused")
    sizes = {info.orig_filename: info.file_size for info in infos}
    for name, size in wanted.items():
        if sizes.get(name, -1) < size:
            raise BundleError(f"{path}: entry {name[:200]!r} is shorter than the weights that it should hold; refused")
    for name in EXTRA_FILES:
        if name not in texts:
            raise BundleError(f"{path}: it lacks {name}; export it again")
    return texts


def critic_entry(data: bytes) -> bytes | None:
    """The packed critic of an archive that `open_sealed` found good; None where it carries none."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name.partition("/")[2] == f"extra/{CRITIC_FILE}"]
        return archive.read(names[0]) if names else None

# SPDX-License-Identifier: Apache-2.0
"""What TorchScript and its pickles may say: each way round the lists is tried, and torch shows that it would work."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import torch

from qgf_core.archive import open_sealed, seal
from qgf_core.errors import BundleError
from qgf_core.pickle_check import check_pickle
from qgf_core.script_check import ALLOWED_OPERATORS, check_script

Entries = dict[str, bytes]
FORWARD = "    return torch.tanh((net).forward(o, ))"


class Policy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.SiLU(), torch.nn.Linear(8, 7))

    def forward(self, o: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.net(o))


@pytest.fixture(scope="module")
def entries() -> Entries:
    """A policy's archive, entry by entry; its source ends in FORWARD."""
    buffer = io.BytesIO()
    texts = {"manifest.json": "{}", "probes.json": "{}", "robot.urdf": "<robot/>"}
    torch.jit.save(torch.jit.script(Policy()), buffer, _extra_files=texts)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def pack(entries: Entries) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def with_code(entries: Entries, change: Callable[[str], str]) -> Entries:
    name = next(name for name in entries if name.endswith(".py") and FORWARD in entries[name].decode())
    old = entries[name].decode()
    new = change(old)
    assert new != old
    return {**entries, name: new.encode()}


def refusal(entries: Entries) -> str:
    with pytest.raises(BundleError) as caught:
        open_sealed(seal(pack(entries)), "bundle.pt")
    told = str(caught.value)
    assert told.startswith("bundle.pt: ") and "\n" not in told and len(told) < 400
    return told[len("bundle.pt: "):]


def test_an_honest_policy_passes(entries):
    assert set(open_sealed(seal(pack(entries)), "bundle.pt")) == {"manifest.json", "probes.json", "robot.urdf"}


# Each of these makes torch read a file of the user's choice while it acts: seven numbers that the test put there.
READS_A_FILE = {
    "plainly": 'return torch.from_file("{file}", False, 7)',
    "by the namespace of operators": 'return ops.aten.from_file("{file}", False, 7)',
    "by the name of annotate": 'annotate = torch.from_file\n    return annotate("{file}", False, 7)',
    "by the name of getattr": 'getattr = ops.aten.from_file\n    return getattr("{file}", False, 7)',
    "by a variable": 'f = torch.from_file\n    return f("{file}", False, 7)',
    "by a variable named forward": 'forward = torch.from_file\n    return forward("{file}", False, 7)',
    "by a variable named like a functional": '_0 = torch.from_file\n    return _0("{file}", False, 7)',
    "by getattr": 'relu = getattr(torch, "from_file")\n    return relu("{file}", False, 7)',
    "by getattr at once": 'return (getattr(torch, "from_file"))("{file}", False, 7)',
    "by a namespace in a variable": 't = torch\n    return t.from_file("{file}", False, 7)',
    "after a functional's name": '_0 = __torch__.torch.nn.functional.silu\n    _0 = torch.from_file\n'
                                 '    return _0("{file}", False, 7)',
    "in a condition": 'return torch.from_file("{file}", False, 7) if True else o',
    "in an index": 'return [torch.from_file("{file}", False, 7)][0]',
}


@pytest.mark.parametrize("way", READS_A_FILE)
def test_every_way_to_a_file_is_refused(entries, tmp_path, way):
    secret = np.arange(7, dtype=np.float32)
    (tmp_path / "secret").write_bytes(secret.tobytes())
    line = "    " + READS_A_FILE[way].replace("{file}", str(tmp_path / "secret"))
    forged = with_code(entries, lambda code: code.replace(FORWARD, line))
    module = torch.jit.load(io.BytesIO(pack(forged)))  # the danger is real: torch by itself takes it ...
    np.testing.assert_array_equal(module(torch.zeros(1, 24)).numpy(), secret)  # ... and reads the file
    assert refusal(forged).startswith("its code ")


@pytest.mark.parametrize(("change", "part"), [
    (lambda c: c.replace("  def forward", "  def __setstate__(self, x: int) -> None:\n    pass\n  def forward"),
     "its code defines '__setstate__'"),
    (lambda c: c.replace("  def forward", "  def __getattr__(self, x: str) -> int:\n    return 1\n  def forward"),
     "its code defines '__getattr__'"),
    (lambda c: c.replace(FORWARD, "    while True:\n      pass\n" + FORWARD), "its code contains 'While'"),
    (lambda c: c.replace(FORWARD, "    for i in [1]:\n      pass\n" + FORWARD), "its code contains 'For'"),
    (lambda c: c.replace(FORWARD, "    x = [i for i in [1]]\n" + FORWARD), "its code contains 'ListComp'"),
    (lambda c: c.replace(FORWARD, "    import os\n" + FORWARD), "its code contains 'Import'"),
    (lambda c: c.replace(FORWARD, "    from os import system\n" + FORWARD), "its code contains 'ImportFrom'"),
    (lambda c: c.replace(FORWARD, "    with o:\n      pass\n" + FORWARD), "its code contains 'With'"),
    (lambda c: c.replace(FORWARD, "    x = lambda: 1\n" + FORWARD), "its code contains 'Lambda'"),
    (lambda c: c.replace(FORWARD, "    raise o\n" + FORWARD), "its code contains 'Raise'"),
    (lambda c: c.replace(FORWARD, "    assert o\n" + FORWARD), "its code contains 'Assert'"),
    (lambda c: c.replace(FORWARD, "    global o\n" + FORWARD), "its code contains 'Global'"),
    (lambda c: c.replace(FORWARD, "    x = f'{o}'\n" + FORWARD), "its code contains 'JoinedStr'"),
    (lambda c: c.replace(FORWARD, "    def relu(x: int) -> int:\n      return x\n" + FORWARD),
     "its code defines 'relu' within something else"),
    (lambda c: c.replace(FORWARD, "    print(o)\n" + FORWARD), "its code calls 'print'"),
    (lambda c: c.replace(FORWARD, "    torch.save(o)\n" + FORWARD), "its code calls 'torch.save'"),
    (lambda c: c.replace(FORWARD, "    torch.manual_seed(1)\n" + FORWARD), "its code calls 'torch.manual_seed'"),
    (lambda c: c.replace(FORWARD, "    torch.zeros([1000000, 1000000])\n" + FORWARD), "its code calls 'torch.zeros'"),
    (lambda c: c.replace(FORWARD, "    ops.aten.forward(o)\n" + FORWARD), "its code calls 'ops.aten.forward'"),
    (lambda c: c.replace(FORWARD, "    __torch__.x.forward(o)\n" + FORWARD), "its code calls '__torch__.x.forward'"),
    (lambda c: c.replace(FORWARD, "    __torch__.torch.classes.a.B()\n" + FORWARD), "its code calls '__torch__"),
    (lambda c: c.replace(FORWARD, "    torch.ops.aten.relu(o)\n" + FORWARD), "its code calls 'torch.ops.aten.relu'"),
    (lambda c: c.replace(FORWARD, "    o.save()\n" + FORWARD), "its code calls 'o.save'"),
    (lambda c: c.replace(FORWARD, "    torch = o\n" + FORWARD), "its code renames 'torch'"),
    (lambda c: c.replace("o: Tensor", "annotate: Tensor"), "its code renames 'annotate'"),
    (lambda c: c.replace("o: Tensor)", 'o: Tensor=torch.from_file("x"))'), "its code calls 'torch.from_file'"),
    (lambda c: c.replace("(Module)", "(NamedTuple)"), "no Module"),
    (lambda c: c.replace("(Module)", "(Module, Module)"), "no Module"),
    (lambda c: c.replace("class ", "@torch.jit.ignore\nclass "), "no Module"),
    (lambda c: c.replace("  def forward", "  @torch.jit.ignore\n  def forward"), "its code defines 'forward'"),
    (lambda c: c + "\nx = 1\n", "its code does more than define"),
    (lambda c: c + "\nasync def forward(x: int) -> int:\n  return x\n", "its code contains 'AsyncFunctionDef'"),
    (lambda c: c.replace(FORWARD, FORWARD + "  # a comment"), "its code holds characters"),
    (lambda c: c.replace(FORWARD, '    x = "a\\n"\n' + FORWARD), "its code holds characters"),
    (lambda c: c.replace(FORWARD, '    x = """a"""\n' + FORWARD), "its code holds characters"),
    (lambda c: c.replace(FORWARD, "    x = 1\r" + FORWARD), "its code holds characters"),
    (lambda c: c.replace(FORWARD, "    x = 1\f\n" + FORWARD), "its code holds characters"),
    (lambda c: c.replace(FORWARD, "    x = '\u00e9'\n" + FORWARD), "its code holds characters"),
    (lambda c: "\ufeff" + c, "its code holds characters"),
    (lambda c: c.replace(FORWARD, "    x = (\n" + FORWARD), "its code cannot be parsed"),
    (lambda c: c.replace(FORWARD, "    x = " + "(" * 500 + ")" * 500 + "\n" + FORWARD), "its code cannot be parsed"),
    (lambda c: c.replace(FORWARD, "    x = " + "-" * 100_000 + "1\n" + FORWARD), "its code cannot be parsed"),
    (lambda c: c.replace(FORWARD, "    x = o" + ".a" * 50_000 + "\n" + FORWARD), "its code cannot be parsed"),
    (lambda c: c.replace(FORWARD, "    o" + ".a" * 900 + "()\n" + FORWARD), "its code cannot be parsed"),
    (lambda c: c.replace(FORWARD, "    o" + ".a" * 100 + "()\n" + FORWARD), "its code calls 'o.a.a"),
])
def test_other_things_that_code_could_say(entries, change, part):
    assert part in refusal(with_code(entries, change))


def test_nothing_but_the_listed_operators(entries):
    """Of all operators that torch has, by name."""
    names = {str(schema.name).partition("::")[2] for schema in torch._C._jit_get_all_schemas()
             if str(schema.name).startswith("aten::")}
    names = {name for name in names if name.isidentifier()}
    assert len(names) > 500 and names >= ALLOWED_OPERATORS - {"mish_"}
    for name in sorted(names - ALLOWED_OPERATORS):
        with pytest.raises(BundleError):
            check_script(f"def forward(o: Tensor) -> Tensor:\n  return torch.{name}(o)\n", "x")
    for name in ALLOWED_OPERATORS:
        check_script(f"def forward(o: Tensor) -> Tensor:\n  return torch.{name}(o)\n", "x")
    assert not ALLOWED_OPERATORS & {"from_file", "save", "load", "set_data", "set_", "resize_", "as_strided", "to"}


def with_pickle(entries: Entries, change: Callable[[bytes], bytes]) -> Entries:
    new = change(entries["data.pkl"])
    assert new != entries["data.pkl"]
    return {**entries, "data.pkl": new}


@pytest.mark.parametrize(("change", "part"), [
    (lambda p: p.replace(b"ccollections\nOrderedDict\n", b"cos\nsystem\n"), "it names 'os system'"),
    (lambda p: p.replace(b"ccollections\nOrderedDict\n", b"cbuiltins\neval\n"), "it names 'builtins eval'"),
    (lambda p: p.replace(b"ccollections\nOrderedDict\n", b"ctorch\nload\n"), "it names 'torch load'"),
    (lambda p: p[:2] + b"c__torch__.torch.classes.x\nY\n" + p[2:], "it names '__torch__.torch.classes.x Y'"),
    (lambda p: p[:2] + b"c__torch__.torch\nclasses.x.Y\n" + p[2:], "it names '__torch__.torch classes.x.Y'"),
    (lambda p: p[:2] + b"c__torch__ os\nY\n" + p[2:], "it names '__torch__ os Y'"),
    (lambda p: p.replace(b"ctorch\nFloatStorage\n", b"ctorch\nHalfStorage\n"), "it names 'torch HalfStorage'"),
    (lambda p: p.replace(b"ctorch\nFloatStorage\n", b"ctorch\nDoubleStorage\n"), "is shorter than the weights"),
    (lambda p: p.replace(b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"), "a storage is malformed"),
    (lambda p: p.replace(b"cpu", b"gpu"), "a storage is malformed"),
    (lambda p: p.replace(b"storage", b"STORAGE"), "a storage is malformed"),
    (lambda p: p[:2] + b"\x8c\x02os\x8c\x06system\x93" + p[2:], "it holds the opcode SHORT_BINUNICODE"),
    (lambda p: p[:2] + b"(ios\nsystem\n" + p[2:], "it holds the opcode INST"),
    (lambda p: p[:2] + b"\x82\x01" + p[2:], "it holds the opcode EXT1"),
    (lambda p: p[:2] + b"Px\n" + p[2:], "it holds the opcode PERSID"),
    (lambda p: pickle.dumps(test_an_honest_policy_passes), "it holds the opcode"),
    (lambda p: p[:-1], "is not as torch writes it"),
    (lambda p: p[:50], "is not as torch writes it"),
    (lambda p: b"", "is not as torch writes it"),
    (lambda p: b"\x80\x02R.", "is not as torch writes it"),
    (lambda p: b"\x80\x02h\x07.", "is not as torch writes it"),
    (lambda p: b"\x80\x02NQ.", "is not as torch writes it"),
    (lambda p: b"\x80\x02t.", "is not as torch writes it"),
])
def test_pickles_that_name_or_do_other_things(entries, change, part):
    assert part in refusal(with_pickle(entries, change))


def number_after(name: str, opcode: str, nth: int) -> Callable[[bytes], tuple[int, int]]:
    """Place and length of the nth number after a member's name in a pickle."""
    def find(data: bytes) -> tuple[int, int]:
        operations = [(o.name, a, p) for o, a, p in pickletools.genops(data)]
        start = next(i for i, (_, a, _) in enumerate(operations) if a == name)
        numbers = [i for i in range(start, len(operations)) if operations[i][0] == opcode]
        return operations[numbers[nth]][2], operations[numbers[nth] + 1][2] - operations[numbers[nth]][2]
    return find


LARGE = b"J\xff\xff\xff\x7f"  # BININT 2147483647


@pytest.mark.parametrize(("nth", "number", "part"), [
    (0, LARGE, "is shorter than the weights"),  # items in the storage, 192 of them
    (0, b"K\xc1", "is shorter than the weights"),
    (0, b"K\xbf", "a tensor reaches beyond its storage"),
    (0, b"J\xff\xff\xff\xff", "a storage is malformed"),
    (1, b"K\x01", "a tensor reaches beyond its storage"),  # offset
    (1, b"J\xff\xff\xff\xff", "a tensor is malformed"),
    (2, LARGE, "a tensor reaches beyond its storage"),  # rows
    (2, b"K\x09", "a tensor reaches beyond its storage"),
    (3, LARGE, "a tensor reaches beyond its storage"),  # columns
    (3, b"J\xff\xff\xff\xff", "a tensor is malformed"),
    (4, LARGE, "a tensor reaches beyond its storage"),  # strides
    (5, b"K\x02", "a tensor reaches beyond its storage"),
    (5, b"N", "a tensor is malformed"),
])
def test_tensors_that_reach_beyond_their_data(entries, nth, number, part):
    def change(data: bytes) -> bytes:
        place, length = number_after("weight", "BININT1", nth)(data)
        return data[:place] + number + data[place + length:]
    assert part in refusal(with_pickle(entries, change))


def test_torch_itself_would_read_beyond(entries):
    """Why the sizes are checked: torch takes weights from memory that is not the file's."""
    forged = {**entries, "data/3": entries["data/3"][:4]}  # one of seven numbers
    module = torch.jit.load(io.BytesIO(pack(forged)))
    assert dict(module.named_parameters())["net.2.bias"].shape == (7,)
    assert refusal(forged) == "entry 'archive/data/3' is shorter than the weights that it should hold; refused"
    missing = {name: content for name, content in entries.items() if name != "data/3"}
    assert "is shorter than the weights" in refusal(missing)


def test_an_expanded_tensor_is_refused(entries):
    """Strides of 0 would make terabytes of one number."""
    def change(data: bytes) -> bytes:
        for nth, number in ((5, b"K\x00"), (4, b"K\x00"), (3, LARGE), (2, LARGE)):  # from behind: places stay
            place, length = number_after("weight", "BININT1", nth)(data)
            data = data[:place] + number + data[place + length:]
        return data
    assert "beyond its storage" in refusal(with_pickle(entries, change))


def test_positions_and_constants_are_read_too(entries):
    debug = next(name for name in entries if name.endswith(".debug_pkl"))
    for name in (debug, "constants.pkl"):
        assert "it names 'os system'" in refusal({**entries, name: b"\x80\x02cos\nsystem\n."})
    taken = (b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
             b"X\x03\x00\x00\x00cpuK\x08tQ.")
    assert refusal({**entries, "constants.pkl": taken}).startswith("entry 'archive/constants/0' is shorter")


def test_a_pickle_is_never_executed(tmp_path):
    mark = tmp_path / "mark"
    command = f"touch {mark}".encode()
    code = b"cos\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR."
    with pytest.raises(BundleError, match="it names 'os system'"):
        check_pickle(b"\x80\x02" + code, "x")
    assert not mark.exists()
    pickle.loads(b"\x80\x02" + code)  # noqa: S301 - proves that it would have worked
    assert mark.exists()

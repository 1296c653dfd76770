# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what is refused, and in which words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qgf_core.config import config_root, find_config, from_mapping, load_yaml, parse_yaml, to_mapping
from qgf_core.errors import ConfigError, QgfError, RobotError, StateError


@dataclasses.dataclass(frozen=True)
class Inner:
    gain: float
    label: str = "x"


@dataclasses.dataclass(frozen=True)
class Outer:
    rate: float
    count: int = 1
    enabled: bool = False
    mode: Literal["fast", "slow", 1] = "slow"
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[Inner, ...] = ()
    inner: Inner = Inner(1.0)
    maybe: float | None = None
    table: dict[str, float] = dataclasses.field(default_factory=dict)
    anything: Any = None
    derived: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate {self.rate} must not be negative")


def test_everything_at_once():
    text = """
rate: 50
count: 3
enabled: true
mode: 1
pair: [1, 2.5]
many: [{gain: 1e-3}, {gain: 2, label: b}]
inner: {gain: -1.5E+2}
maybe: null
table: {a: 1, 2: 3.5}
anything: [1, {x: y}]
"""
    got = from_mapping(Outer, parse_yaml(text, "file.yaml"), "file.yaml")
    assert got == Outer(rate=50.0, count=3, enabled=True, mode=1, pair=(1.0, 2.5), many=(Inner(0.001), Inner(2.0, "b")),
                        inner=Inner(-150.0), maybe=None, table={"a": 1.0, "2": 3.5}, anything=[1, {"x": "y"}])
    assert isinstance(got.rate, float) and isinstance(got.pair[0], float) and isinstance(got.many[1].gain, float)
    assert from_mapping(Outer, to_mapping(got), "again") == got


@pytest.mark.parametrize(("data", "message"), [
    ({"rat": 1.0}, "f: rat: unknown key; known keys: anything, count, enabled, inner, many, maybe, mode, pair, rate, "
                   "table"),
    ({"rate": 1.0, "derived": 2}, "f: derived: unknown key; known keys: anything, count, enabled, inner, many, "
                                  "maybe, mode, pair, rate, table"),
    ({}, "f: rate: missing; add it"),
    ({"rate": "50"}, "f: rate: expected float, got '50'; give a value of that type"),
    ({"rate": True}, "f: rate: expected float, got True; give a value of that type"),
    ({"rate": None}, "f: rate: expected float, got None; give a value of that type"),
    ({"rate": [1.0]}, "f: rate: expected float, got [1.0]; give a value of that type"),
    ({"rate": float("nan")}, "f: rate: nan is not finite; give a finite number"),
    ({"rate": float("-inf")}, "f: rate: -inf is not finite; give a finite number"),
    ({"rate": 10**400}, "f: rate: inf is not finite; give a finite number"),
    ({"rate": -1}, "f: rate -1.0 must not be negative; correct the value"),
    ({"rate": 1, "count": 1.0}, "f: count: expected int, got 1.0; give a value of that type"),
    ({"rate": 1, "count": False}, "f: count: expected int, got False; give a value of that type"),
    ({"rate": 1, "enabled": 1}, "f: enabled: expected bool, got 1; give a value of that type"),
    ({"rate": 1, "enabled": "true"}, "f: enabled: expected bool, got 'true'; give a value of that type"),
    ({"rate": 1, "mode": "quick"}, "f: mode: 'quick' is not known; choose one of: fast, slow, 1"),
    ({"rate": 1, "mode": True}, "f: mode: True is not known; choose one of: fast, slow, 1"),
    ({"rate": 1, "mode": 1.0}, "f: mode: 1.0 is not known; choose one of: fast, slow, 1"),
    ({"rate": 1, "mode": ["fast"]}, "f: mode: ['fast'] is not known; choose one of: fast, slow, 1"),
    ({"rate": 1, "pair": [1.0]}, "f: pair: expected 2 entries, got 1; give all of them"),
    ({"rate": 1, "pair": [1, 2, 3]}, "f: pair: expected 2 entries, got 3; give all of them"),
    ({"rate": 1, "pair": "12"}, "f: pair: expected a list, got '12'; write [a, b, ...]"),
    ({"rate": 1, "pair": [1, float("inf")]}, "f: pair[1]: inf is not finite; give a finite number"),
    ({"rate": 1, "many": [{"gain": 1}, {}]}, "f: many[1].gain: missing; add it"),
    ({"rate": 1, "many": {"gain": 1}}, "f: many: expected a list, got {'gain': 1}; write [a, b, ...]"),
    ({"rate": 1, "inner": {"gain": 1, "gian": 2}}, "f: inner.gian: unknown key; known keys: gain, label"),
    ({"rate": 1, "inner": 3}, "f: inner: expected a mapping, got 3; write 'key: value' lines"),
    ({"rate": 1, "inner": {"gain": 1, "label": 5}}, "f: inner.label: expected str, got 5; give a value of that type"),
    ({"rate": 1, "maybe": "no"}, "f: maybe: expected float, got 'no'; give a value of that type"),
    ({"rate": 1, "table": {"a": "b"}}, "f: table.a: expected float, got 'b'; give a value of that type"),
    ({"rate": 1, "table": [1]}, "f: table: expected a mapping, got [1]; write 'name: value'"),
    ([1, 2], "f: expected a mapping, got [1, 2]; write 'key: value' lines"),
])
def test_refused_in_these_words(data, message):
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, data, "f")
    assert str(caught.value) == message
    assert caught.value.source == "f" and str(caught.value).endswith(caught.value.remedy)


def test_a_long_value_is_shown_short():
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, {"rate": ["x" * 100_000] * 1000}, "f")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("text", "part"), [
    ("a: 1\na: 2\n", "key 'a' is written twice"),
    ("a: {b: 1, b: 2}\n", "key 'b' is written twice"),
    ("a: [1, 2\nb: 3", "mend the YAML"),
    ("a: 1\n  b: 2\n", "mend the YAML"),
    ("- 1\n- 2\n", "expected a mapping, got list"),
    ("", "expected a mapping, got NoneType"),
    ("just words", "expected a mapping, got str"),
    ("a: !!python/object/apply:os.system ['true']\n", "mend the YAML"),
    ("a: 2026-13-45\n", "month must be in 1..12"),
    ("? [a, b]\n: 1\n", "a key must be a plain word"),
    ("a: " + "[" * 5000 + "]" * 5000, "mend the YAML"),
    ("a: *nowhere\n", "undefined alias"),
    ("a: \x00", "mend the YAML"),
])
def test_yaml_refused(text, part):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "some.yaml")
    message = str(caught.value)
    assert part in message and message.startswith("some.yaml: ") and "\n" not in message


def test_yaml_never_runs_anything(tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(ConfigError):
        parse_yaml(f"a: !!python/object/apply:os.system ['touch {mark}']\n", "some.yaml")
    assert not mark.exists()


@pytest.mark.parametrize(("text", "number"), [
    ("1e-3", 1e-3), ("1E5", 1e5), ("-2e+3", -2000.0), ("+1.e2", 100.0), ("3.", 3.0), (".5", 0.5), ("1_000.0", 1000.0)])
def test_numbers_as_people_write_them(text, number):
    assert from_mapping(Inner, parse_yaml(f"gain: {text}", "f"), "f").gain == number


@pytest.mark.parametrize("text", ["1e", "e5", "1e5x", "0x", "1-3", "--1"])
def test_words_that_look_like_numbers_stay_words(text):
    with pytest.raises(ConfigError, match="expected float"):
        from_mapping(Inner, parse_yaml(f"gain: {text}", "f"), "f")


def test_yaml_merge_keys_work():
    data = parse_yaml("base: &b {gain: 1.0}\nother: {<<: *b, label: z}\n", "f")
    assert data["other"] == {"gain": 1.0, "label": "z"}


KEYS = st.sampled_from([*(f.name for f in dataclasses.fields(Outer)), "gain", "label"])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x, max_size=5), max_leaves=12))
def test_any_data_gives_a_config_or_one_line(data):
    try:
        assert isinstance(from_mapping(Outer, data, "f"), Outer)
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith("f:")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\xfe")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load_yaml(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_find_config_lists_what_there_is():
    assert find_config("robots", "panda") == config_root() / "robots" / "panda.yaml"
    for name in ("pandda", "../robots/panda", "", "robots/panda", "/etc/passwd"):
        with pytest.raises(ConfigError) as caught:
            find_config("robots", name)
        assert str(caught.value) == (f"config/robots: unknown robot '{name}'; "
                                     "choose one of: iiwa, panda, ur5e, or give the path of a .yaml file")
    with pytest.raises(ConfigError) as caught:
        find_config("robots", "/nowhere/arm.yaml")
    assert str(caught.value) == "/nowhere/arm.yaml: no such file; check the path"


def test_config_root_is_where_the_variable_says(tmp_path, monkeypatch):
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "mine.yaml").write_text("a: 1\n")
    monkeypatch.setenv("QGF_CONFIG_DIR", str(tmp_path))
    assert config_root() == tmp_path and find_config("robots", "mine").is_file()
    monkeypatch.setenv("QGF_CONFIG_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="QGF_CONFIG_DIR: no folder robots/ in any of"):
        config_root()  # a wrong variable is told, not silently replaced by the checkout


def test_config_root_of_an_installation(tmp_path, monkeypatch):
    """Installed, the module lies outside any checkout and the share folder is found by the ament prefix."""
    import qgf_core.config as module
    share = tmp_path / "prefix" / "share" / "qgf_bringup" / "config"
    (share / "robots").mkdir(parents=True)
    monkeypatch.delenv("QGF_CONFIG_DIR", raising=False)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "qgf_core" / "config.py"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path / 'prefix'}")
    assert config_root() == share


def test_errors_are_one_line_and_carry_their_parts():
    error = RobotError(Path("a.yaml"), "joints[0]", "is\n  broken\tbadly", "mend it")
    assert str(error) == "a.yaml: joints[0]: is broken badly; mend it"
    assert (error.source, error.key, error.remedy) == ("a.yaml", "joints[0]", "mend it")
    assert isinstance(error, ConfigError) and isinstance(error, QgfError) and isinstance(error, ValueError)
    assert str(ConfigError("--steps", "", "-1 is negative", "give more")) == "--steps: -1 is negative; give more"
    state = StateError("stale_state", "too\nold")
    assert state.kind == "stale_state" and str(state) == "too old" and isinstance(state, QgfError)

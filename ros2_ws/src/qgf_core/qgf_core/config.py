# SPDX-License-Identifier: Apache-2.0
"""Configuration: dataclasses from YAML, where an unknown key, a wrong type or a non-finite number is an error."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from qgf_core.errors import ConfigError

T = TypeVar("T")


def config_root() -> Path:
    """Folder of the configuration files: $QGF_CONFIG_DIR, else the checkout's, else the installed qgf_bringup's.

    :raises ConfigError: if none exists.
    """
    candidates = []
    if os.environ.get("QGF_CONFIG_DIR"):
        candidates.append(Path(os.environ["QGF_CONFIG_DIR"]))
    else:
        candidates += [parent / "config" for parent in Path(__file__).resolve().parents]
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
            if prefix:
                candidates.append(Path(prefix) / "share" / "qgf_bringup" / "config")
    for candidate in candidates:
        if (candidate / "robots").is_dir():
            return candidate
    raise ConfigError("QGF_CONFIG_DIR", "", f"no folder robots/ in any of {[str(c) for c in candidates]}",
                      "set QGF_CONFIG_DIR to the config folder of the project")


def find_config(kind: str, name: str) -> Path:
    """Path of `config/<kind>/<name>.yaml`, or `name` itself if it is a YAML file that exists.

    :raises ConfigError: if there is no such file; the message lists the names there are.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(name, "", "no such file", "check the path")
        return path
    folder = config_root() / kind
    path = folder / f"{name}.yaml"
    if not path.is_file() or path.parent != folder:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise ConfigError(f"config/{kind}", "", f"unknown {kind.rstrip('s')} '{name}'",
                          f"choose one of: {known}, or give the path of a .yaml file")
    return path


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, where YAML lets the last win, and reads 1e-3 as a number."""


def _mapping_without_duplicates(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        if key_node.value in seen:
            problem = f"key '{key_node.value}' is written twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        seen.add(key_node.value)
    return dict(loader.construct_mapping(node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)
# YAML 1.1, which PyYAML follows, takes a number with an exponent but no point or sign of it for a word.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def parse_yaml(text: str, source: object) -> dict[str, Any]:
    """A YAML mapping from text. :raises ConfigError: syntax error, duplicate key, or not a mapping."""
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader subclass
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date of month 13
        raise ConfigError(source, "", str(error), "mend the YAML") from error
    if not isinstance(data, dict):
        raise ConfigError(source, "", f"expected a mapping, got {type(data).__name__}", "write 'key: value' lines")
    return data


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. :raises ConfigError: unreadable or not a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, "", f"cannot be read ({error})", "check the path and its rights") from error
    return parse_yaml(text, path)


def _convert(hint: Any, value: Any, source: object, key: str) -> Any:
    """`value` as the type that `hint` names."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        words = [a for a in arguments if typing.get_origin(a) is typing.Literal]
        if isinstance(value, str) and any(value in typing.get_args(a) for a in words):
            return value
        return _convert(next(a for a in arguments if a is not type(None) and a not in words), value, source, key)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, source, key)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(source, key, f"expected a list, got {reprlib.repr(value)}", "write [a, b, ...]")
        item_hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(item_hints) != len(value):
            raise ConfigError(source, key, f"expected {len(item_hints)} entries, got {len(value)}", "give all of them")
        pairs = enumerate(zip(item_hints, value, strict=True))
        return tuple(_convert(item_hint, item, source, f"{key}[{i}]") for i, (item_hint, item) in pairs)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(source, key, f"expected a mapping, got {reprlib.repr(value)}", "write 'name: value'")
        return {str(k): _convert(arguments[1], v, source, f"{key}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):  # True == 1 == 1.0
            known_values = ", ".join(map(str, arguments))
            raise ConfigError(source, key, f"{reprlib.repr(value)} is not known", f"choose one of: {known_values}")
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond 1e308
            number = math.inf
        if not math.isfinite(number):
            raise ConfigError(source, key, f"{number} is not finite", "give a finite number")
        return number
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    if hint is Any:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise ConfigError(source, key, f"expected {expected}, got {reprlib.repr(value)}", "give a value of that type")


def from_mapping(cls: type[T], data: Any, source: object, key: str = "") -> T:
    """An instance of dataclass `cls` from a mapping.

    :raises ConfigError: unknown or missing key, wrong type, non-finite number, or a value that `__post_init__` refuses
        with a plain ValueError.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(source, key, f"expected a mapping, got {reprlib.repr(data)}", "write 'key: value' lines")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    prefix = f"{key}." if key else ""
    for name in data:
        if name not in fields:
            raise ConfigError(source, f"{prefix}{name}", "unknown key", f"known keys: {', '.join(sorted(fields))}")
    values = {name: _convert(hints[name], value, source, prefix + name) for name, value in data.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(source, prefix + name, "missing", "add it")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(source, key, str(error), "correct the value") from error


def to_mapping(value: Any) -> Any:
    """A dataclass as plain dicts, lists, numbers and strings, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): to_mapping(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_mapping(v) for v in value]
    return value

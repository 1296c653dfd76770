# SPDX-License-Identifier: Apache-2.0
"""All settings of a training with their defaults and descriptions, read from the dataclasses themselves."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator

_INDENT, _WIDTH = 34, 118


def descriptions(config: type) -> dict[str, str]:
    """The text that stands below each field of a dataclass, its bases' fields included."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        try:
            source = inspect.getsource(cls)
        except OSError:  # installed without sources
            continue
        body = ast.parse(textwrap.dedent(source)).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = below.value if isinstance(below, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[statement.target.id] = " ".join(text.value.split())
    return found


def settings(config: type, prefix: str = "") -> Iterator[tuple[str, object, str]]:
    """Key, default and description of every setting of a dataclass, those of nested dataclasses with dotted keys."""
    told, hints = descriptions(config), typing.get_type_hints(config)
    default = config()
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from settings(typing.cast(type, hints[field.name]), f"{prefix}{field.name}.")
        else:
            value = getattr(default, field.name)
            choices = (
                typing.get_args(hints[field.name]) if typing.get_origin(hints[field.name]) is typing.Literal else ()
            )
            text = told.get(field.name, "")
            listed = f"one of {', '.join(map(str, choices))}" if choices else ""
            yield f"{prefix}{field.name}", value, " ".join(part for part in (text, listed and f"({listed})") if part)


def settings_help(config: type) -> str:
    """The settings as a table for --help."""
    lines = ["settings for --override and config/train/*.yaml, with their defaults:"]
    for key, value, text in settings(config):
        shown = list(value) if isinstance(value, tuple) else value
        entry = f"  {key}={'' if value is None else shown}"
        wrapped = textwrap.wrap(text, _WIDTH - _INDENT) or [""]
        if len(entry) < _INDENT:
            entry = f"{entry:<{_INDENT}}{wrapped.pop(0)}".rstrip()
        lines += [entry, *(" " * _INDENT + line for line in wrapped if line)]
    return "\n".join(lines)

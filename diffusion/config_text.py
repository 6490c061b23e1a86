"""Configurations from plain data and from texts of the command line, and their entries' names."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import dacite

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


def from_dict(cls: type[C], data: Mapping[str, Any]) -> C:
    """The dataclass `cls` from plain data; `dataclasses.asdict` is the way back.

    Raises ValueError that names an unknown, missing or mistyped entry.
    """
    try:
        return dacite.from_dict(cls, _tuples(data), dacite.Config(strict=True))
    except dacite.DaciteError as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


def _tuples(data: Any) -> Any:
    """The same data with tuples for lists: JSON knows no tuples."""
    if isinstance(data, Mapping):
        return {name: _tuples(entry) for name, entry in data.items()}
    return tuple(map(_tuples, data)) if isinstance(data, list) else data


def override(config: C, settings: Sequence[str]) -> C:
    """A copy of a configuration with some entries replaced.

    Args:
        settings: texts `name=value`, a nested name with dots: `denoiser.norm_groups=8`,
            `steps=100`, `denoiser.heads=(2,4,6)`.

    Raises ValueError that names the setting, where it is unknown or of another type.
    """
    known = names(config)
    values: dict[str, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name.strip() not in known.split(", "):
            raise ValueError(f"setting {setting!r}: write NAME=VALUE, with NAME one of {known}")
        values[name.strip()] = text.strip()
    return _replaced(config, values)


def _replaced(config: C, values: Mapping[str, str]) -> C:
    changes: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        now, prefix = getattr(config, entry.name), entry.name + "."
        inner = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        if inner:
            try:
                changes[entry.name] = _replaced(now, inner)
            except ValueError as error:
                raise ValueError(prefix + str(error)) from error
        elif entry.name in values:
            kind = get_type_hints(type(config))[entry.name]
            alone = dataclasses.make_dataclass(type(config).__name__, [(entry.name, kind)])
            value = {entry.name: _value(values[entry.name], now)}
            try:
                from_dict(alone, value)
            except ValueError as error:  # its type is wrong
                raise ValueError(f"{entry.name}: {str(error).partition(': ')[2]}") from error
            changes |= value
    return dataclasses.replace(config, **changes)


def _value(text: str, now: Any) -> Any:
    """The Python value that a text spells, or the text itself."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return float(value) if type(now) is float and type(value) is int else value


def names(config: DataclassInstance, prefix: str = "") -> str:
    """The dotted names of all entries of a configuration, for messages and help."""
    entries = []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        dotted = prefix + entry.name
        entries.append(names(value, dotted + ".") if nested else dotted)
    return ", ".join(entries)

"""Reading the options of a stranger's JSON: each is checked, and named where it is wrong.

Official configurations have dozens of options, most of them switched off. A reader's tables say
which ones it knows: `same` must have the one value that our network is built for (an option that
is absent has it), `known` it reads, or they change no picture. What is in no table must be off
(null or false); else a model would be loaded as something that it is not.
"""

import contextlib
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Fields = Mapping[str, tuple[Any, ...]]  # option -> our field, what reads it, default, bounds
# In any config.json, and no matter to a network.
ANYWHERE = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size"}
REFERENCE = (0, 42, 1)  # the version of diffusers whose options we know


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """What is wrong in here is the fault of this file, and says so."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def check(
    data: Json, same: Json, known: Collection[str] = (), others: Collection[str] | None = None
) -> None:
    """Raises ValueError that names an option with a value that our network is not built for.

    Args:
        others: all other options of the reference's class; None: they are not known. What is not
            among them changes nothing there, such as the options of a training. It is ignored, and
            a warning says so; but not in the file of a later version.
    """
    ignored = []
    for option, value in data.items():
        if option in same and value != same[option]:
            raise ValueError(f"{option} {value!r} is not supported; only {same[option]!r} is")
        if option in same or option in known or option in ANYWHERE or off(value):
            continue
        if others is None or option in others or version(data) > REFERENCE:
            raise ValueError(f"{option} {value!r} is not supported")
        ignored.append(option)
    if ignored:
        told = f"{', '.join(ignored)}: ignored, as {data.get('_class_name')} has no such option"
        warnings.warn(told, stacklevel=2)


def version(data: Json) -> tuple[int, ...]:
    """Of the diffusers that wrote a file; (0,) where it does not say."""
    return tuple(map(int, re.findall(r"\d+", str(data.get("_diffusers_version", 0)))[:3])) or (0,)


def off(value: Any) -> bool:
    """Null, false, and lists of nothing else."""
    return value is None or value is False or (isinstance(value, list) and all(map(off, value)))


def choice(data: Json, option: str, default: str, known: Collection[str]) -> str:
    value = data.get(option, default)
    if value not in tuple(known):
        raise ValueError(f"{option} {value!r} is not supported; known: {', '.join(known)}")
    return value


def flag(data: Json, option: str, default: bool) -> bool:
    value = data.get(option, default)
    if not isinstance(value, bool):
        raise ValueError(f"{option} is {value!r}; true or false is needed")
    return value


def number(data: Json, option: str, default: int, low: int, high: int) -> int:
    value = data.get(option, default)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{option} is {value!r}; a whole number from {low} to {high} is needed")
    return value


def fraction(data: Json, option: str, default: float, below: float) -> float:
    """A number between 0 and `below`, both excluded."""
    value = data.get(option, default)
    if not (isinstance(value, int | float) and 0 < value < below):
        raise ValueError(f"{option} is {value!r}; a number between 0 and {below} is needed")
    return float(value)


def numbers(data: Json, option: str, default: tuple[int, ...]) -> tuple[int, ...]:
    values = data.get(option, default)
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= 8:
        raise ValueError(f"{option} is {values!r}; a list of 1 to 8 numbers is needed")
    return tuple(number({option: value}, option, 0, 1, 2**16) for value in values)


def to_fields(data: Json, fields: Fields) -> Json:
    return {field: read(data, option, *rest) for option, (field, read, *rest) in fields.items()}


def to_options(config: Any, fields: Fields) -> Json:
    return {option: getattr(config, field) for option, (field, *_) in fields.items()}

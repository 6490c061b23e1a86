"""Between the command line and settings: options for fields, and fields for options."""

import argparse
import dataclasses
import os
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from diffusion import picture_files, picture_reading
from diffusion.settings import PictureSettings
from diffusion.web_parameters import Parameters, sampler_of
from diffusion.weights import folder
from diffusion.weights.configs import INDEX
from diffusion.weights.lora import find as find_lora

S = TypeVar("S", bound=PictureSettings)


def add_settings(
    parser: argparse.ArgumentParser, kind: type[PictureSettings], without: Sequence[str] = ()
) -> None:
    """The prompt, and an argument for each field that says what it is called.

    Left out is None, so that `--again` can tell it from a default that was given.
    """
    parser.add_argument("prompt", nargs="?", help='what to paint; "" lets the model choose')
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        if "help" not in entry.metadata or entry.name in without:
            continue
        how: dict[str, Any] = {"dest": entry.name, "help": entry.metadata["help"]}
        if hints[entry.name] is bool:
            how["action"] = "store_const"
            how["const"] = True
        elif entry.name in ("loras", "embeddings"):
            how |= {"action": "append", "metavar": entry.metadata["metavar"]}
        else:
            how |= {"type": plain_type(hints[entry.name]), "metavar": entry.metadata["metavar"]}
        parser.add_argument(f"--{flag(entry)}", **how)


def flag(entry: dataclasses.Field[Any]) -> str:
    return str(entry.metadata.get("flag") or entry.name.replace("_", "-"))


def plain_type(hint: Any) -> Any:
    """int of `int | None`."""
    return get_args(hint)[0] if isinstance(hint, types.UnionType) else hint


def asked(options: argparse.Namespace, kind: type[S], read: Callable[[Path], S]) -> S:
    """What was asked for: on the command line, or in the file that is to be painted again."""
    if options.again is None:
        return settings_of(options, kind)
    if kind is PictureSettings and (parameters := picture_reading.read_parameters(options.again)):
        return settings_followed(options, kind, parameters)
    return settings_in(options, kind, read)


def settings_of(options: argparse.Namespace, kind: type[S]) -> S:
    """What was asked for on the command line."""
    return kind(**given(options, kind))


def given(options: argparse.Namespace, kind: type[S]) -> dict[str, Any]:
    """The fields of what was said on the command line."""
    names = [entry.name for entry in dataclasses.fields(kind)]
    said = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    loras: dict[str, float] = {}
    for text, strength in map(lora, said.pop("loras", [])):
        path = str(find_lora(text))
        if os.path.realpath(path) in map(os.path.realpath, loras):
            raise ValueError(f"--lora {text} is given twice; give it once, with one strength")
        loras[path] = strength
    if "embeddings" in said:
        said["embeddings"] = dict(map(embedding, said["embeddings"]))
    if loras:
        said["loras"] = loras
    if "sampler" in said:
        said["sampler"], spacing = sampler_of(said["sampler"])
        if spacing is not None and said.setdefault("spacing", spacing) != spacing:
            raise ValueError(f"--sampler {options.sampler} has its spacing; leave out --spacing")
    return said


def settings_followed(options: argparse.Namespace, kind: type[S], found: Parameters) -> S:
    """What a picture of another program says, as far as the command line says nothing else.

    A name of a model is no file: it is looked for among those that ship, and nowhere else.
    """
    said = given(options, kind)
    if "model" not in said:
        name = found.model
        if Path(name).name != name or not (folder.shipped(name) / INDEX).is_file():
            told = f"the model {name!r}" if name else "a model that it does not name"
            raise ValueError(
                f"{options.again} was painted by another program, with {told}; say where that is: "
                "--model MODEL"
            )
        said["model"] = name
    left_out = f"; not followed: {'; '.join(found.left_out)}" if found.left_out else ""
    warnings.warn(
        f"{options.again} is of another program, whose seeds make other noise: this will be "
        f"another picture of the same words{left_out}",
        stacklevel=2,
    )
    return kind(**{**found.settings, **said})


def settings_in(options: argparse.Namespace, kind: type[S], read: Callable[[Path], S]) -> S:
    """The settings of the picture or film that is to be painted again."""
    for entry in dataclasses.fields(kind):
        if getattr(options, entry.name, None) is not None:
            name = flag(entry)
            raise ValueError(f"--again takes the file's own settings; leave out --{name}")
    settings = read(options.again)
    if picture_files.digest(settings) != settings.digest:
        raise ValueError(
            f"{options.again} was painted from files that have changed since: "
            + ", ".join(
                filter(
                    None, (settings.source, settings.mask, *settings.loras, *settings.embeddings)
                )
            )
        )
    return settings


def embedding(text: str) -> tuple[str, str]:
    """`cat.safetensors=<cat>` -> the file and its token, "" where it is not said."""
    path, _, token = text.rpartition("=")
    return (text, "") if not path or os.path.exists(text) else (path, token)


def lora(text: str) -> tuple[str, float]:
    """`style.safetensors=0.7` -> the file and its strength, 1 where it is not said."""
    path, _, strength = text.rpartition("=")
    try:
        return (path, float(strength)) if path else (text, 1.0)
    except ValueError:
        return text, 1.0

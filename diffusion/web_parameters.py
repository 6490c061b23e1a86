"""How web interfaces write down a painting: the text chunk `parameters` of a PNG.

    a castle by a lake
    Negative prompt: fog
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, Model: v1-5, Clip skip: 2

So does Stable Diffusion web UI (AUTOMATIC1111), and sites and other programs read it. We write it
beside our own chunk, which says more, and read it where ours is missing.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.settings import STRENGTH, PictureSettings
from diffusion.text import emphasis

KEY = "parameters"
NEGATIVE = "Negative prompt:"
ENTRY = re.compile(r'(\w[\w /-]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
FEWEST = 3  # entries in the last line, or it belongs to the prompt
SAMPLERS = {
    "ddpm": "DDPM", "ddim": "DDIM", "euler": "Euler", "euler_a": "Euler a", "heun": "Heun",
    "dpm++2m": "DPM++ 2M", "lcm": "LCM",
}  # fmt: skip
SPACINGS = {  # ours, and by which names it goes; the first is written
    "leading": ("DDIM",),
    "trailing": ("SGM Uniform", "Simple"),
    "linspace": ("Uniform", "Normal"),
    "karras": ("Karras",),
}
# What "Automatic" means: k-diffusion's samplers go evenly from the last timestep to the first.
AUTOMATIC = {"ddim": "leading", "ddpm": "leading", "lcm": "leading"}
# Of files that we know by their names, and of the program: no picture depends on them.
SILENT = re.compile(r".*hash(es)?|Hashes|Version|Model|User|Created Date")


def _plain(name: str) -> str:
    """A name as far as spellings agree: "DPM++ 2M", "dpmpp_2m" and "dpm++2m" are one."""
    return re.sub(r"[\s_-]", "", name.casefold()).replace("pp", "++")


SAMPLER_NAMES = {_plain(name): ours for ours, name in SAMPLERS.items()} | {
    "eulerancestral": "euler_a",
    "keuler": "euler",
    "keulera": "euler_a",
    "kheun": "heun",
    "kdpm++2m": "dpm++2m",
}
SPACING_NAMES = {_plain(name): ours for ours, names in SPACINGS.items() for name in names}


@dataclass(frozen=True)
class Parameters:
    """What such a text says."""

    settings: Mapping[str, Any]  # fields of `PictureSettings`, but for the model
    model: str  # its name; "" if there is none
    left_out: tuple[str, ...]  # entries that are not followed


def sampler_of(name: str) -> tuple[str, str | None]:
    """Our name of a sampler, and the spacing that belongs to it ("DPM++ 2M Karras").

    What is not known comes back as it is.
    """
    plain = _plain(name)
    karras = plain.endswith("karras")
    ours = SAMPLER_NAMES.get(plain.removesuffix("karras"))
    if ours is None:
        return name, None
    return ours, "karras" if karras else None


def write(settings: PictureSettings, height: int, width: int) -> str:
    """The text of a painting with nothing left open.

    Args:
        height, width: of the painting, in pixels.
    """
    escape: Callable[[str], str] = str if settings.emphasis else emphasis.escape
    files = "".join(f" <lora:{_name(path)}:{s:g}>" for path, s in settings.loras.items())
    lines = [escape(settings.prompt) + files]
    if settings.negative:
        lines.append(f"{NEGATIVE} {escape(settings.negative)}")
    strength = STRENGTH if settings.strength is None else settings.strength
    sampler = settings.sampler or ""
    entries = {
        "Steps": settings.steps,
        "Sampler": SAMPLERS.get(sampler, sampler),
        "Schedule type": SPACINGS.get(settings.spacing or "", ("",))[0],
        "CFG scale": None if settings.guidance is None else f"{settings.guidance:g}",
        "Seed": settings.seed,
        "Size": f"{width}x{height}",
        "Model": _name(settings.model),
        "VAE": _name(settings.vae or ""),
        "Denoising strength": None if settings.source is None else f"{strength:g}",
        "Clip skip": settings.clip_skip,
        "Version": "diffusion",
    }
    told = [f"{name}: {_quoted(str(x))}" for name, x in entries.items() if x not in (None, "")]
    return "\n".join([*lines, ", ".join(told)])


def _name(path: str) -> str:
    """What others call a file: not where it lies here."""
    return Path(path).name.removesuffix(".safetensors")


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value


def read(text: str) -> Parameters:
    """What a text says. Whatever it holds, this raises nothing."""
    *lines, last = text.strip().split("\n")
    entries = ENTRY.findall(last)
    if len(entries) < FEWEST:
        lines, entries = [*lines, last], []
    said = {name.strip(): _unquoted(value.strip()) for name, value in entries}
    starts = [i for i, line in enumerate(lines) if line.strip().startswith(NEGATIVE)]
    end = starts[0] if starts else len(lines)
    prompt = "\n".join(lines[:end]).strip()
    negative = "\n".join(lines[end:]).strip().removeprefix(NEGATIVE).strip()
    files = emphasis.files(prompt) + emphasis.files(negative)
    # There, signs always mean something; and a picture has a file of its own.
    found: dict[str, Any] = {"emphasis": True, "count": 1}
    found["prompt"] = emphasis.without_files(prompt)
    found["negative"] = emphasis.without_files(negative)
    left_out = []
    for name, value in said.items():
        if (fields := _followed(name, value, said)) is not None:
            found |= fields
        elif not SILENT.fullmatch(name):
            left_out.append(f"{name}: {value}")
    return Parameters(found, said.get("Model", ""), (*left_out, *files))


def _followed(name: str, value: str, said: Mapping[str, str]) -> dict[str, Any] | None:
    """The fields that an entry decides; None where it cannot be followed."""
    try:
        if name == "Size":
            width, height = map(_whole, value.split("x"))
            return {"width": width, "height": height}
        if name == "Sampler":
            return _sampling(value, said.get("Schedule type", "Automatic"))
        if name == "Schedule type":
            known = _plain(value) in (*SPACING_NAMES, "automatic")
            return {} if known and sampler_of(said.get("Sampler", ""))[0] in SAMPLERS else None
        if name == "Seed":
            return {"seed": _whole(value)} if _whole(value) < 2**32 else None
        if name == "CFG scale":
            return {"guidance": float(value)}
        numbers = {"Steps": "steps", "Clip skip": "clip_skip"}
        return {numbers[name]: _whole(value)} if name in numbers else None
    except ValueError:
        return None


def _sampling(name: str, schedule: str) -> dict[str, Any] | None:
    sampler, spacing = sampler_of(name)
    if sampler not in SAMPLERS:
        return None
    usual = AUTOMATIC.get(sampler, "linspace")
    return {
        "sampler": sampler,
        "spacing": spacing or SPACING_NAMES.get(_plain(schedule), usual),
    }


def _whole(text: str) -> int:
    """Raises ValueError for what is no whole number of a usual length."""
    if not re.fullmatch(r"\s*\d{1,18}\s*", text):
        raise ValueError(text)
    return int(text)


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except (ValueError, RecursionError):
            return value
    return value

"""Film files: GIF, WebP, PNG and MP4 that remember how they were painted."""

import dataclasses
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from diffusion.atomic_write import atomic_write
from diffusion.config_text import from_dict
from diffusion.film_settings import SUFFIXES, FilmFileSettings

KEY = "diffusion film"  # stands before the settings; a picture's stand under another word
UNITS = {".gif": 10}  # milliseconds; a GIF counts hundredths of a second
COLOURS = 256  # of a GIF
QUALITY = ("-crf", "12", "-preset", "slow")  # of an MP4: small films are mostly edges
TEXT = ExifTags.Base.ImageDescription
LARGEST = 2**30  # bytes of an MP4 that is searched for settings

Frames = UInt8[np.ndarray, "n h w 3"]


def check_suffix(path: Path, strip: bool) -> None:
    """Raises ValueError where a film cannot be written under this name, or not yet."""
    suffix = path.suffix.lower()
    if strip and suffix != ".png":
        raise ValueError(f"output {path}: a strip is a still picture; name a .png file")
    if suffix not in SUFFIXES:
        raise ValueError(f"output {path}: name a file that ends with {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise ValueError(f"output {path} is a folder; name a file that is none")
    if suffix == ".mp4":
        _encoder()


def save(path: Path, frames: Frames, settings: FilmFileSettings) -> None:
    """Write an animation with its settings inside; the file appears whole or not at all.

    The suffix says in which format. Raises ValueError or OSError where it cannot be written.
    """
    zoom, suffix = settings.zoom or 1, path.suffix.lower()
    large = frames.repeat(zoom, axis=1).repeat(zoom, axis=2)
    # ASCII: any prompt fits into any of the formats.
    text = KEY + json.dumps(dataclasses.asdict(settings))
    with atomic_write(path) as draft:
        if suffix == ".mp4":
            _save_mp4(draft, large, settings.fps, text)
        else:
            _save_images(draft, large, durations(len(frames), settings.fps, suffix), text)


def durations(frames: int, fps: int, suffix: str) -> list[int]:
    """Milliseconds of each frame; rounded so that together they take as long as they should."""
    unit = UNITS.get(suffix, 1)
    ends = np.rint(np.arange(frames + 1) * 1000 / fps / unit).astype(int) * unit
    return [int(n) for n in np.diff(ends)]


def _save_images(path: Path, frames: Frames, times: list[int], text: str) -> None:
    """By Pillow, which writes frames that equal the one before as one that is shown for longer."""
    pictures = [Image.fromarray(frame) for frame in frames]
    options: dict[str, Any] = {"loop": 0}
    suffix = path.suffix.lower()
    if suffix == ".gif":
        pictures = with_one_palette(frames, COLOURS)
        options["comment"] = text.encode("ascii")
    elif suffix == ".webp":
        exif = Image.Exif()
        exif[TEXT] = text
        options |= {"exif": exif, "lossless": True}
    else:
        info = PngInfo()
        info.add_itxt(KEY, text)
        options["pnginfo"] = info
    first, *others = pictures
    first.save(path, save_all=True, append_images=others, duration=times, **options)


def with_one_palette(frames: Frames, colours: int) -> list[Image.Image]:
    """One palette for all frames: with one each, what stands still would flicker."""
    tall = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    palette = tall.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]


def _save_mp4(path: Path, frames: Frames, fps: int, text: str) -> None:
    size = (frames.shape[2], frames.shape[1])
    writer = _encoder().write_frames(
        str(path),
        size,
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=None,
        output_params=[*QUALITY, "-metadata", f"comment={text}"],
    )
    with warnings.catch_warnings():
        # JAX fears threads in a forked process; this one becomes the encoder at once.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def _encoder() -> Any:
    """Raises ValueError where it is not installed."""
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ValueError(
            "an .mp4 needs an encoder: pip install imageio-ffmpeg; or name a .gif, .webp or .png"
        ) from None
    return imageio_ffmpeg


def read_settings(path: Path) -> FilmFileSettings:
    """How a film was painted. Raises ValueError where the file does not say."""
    try:
        text = next((found for found in _texts(path) if found.startswith(KEY)), None)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a film ({error})") from error
    if text is None:
        raise ValueError(f"{path} does not say how it was painted; give one of `diffusion film`")
    try:
        data, _ = json.JSONDecoder().raw_decode(text.removeprefix(KEY))
        return from_dict(FilmFileSettings, data)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds settings that make no sense ({error})") from error


def _texts(path: Path) -> Iterator[str]:
    """What a file says besides its frames."""
    if path.suffix.lower() == ".mp4":
        if os.path.getsize(path) > LARGEST:
            raise ValueError("it is too large")
        content = path.read_bytes()
        place = content.find(KEY.encode())
        if place >= 0:
            yield content[place : place + 2**16].decode("ascii", errors="ignore")
        return
    with Image.open(path, formats=("GIF", "WEBP", "PNG")) as image:
        yield str(image.info.get(KEY, ""))
        yield bytes(image.info.get("comment", b"")).decode("ascii", errors="ignore")
        yield str(image.getexif().get(TEXT, ""))

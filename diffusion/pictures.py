"""PNG files that remember how they were painted."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion.config import from_dict
from diffusion.replacing import replacing

KEY = "diffusion"  # of the text chunk in the PNG file
LARGEST_ZOOM = 64


@dataclass(frozen=True)
class Settings:
    """All that decides a picture.

    Raises ValueError where the zoom or the index is out of range; the artist checks the others.
    """

    prompt: str
    model: str = "garden"
    negative: str = ""
    seed: int = 0
    count: int = 4
    steps: int = 25
    guidance: float = 3.0
    sampler: str = "dpm++2m"
    eta: float = 0.0
    zoom: int = 4  # pixels of the file along the side of a painted pixel
    strip: bool = False  # the canvas at some of the steps, instead of the pictures
    index: int | None = None  # which picture of the series this file holds; None: a sheet of all

    def __post_init__(self) -> None:
        if not 1 <= self.zoom <= LARGEST_ZOOM:
            raise ValueError(f"zoom is {self.zoom}; give 1 to {LARGEST_ZOOM}")
        if self.index is not None and not 0 <= self.index < self.count:
            raise ValueError(f"index is {self.index}, of a series of {self.count}")


def save(path: Path, image: UInt8[np.ndarray, "h w 3"], settings: Settings) -> None:
    """Write a PNG with its settings inside; the file appears whole or not at all.

    Raises OSError where the place cannot be written.
    """
    enlarged = image.repeat(settings.zoom, axis=0).repeat(settings.zoom, axis=1)
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(dataclasses.asdict(settings)))  # ASCII: any prompt fits in
    with replacing(path) as draft:
        Image.fromarray(enlarged).save(draft, format="PNG", pnginfo=info)


def read_settings(path: Path) -> Settings:
    """How a picture was painted. Raises ValueError where the file does not say."""
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(KEY)
    except FileNotFoundError:
        raise ValueError(f"picture {path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error
    if text is None:
        raise ValueError(f"{path} does not say how it was painted; give a PNG of `diffusion paint`")
    try:
        return from_dict(Settings, json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds settings that make no sense ({error})") from error


def check_writable(folder: Path) -> None:
    """Make the folder, and find out before the painting, not after it, whether it can be written.

    Raises OSError where it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"output folder {folder} cannot be written ({error.strerror}); choose another --output"
        ) from error

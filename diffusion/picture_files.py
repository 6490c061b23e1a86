"""Pictures in files: PNG that remember how they were painted, and pictures to begin with."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from diffusion.config import LARGEST_SIDE, from_dict
from diffusion.runtime.atomic_write import replacing

KEY = "diffusion"  # of the text chunk in the PNG file
LARGEST_ZOOM = 64
UNREADABLE = (
    OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


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
    height: int | None = None  # pixels before the zoom; None: the model's own, or the source's
    width: int | None = None
    source: str | None = None  # a picture file to begin with
    mask: str | None = None  # a picture file, white where the source is to be painted anew
    strength: float | None = None
    loras: dict[str, float] = field(default_factory=dict)  # files, each with its strength
    dtype: str = "float32"
    digest: str | None = None  # SHA-256 of source, mask and LoRA files, to know them again
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
    with _opened(path) as image:
        text = getattr(image, "text", {}).get(KEY)
    if text is None:
        raise ValueError(f"{path} does not say how it was painted; give a PNG of `diffusion paint`")
    try:
        return from_dict(Settings, json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds settings that make no sense ({error})") from error


def digest(settings: Settings) -> str | None:
    """SHA-256 of the content of all files that a painting starts from; None where there is none.

    Raises ValueError that names a file that cannot be read.
    """
    paths = [settings.source, settings.mask, *sorted(settings.loras)]
    found = hashlib.sha256()
    for path in filter(None, paths):
        try:
            if not Path(path).is_file():
                raise FileNotFoundError(0, "no such file")
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    return found.hexdigest() if any(paths) else None


def read_source(
    path: Path, height: int | None, width: int | None, side: int, unit: int
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture to begin with, scaled and cut at its edges to the size of the painting.

    Args:
        height, width: pixels; None: as the picture's shape demands.
        side: of the shorter side where neither is given, in pixels.
        unit: sides that follow from the picture's shape are rounded to multiples of this.

    Raises ValueError that names a file that is no picture, a sheet of several, or one that is too
    long and thin.
    """
    with _opened(path) as image:
        ours = KEY in getattr(image, "text", {})
        image = _on_paper(image, "white").convert("RGB")
    made = read_settings(path) if ours else None
    if made is not None:
        if made.strip or (made.index is None and made.count > 1):
            raise ValueError(
                f"{path} shows several pictures side by side; paint them into a folder, --output "
                "FOLDER, and begin with one of its files"
            )
        image = _without_zoom(image, made.zoom)
    scale = side / min(image.size)
    if height is not None or width is not None:
        scale = (height or 0) / image.height or (width or 0) / image.width
    height = height or max(round(image.height * scale / unit), 1) * unit
    width = width or max(round(image.width * scale / unit), 1) * unit
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(
            f"{path} would become {width} pixels wide and {height} high; give --width and --height"
        )
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def read_mask(path: Path, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """A mask, scaled and cut like its source: true where the file is white or nearly so.

    Raises ValueError that names a file that is no picture, or that is black everywhere.
    """
    with _opened(path) as image:
        grey = _on_paper(image, "black").convert("L")
    fitted = np.asarray(ImageOps.fit(grey, (width, height), Image.Resampling.BOX))
    if not (fitted > 127).any():
        raise ValueError(f"mask {path} is black everywhere; make white what is to be painted")
    return fitted > 127


def _without_zoom(image: Image.Image, zoom: int) -> Image.Image:
    """The painted pixels, where each is still repeated; to scale them down would blur them."""
    pixels = np.asarray(image)[::zoom, ::zoom]
    same = np.array_equal(pixels.repeat(zoom, axis=0).repeat(zoom, axis=1), np.asarray(image))
    return Image.fromarray(pixels) if same else image


def _on_paper(image: Image.Image, colour: str) -> Image.Image:
    """A picture of any kind upright, 8 bits a channel, its transparent parts on coloured paper."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                yield image
    except FileNotFoundError:
        raise ValueError(f"picture {path} does not exist") from None
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error


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

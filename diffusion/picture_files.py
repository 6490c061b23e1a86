"""Pictures in files: PNG that remember how they were painted, and pictures to begin with."""

import contextlib
import dataclasses
import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from diffusion.atomic_write import atomic_write
from diffusion.config import LARGEST_SIDE, from_dict
from diffusion.settings import PictureSettings

KEY = "diffusion"  # of the text chunk in the PNG file
UNREADABLE = (
    OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


def save(path: Path, image: UInt8[np.ndarray, "h w 3"], settings: PictureSettings) -> None:
    """Write a PNG with its settings inside; the file appears whole or not at all.

    Raises OSError where the place cannot be written.
    """
    zoom = settings.zoom or 1
    enlarged = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(dataclasses.asdict(settings)))  # ASCII: any prompt fits in
    with atomic_write(path) as draft:
        Image.fromarray(enlarged).save(draft, format="PNG", pnginfo=info)


def read_settings(path: Path) -> PictureSettings:
    """How a picture was painted. Raises ValueError where the file does not say."""
    with _opened(path) as image:
        text = getattr(image, "text", {}).get(KEY)
    if text is None:
        raise ValueError(f"{path} does not say how it was painted; give a PNG of `diffusion paint`")
    try:
        # Before there was a choice, all were painted so.
        return from_dict(PictureSettings, {"spacing": "leading"} | json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds settings that make no sense ({error})") from error


def digest(settings: PictureSettings) -> str | None:
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
        if made.strip or (made.index is None and (made.count or 1) > 1):
            raise ValueError(
                f"{path} shows several pictures side by side; paint them into a folder, --output "
                "FOLDER, and begin with one of its files"
            )
        image = _without_zoom(image, made.zoom or 1)
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

"""Picture files that are read: pictures to begin with, masks, and how a picture was painted."""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import ExifTags, Image, ImageOps

from diffusion import web_parameters
from diffusion.config import LARGEST_SIDE
from diffusion.config_text import from_dict
from diffusion.picture_files import KEY
from diffusion.settings import PictureSettings
from diffusion.web_parameters import Parameters

# No others are opened: for some, such as EPS, Pillow starts a program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
WHITE = 200  # of 255: what is lighter counts as white
SAME_SHAPE = 0.02  # by which sides may differ in proportion: a scaled picture's are rounded


def read_settings(path: Path) -> PictureSettings:
    """How a picture was painted. Raises ValueError where the file does not say."""
    with _opened(path, load=False) as image:  # however large the sheet is
        text = image.info.get(KEY)
    if text is None:
        raise ValueError(f"{path} does not say how it was painted; give a PNG of `diffusion paint`")
    try:
        # Before there was a choice, all were painted so.
        return from_dict(PictureSettings, {"spacing": "leading"} | json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds settings that make no sense ({error})") from error


def read_parameters(path: Path) -> Parameters | None:
    """How a web interface painted a picture; None where that, or our own word, is not said."""
    with _opened(path, load=False) as image:
        text = None if KEY in image.info else image.info.get(web_parameters.KEY)
    return web_parameters.read(text) if isinstance(text, str) else None


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


def read_mask(path: Path, height: int, width: int, like: Path) -> Bool[np.ndarray, "H W"]:
    """A mask, scaled and cut like its source: true where it is white, or nearly so.

    A copy of the picture with an area erased (transparent) is a mask, too: true where it is erased.

    Args:
        like: the source, which must have the same proportions.

    Raises ValueError that names a file that is no picture, that has other proportions, or that is
    black everywhere.
    """
    with _opened(like, load=False) as image:
        own = _sides(image)
    with _opened(path) as image:
        grey, sides = _mask(image), _sides(image)
    if abs(sides[0] * own[1] / (sides[1] * own[0]) - 1.0) > SAME_SHAPE:
        raise ValueError(
            f"mask {path} is {sides[0]}x{sides[1]} and {like} is {own[0]}x{own[1]}; give a mask of "
            "the same proportions"
        )
    fitted = np.asarray(ImageOps.fit(grey, (width, height), Image.Resampling.BOX))
    if not (fitted > 127).any():
        raise ValueError(f"mask {path} is black everywhere; make white what is to be painted")
    return fitted > 127


def _mask(image: Image.Image) -> Image.Image:
    """White where to paint. What is drawn on transparent ground is a mask if it is black or white.

    With any other colours it is a picture of which a part was erased.
    """
    rgba = np.asarray(_upright(image))
    seen = rgba[rgba[..., 3] > 127][:, :3].astype(np.int16)
    erased = rgba[..., 3] < 128
    grey_range = (np.ptp(seen, axis=1) < 16) & ((seen.max(1) > WHITE) | (seen.max(1) < 255 - WHITE))
    if erased.any() and len(seen) and grey_range.mean() < 0.9:
        return Image.fromarray(np.where(erased, 255, 0).astype(np.uint8))
    return _on_paper(image, "black").convert("L")


def _without_zoom(image: Image.Image, zoom: int) -> Image.Image:
    """The painted pixels, where each is still repeated; to scale them down would blur them."""
    pixels = np.asarray(image)[::zoom, ::zoom]
    same = np.array_equal(pixels.repeat(zoom, axis=0).repeat(zoom, axis=1), np.asarray(image))
    return Image.fromarray(pixels) if same else image


def _on_paper(image: Image.Image, colour: str) -> Image.Image:
    """A picture of any kind upright, 8 bits a channel, its transparent parts on coloured paper."""
    upright = _upright(image)
    return Image.alpha_composite(Image.new("RGBA", upright.size, colour), upright)


def _sides(image: Image.Image) -> tuple[int, int]:
    """Width and height of the upright picture."""
    lies = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return image.size[::-1] if lies else image.size


def _upright(image: Image.Image) -> Image.Image:
    """Upright, 8 bits a channel, with transparency."""
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # wider numbers, which Pillow would clip
        image = Image.fromarray(_bytes(np.asarray(image)))
    return image.convert("RGBA")


def _bytes(grey: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Grey of 16 or 32 bits as 8: the range of the numbers says which white is meant.

    Raises ValueError for numbers that no usual white fits.
    """
    if not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > 65535:
        raise ValueError(
            f"numbers from {grey.min()} to {grey.max()}; save it with 8 or 16 bits a channel"
        )
    if grey.dtype.kind == "f" and grey.max() <= 1.0:
        return np.rint(grey * 255.0).astype(np.uint8)
    wide = grey.dtype.itemsize == 2 or grey.max() > 255
    return np.rint(grey / (257.0 if wide else 1.0)).astype(np.uint8)


@contextlib.contextmanager
def _opened(path: Path, load: bool = True) -> Iterator[Image.Image]:
    """A picture file; only its head is read if it is not to be loaded."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        with warnings.catch_warnings():
            # A photo of 108 megapixels is no attack; from 179 on Pillow raises.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if load:
                    image.load()
                yield image
    except FileNotFoundError:
        raise ValueError(f"picture {path} does not exist") from None
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error

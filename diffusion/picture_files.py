"""Picture files that are written: PNG that remember how they were painted.

Our own chunk has all settings, as JSON; `diffusion.web_parameters` writes another, for others.
"""

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion import web_parameters
from diffusion.atomic_write import atomic_write
from diffusion.settings import PictureSettings

KEY = "diffusion"  # of the text chunk in the PNG file


def save(
    path: Path,
    image: UInt8[np.ndarray, "h w 3"],
    settings: PictureSettings,
    size: tuple[int, int] | None = None,
) -> None:
    """Write a PNG with its settings inside; the file appears whole or not at all.

    Args:
        size: height and width of a painting, where the image is a sheet or a strip.

    Raises OSError where the place cannot be written.
    """
    zoom = settings.zoom or 1
    enlarged = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(dataclasses.asdict(settings)))  # ASCII: any prompt fits in
    told = web_parameters.write(settings, *(size or image.shape[:2]))
    info.add_text(web_parameters.KEY, told.encode("utf-8", "replace").decode().replace("\0", " "))
    with atomic_write(path) as draft:
        Image.fromarray(enlarged).save(draft, format="PNG", pnginfo=info)


def digest(settings: PictureSettings) -> str | None:
    """SHA-256 of the content of all files that a painting starts from; None where there is none.

    Raises ValueError that names a file that cannot be read.
    """
    paths = [settings.source, settings.mask, *sorted(settings.loras), *sorted(settings.embeddings)]
    if settings.vae is not None and not Path(settings.vae).is_dir():
        paths.append(settings.vae)
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

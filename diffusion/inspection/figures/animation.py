"""Films that move in a notebook."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from diffusion.film_files import durations
from diffusion.inspection.figures.style import INK

FPS = 8  # frames a second
ON_SCREEN = 256  # pixels of the screen along the side of a picture
GAP, LETTERS, LINE = 4, 9, 13  # between films; of a name: pixels of its letters, and of its line

Frames = UInt8[np.ndarray, "n H W 3"]


@dataclass(frozen=True)
class Animation:
    """Frames that a notebook plays in a loop: an animated PNG, which it shows as any picture.

    As in every such file, frames that equal the one before are one that is shown for longer.
    """

    frames: Frames
    width: int  # on the screen, in pixels

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        first, *others = map(Image.fromarray, self.frames)
        times, png = durations(len(self.frames), FPS, ".png"), BytesIO()
        first.save(png, "PNG", save_all=True, append_images=others, duration=times, loop=0)
        return png.getvalue(), {"width": self.width}


def side_by_side(films: Mapping[str, Frames], side: int | None = None) -> Animation:
    """Films that play at the same time, each with its name above.

    Args:
        side: of each picture in the file, in pixels; None: its own. It divides that.

    Raises ValueError where films have different sizes or numbers of frames, or `side` divides none.
    """
    shapes = {frames.shape for frames in films.values()}
    if len(shapes) != 1:
        raise ValueError(f"films have the shapes {sorted(shapes)}; give those of one shape")
    own = next(iter(shapes))[1]
    if own % (side or own):
        raise ValueError(f"side is {side}; give one that divides {own}")
    small = [_reduced(frames, own // (side or own)) for frames in films.values()]
    count, height, width, _ = small[0].shape
    page = np.full((count, LINE + height, len(films) * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, frames in enumerate(small):
        page[:, LINE:, i * (width + GAP) :][:, :, :width] = frames
    page[:, :LINE] = _names(list(films), width, page.shape[2])
    return Animation(page, round(page.shape[2] * ON_SCREEN / height))


def _reduced(frames: Frames, by: int) -> Frames:
    """Each square of pixels as their mean."""
    n, height, width, _ = frames.shape
    squares = frames.reshape(n, height // by, by, width // by, by, 3)
    return np.rint(squares.mean(axis=(2, 4))).astype(np.uint8)


def _names(names: list[str], width: int, whole: int) -> UInt8[np.ndarray, "H W 3"]:
    line = Image.new("RGB", (whole, LINE), "white")
    draw, font = ImageDraw.Draw(line), ImageFont.load_default(LETTERS)
    for i, name in enumerate(names):
        draw.text((i * (width + GAP), 0), name, INK, font)
    return np.asarray(line)

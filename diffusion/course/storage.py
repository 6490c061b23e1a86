"""Notebooks as they are stored: the student's bare, the solved one with small figures.

A film is an animated PNG: it moves wherever a notebook is shown. Of GIF and WebP, nbconvert (and
who uses it) shows nothing.
"""

import base64
import copy
import math
import warnings
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image, ImageSequence

from diffusion.atomic_write import atomic_write
from diffusion.film_files import Frames, with_one_palette

FIGURE, COLOURS = 100_000, 256  # of a stored figure: bytes, different colours
FEWER = (COLOURS, 128, 64)  # of a film, before it gets smaller


def bare(made: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as nobody has run it yet."""
    made = copy.deepcopy(made)
    for cell in made.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return made


def light(made: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook as it is stored: small figures, cells counted from 1, no times."""
    made = copy.deepcopy(made)
    made.metadata.pop("language_info", None)  # which Python ran it
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when it ran
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if png := output.get("data", {}).get("image/png"):
                small = small_figure(base64.b64decode(png))
                output.data["image/png"] = base64.b64encode(small).decode()
    return made


def small_figure(png: bytes) -> bytes:
    """A PNG with a palette of its own, and a smaller one where it would exceed `FIGURE` bytes.

    One that is animated stays so: see `small_film`.
    """
    figure = Image.open(BytesIO(png))
    if getattr(figure, "is_animated", False):
        return small_film(png)
    image = figure.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    whole = drawn = Image.alpha_composite(paper, image).convert("RGB")
    scale = 1.0
    while len(small := _with_palette(drawn, refined=False)) > FIGURE:
        scale *= min(0.9, math.sqrt(FIGURE / len(small)))
        drawn = whole.resize((round(scale * whole.width), round(scale * whole.height)))
    if scale < 1.0:
        _shrunk("figure", whole.size, scale)
    refined = _with_palette(drawn, refined=True)
    return refined if len(refined) <= FIGURE else small


def small_film(png: bytes) -> bytes:
    """An animated PNG with one palette for all frames, within `FIGURE` bytes.

    Where it would exceed them it gets fewer colours, and then smaller.
    """
    whole, times = [], []
    for shown in ImageSequence.Iterator(Image.open(BytesIO(png))):  # always the same object
        whole.append(shown.convert("RGB"))
        times.append(int(shown.info["duration"]))
    drawn = whole
    scale, (width, height) = 1.0, whole[0].size
    while True:
        frames = np.stack([np.asarray(frame) for frame in drawn])
        for colours in FEWER:
            small = _animated(frames, times, colours)
            if len(small) <= FIGURE:
                if scale < 1.0:
                    _shrunk("film", (width, height), scale)
                return small
        scale *= min(0.9, math.sqrt(FIGURE / len(small)))
        size = (round(scale * width), round(scale * height))
        drawn = [frame.resize(size) for frame in whole]


def _animated(frames: Frames, times: list[int], colours: int) -> bytes:
    found = BytesIO()
    first, *others = with_one_palette(frames, colours)
    first.save(found, "PNG", save_all=True, append_images=others, duration=times, loop=0)
    return found.getvalue()


def _shrunk(kind: str, size: tuple[int, int], scale: float) -> None:
    warnings.warn(
        f"a {kind} of {size[0]}x{size[1]} is stored at {scale:.0%} of its size, to keep it within "
        f"{FIGURE} bytes: show less in it",
        stacklevel=3,
    )


def _with_palette(image: Image.Image, refined: bool) -> bytes:
    """A PNG of `COLOURS` colours, found by median cut.

    Dots that mix colours (dithering) would double its bytes, and can be seen.

    Args:
        refined: with k-means, too, which takes its time and gains 2 to 4 dB.
    """
    found = BytesIO()
    change = 5000 if refined else 0  # k-means ends when no more colours change their place
    image.quantize(COLOURS, kmeans=change, dither=Image.Dither.NONE).save(
        found, "PNG", optimize=True
    )
    return found.getvalue()


def write(path: Path, made: nbformat.NotebookNode) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        nbformat.write(made, draft)

"""Notebooks as they are stored: the student's bare, the solved one with small figures."""

import base64
import copy
import math
import warnings
from io import BytesIO
from pathlib import Path

import nbformat
from PIL import Image

from diffusion.atomic_write import atomic_write

FIGURE, COLOURS = 100_000, 256  # of a stored figure: bytes, different colours


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
    """A PNG with a palette of its own, and a smaller one where it would exceed `FIGURE` bytes."""
    image = Image.open(BytesIO(png)).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    whole = drawn = Image.alpha_composite(paper, image).convert("RGB")
    scale = 1.0
    while len(small := _with_palette(drawn, refined=False)) > FIGURE:
        scale *= min(0.9, math.sqrt(FIGURE / len(small)))
        drawn = whole.resize((round(scale * whole.width), round(scale * whole.height)))
    if scale < 1.0:
        warnings.warn(
            f"a figure of {whole.width}x{whole.height} is stored at {scale:.0%} of its size, to "
            f"keep it within {FIGURE} bytes: show less in it",
            stacklevel=2,
        )
    refined = _with_palette(drawn, refined=True)
    return refined if len(refined) <= FIGURE else small


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

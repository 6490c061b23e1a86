"""The art class in one figure, from one real run: run this module to draw it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from diffusion.inspection.figures.maps import skips_of
from diffusion.inspection.figures.sampling import spread
from diffusion.inspection.figures.style import INK, SIGNED, SMALL, paper, pca_rgb, shape, show
from diffusion.inspection.trace import Trace, trace
from diffusion.loading import load
from diffusion.pipeline import Artist

PROMPT = "a red house with two old trees and yellow flowers"
FILM = 8  # moments of the painting in the lower row


STAGES = (
    ("1  The teacher's story", "text_encoder.py"),
    ("2  The dotted canvas", "noisy_latent.py"),
    ("3A  The small sketch", "unet_down.py"),
    ("3B  The essential shape", "unet_bottleneck.py"),
    ("4  The oil painting", "unet_up.py"),
    ("5  The exhibition", "vae.py"),
)


def art_class(artist: Artist, prompt: str = PROMPT, seed: int = 0, steps: int = 25) -> Figure:
    """The six stages with their files and shapes, and below them the film of one painting."""
    run = trace(artist, prompt, seed=seed, steps=steps)
    figure = paper(12, 5.4, layout=None)
    upper, lower = figure.add_gridspec(
        2, 1, height_ratios=(1.15, 1.2), left=0.045, right=0.985, top=0.83, bottom=0.07, hspace=0.42
    )
    _stages(figure, upper, run)
    _film(figure, lower, run)
    figure.text(0.045, 0.02, f"“{prompt}”", fontsize=8, style="italic", color=INK)
    return figure


def _stages(figure: Figure, area: SubplotSpec, run: Trace) -> None:
    """What each stage makes, under its name and its file."""
    activations = run.activations(len(run.steps) // 3)
    by_size = {skip.shape[1]: skip for skip in skips_of(activations)}
    story, canvas, sketch, essence, painting, exhibition = _boxes(figure, area, [*by_size])

    axis = story[0]
    told = np.asarray(run.context[0, : run.marked])
    axis.imshow(told, aspect="auto", cmap=SIGNED, vmin=-3, vmax=3, interpolation="nearest")
    axis.set_yticks(range(run.marked), run.labels)
    axis.tick_params(labelsize=SMALL, length=0, colors=INK)
    axis.set_xticks([])
    axis.set_xlabel(f"context {shape(run.context)}", fontsize=SMALL, color=INK, labelpad=3)

    first, prediction = run.steps[0].x_t, activations.step.prediction
    bottom = activations.tensors["bottleneck"]
    show(canvas[0], pca_rgb(first[0]), f"$z_T$ {shape(first)}")
    for axis, skip in zip(sketch, by_size.values(), strict=True):
        show(axis, pca_rgb(skip[0]), shape(skip))
    show(essence[0], pca_rgb(bottom[0]), shape(bottom))
    show(painting[0], pca_rgb(prediction[0]), f"prediction {shape(prediction)}")
    show(exhibition[0], run.pictures[0], f"picture {shape(run.pictures)}")


def _boxes(figure: Figure, area: SubplotSpec, sizes: list[int]) -> list[list[Axes]]:
    """Axes for each stage, one for each size of map in the sketch."""
    columns = area.subgridspec(1, 6, wspace=0.3, width_ratios=(1.25, 1, 1.5, 0.9, 1, 1))
    boxes = []
    for column, (title, file) in zip(columns, STAGES, strict=True):
        count = len(sizes) if title.startswith("3A") else 1
        widths = [0.9 + 3.1 * size / max(sizes) for size in sizes[:count]]
        levels = column.subgridspec(1, count, width_ratios=widths, wspace=0.2)
        boxes.append([figure.add_subplot(level) for level in levels])
        place = column.get_position(figure)
        centre = (place.x0 + place.x1) / 2
        figure.text(centre, 0.93, title, ha="center", fontsize=9, weight="bold", color=INK)
        figure.text(
            centre, 0.885, file, ha="center", fontsize=8, family="monospace", color="#7a4a00"
        )
    return boxes


def _film(figure: Figure, area: SubplotSpec, run: Trace) -> None:
    """The canvas and what the denoiser sees in it, at `FILM` moments."""
    taken, decode = run.steps, run.artist.decode
    rows = area.subgridspec(2, FILM, hspace=0.08, wspace=0.06)
    for column, i in enumerate(spread(len(taken), FILM)):
        top = figure.add_subplot(rows[0, column])
        show(top, decode(taken[i].x_t)[0], "")
        top.set_title(f"glance {i + 1}, t = {taken[i].t}", fontsize=SMALL, color=INK)
        below = figure.add_subplot(rows[1, column])
        show(below, decode(taken[i].x0)[0], "")
        if column == 0:
            top.set_ylabel("canvas $z_t$", fontsize=SMALL, color=INK)
            below.set_ylabel("what it sees", fontsize=SMALL, color=INK)
    place = area.get_position(figure)
    figure.text(
        0.045, place.y1 + 0.06,
        f"3A to 4 again and again: {len(taken)} glances, each leaves a little less noise "
        "(both rows hung by the VAE, which a painting passes only once, at its end)",
        fontsize=8, color=INK,
    )  # fmt: skip


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "art_class.png")
    art_class(load()).savefig(path, dpi=150)
    print(f"wrote {path}")

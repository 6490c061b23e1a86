"""The art class in one figure, from one real run: run this module to draw it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffusion.inspection.figures.maps import skips_of
from diffusion.inspection.figures.sampling import spread
from diffusion.inspection.figures.style import INK, SIGNED, SMALL, paper, pca_rgb, shape, show
from diffusion.inspection.trace import Trace, trace
from diffusion.loading import load
from diffusion.pipeline import Artist

PROMPT = "a red house with two old trees and yellow flowers"
FILM = 8  # moments of the painting in the lower row


TITLES = (
    ("1  The teacher's story", "text_encoder.py"),
    ("2  The dotted canvas", "noisy_latent.py"),
    ("3A  The small sketch", "unet_down.py"),
    ("3B  The essential shape", "unet_bottleneck.py"),
    ("4  The oil painting", "unet_up.py"),
    ("5  The exhibition", "vae.py"),
)


def art_class(
    artist: Artist, prompt: str = PROMPT, seed: int = 0, steps: int | None = None
) -> Figure:
    """The six stages with their files and shapes, and below them the film of one painting."""
    run = trace(artist, prompt, seed=seed, steps=steps)
    figure = paper(12, 5.4, layout=None)
    grid = figure.add_gridspec(
        2, 1, height_ratios=(1.15, 1.2), left=0.045, right=0.985, top=0.83, bottom=0.07, hspace=0.42
    )
    _stages(
        figure, grid[0].subgridspec(1, 6, wspace=0.3, width_ratios=(1.25, 1, 1.5, 0.9, 1, 1)), run
    )
    _film(figure, grid[1].subgridspec(2, FILM, hspace=0.08, wspace=0.06), run)
    place = grid[1].get_position(figure)
    figure.text(
        0.045, place.y1 + 0.06,
        f"3A to 4 again and again: {len(run.steps)} glances, each leaves a little less noise "
        "(both rows hung by the VAE, which a painting passes only once, at its end)",
        fontsize=8, color=INK,
    )  # fmt: skip
    figure.text(0.045, 0.02, f"“{prompt}”", fontsize=8, style="italic", color=INK)
    return figure


def _stages(figure: Figure, upper: Any, run: Trace) -> None:
    """A tensor of each stage, under its title and the name of its file."""
    activations = run.activations(len(run.steps) // 3)
    by_size = {skip.shape[1]: skip for skip in skips_of(activations)}
    boxes = []
    for column, (title, file) in enumerate(TITLES):
        widths = [1.0]
        if title.startswith("3A"):
            widths = [0.9 + 3.1 * side / max(by_size) for side in by_size]
        levels = upper[column].subgridspec(1, len(widths), width_ratios=widths, wspace=0.2)
        boxes.append([figure.add_subplot(levels[i]) for i in range(len(widths))])
        place = upper[column].get_position(figure)
        centre, brown = (place.x0 + place.x1) / 2, "#7a4a00"
        figure.text(centre, 0.93, title, ha="center", fontsize=9, weight="bold", color=INK)
        figure.text(centre, 0.885, file, ha="center", fontsize=8, family="monospace", color=brown)

    axis = boxes[0][0]
    words = np.asarray(run.context[0, : run.marked])
    axis.imshow(words, aspect="auto", cmap=SIGNED, vmin=-3, vmax=3, interpolation="nearest")
    axis.set_yticks(range(run.marked), run.labels)
    axis.tick_params(labelsize=SMALL, length=0, colors=INK)
    axis.set_xticks([])
    axis.set_xlabel(f"context {shape(run.context)}", fontsize=SMALL, color=INK, labelpad=3)
    first, bottom = run.steps[0].x_t, activations.tensors["bottleneck"]
    said = activations.step.prediction
    show(boxes[1][0], pca_rgb(first[0]), f"$z_T$ {shape(first)}")
    for axis, skip in zip(boxes[2], by_size.values(), strict=True):
        show(axis, pca_rgb(skip[0]), shape(skip))
    show(boxes[3][0], pca_rgb(bottom[0]), shape(bottom))
    show(boxes[4][0], pca_rgb(said[0]), f"prediction {shape(said)}")
    show(boxes[5][0], run.pictures[0], f"picture {shape(run.pictures)}")


def _film(figure: Figure, lower: Any, run: Trace) -> None:
    """Some moments of the painting: above what the denoiser saw, below what it saw in it."""
    for column, i in enumerate(spread(len(run.steps), FILM)):
        step = run.steps[i]
        top = figure.add_subplot(lower[0, column])
        show(top, run.artist.decode(step.x_t)[0], "")
        top.set_title(f"glance {i + 1}, t = {step.t:g}", fontsize=SMALL, color=INK)
        below = figure.add_subplot(lower[1, column])
        show(below, run.artist.decode(step.x0)[0], "")
        if column == 0:
            top.set_ylabel("canvas $z_t$", fontsize=SMALL, color=INK)
            below.set_ylabel("what it sees", fontsize=SMALL, color=INK)


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "art_class.webp")
    art_class(load()).savefig(path, dpi=150, pil_kwargs={"quality": 90})
    print(f"wrote {path}")

"""Figures of films: frames in a row, what moves in them, and which frame looks at which."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from diffusion.inspection.figures.sampling import BELIEF, spread
from diffusion.inspection.figures.style import (
    AMOUNT,
    COLOURS,
    INK,
    PALE,
    SMALL,
    paper,
    rows_of,
    show,
)
from diffusion.inspection.film_trace import FilmTrace, looks, modules

Frames = UInt8[np.ndarray, "n H W 3"]
Points = Float[np.ndarray, "films frames 2"]


def strips(films: Mapping[str, Frames], shown: int = 6) -> Figure:
    """Some frames of each film side by side, a row a film."""
    count = len(next(iter(films.values())))
    indices = spread(count, shown)
    rows = [(name, list(frames[indices])) for name, frames in films.items()]
    return rows_of(rows, [f"frame {i}" for i in indices], side=0.8)


def slices(films: Mapping[str, Frames], row: float) -> Figure:
    """One row of pixels of each film, frame under frame: what stands still is a vertical stripe.

    Args:
        row: how far down, 0 to 1; a line in the first frame, which stands above, shows where.
    """
    figure = paper(1.9 * len(films), 2.9)
    axes = figure.subplots(2, len(films), squeeze=False, height_ratios=(5, 3))
    for (above, below), (name, frames) in zip(axes.T, films.items(), strict=True):
        count, height, width, _ = frames.shape
        place = min(int(row * height), height - 1)
        show(above, frames[0])
        above.axhline(place, color=INK, linewidth=0.8, linestyle="--")
        above.set_title(name, fontsize=SMALL, color=INK)
        show(below, frames[:, place], aspect="auto", extent=(0, width, count - 0.5, -0.5))
    axes[1, 0].set_ylabel("frame", fontsize=SMALL, color=INK)
    axes[1, 0].set_yticks([0, count - 1])
    axes[1, 0].tick_params(labelsize=SMALL, colors=INK)
    return figure


def changes(frames: Frames) -> float:
    """How much a pixel changes from one frame to the next, on average, of 255."""
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean())


def over_time(run: FilmTrace, moments: int = 3, shown: int = 4) -> Figure:
    """The canvases of a film and what is seen in them, at some steps: each row is a strip."""
    rows = []
    for i in spread(len(run.steps), moments):
        step = run.steps[i]
        frames = np.array(spread(len(step.x_t), shown))
        for name, latents in (("$x_t$", step.x_t), (BELIEF, step.x0)):
            rows.append((f"t = {step.t:g}\n{name}", list(run.artist.decode(latents[frames]))))
    return rows_of(rows, [f"frame {i}" for i in frames], side=0.8)


def who_looks(run: FilmTrace, index: int) -> Figure:
    """In each motion module which frame (rows) looks at which (columns), in its two attentions.

    The mean over positions and heads, for the prompt. Each map has a scale of its own: its largest
    share stands below.
    """
    names = modules(run)
    figure = paper(1.0 * len(names) + 0.6, 2.7)
    for attention, row in enumerate(figure.subplots(2, len(names), squeeze=False), start=1):
        for axis, name in zip(row, names, strict=True):
            found = looks(run, index, name, attention)
            _map(axis, np.asarray(found.mean(axis=(0, 1, 2))))
            if attention == 1:
                size = "×".join(map(str, found.shape[:2]))
                axis.set_title(f"{name}\n{size}", fontsize=SMALL, color=INK)
        row[0].set_ylabel(f"look {attention}", fontsize=SMALL, color=INK)
    return figure


def places_look(
    run: FilmTrace, index: int, module: str, places: Mapping[str, tuple[float, float]]
) -> Figure:
    """Which frame looks at which at single places of the picture, head by head.

    Args:
        places: their names, each with how far down and how far to the right, 0 to 1.
    """
    found = np.asarray(looks(run, index, module))
    h, w, heads, *_ = found.shape
    figure = paper(1.4 * (heads + 1), 1.5 * len(places))
    picture = run.pictures[0]
    for row, (name, (down, right)) in zip(
        figure.subplots(len(places), heads + 1, squeeze=False), places.items(), strict=True
    ):
        y, x = min(int(down * h), h - 1), min(int(right * w), w - 1)
        show(row[0], picture)
        tall, wide = len(picture) / h, len(picture[0]) / w
        corner = x * wide - 0.5, y * tall - 0.5
        row[0].add_patch(Rectangle(corner, wide, tall, fill=False, color="white", linewidth=2))
        row[0].set_ylabel(name, fontsize=SMALL, color=INK)
        for head, axis in enumerate(row[1:]):
            _map(axis, found[y, x, head])
            axis.set_title(f"head {head}", fontsize=SMALL, color=INK)
    return figure


def on_ring(films: Mapping[str, Points], ring: Float[np.ndarray, "n 2"]) -> Figure:
    """Films whose frames are points of a plane: a line a film, which begins at its large dot."""
    figure = paper(2.3 * len(films), 2.5)
    for axis, (name, points) in zip(
        figure.subplots(1, len(films), squeeze=False)[0], films.items(), strict=True
    ):
        axis.plot(*ring.T, ".", color=PALE, markersize=2)
        for colour, film in zip(COLOURS, points, strict=False):
            axis.plot(*film.T, color=colour, linewidth=0.8, marker=".", markersize=4)
            axis.plot(*film[0], "o", color=colour, markersize=6)
        axis.set_title(name, fontsize=SMALL + 1, color=INK)
        edge = 1.3 * np.abs(ring).max()
        axis.set(xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[], aspect="equal")
    return figure


def _map(axis: Axes, weights: Float[np.ndarray, "f f"]) -> None:
    most = float(weights.max())
    show(axis, weights, f"up to {most:.0%}", cmap=AMOUNT, vmin=0.0, vmax=most)

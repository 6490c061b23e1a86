"""Figures of the U: feature maps at every resolution, and what happens without one of them."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from diffusion import schedule
from diffusion.plots.canvas import (
    AMOUNT,
    INK,
    PALE,
    SIGNED,
    SMALL,
    alike,
    paper,
    pca_rgb,
    rows_of,
    shape,
    show,
)
from diffusion.samplers import guide
from diffusion.trace import Look, Trace


def the_u(look: Look) -> Figure:
    """The U, drawn from a run: its maps as colours in their true proportions, with shapes."""
    down = [look.tensors["down.conv_in"], *_last_of(look, "down")]
    up = [*_last_of(look, "up"), look.tensors["up.conv_out"]]
    levels = [*dict.fromkeys(x.shape[1] for x in down)]
    figure = paper(9, 3.9, layout=None)
    largest = levels[0]
    columns = len(down) + 1 + len(up)
    for column, (x, way) in enumerate(
        [(x, "down") for x in down] + [(look.tensors["bottleneck"], "")] + [(x, "up") for x in up]
    ):
        side = 0.095 * (0.45 + 0.55 * x.shape[1] / largest)
        level = levels.index(x.shape[1]) + (way == "")
        centre = (column + 0.5) / columns
        top = 0.80 - 0.22 * level
        axis = figure.add_axes((centre - side / 2, top - side * 9 / 3.9 / 2, side, side * 9 / 3.9))
        show(axis, pca_rgb(x[0]), shape(x))
    for level, size in enumerate(levels):
        y = 0.80 - 0.22 * level
        last = max(i for i, x in enumerate(down) if x.shape[1] == size)
        first = len(down) + 1 + min(i for i, x in enumerate(up) if x.shape[1] == size)
        ends = ((last + 0.5) / columns + 0.06, y), ((first + 0.5) / columns - 0.06, y)
        figure.add_artist(
            FancyArrowPatch(*ends, transform=figure.transFigure, color=PALE, arrowstyle="->",
                            mutation_scale=10)
        )  # fmt: skip
        figure.text((ends[0][0] + ends[1][0]) / 2, y + 0.02, "skips", fontsize=SMALL, color=INK,
                    ha="center")  # fmt: skip
    for place, text in ((0.2, "3A  down"), (0.5, "3B  bottleneck"), (0.8, "4  up")):
        figure.text(place, 0.95, text, ha="center", fontsize=9, weight="bold", color=INK)
    return figure


def _last_of(look: Look, way: str) -> list[Array]:
    """What each block of a way returns before it changes the resolution."""
    found = []
    i = 0
    while names := [n for n in look.tensors if n.startswith(f"{way}.blocks.{i}.")]:
        ends = [n for n in names if n.count(".") == 4 and n.split(".")[3] in
                ("residuals", "transformers")]  # fmt: skip
        last = max(ends, key=lambda n: (int(n.split(".")[4]), n.split(".")[3] == "transformers"))
        found.append(look.tensors[last])
        i += 1
    return found


def channels(features: Float[Array, "h w c"], count: int = 32, columns: int = 16) -> Figure:
    """The first channels of a map, one by one, each on its own scale."""
    rows = -(-count // columns)
    figure = paper(0.55 * columns, 0.55 * rows, layout=None)
    for i, axis in enumerate(
        figure.subplots(rows, columns, gridspec_kw={"wspace": 0.08, "hspace": 0.08}).ravel()
    ):
        values = np.asarray(features[..., i])
        reach = np.abs(values).max() + 1e-6
        show(axis, values, cmap=SIGNED, vmin=-reach, vmax=reach)
    return figure


def resolutions(run: Trace, indices: Sequence[int]) -> Figure:
    """The way down at several glances: the finest map finds the picture last."""
    looks = [run.look(i) for i in indices]
    rows = [("canvas", alike([look.glance.canvas[0] for look in looks]))]
    for i, x in enumerate(_last_of(looks[0], "down")):
        maps = alike([_last_of(look, "down")[i][0] for look in looks])
        rows.append((f"level {i}\n{shape(x)}", maps))
    rows.append(("bottleneck", alike([look.tensors["bottleneck"][0] for look in looks])))
    return rows_of(rows, [f"t = {look.glance.timestep}" for look in looks])


def looked_at(run: Trace, index: int, positions: Sequence[tuple[int, int]]) -> Figure:
    """What some positions of the bottleneck look at, as the mean of its heads."""
    look = run.look(index)
    weights = np.asarray(look.attention["bottleneck.transformer.block.self_attention"][0])
    h, w = look.tensors["bottleneck"].shape[1:3]
    mean = weights.mean(axis=0).reshape(h, w, h, w)
    picture = run.artist.hang(look.glance.x0)[0]
    figure = paper(1.5 * (len(positions) + 1), 1.8)
    first, *others = figure.subplots(1, len(positions) + 1)
    show(first, picture, "what the network sees")
    for axis, (row, column) in zip(others, positions, strict=True):
        show(axis, mean[row, column], f"from row {row}, column {column}", cmap=AMOUNT, vmin=0)
        axis.plot(column, row, marker="o", color=INK, markersize=5, fillstyle="none")
    return figure


def without_skips(run: Trace, index: int) -> Figure:
    """What the network sees at one glance if the way up does not get one level's skips."""
    look, artist = run.look(index), run.artist
    b = len(look.told)
    skips = [look.tensors[f"down.skips.{i}"] for i in range(count_skips(look))]
    time = look.tensors["time_embedding"]
    context = jnp.repeat(run.context, b, axis=0)
    alpha_bar = jnp.asarray(schedule.alpha_bars(artist.config.schedule), jnp.float32)

    def seen(kept: Sequence[Array]) -> np.ndarray:
        both = artist.unet.up(look.tensors["bottleneck"], tuple(kept), time, context)
        prediction = guide(both[b:], both[:b], run.guidance)
        bars = jnp.full(b, alpha_bar[look.glance.timestep])
        kind = artist.config.schedule.prediction
        x0 = schedule.to_x0(prediction, look.glance.canvas, bars, kind)
        return np.asarray(artist.hang(x0)[0])

    sizes = [*dict.fromkeys(x.shape[1] for x in skips)]
    pictures = [seen(skips)]
    pictures += [
        seen([jnp.zeros_like(x) if x.shape[1] == size else x for x in skips]) for size in sizes
    ]
    pictures.append(seen([jnp.zeros_like(x) for x in skips]))
    titles = ["all skips", *(f"none of {size}×{size}" for size in sizes), "no skips"]
    return rows_of([(f"t = {look.glance.timestep}", pictures)], titles, side=1.5)


def count_skips(look: Look) -> int:
    return sum(name.startswith("down.skips.") for name in look.tensors)

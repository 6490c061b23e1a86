"""Figures of the U: feature maps at every resolution, and what happens without one of them."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from diffusion.inspection.figures.style import (
    AMOUNT,
    COLOURS,
    INK,
    PALE,
    SIGNED,
    SMALL,
    alike,
    amount,
    paper,
    pca_rgb,
    plain,
    rows_of,
    shape,
    show,
)
from diffusion.inspection.trace import Activations, Trace
from diffusion.layers.time_embedding import sinusoids
from diffusion.pipeline import Artist
from diffusion.process import mixing
from diffusion.process.samplers import guide
from diffusion.stages.unet import UNet


def the_u(activations: Activations) -> Figure:
    """The U, drawn from a run: its maps as colours in their true proportions, with shapes."""
    down = [activations.tensors["down.conv_in"], *_last_of(activations, "down")]
    up = [*_last_of(activations, "up"), activations.tensors["up.conv_out"]]
    levels = [*dict.fromkeys(x.shape[1] for x in down)]
    figure = paper(9, 3.9, layout=None)
    largest, drop = levels[0], 0.66 / len(levels)
    columns = len(down) + 1 + len(up)
    for column, (x, way) in enumerate(
        [(x, "down") for x in down]
        + [(activations.tensors["bottleneck"], "")]
        + [(x, "up") for x in up]
    ):
        side = min(0.095, 0.85 / columns) * (0.45 + 0.55 * x.shape[1] / largest)
        level = levels.index(x.shape[1]) + (way == "")
        centre = (column + 0.5) / columns
        top = 0.80 - drop * level
        axis = figure.add_axes((centre - side / 2, top - side * 9 / 3.9 / 2, side, side * 9 / 3.9))
        show(axis, pca_rgb(x[0]), shape(x))
    for level, size in enumerate(levels):
        y = 0.80 - drop * level
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


def _last_of(activations: Activations, way: str) -> list[Array]:
    """What each block of a way returns before it changes the resolution."""
    found = []
    i = 0
    while names := [n for n in activations.tensors if n.startswith(f"{way}.blocks.{i}.")]:
        ends = [n for n in names if n.count(".") == 4 and n.split(".")[3] in
                ("residuals", "transformers")]  # fmt: skip
        last = max(ends, key=lambda n: (int(n.split(".")[4]), n.split(".")[3] == "transformers"))
        found.append(activations.tensors[last])
        i += 1
    return found


def channels(features: Float[Array, "h w c"], count: int = 32, columns: int = 16) -> Figure:
    """The first channels of a map, one by one, each on its own scale."""
    count = min(count, features.shape[-1])
    rows = -(-count // columns)
    figure = paper(0.55 * columns, 0.55 * rows, layout=None)
    gaps = {"wspace": 0.08, "hspace": 0.08}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=gaps).ravel()
    for axis in axes[count:]:
        axis.remove()
    for i, axis in enumerate(axes[:count]):
        values = np.asarray(features[..., i])
        reach = np.abs(values).max() + 1e-6
        show(axis, values, cmap=SIGNED, vmin=-reach, vmax=reach)
    return figure


def resolutions(run: Trace, indices: Sequence[int]) -> Figure:
    """The way down at several glances: the finest map finds the picture last."""
    seen = [run.activations(i) for i in indices]
    rows = [("canvas", alike([one.step.x_t[0] for one in seen]))]
    for i, x in enumerate(_last_of(seen[0], "down")):
        maps = alike([_last_of(one, "down")[i][0] for one in seen])
        rows.append((f"level {i}\n{shape(x)}", maps))
    rows.append(("bottleneck", alike([one.tensors["bottleneck"][0] for one in seen])))
    return rows_of(rows, [f"t = {one.step.t:g}" for one in seen])


def looked_at(run: Trace, index: int, positions: Sequence[tuple[int, int]]) -> Figure:
    """What some positions of the bottleneck activations at, as the mean of its heads."""
    activations = run.activations(index)
    weights = np.asarray(activations.attention["bottleneck.transformer.block.self_attention"][0])
    h, w = activations.tensors["bottleneck"].shape[1:3]
    mean = weights.mean(axis=0).reshape(h, w, h, w)
    picture = run.artist.decode(activations.step.x0)[0]
    figure = paper(1.5 * (len(positions) + 1), 1.8)
    first, *others = figure.subplots(1, len(positions) + 1)
    show(first, picture, "what the network sees")
    for axis, (row, column) in zip(others, positions, strict=True):
        show(axis, mean[row, column], f"from row {row}, column {column}", cmap=AMOUNT, vmin=0)
        axis.plot(column, row, marker="o", color=INK, markersize=5, fillstyle="none")
    return figure


def imagined(
    run: Trace, activations: Activations, bottom: Array, skips: Sequence[Array]
) -> np.ndarray:
    """The picture that the network sees at a glance, if the way up is handed these maps."""
    b, artist = len(activations.conditional), run.artist
    context = jnp.repeat(run.context, b, axis=0)
    both = artist.denoiser.up(bottom, tuple(skips), activations.tensors["time_embedding"], context)
    prediction = guide(both[b:], both[:b], run.guidance)
    step = activations.step
    x0 = mixing(artist.process).to_x0(prediction, step.x_t, jnp.full(b, step.t))
    return np.asarray(artist.decode(x0)[0])


def skips_of(activations: Activations) -> list[Array]:
    """What the way up remembers of the way down, in the order of its making."""
    count = sum(name.startswith("down.skips.") for name in activations.tensors)
    return [activations.tensors[f"down.skips.{i}"] for i in range(count)]


def without_skips(run: Trace, index: int) -> Figure:
    """What the network sees at one glance if the way up does not get one level's skips.

    In their place it gets zeros (first row), or the mean of each channel (second row).
    """
    activations = run.activations(index)
    skips, bottom = skips_of(activations), activations.tensors["bottleneck"]
    sizes = [*dict.fromkeys(x.shape[1] for x in skips)]
    rows = []
    for name, factor in (("zeros", 0), ("the mean", 1)):
        pictures = [imagined(run, activations, bottom, skips)]
        flat = [factor * jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape) for x in skips]
        for size in (*sizes, None):
            gone = [size in (x.shape[1], None) for x in skips]
            kept = [y if without else x for x, y, without in zip(skips, flat, gone, strict=True)]
            pictures.append(imagined(run, activations, bottom, kept))
        rows.append((f"t = {activations.step.t:g}\n{name} instead", pictures))
    titles = ["all skips", *(f"none of {size}×{size}" for size in sizes), "no skips"]
    return rows_of(rows, titles, side=1.3)


def bottleneck_scaled(run: Trace, indices: Sequence[int], factors: Sequence[float]) -> Figure:
    """What the network sees if its bottleneck is silenced, or exaggerated; skips as they are.

    The last column shows where the first factor changes the picture, five times as strong.
    """
    rows = []
    for index in indices:
        activations = run.activations(index)
        bottom, skips = activations.tensors["bottleneck"], skips_of(activations)
        pictures = [imagined(run, activations, factor * bottom, skips) for factor in factors]
        own = imagined(run, activations, bottom, skips)
        change = np.abs(pictures[0].astype(float) - own).mean(axis=-1)
        shown = [*pictures, amount(np.minimum(5 * change / 255, 1))]
        rows.append((f"t = {activations.step.t:g}\nchange {change.mean():.1f}", shown))
    titles = [
        *(f"times {factor:g}" for factor in factors),
        f"change at {factors[0]:g},\nfive times",
    ]
    return rows_of(rows, titles, side=1.3)


def bottleneck_swapped(run: Trace, other: Trace, indices: Sequence[int]) -> Figure:
    """The essential shape of one run under the skips of another, at the same glances."""
    rows = []
    for index in indices:
        activations, lent = run.activations(index), other.activations(index)
        pictures = [
            run.artist.decode(activations.step.x0)[0],
            imagined(run, activations, lent.tensors["bottleneck"], skips_of(activations)),
            other.artist.decode(lent.step.x0)[0],
        ]
        rows.append((f"t = {activations.step.t:g}", pictures))
    titles = ["its own", "with the other's\nbottleneck", "the other"]
    return rows_of(rows, titles, side=1.3)


def time_code(artist: Artist, width: int = 64) -> Figure:
    """Every timestep as the code that the blocks get: sinusoids, and what two layers make of it."""
    timesteps = jnp.arange(artist.config.process.train_steps)
    unet = artist.denoiser.module
    code = sinusoids(timesteps, unet.time_embedding.channels)
    whole = artist.denoiser.time_embedding(timesteps)
    embedded = whole[:, :width]
    titles = (
        f"sinusoids, {code.shape[1]} numbers",
        (f"time embedding, the first {embedded.shape[1]} of {whole.shape[1]} numbers"),
    )
    figure = paper(7.5, 2.6)
    for axis, values, title in zip(figure.subplots(1, 2), (code, embedded), titles, strict=True):
        reach = float(jnp.abs(values).max())
        axis.imshow(
            np.asarray(values).T, cmap=SIGNED, vmin=-reach, vmax=reach, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        axis.set_title(title, fontsize=SMALL + 1, color=INK)
        axis.set_xlabel("timestep t", fontsize=SMALL, color=INK)
        axis.tick_params(labelsize=SMALL, colors=INK)
    return figure


def receptive_field(run: Trace, index: int, row: int, column: int) -> Figure:
    """Which positions of the canvas reach one position of each level's map, by the gradient.

    The scale is logarithmic, and ends at a thousandth of the strongest.
    """
    step = run.activations(index).step
    levels = len(run.artist.denoiser.module.down.blocks)
    program = run.artist.denoiser.compiled(partial(_reached, row=row, column=column, levels=levels))
    gradients = program(step.x_t[:1], jnp.full(1, step.t), run.context[:1])
    figure = paper(1.6 * levels, 1.9)
    for level, axis in enumerate(figure.subplots(1, levels, squeeze=False)[0]):
        strength = np.asarray(jnp.abs(gradients[level, 0]).sum(axis=-1))
        scale = LogNorm(1e-3, 1, clip=True)
        show(axis, strength / strength.max(), f"level {level}", cmap=AMOUNT, norm=scale)
        axis.plot(column, row, marker="s", color=INK, markersize=5, fillstyle="none")
    return figure


def _reached(
    unet: UNet, z: Array, t: Array, context: Array, row: int, column: int, levels: int
) -> Float[Array, "levels 1 h w c"]:
    """The gradient of one position of each level's first map, its channels added up by size."""
    time = unet.time_embedding(t)

    def values(z: Array) -> Array:
        _, skips = unet.down(z, time, context)
        found = []
        for level in range(levels):
            first = next(x for x in skips[1:] if x.shape[1] == z.shape[1] >> level)
            place = first[0, row >> level, column * first.shape[2] // z.shape[2]]
            found.append(jnp.sum(place * jax.lax.stop_gradient(jnp.sign(place))))
        return jnp.stack(found)

    return jax.jacrev(values)(z)


def energy(picture: UInt8[np.ndarray, "H W 3"]) -> tuple[np.ndarray, np.ndarray]:
    """How much of a picture is at which frequency, in periods a side: coarse to fine."""
    grey = picture.astype(np.float64).mean(axis=2) / 255
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    h, w = grey.shape
    periods = np.hypot(np.fft.fftfreq(h, 1 / h)[:, None], np.fft.fftfreq(w, 1 / w)[None])
    bins = periods.round().astype(int)
    return np.arange(1, h // 2), np.bincount(bins.ravel(), power.ravel())[1 : h // 2]


def bands(pictures: Mapping[str, UInt8[np.ndarray, "H W 3"]]) -> Figure:
    """How much of each picture is coarse, and how much is fine."""
    figure = paper(5, 2.6)
    axis = figure.subplots()
    for (name, picture), colour in zip(pictures.items(), COLOURS, strict=False):
        axis.loglog(*energy(picture), color=colour, label=name)
    axis.set_xlabel("periods along a side: coarse to fine", fontsize=SMALL, color=INK)
    axis.set_ylabel("power", fontsize=SMALL, color=INK)
    plain(axis)
    axis.legend(fontsize=SMALL, frameon=False)
    return figure

"""Figures of codes: a picture as numbers of a codebook, and how a painter fills them in."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from matplotlib.figure import Figure

from diffusion.images import sheet
from diffusion.inspection.figures.sampling import BELIEF, spread
from diffusion.inspection.figures.style import (
    AMOUNT,
    COLOURS,
    INK,
    PALE,
    SMALL,
    alike,
    amount,
    paper,
    plain,
    rows_of,
    show,
)
from diffusion.inspection.trace import Trace
from diffusion.layers.codebook import gumbel_softmax, perplexity
from diffusion.pipeline import Artist, Latents
from diffusion.process import Masking

OPEN = 225  # the grey of a place that is still masked
CORNERS = np.array([[0.0, 1.0], [-0.87, -0.5], [0.87, -0.5]])  # of a triangle, one a code


def there_and_back(artist: Artist, pictures: UInt8[np.ndarray, "n H W 3"]) -> Figure:
    """Pictures, what the encoder says, the nearest codes in the same colours, and what comes back.

    The last row is what is lost, three times as strong.
    """
    said = artist.encode(pictures)
    colours = alike([*np.asarray(said), *np.asarray(nearest(artist, said))])
    back, count = artist.decode(said), len(pictures)
    lost = np.abs(pictures.astype(int) - back).mean(axis=-1) / 255
    return rows_of(
        [
            ("picture", list(pictures)),
            ("encoder says", colours[:count]),
            ("nearest codes", colours[count:]),
            ("there and back", list(back)),
            ("what is lost", [amount(np.minimum(3 * one, 1)) for one in lost]),
        ],
        [""] * count,
    )


def nearest(artist: Artist, latents: Latents) -> Float[Array, "b h w z"]:
    """The code that is nearest at each position of a latent, in the latent's unit."""
    config: Any = artist.config.autoencoder
    codes: Array = artist.autoencoder.codebook(latents / config.scaling_factor)
    return codes * config.scaling_factor


def simplex(
    logits: Float[np.ndarray, " 3"], temperatures: Sequence[float], count: int = 300
) -> Figure:
    """Mixtures of three codes in a triangle: a corner is one code, the middle all alike.

    At each temperature the Gumbel noise is the same. Below: how many mixtures are nearly one code.
    """
    noise = jax.random.gumbel(jax.random.key(0), (count, 3))
    for_all = jnp.broadcast_to(jnp.asarray(logits), noise.shape)
    figure = paper(1.9 * len(temperatures), 2.5)
    for axis, temperature in zip(figure.subplots(1, len(temperatures)), temperatures, strict=True):
        shares = np.asarray(gumbel_softmax(for_all, noise, temperature))
        axis.fill(*CORNERS.T, facecolor="none", edgecolor=PALE)
        axis.scatter(*(shares @ CORNERS).T, s=5, alpha=0.4, color=COLOURS[0], linewidths=0)
        for corner, name in zip(CORNERS, "012", strict=True):
            axis.text(*(1.2 * corner), name, ha="center", va="center", fontsize=SMALL, color=INK)
        axis.set(xlim=(-1.2, 1.2), ylim=(-0.9, 1.4), aspect="equal", xticks=[], yticks=[])
        axis.set_title(f"temperature {temperature:g}", fontsize=SMALL, color=INK)
        sure = np.mean(shares.max(axis=1) > 0.9)
        axis.set_xlabel(f"{sure:.0%} nearly one code", fontsize=SMALL, color=INK)
        axis.spines[:].set_visible(False)
    return figure


def planes(
    found: Mapping[
        str,
        tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "k 2"], UInt8[np.ndarray, "k h w 3"]],
    ],
) -> Figure:
    """Codebooks in the plane: latents as dots, each code as the tile that it decodes to.

    Args:
        found: latents, codes and their tiles, by the name of a network.
    """
    figure = paper(3.4 * len(found), 3.5)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (name, (latents, codes, tiles)) in zip(axes, found.items(), strict=True):
        everything = np.concatenate([latents, codes])
        low, high = everything.min(axis=0), everything.max(axis=0)
        half = 0.02 * (high - low).max()
        axis.scatter(*latents.T, s=2, color=PALE, linewidths=0)
        for (x, y), tile in zip(codes, tiles, strict=True):
            around = (x - half, x + half, y - half, y + half)
            axis.imshow(tile, extent=around, interpolation="nearest", zorder=2)
        middle, reach = (low + high) / 2, (high - low).max() / 2 + 2 * half
        edges = middle[:, None] + reach * np.array([-1, 1])
        axis.set(xlim=edges[0], ylim=edges[1])
        axis.set_title(name, fontsize=SMALL + 1, color=INK)
        plain(axis)
    return figure


def usage(counted: Mapping[str, Int[np.ndarray, " k"]]) -> Figure:
    """How often each code is used, the most used first; codes that are never used are no dots."""
    figure = paper(5, 2.6)
    axis = figure.subplots()
    for (name, counts), colour in zip(counted.items(), COLOURS, strict=False):
        shares = np.sort(counts / counts.sum())[::-1]
        used, as_many = np.count_nonzero(counts), float(perplexity(jnp.asarray(counts)))
        label = f"{name}: {used} of {len(counts)} used, perplexity {as_many:.0f}"
        axis.semilogy(100 * shares[:used], ".", markersize=3, color=colour, label=label)
    axis.set_xlabel("code, the most used first", fontsize=SMALL, color=INK)
    axis.set_ylabel("% of all positions", fontsize=SMALL, color=INK)
    plain(axis)
    axis.legend(fontsize=SMALL, frameon=False)
    return figure


def alone(artist: Artist, codes: Sequence[int], columns: int = 16) -> Figure:
    """Each code by itself: pictures that have it at every position."""
    side = artist.config.latent_size
    maps = jnp.broadcast_to(
        jnp.asarray(codes, jnp.int32)[:, None, None, None], (len(codes), side, side, 1)
    )
    pictures = sheet(artist.decode(maps), columns, gap=4)
    figure = paper(6.5, 6.5 * pictures.shape[0] / pictures.shape[1] + 0.1)
    show(figure.subplots(), pictures)
    return figure


def exchanged(
    artist: Artist, codes: Int[Array, "1 h w 1"], row: int, column: int, others: Sequence[int]
) -> Figure:
    """One code of a picture exchanged for others: the picture, and where its pixels change.

    The square is what one position stands for.
    """
    changed = [codes.at[:, row, column].set(number) for number in others]
    pictures = artist.decode(jnp.concatenate([codes, *changed]))
    apart = np.abs(pictures.astype(float) - pictures[0]).mean(axis=-1) / 255
    names = [f"code {number}" for number in (int(codes[0, row, column, 0]), *others)]
    figure = rows_of(
        [("picture", list(pictures)), ("change", [amount(np.minimum(3 * x, 1)) for x in apart])],
        names,
        side=1.2,
    )
    side = artist.config.autoencoder.downscale
    for axis in figure.axes:
        axis.plot(
            np.array([0, side, side, 0, 0]) + column * side - 0.5,
            np.array([0, 0, side, side, 0]) + row * side - 0.5,
            color=COLOURS[1], linewidth=0.8,
        )  # fmt: skip
    return figure


def settling(run: Trace, moments: int = 8) -> Figure:
    """A denoiser and a discrete autoencoder: which codes of each glance are those of the end?"""
    last = np.asarray(nearest(run.artist, run.steps[-1].x_next))
    pictures, settled, titles = [], [], []
    for i in spread(len(run.steps), moments):
        step = run.steps[i]
        same = (np.asarray(nearest(run.artist, step.x0)) == last).all(axis=-1)[0]
        pictures.append(run.artist.decode(step.x0)[0])
        settled.append(amount(0.8 * same))
        titles.append(f"t = {step.t:g}\n{same.mean():.0%} settled")
    return rows_of([(f"hung now ({BELIEF})", pictures), ("settled", settled)], titles)


def filling(run: Trace, moments: int = 7) -> Figure:
    """A painter of codes at work: what is laid, what it draws behind the masks, how sure it is.

    A place is grey while it is masked. How sure: the probability of the code that was drawn.

    Raises ValueError where the process has no masks.
    """
    laid, drawn, sure, titles = [], [], [], []
    for i in spread(len(run.steps), moments):
        step = run.steps[i]
        open_ = masked(run, step.x_t)
        laid.append(with_gaps(run.artist.decode(step.x_t)[0], open_))
        drawn.append(run.artist.decode(step.x0)[0])
        shares = jax.nn.softmax(step.prediction[0], axis=-1)
        of_drawn = np.asarray(jnp.take_along_axis(shares, step.x0[0], axis=-1))[..., 0]
        sure.append(amount(np.where(open_, of_drawn, 1.0)))
        titles.append(f"step {i + 1}\n{open_.sum()} open")
    return rows_of([("laid before", laid), ("it draws", drawn), ("how sure", sure)], titles)


def order(run: Trace) -> Figure:
    """The finished picture, and in which step each of its places was laid.

    Raises ValueError where the process has no masks.
    """
    left = np.sum([masked(run, step.x_t) for step in run.steps], axis=0)
    figure = paper(4.4, 2.1)
    picture, when = figure.subplots(1, 2)
    show(picture, run.pictures[0], "picture")
    show(when, left, "laid in step", cmap=AMOUNT)
    bar = figure.colorbar(when.images[0], ax=when, fraction=0.05)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    return figure


def masked(run: Trace, codes: Int[Array, "b h w 1"]) -> Bool[np.ndarray, "h w"]:
    """Where the first picture has masks. Raises ValueError where the process has none."""
    process = run.artist.process
    if not isinstance(process, Masking):
        raise ValueError(
            f"{type(process).__name__} has no masks; take a painter of codes, as garden-masked"
        )
    return np.asarray(codes[0, ..., 0] == process.mask)


def with_gaps(
    picture: UInt8[np.ndarray, "H W 3"], gaps: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture with grey squares at some positions of its map."""
    side = len(picture) // len(gaps)
    grey = gaps.repeat(side, axis=0).repeat(side, axis=1)[..., None]
    return np.where(grey, np.uint8(OPEN), picture)

"""Figures of a diffusion transformer: patches in place of maps, blocks in place of levels."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from diffusion.config import DiTConfig
from diffusion.inspection.figures.style import (
    AMOUNT,
    COLOURS,
    INK,
    PALE,
    SIGNED,
    SMALL,
    alike,
    paper,
    plain,
    rows_of,
    show,
)
from diffusion.inspection.trace import Activations, Trace, Word
from diffusion.inspection.transformer import (
    PARTS,
    added,
    gates,
    layers,
    looked_far,
    seen_without,
)
from diffusion.pipeline import Artist
from diffusion.stages.dit import place_code


def grid(run: Trace) -> tuple[int, int]:
    """Rows and columns of patches."""
    _, h, w, _ = run.steps[0].x_t.shape
    patch = run.artist.config.denoiser.multiple
    return h // patch, w // patch


def places(config: DiTConfig, positions: Sequence[tuple[int, int]]) -> Figure:
    """The code of every place, and how alike (as a cosine) some places are to all others.

    White is as unlike as any two places are.
    """
    side = config.sample_size // config.patch
    code = place_code(side, side, config.width, side)
    figure = paper(3.0 + 1.5 * len(positions), 2.0)
    widths = [2.2] + [1.0] * len(positions)
    first, *others = figure.subplots(1, len(positions) + 1, width_ratios=widths)
    first.imshow(code, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    first.set_xlabel(f"{config.width} numbers: column, then row", fontsize=SMALL, color=INK)
    first.set_ylabel(f"{side * side} patches", fontsize=SMALL, color=INK)
    first.tick_params(labelsize=SMALL, colors=INK)
    unit = code / np.linalg.norm(code, axis=1, keepdims=True)
    least = (unit @ unit.T).min()
    for axis, (row, column) in zip(others, positions, strict=True):
        likeness = (unit @ unit[row * side + column]).reshape(side, side)
        show(axis, likeness, f"like row {row}, column {column}", cmap=AMOUNT, vmin=least, vmax=1)
    return figure


def stream(run: Trace, indices: Sequence[int]) -> Figure:
    """The tokens after the patches and after every block, as maps of colours, at several steps.

    In a column a colour means the same from above to below.
    """
    seen = [run.activations(i) for i in indices]
    names = ["patches", *(f"blocks.{i}" for i in range(layers(seen[0])))]
    columns = [alike([_map(run, one.tensors[name][0]) for one in seen]) for name in names]
    rows = [
        (
            f"t = {one.step.t:.0f}",
            [canvas, *maps, run.artist.decode(one.step.x0)[0]],
        )
        for one, canvas, *maps in zip(
            seen, alike([one.step.x_t[0] for one in seen]), *columns, strict=True
        )
    ]
    return rows_of(rows, ["canvas", *(name.replace("s.", " ") for name in names), "it sees"])


def _map(run: Trace, tokens: Float[Array, "n c"]) -> Float[np.ndarray, "h w c"]:
    return np.asarray(tokens).reshape(*grid(run), -1)


def gates_over_time(artist: Artist, count: int = 101) -> Figure:
    """How far the gates of every block are open, from the picture (left) to the noise."""
    end = artist.process.train_steps
    sizes = gates(artist.denoiser.module, jnp.linspace(0.0, end - 1.0, count))
    figure = paper(7.5, 2.4)
    axes = figure.subplots(1, 2)
    for axis, values, name in zip(axes, sizes, ("self-attention", "MLP"), strict=True):
        image = axis.imshow(
            values, cmap=AMOUNT, vmin=0, vmax=sizes.max(), aspect="auto",
            interpolation="nearest", extent=(0, end, len(values) - 0.5, -0.5),
        )  # fmt: skip
        axis.set_title(f"gates of the {name}: mean size", fontsize=SMALL + 1, color=INK)
        axis.set_xlabel("timestep t", fontsize=SMALL, color=INK)
        axis.set_ylabel("block", fontsize=SMALL, color=INK)
        axis.set_yticks(range(len(values)))
        axis.tick_params(labelsize=SMALL, colors=INK)
    bar = figure.colorbar(image, ax=axes)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    return figure


def what_is_added(run: Trace, indices: Sequence[int]) -> Figure:
    """How much each block adds by looking, listening and thinking, at several steps."""
    figure = paper(2.5 * len(indices), 2.3)
    axes = figure.subplots(1, len(indices), sharey=True, squeeze=False)[0]
    for axis, index in zip(axes, indices, strict=True):
        shares = added(run.activations(index))
        for part, values, colour in zip(PARTS, shares.T, COLOURS, strict=False):
            axis.plot(values, marker="o", markersize=3, color=colour, label=part)
        axis.set_title(f"t = {run.steps[index].t:.0f}", fontsize=SMALL + 1, color=INK)
        axis.set_xlabel("block", fontsize=SMALL, color=INK)
        axis.set_xticks(range(len(shares)))
        plain(axis)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("added, as a share of the token", fontsize=SMALL, color=INK)
    axes[0].legend(fontsize=SMALL, frameon=False)
    return figure


def looks(run: Trace, index: int, positions: Sequence[tuple[int, int]]) -> Figure:
    """Where some patches look, in each block: the mean of its heads, each map on its own scale."""
    activations = run.activations(index)
    maps = [
        np.asarray(activations.attention[f"blocks.{i}.self_attention"][0])
        .mean(axis=0)
        .reshape(*grid(run), *grid(run))
        for i in range(layers(activations))
    ]
    figure, axes = _beside_picture(run, activations, len(positions), len(maps))
    for row, (y, x) in zip(axes, positions, strict=True):
        row[0].set_ylabel(f"row {y}, column {x}", fontsize=SMALL, color=INK)
        for axis, one in zip(row[1:], maps, strict=True):
            show(axis, one[y, x], cmap=AMOUNT, vmin=0)
            axis.plot(x, y, marker="o", color=INK, markersize=4, fillstyle="none")
    return figure


def heard(run: Trace, index: int, chosen: Sequence[str]) -> Figure:
    """Where some words are heard, in each block: the mean of its heads, on a common scale a word.

    Raises ValueError for a word that the prompt does not have.
    """
    activations = run.activations(index)
    words = {word.text: word for word in reversed(run.words)}  # the first of a name
    if missing := [text for text in chosen if text not in words]:
        known = ", ".join(word.text for word in run.words)
        raise ValueError(f"the prompt has no {missing[0]!r}; its words are {known}")
    figure, axes = _beside_picture(run, activations, len(chosen), layers(activations))
    for row, text in zip(axes, chosen, strict=True):
        row[0].set_ylabel(text, fontsize=SMALL, color=INK)
        maps = heat_by_block(run, activations, words[text])
        for axis, one in zip(row[1:], maps, strict=True):
            show(axis, one, cmap=AMOUNT, vmin=0, vmax=maps.max())
    return figure


def heat_by_block(
    run: Trace, activations: Activations, word: Word
) -> Float[np.ndarray, "layers h w"]:
    """How much each patch listens to a word in each block: the mean of the heads."""
    weights = [
        np.asarray(activations.attention[f"blocks.{i}.cross_attention"][0, :, :, word.places])
        for i in range(layers(activations))
    ]
    return np.stack([w.sum(axis=-1).mean(axis=0).reshape(grid(run)) for w in weights])


def _beside_picture(
    run: Trace, activations: Activations, rows: int, blocks: int
) -> tuple[Figure, np.ndarray]:
    """An empty figure with a column for each block, and what the network sees on the left."""
    figure = paper(0.95 * (blocks + 1) + 0.3, 0.98 * rows + 0.3)
    axes = figure.subplots(rows, blocks + 1, squeeze=False)
    picture = run.artist.decode(activations.step.x0)[0]
    for row in axes:
        show(row[0], picture)
    axes[0, 0].set_title(f"t = {activations.step.t:.0f}", fontsize=SMALL, color=INK)
    for i, axis in enumerate(axes[0, 1:]):
        axis.set_title(f"block {i}", fontsize=SMALL, color=INK)
    return figure, axes


def how_far(run: Trace, indices: Sequence[int]) -> Figure:
    """How far each head of each block looks; the line is a head that looks everywhere alike."""
    rows, columns = grid(run)
    even = float(looked_far(np.full((1, rows * columns, rows * columns), 1 / rows / columns),
                            columns)[0])  # fmt: skip
    figure = paper(2.5 * len(indices), 2.3)
    axes = figure.subplots(1, len(indices), sharey=True, squeeze=False)[0]
    for axis, index in zip(axes, indices, strict=True):
        activations = run.activations(index)
        for i in range(layers(activations)):
            far = looked_far(activations.attention[f"blocks.{i}.self_attention"][0], columns)
            axis.plot([i] * len(far), far, "o", color=COLOURS[0], markersize=3, alpha=0.7)
        axis.axhline(even, color=PALE, linewidth=1)
        axis.set_title(f"t = {activations.step.t:.0f}", fontsize=SMALL + 1, color=INK)
        axis.set_xlabel("block", fontsize=SMALL, color=INK)
        axis.set_xticks(range(layers(activations)))
        plain(axis)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("distance, in patches", fontsize=SMALL, color=INK)
    return figure


def without_blocks(run: Trace, indices: Sequence[int]) -> Figure:
    """What the network sees at some steps without one of its blocks; below how much it changes.

    The change is the mean of the pixels' differences to the whole network, of 255.
    """
    count = len(run.artist.denoiser.module.blocks)
    figure = paper(0.95 * (count + 1) + 0.4, 1.2 * len(indices) + 0.2)
    axes = figure.subplots(len(indices), count + 1, squeeze=False)
    for row, index in zip(axes, indices, strict=True):
        whole = seen_without(run, index, ())
        show(row[0], whole)
        row[0].set_ylabel(f"t = {run.steps[index].t:.0f}", fontsize=SMALL, color=INK)
        for i, axis in enumerate(row[1:]):
            picture = seen_without(run, index, (i,))
            change = np.abs(picture.astype(float) - whole).mean()
            show(axis, picture, f"{change:.1f}")
    axes[0, 0].set_title("all blocks", fontsize=SMALL, color=INK)
    for i, axis in enumerate(axes[0, 1:]):
        axis.set_title(f"without {i}", fontsize=SMALL, color=INK)
    return figure

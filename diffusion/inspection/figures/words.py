"""Figures of cross-attention: where in the picture each word is heard."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from diffusion.inspection.figures.style import AMOUNT, INK, SMALL, paper, show
from diffusion.inspection.trace import Activations, Trace, Word


def heat(activations: Activations, word: Word, side: int) -> Float[np.ndarray, "h w"]:
    """How much each position of the maps of one size every at a word.

    The mean over all heads and modules at that size, summed over the word's tokens; one picture.

    Args:
        side: the height of the maps.

    Raises ValueError where no module listens on maps of that size.
    """
    width = _width(activations, side)
    maps = [
        np.asarray(weights[0, :, :, word.places]).sum(axis=-1).mean(axis=0)
        for name, weights in activations.attention.items()
        if name.endswith("cross_attention") and weights.shape[2] == side * width
    ]
    if not maps:
        raise ValueError(f"nothing listens to words on maps of {side}x{width}")
    return np.mean(maps, axis=0).reshape(side, width)


def _width(activations: Activations, side: int) -> int:
    """How wide a map is that is `side` high."""
    _, h, w, _ = activations.step.x_t.shape
    return side * w // h


def sizes(activations: Activations) -> list[int]:
    """The heights of the maps that listen to words, largest first."""
    _, h, w, _ = activations.step.x_t.shape
    found = {
        round((weights.shape[2] * h / w) ** 0.5)
        for name, weights in activations.attention.items()
        if name.endswith("cross_attention")
    }
    return sorted(found, reverse=True)


def heat_maps(run: Trace, index: int) -> Figure:
    """Every word at every resolution, at one glance; each map on its own scale."""
    activations = run.activations(index)
    words, sides = run.words, sizes(activations)
    figure = paper(0.85 * (len(words) + 1), 0.95 * len(sides) + 0.25)
    axes = figure.subplots(len(sides), len(words) + 1, squeeze=False)
    picture = run.artist.decode(activations.step.x0)[0]
    for row, side in zip(axes, sides, strict=True):
        show(row[0], picture)
        row[0].set_ylabel(f"{side}×{_width(activations, side)}", fontsize=SMALL, color=INK)
        for axis, word in zip(row[1:], words, strict=True):
            show(axis, heat(activations, word, side), cmap=AMOUNT)
    for axis, word in zip(axes[0, 1:], words, strict=True):
        axis.set_title(word.text, fontsize=SMALL + 1, color=INK)
    axes[0, 0].set_title(f"t = {activations.step.t:g}", fontsize=SMALL + 1, color=INK)
    return figure


def over_time(run: Trace, indices: Sequence[int], chosen: Sequence[str], side: int) -> Figure:
    """Some words at one resolution, from the dotted canvas to the finished picture.

    Raises ValueError for a word that the prompt does not have.
    """
    by_text: dict[str, Word] = {}
    for word in run.words:
        by_text.setdefault(word.text, word)  # the first of its name
    if missing := [text for text in chosen if text not in by_text]:
        raise ValueError(f"the prompt has no {missing[0]!r}; its words are {', '.join(by_text)}")
    figure = paper(0.95 * len(indices) + 0.6, 0.95 * (len(chosen) + 1))
    axes = figure.subplots(len(chosen) + 1, len(indices), squeeze=False)
    for column, index in enumerate(indices):
        activations = run.activations(index)
        show(axes[0, column], run.artist.decode(activations.step.x0)[0])
        axes[0, column].set_title(f"t = {activations.step.t:g}", fontsize=SMALL, color=INK)
        for axis, text in zip(axes[1:, column], chosen, strict=True):
            show(axis, heat(activations, by_text[text], side), cmap=AMOUNT)
    axes[0, 0].set_ylabel("it sees", fontsize=SMALL, color=INK)
    for axis, text in zip(axes[1:, 0], chosen, strict=True):
        axis.set_ylabel(text, fontsize=SMALL, color=INK)
    return figure

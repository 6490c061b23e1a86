"""Figures of the teacher's story: tokens, and what the text encoder makes of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion.inspection.figures.style import AMOUNT, COLOURS, INK, SIGNED, SMALL, paper
from diffusion.inspection.trace import Trace
from diffusion.text.tokenizer import Tokenizer

INCH = 0.085  # of a character in a chip


def chips(tokenizer: Tokenizer, texts: Sequence[str]) -> Figure:
    """Each text cut into its tokens, with their numbers; a word's last token has a dark edge."""
    figure = paper(9, 0.5 * len(texts) + 0.1, layout=None)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 9 / INCH), ylim=(len(texts), 0))
    axis.axis("off")
    for row, text in enumerate(texts):
        x = 1.0
        tokens = [f"{token}" for token in tokenizer.tokens(text)]
        for i, (token, number) in enumerate(zip(tokens, tokenizer.encode(text), strict=True)):
            word = token.removesuffix("</w>")
            width = max(len(word), len(str(number))) + 1.2
            axis.text(
                x + width / 2, row + 0.38, word, ha="center", va="center", fontsize=9, color=INK,
                bbox={
                    "boxstyle": "round,pad=0.25", "facecolor": COLOURS[i % 6] + "33",
                    "edgecolor": INK if token.endswith("</w>") else "none", "linewidth": 0.6,
                },
            )  # fmt: skip
            axis.text(
                x + width / 2, row + 0.82, str(number), ha="center", va="center",
                fontsize=SMALL - 1, color=INK,
            )  # fmt: skip
            x += width + 0.9
    return figure


def cosines(run: Trace) -> Figure:
    """How alike the words are, before the encoder and after it."""
    count = run.marked
    figure = paper(7.5, 3.6)
    before, after = figure.subplots(1, 2)
    for axis, states, title in (
        (before, run.text_activations["token_embedding"], "token embeddings, before the encoder"),
        (after, run.context, "context, after it"),
    ):
        rows = _directions(states[0, :count])
        image = axis.imshow(rows @ rows.T, cmap=SIGNED, vmin=-1, vmax=1)
        axis.set_title(title, fontsize=SMALL + 1, color=INK)
        _ticks(axis, run.labels)
    figure.colorbar(image, ax=[before, after], shrink=0.7, label="cosine").ax.tick_params(
        labelsize=SMALL
    )
    return figure


def heads(run: Trace, layer: int) -> Figure:
    """What each word every back at, in every head of a layer; nobody every ahead."""
    count = run.marked
    weights = np.asarray(
        run.text_activations[f"layers.{layer}.attention.weights"][0, :, :count, :count]
    )
    figure = paper(2.4 * len(weights) + 0.5, 3.2)
    for i, (axis, head) in enumerate(
        zip(figure.subplots(1, len(weights), sharey=True), weights, strict=True)
    ):
        axis.imshow(head, cmap=AMOUNT, vmin=0, vmax=1)
        axis.set_title(f"head {i}", fontsize=SMALL + 1, color=INK)
        _ticks(axis, run.labels)
    return figure


def states(run: Trace, width: int = 128) -> Figure:
    """The context itself: a row a token, a column a number."""
    count = run.marked
    rows = np.asarray(run.context[0, :count, :width])
    figure = paper(7.5, 0.2 * count + 0.5)
    axis = figure.subplots()
    image = axis.imshow(rows, cmap=SIGNED, vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
    axis.set_yticks(range(count), run.labels, fontsize=SMALL, color=INK)
    axis.tick_params(labelsize=SMALL, colors=INK)
    figure.colorbar(image, ax=axis, pad=0.01).ax.tick_params(labelsize=SMALL)
    return figure


def likeness(
    states: Float[np.ndarray, "n d"],
    labels: Sequence[str],
    others: Float[np.ndarray, "m d"] | None = None,
    other_labels: Sequence[str] = (),
) -> Figure:
    """Cosines between states, or between these (rows) and others (columns)."""
    columns, names = (states, labels) if others is None else (others, other_labels)
    values = _directions(states) @ _directions(columns).T
    figure = paper(0.42 * len(names) + 2.6, 0.42 * len(labels) + 1.6)
    axis = figure.subplots()
    axis.imshow(values, cmap=SIGNED, vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 else INK
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=SMALL - 1, color=colour)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(labelsize=SMALL, length=0, colors=INK)
    return figure


def _directions(rows: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length 1, whose products are cosines."""
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _ticks(axis: Axes, labels: list[str]) -> None:
    places = range(len(labels))
    axis.set_xticks(places, labels, rotation=90)
    axis.set_yticks(places, labels)
    axis.tick_params(labelsize=SMALL, length=0, colors=INK)

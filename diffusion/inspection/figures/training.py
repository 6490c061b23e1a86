"""Figures of art school: what a training logged, and where the network errs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from PIL import Image

from diffusion.config import VariancePreservingConfig
from diffusion.datasets.garden import Scene, render
from diffusion.images import to_uint8
from diffusion.inspection.figures.style import COLOURS, INK, PALE, SMALL, paper, plain, rows_of
from diffusion.pipeline import Artist
from diffusion.process import mixing
from diffusion.process.schedule import alpha_bar_table, snr, weight
from diffusion.training.denoiser import PREVIEWED


def curves(
    log: Path, names: Sequence[str] = ("error", "gradient_norm"), marks: Sequence[int] = ()
) -> Figure:
    """What a training wrote into its log.jsonl, step by step.

    Args:
        names: columns of the log; those of the U-Net's are squared errors of its prediction and
            lengths of the gradient.
        marks: steps with a line of their own, such as where another training went on.

    Raises ValueError where the log has no such column.
    """
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for name in names:
        if not all(name in row for row in rows):
            known = ", ".join(sorted(set(rows[0]) - {"step", "seconds"}))
            raise ValueError(f"{log} does not tell {name}; it tells {known}")
    figure = paper(3.6 * len(names), 2.5)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axis.plot([row["step"] for row in rows], [row[name] for row in rows], color=COLOURS[0])
        axis.set(yscale="log")
        for mark in marks:
            axis.axvline(mark, color=INK, linewidth=0.5, linestyle=":")
        axis.set_title(name.replace("_", " "), fontsize=SMALL + 1, color=INK)
        axis.set_xlabel("step", fontsize=SMALL, color=INK)
        plain(axis)
    return figure


def samples(folder: Path, steps: Sequence[int] | None = None) -> Figure:
    """The sample sheets that a training of the U-Net painted on its way, the first above.

    A sheet (000500.png, ...) has four pictures of each sentence in `PREVIEWED`; shown is the first.

    Args:
        steps: whose sheets; None: all.

    Raises ValueError where the folder has none, or not that of a step.
    """
    found = {int(path.stem): path for path in sorted(folder.glob("[0-9]*.png"))}
    if not found:
        raise ValueError(
            f"{folder} has no sample sheets such as 000500.png; a training's are in "
            "OUTPUT/training/unet/samples"
        )
    if missing := set(steps or []) - found.keys():
        known = ", ".join(map(str, found))
        raise ValueError(f"{folder} has no sample sheet of step {min(missing)}; it has {known}")
    rows, columns = [], 2 * len(PREVIEWED)
    for step in steps or found:
        sheet = np.asarray(Image.open(found[step]))
        side = sheet.shape[1] // columns
        places = [divmod(4 * i, columns) for i in range(len(PREVIEWED))]
        pictures = [sheet[side * row :, side * column :][:side, :side] for row, column in places]
        rows.append((f"step {step:,}", pictures))
    return rows_of(rows, ["\n".join(wrap(text, 22)) for text in PREVIEWED], side=1.35)


def weights(config: VariancePreservingConfig) -> Figure:
    """How much the squared error of a prediction counts at each timestep, as one of x0."""
    bars = alpha_bar_table(config)
    figure = paper(5, 2.5)
    axis = figure.subplots()
    axis.semilogy(np.asarray(snr(bars)), color=COLOURS[5], label="SNR: epsilon, unweighted")
    axis.semilogy(np.asarray(snr(bars)) + 1, color=COLOURS[1], label="SNR + 1: v, unweighted")
    ours = weight(jnp.asarray(snr(bars)), "v") * (snr(bars) + 1)
    axis.semilogy(np.asarray(ours), color=COLOURS[0], label="this project's")
    axis.set_xlabel("timestep t", fontsize=SMALL, color=INK)
    plain(axis)
    axis.legend(fontsize=SMALL, frameon=False)
    return figure


def errors(
    artist: Artist, scenes: Scene, texts: Sequence[str], timesteps: Sequence[int], seed: int = 0
) -> Mapping[str, np.ndarray]:
    """Mean squared error of the prediction for fresh pictures: told right, nothing, or wrong.

    The wrong words are those of the next picture.
    """
    x0 = artist.encode(to_uint8(render(scenes, artist.config.image_size)))
    noise = jax.random.normal(jax.random.key(seed), x0.shape)
    spoken = {
        "the right words": list(texts),
        "no words": [""] * len(texts),
        "another picture's words": [*texts[1:], texts[0]],
    }
    found = {}
    for name, words in spoken.items():
        context = artist.text_encoder(jnp.asarray(artist.tokenizer(words)))
        each = []
        for t in timesteps:
            timesteps_ = jnp.full(len(x0), t)
            x_t = artist.process.add_noise(x0, noise, timesteps_)
            prediction = artist.denoiser(x_t, timesteps_, context)
            truth = mixing(artist.process).target(x0, noise, timesteps_)
            each.append(float(jnp.square(prediction - truth).mean()))
        found[name] = np.array(each)
    return found


def by_timestep(timesteps: Sequence[int], found: Mapping[str, np.ndarray]) -> Figure:
    """The errors of `errors` over the timestep."""
    figure = paper(5, 2.6)
    axis = figure.subplots()
    for (name, values), colour in zip(found.items(), COLOURS, strict=False):
        axis.plot(timesteps, values, marker="o", markersize=3, color=colour, label=name)
    axis.set_xlabel("timestep t", fontsize=SMALL, color=INK)
    axis.set_ylabel("squared error of v", fontsize=SMALL, color=INK)
    axis.set_ylim(bottom=0)
    plain(axis)
    axis.legend(fontsize=SMALL, frameon=False)
    return figure


def changes(
    optimizer: optax.GradientTransformation,
    gradients: Float[Array | np.ndarray, " n"],
    steps: Sequence[int],
) -> Float[np.ndarray, "steps n"]:
    """What an optimizer adds to n parameters in some of its steps, where gradients never change."""
    given = {"gradients": jnp.asarray(gradients, jnp.float32)}

    def step(memory: optax.OptState, _: None) -> tuple[optax.OptState, Array]:
        change, memory = optimizer.update(given, memory, given)
        return memory, change["gradients"]

    _, found = jax.lax.scan(step, optimizer.init(given), length=max(steps))
    return np.asarray(found)[np.asarray(steps) - 1]


def places_of_eps(
    first: optax.GradientTransformation,
    second: optax.GradientTransformation,
    rate: float,
    gradients: Mapping[str, Float[Array | np.ndarray, " n"]],
    steps: Sequence[int] = (1, 10, 100, 1000),
) -> Figure:
    """The step that each of two optimizers takes, by the size of the gradient, and real gradients.

    Args:
        second: its steps do not depend on how many there were.
        rate: the learning rate of both, the unit of a step.
        gradients: of a network, by the time when it had them; zeros are left out.
    """
    sizes = np.logspace(-10, -1, 91)
    figure = paper(5.5, 3.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for colour, number, taken in zip(
        COLOURS, steps, changes(first, sizes, steps) / -rate, strict=False
    ):
        above.semilogx(sizes, taken, color=colour, label=f"Keras, step {number:,}")
    (taken,) = changes(second, sizes, steps[:1]) / -rate
    above.semilogx(sizes, taken, color=INK, linestyle="--", label="optax, every step")
    above.set_ylabel("step / learning rate", fontsize=SMALL, color=INK)
    edges = np.logspace(-10, -1, 55)
    for colour, (name, values) in zip((PALE, COLOURS[5]), gradients.items(), strict=False):
        found = np.abs(np.asarray(values))
        weights = np.full(np.count_nonzero(found), 100 / found.size)
        below.hist(found[found > 0], edges, weights=weights, color=colour, alpha=0.7, label=name)
    below.set_ylabel("% of parameters", fontsize=SMALL, color=INK)
    below.set_xlabel("size of the gradient", fontsize=SMALL, color=INK)
    for axis in (above, below):
        plain(axis)
        axis.legend(fontsize=SMALL - 0.5, frameon=False, loc="upper left")
    return figure

"""Figures of art school: what a training logged, and where the network errs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from diffusion.config import VariancePreservingConfig
from diffusion.datasets.garden import Scene, render
from diffusion.images import to_uint8
from diffusion.inspection.figures.style import COLOURS, INK, SMALL, paper, plain, rows_of
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

"""Figures of straight paths: levels of noise, ways in a plane, pictures in few steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from diffusion.inspection.figures.ideal_denoiser import EDGE
from diffusion.inspection.figures.style import COLOURS, INK, PALE, SMALL, paper, plain, rows_of
from diffusion.inspection.paths import detour, noise_shares
from diffusion.inspection.trace import Trace
from diffusion.pipeline import Artist
from diffusion.process import Mixing

Ways = Float[np.ndarray, "n b 2"]
DRAWS = 20_000  # timesteps, for a curve of how often they come


def planes(named: Mapping[str, Mixing], steps: int) -> Figure:
    """Each process as a way from noise to picture: its two weights, and the variance they leave.

    Dots are the levels that `steps` steps visit. The variance is that of x_t where pictures have 1.
    """
    figure = paper(7.2, 3.0)
    left, right = figure.subplots(1, 2)
    for (name, process), colour in zip(named.items(), COLOURS, strict=False):
        alpha, sigma = process.levels(np.linspace(0.0, process.train_steps - 1.0, 400))
        left.plot(alpha, sigma, color=colour, label=name)
        right.plot(sigma / (alpha + sigma), alpha**2 + sigma**2, color=colour)
        seen = process.levels(process.timesteps(steps, "trailing"))
        left.plot(*seen, "o", color=colour, markersize=3)
    left.set(aspect="equal", xlim=(-0.04, 1.08), ylim=(-0.04, 1.08))
    left.set_xlabel("weight of the picture", fontsize=SMALL, color=INK)
    left.set_ylabel("weight of the noise", fontsize=SMALL, color=INK)
    left.legend(fontsize=SMALL, frameon=False, loc="lower left")
    right.set_ylim(0, 1.1)
    right.set_xlabel("share of noise", fontsize=SMALL, color=INK)
    right.set_title("variance of the canvas", fontsize=SMALL + 1, color=INK)
    for axis in (left, right):
        plain(axis)
    return figure


def ways(named: Mapping[str, Ways], points: Float[np.ndarray, "k 2"]) -> Figure:
    """Ways in a plane from noise (grey) to where they end (blue), and the pictures (orange).

    Above each: how long a way is beside the straight line between its ends, the median of all.
    """
    figure = paper(2.2 * len(named), 2.5)
    axes = figure.subplots(1, len(named), squeeze=False)[0]
    for axis, (name, way) in zip(axes, named.items(), strict=True):
        axis.plot(*way.transpose(2, 0, 1), color=COLOURS[5], linewidth=0.6)
        axis.plot(*way[0].T, ".", color=PALE, markersize=3)
        axis.plot(*points.T, "o", color=COLOURS[1], markersize=5)
        axis.plot(*way[-1].T, ".", color=COLOURS[0], markersize=3)
        title = f"{name}\n{np.median(detour(way)):.2f} times as long"
        axis.set_title(title, fontsize=SMALL, color=INK)
        axis.set(xlim=(-EDGE - 0.6, EDGE + 0.6), ylim=(-EDGE - 0.6, EDGE + 0.6))
        axis.set(xticks=[], yticks=[], aspect="equal")
    return figure


def asked(named: Mapping[str, Mixing], steps: int) -> Figure:
    """How often training asks at each share of noise, and where `steps` steps look (dots)."""
    figure = paper(5.6, 2.6)
    axis = figure.subplots()
    for i, ((name, process), colour) in enumerate(zip(named.items(), COLOURS, strict=False)):
        drawn = process.draw_timesteps(jax.random.key(0), DRAWS)
        counts, edges = np.histogram(_shares(process, np.asarray(drawn)), 40, (0, 1), density=True)
        axis.plot((edges[1:] + edges[:-1]) / 2, counts, color=colour, label=name)
        seen = _shares(process, process.timesteps(steps, "trailing"))
        axis.plot(seen, np.full(len(seen), -0.25 * (i + 1)), "o", color=colour, markersize=3)
    axis.set_yticks([tick for tick in axis.get_yticks() if tick >= 0])
    axis.set_xlabel("share of noise", fontsize=SMALL, color=INK)
    axis.set_ylabel("how often", fontsize=SMALL, color=INK)
    plain(axis)
    axis.legend(fontsize=SMALL, frameon=False)
    return figure


def _shares(process: Mixing, t: np.ndarray) -> Float[np.ndarray, " n"]:
    alpha, sigma = process.levels(t)
    return np.asarray(sigma / (alpha + sigma))


def beliefs(named: Mapping[str, Trace]) -> Figure:
    """How far what the network sees is from the finished latent, at each share of noise.

    As a share of the latent's own length. A line at 0 would be a straight path.
    """
    figure = paper(5.6, 2.6)
    axis = figure.subplots()
    for (name, run), colour in zip(named.items(), COLOURS, strict=False):
        end = np.asarray(run.steps[-1].x_next[0])
        away = [np.linalg.norm(step.x0[0] - end) / np.linalg.norm(end) for step in run.steps]
        axis.plot(noise_shares(run), away, marker="o", markersize=3, color=colour, label=name)
    axis.invert_xaxis()
    axis.set_ylim(bottom=0)
    axis.set_xlabel("share of noise: a painting goes to the right", fontsize=SMALL, color=INK)
    axis.set_ylabel("distance to the end", fontsize=SMALL, color=INK)
    plain(axis)
    axis.legend(fontsize=SMALL, frameon=False)
    return figure


def few_steps(
    artists: Mapping[str, Artist], prompt: str, steps: Sequence[int], **settings: Any
) -> Figure:
    """A row a model, more steps to the right, otherwise the same settings of `paint`."""
    rows = [
        (name, [artist.paint(prompt, steps=n, **settings)[0] for n in steps])
        for name, artist in artists.items()
    ]
    return rows_of(rows, [f"{n} step{'s' * (n > 1)}" for n in steps], side=1.3)

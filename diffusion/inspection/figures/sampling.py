"""Figures of many glances: the film of a painting, guidance, samplers and steps."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from diffusion.inspection.figures.style import alike, amount, rows_of
from diffusion.inspection.trace import Trace
from diffusion.pipeline import Artist
from diffusion.process import mixing
from diffusion.process.samplers import guide, table

BELIEF = r"$\hat x_0$"


def film(run: Trace, moments: int = 10) -> Figure:
    """The canvas as it is, and the picture that the network sees in it."""
    steps = [run.steps[i] for i in spread(len(run.steps), moments)]
    return rows_of(
        [
            ("canvas $z_t$", [run.artist.decode(step.x_t)[0] for step in steps]),
            (f"it sees {BELIEF}", [run.artist.decode(step.x0)[0] for step in steps]),
        ],
        [f"t = {step.t:g}" for step in steps],
    )


def branches(run: Trace, moments: int = 7) -> Figure:
    """The two answers of each glance, their difference, what guidance makes of it, and the pictures
    that the two believe to see. The difference has a scale of its own at each glance; its mean
    stands above.
    """
    indices, artist = spread(len(run.steps), moments), run.artist
    # Of each activations only the answers are kept: those of Stable Diffusion have gigabytes.
    both = [(one.conditional[:1], one.unconditional[:1]) for one in map(run.activations, indices)]
    believed: list[list[np.ndarray]] = [[], []]
    for index, answers in zip(indices, both, strict=True):
        x_t, t = run.steps[index].x_t[:1], jnp.full(1, run.steps[index].t)
        for found, answer in zip(believed, answers, strict=True):
            found.append(artist.decode(mixing(artist.process).to_x0(answer, x_t, t))[0])
    conditional, unconditional = (jnp.concatenate(branch) for branch in zip(*both, strict=True))
    colours = alike(
        [*conditional, *unconditional, *guide(unconditional, conditional, run.guidance)]
    )
    n = len(indices)
    difference = np.abs(np.asarray(conditional) - np.asarray(unconditional)).mean(axis=-1)
    return rows_of(
        [
            ("with the words", colours[:n]),
            ("without", colours[n : 2 * n]),
            ("difference", [amount(one / (one.max() or 1.0)) for one in difference]),
            ("guided", colours[2 * n :]),
            ("sees, with", believed[0]),
            ("sees, without", believed[1]),
        ],
        [
            f"t = {run.steps[i].t:g}\ndiffer by {one.mean():.3f}"
            for i, one in zip(indices, difference, strict=True)
        ],
    )


def guidance(artist: Artist, prompt: str, scales: Sequence[float], seeds: Sequence[int]) -> Figure:
    """A row a seed, louder teachers to the right."""
    rows = [
        (f"seed {seed}", [artist.paint(prompt, seed=seed, guidance=s)[0] for s in scales])
        for seed in seeds
    ]
    return rows_of(rows, [f"s = {scale:g}" for scale in scales])


def samplers(
    artist: Artist, prompt: str, names: Sequence[str], steps: Sequence[int], seed: int = 0
) -> Figure:
    """A row a sampler, more steps to the right, the same canvas everywhere.

    Below a sampler's name: how often it calls the network, for each number of steps.
    """
    rows = []
    for name in names:
        calls = [len(table(name, artist.process, n).step) for n in steps]
        pictures = [artist.paint(prompt, seed=seed, sampler=name, steps=n)[0] for n in steps]
        rows.append((f"{name}\n{', '.join(map(str, calls))}", pictures))
    return rows_of(rows, [f"{n} steps" for n in steps])


def few_glances(ways: Sequence[tuple[Artist, int]], prompt: str, seeds: Sequence[int]) -> Figure:
    """A row a model and its steps: what it says of pure noise, and its pictures of each seed."""
    rows = []
    for artist, steps in ways:
        how: dict[str, Any] = {"steps": steps, "sampler": "euler", "spacing": "trailing"}
        first = next(iter(artist.sample(prompt, seed=seeds[0], **how)))
        pictures = [artist.paint(prompt, seed=seed, **how)[0] for seed in seeds]
        name = f"{artist.config.name}\nglances: {steps}"
        rows.append((name, [artist.decode(first.x0)[0], *pictures]))
    return rows_of(rows, [f"first {BELIEF}", *(f"seed {seed}" for seed in seeds)])


def spread(count: int, moments: int) -> list[int]:
    """Positions of `moments` of `count` glances, evenly, first and last included."""
    return [int(i) for i in np.linspace(0, count - 1, min(moments, count)).round()]

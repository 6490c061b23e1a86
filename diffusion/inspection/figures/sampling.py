"""Figures of many glances: the film of a painting, guidance, samplers and steps."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from diffusion.inspection.figures.style import alike, amount, rows_of
from diffusion.inspection.trace import Trace
from diffusion.pipeline import Artist
from diffusion.process.samplers import guide


def film(run: Trace, moments: int = 10) -> Figure:
    """The canvas as it is, and the picture that the network sees in it."""
    steps = [run.steps[i] for i in spread(len(run.steps), moments)]
    return rows_of(
        [
            ("canvas $z_t$", [run.artist.decode(step.x_t)[0] for step in steps]),
            (r"it sees $\hat x_0$", [run.artist.decode(step.x0)[0] for step in steps]),
        ],
        [f"t = {step.t:g}" for step in steps],
    )


def branches(run: Trace, moments: int = 8) -> Figure:
    """The two answers of each glance, and what guidance makes of their difference."""
    indices = spread(len(run.steps), moments)
    # Of each activations only the answers are kept: those of Stable Diffusion have gigabytes.
    both = [(one.conditional[:1], one.unconditional[:1]) for one in map(run.activations, indices)]
    conditional, unconditional = (jnp.concatenate(branch) for branch in zip(*both, strict=True))
    colours = alike(
        [*conditional, *unconditional, *guide(unconditional, conditional, run.guidance)]
    )
    n = len(indices)
    difference = np.abs(np.asarray(conditional) - np.asarray(unconditional)).mean(axis=-1)
    most = difference.max() or 1.0
    return rows_of(
        [
            ("with the words", colours[:n]),
            ("without", colours[n : 2 * n]),
            ("difference", [amount(one / most) for one in difference]),
            ("guided", colours[2 * n :]),
        ],
        [f"t = {run.steps[i].t:g}" for i in indices],
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
    """A row a sampler, more steps to the right, the same canvas everywhere."""
    rows = [
        (name, [artist.paint(prompt, seed=seed, sampler=name, steps=n)[0] for n in steps])
        for name in names
    ]
    return rows_of(rows, [f"{n} steps" for n in steps])


def spread(count: int, moments: int) -> list[int]:
    """Positions of `moments` of `count` glances, evenly, first and last included."""
    return [int(i) for i in np.linspace(0, count - 1, min(moments, count)).round()]

"""Figures of the perfect eye: what is known of a point, or a picture, under noise."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from diffusion.config import VariancePreservingConfig
from diffusion.images import to_uint8
from diffusion.inspection.figures.style import COLOURS, INK, PALE, SMALL, paper, rows_of
from diffusion.process import mixing, process
from diffusion.process.ideal_denoiser import ideal_denoiser, posterior_mean, shares
from diffusion.process.samplers import table
from diffusion.process.sampling import sample, stepper
from diffusion.process.schedule import add_noise, alpha_bar_table

EDGE = 2.2  # of the plane that is shown
Points = Float[np.ndarray, "n 2"]


def as_pictures(points: Points) -> jax.Array:
    """Points of a plane as pictures of one position and two channels."""
    return jnp.asarray(points, jnp.float32)[:, None, None]


def arrows(points: Points, alpha_bars: Sequence[float], grid: int = 15) -> Figure:
    """From each place of the plane to where the perfect eye believes that it came from."""
    figure = paper(2.3 * len(alpha_bars), 2.5)
    side = np.linspace(-EDGE, EDGE, grid)
    places = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    for axis, ab in zip(
        figure.subplots(1, len(alpha_bars), squeeze=False)[0], alpha_bars, strict=True
    ):
        z = as_pictures(places)
        x0 = np.asarray(posterior_mean(z, jnp.full(len(z), ab), as_pictures(points)))[:, 0, 0]
        way = np.sqrt(ab) * x0 - places
        axis.quiver(
            *places.T, *way.T, color=PALE, angles="xy", scale_units="xy", scale=3, width=0.006
        )
        axis.plot(*(np.sqrt(ab) * points).T, "o", color=COLOURS[1], markersize=4)
        axis.set_title(rf"$\bar\alpha$ = {ab:g}", fontsize=SMALL + 1, color=INK)
        axis.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[], aspect="equal")
    return figure


def walk(
    points: Points,
    config: VariancePreservingConfig,
    sampler: str,
    steps: int,
    count: int,
    seed: int = 0,
) -> Float[np.ndarray, "steps+1 count 2"]:
    """Where a sampler leads `count` canvases that hold one point each, glance by glance."""
    known = process(config)
    predict = ideal_denoiser(mixing(known), as_pictures(points))
    keys = jax.random.split(jax.random.key(seed), count)
    z = jax.random.normal(jax.random.key(seed + 1), (count, 1, 1, 2))
    steps_ = sample(stepper(known, predict, keys), z, table(sampler, known, steps))
    way = [z, *(step.x_next for step in steps_)]
    return np.stack(way)[:, :, 0, 0]


def paths(
    points: Points,
    config: VariancePreservingConfig,
    samplers: Sequence[str],
    steps: int,
    count: int = 24,
) -> Figure:
    """The ways of the same canvases with several samplers."""
    figure = paper(2.6 * len(samplers), 2.8)
    for axis, name in zip(
        figure.subplots(1, len(samplers), squeeze=False)[0], samplers, strict=True
    ):
        ways = walk(points, config, name, steps, count)
        axis.plot(*ways.transpose(2, 0, 1), color=COLOURS[5], linewidth=0.7)
        axis.plot(*ways[0].T, ".", color=PALE, markersize=4)
        axis.plot(*points.T, "o", color=COLOURS[1], markersize=5)
        axis.set_title(f"{name}, {steps} steps", fontsize=SMALL + 1, color=INK)
        axis.set(xlim=(-EDGE - 0.6, EDGE + 0.6), ylim=(-EDGE - 0.6, EDGE + 0.6))
        axis.set(xticks=[], yticks=[], aspect="equal")
    return figure


def answers(
    pictures: Float[np.ndarray, "n H W 3"], which: int, config: VariancePreservingConfig,
    timesteps: Sequence[int], seed: int = 0,
) -> Figure:  # fmt: skip
    """A picture under noise, the perfect eye's answer, and how sure it is of the right one."""
    bars = alpha_bar_table(config)[jnp.asarray(timesteps)]
    known = jnp.asarray(pictures)
    x0 = jnp.repeat(known[which : which + 1], len(timesteps), axis=0)
    noise = jax.random.normal(jax.random.key(seed), x0.shape[1:])
    z = add_noise(x0, jnp.broadcast_to(noise, x0.shape), bars)
    sure = shares(z, bars, known)[:, which]
    titles = [f"t = {t}\n{p:.0%} sure" for t, p in zip(timesteps, np.asarray(sure), strict=True)]
    rows = [
        ("under noise", list(to_uint8(z))),
        ("its answer", list(to_uint8(posterior_mean(z, bars, known)))),
    ]
    return rows_of(rows, titles)

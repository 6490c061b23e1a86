"""Figures of the noisy latent: how noise takes a picture away, and how fast."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from diffusion.images import from_uint8, to_uint8
from diffusion.inspection.figures.style import (
    COLOURS,
    INK,
    SMALL,
    alike,
    paper,
    pca_rgb,
    plain,
    rows_of,
    signed,
)
from diffusion.pipeline import Artist
from diffusion.process.schedule import snr


def schedules(named: Mapping[str, Float[np.ndarray, " t"]]) -> Figure:
    """alpha_bar of each schedule, and the logarithm of its signal-to-noise ratio."""
    figure = paper(7.5, 2.6)
    left, right = figure.subplots(1, 2)
    for (name, bars), colour in zip(named.items(), COLOURS, strict=False):
        left.plot(bars, color=colour, label=name)
        right.plot(np.log(snr(bars)), color=colour, label=name)
    left.set_title(r"signal that is left, $\bar\alpha_t$", fontsize=SMALL + 1, color=INK)
    right.set_title(r"$\log\,\mathrm{SNR}(t)$", fontsize=SMALL + 1, color=INK)
    right.axhline(0, color=INK, linewidth=0.5)
    right.annotate("as much signal as noise", (560, 0.2), fontsize=SMALL - 1, color=INK)
    for axis in (left, right):
        axis.set_xlabel("timestep t", fontsize=SMALL, color=INK)
        plain(axis)
    left.legend(fontsize=SMALL, frameon=False)
    return figure


def noising(
    artist: Artist, image: UInt8[np.ndarray, "H W 3"], timesteps: Sequence[int], seed: int = 0
) -> Figure:
    """The same timesteps in pixels and in the latent, which is hung, and shown as colours."""
    t = jnp.asarray(timesteps)
    b = len(timesteps)
    pixels = jnp.asarray(from_uint8(image))[None]
    z0 = artist.encode(image[None])

    def noised(x: jax.Array) -> jax.Array:
        noise = jax.random.normal(jax.random.key(seed), x.shape)
        many = jnp.broadcast_to(x, (b, *x.shape[1:]))
        return artist.process.add_noise(many, jnp.broadcast_to(noise, many.shape), t)

    z = noised(z0)
    return rows_of(
        [
            ("pixels under noise", list(to_uint8(noised(pixels)))),
            ("latent under noise", alike(list(z))),
            ("that latent, hung", list(artist.decode(z))),
        ],
        [f"t = {step}" for step in timesteps],
    )


def channels(
    artist: Artist, image: UInt8[np.ndarray, "H W 3"], timesteps: Sequence[int], seed: int = 0
) -> Figure:
    """The channels of one latent, one by one, under more and more noise."""
    z0 = artist.encode(image[None])
    noise = jax.random.normal(jax.random.key(seed), z0.shape)
    z = [artist.process.add_noise(z0, noise, jnp.asarray([step]))[0] for step in timesteps]
    rows = [
        (f"channel {channel}", [signed(one[..., channel]) for one in z])
        for channel in range(z0.shape[-1])
    ]
    return rows_of(rows, [f"t = {step}" for step in timesteps])


def values(
    artist: Artist, images: UInt8[np.ndarray, "n H W 3"], timesteps: Sequence[int]
) -> Figure:
    """Histograms of latents under noise, and the standard normal that they become."""
    z0 = artist.encode(images)
    noise = jax.random.normal(jax.random.key(0), z0.shape)
    figure = paper(1.9 * len(timesteps), 1.9)
    bins = np.linspace(-4, 4, 60)
    normal = np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi)
    for axis, step in zip(figure.subplots(1, len(timesteps), sharey=True), timesteps, strict=True):
        z = artist.process.add_noise(z0, noise, jnp.full(len(z0), step))
        axis.hist(np.asarray(z).ravel(), bins, density=True, color=COLOURS[5])
        axis.plot(bins, normal, color=COLOURS[1], linewidth=1)
        axis.set_title(f"t = {step}: mean {z.mean():.2f}, std {z.std():.2f}", fontsize=SMALL - 0.5)
        plain(axis, SMALL - 1)
    return figure


def canvases(artist: Artist, seeds: Sequence[int], prompt: str) -> Figure:
    """Canvases of several seeds, and what the same words make of each."""
    first, last = [], []
    for seed in seeds:
        steps = list(artist.sample(prompt, seed=seed))
        first.append(pca_rgb(steps[0].x_t[0]))
        last.append(artist.decode(steps[-1].x_next)[0])
    return rows_of([("canvas $z_T$", first), ("picture", last)], [f"seed {seed}" for seed in seeds])

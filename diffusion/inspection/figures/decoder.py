"""Figures of the exhibition: from a latent to a picture, stage by stage."""

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from diffusion.inspection.figures.style import AMOUNT, SIGNED, paper, pca_rgb, shape, show
from diffusion.inspection.trace import Trace
from diffusion.pipeline import Artist, Latents


def latent_channels(run: Trace) -> Figure:
    """The finished latent: its channels, all of them as colours, and the picture."""
    latents = np.asarray(run.steps[-1].x_next[0])
    count = latents.shape[-1]
    figure = paper(1.3 * (count + 2), 1.6)
    axes = figure.subplots(1, count + 2)
    reach = np.abs(latents).max()
    for i in range(count):
        show(axes[i], latents[..., i], f"channel {i}", cmap=SIGNED, vmin=-reach, vmax=reach)
    show(axes[-2], pca_rgb(latents), "all, as colours")
    show(axes[-1], run.pictures[0], "hung")
    return figure


def decoder(run: Trace) -> Figure:
    """The decoder's maps as colours, from the latent to the picture."""
    tensors = run.decoder_activations
    names = ["post_quant_conv", "decoder.conv_in", "decoder.middle"]
    names += [
        name for name in tensors if name.startswith("decoder.levels.") and name.count(".") == 2
    ]
    figure = paper(1.35 * (len(names) + 1), 1.75)
    axes = figure.subplots(1, len(names) + 1)
    for axis, name in zip(axes, names, strict=False):
        show(axis, pca_rgb(tensors[name][0]), f"{name}\n{shape(tensors[name])}")
    show(axes[-1], run.pictures[0], f"picture\n{shape(run.pictures)}")
    return figure


def perturbed(artist: Artist, latents: Latents, row: int, column: int, size: float = 2.0) -> Figure:
    """One position of a latent changed: how far the change reaches in the picture."""
    changed = jnp.asarray(latents).at[:, row, column].add(size)
    before, after = artist.decode(latents)[0], artist.decode(changed)[0]
    figure = paper(6, 2.1)
    axes = figure.subplots(1, 3)
    show(axes[0], before, "before")
    show(axes[1], after, f"latent ({row}, {column}) changed by {size:g}")
    difference = np.abs(after.astype(float) - before).mean(axis=-1)
    show(axes[2], difference, "change of the pixels", cmap=AMOUNT)
    side = artist.config.autoencoder.downscale
    axes[2].plot(
        np.array([0, side, side, 0, 0]) + column * side - 0.5,
        np.array([0, 0, side, side, 0]) + row * side - 0.5,
        color="#D55E00", linewidth=1,
    )  # fmt: skip
    return figure

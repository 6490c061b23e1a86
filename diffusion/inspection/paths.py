"""The way from noise to a picture: in which scale it can be straight, and how straight it is."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.inspection.trace import Trace
from diffusion.process import mixing


def noise_shares(run: Trace) -> Float[np.ndarray, " n"]:
    """sigma / (alpha + sigma) at each step: 1 is pure noise, 0 a picture."""
    process, t = mixing(run.artist.process), jnp.asarray([step.t for step in run.steps])
    return np.asarray(process.sigma(t) / (process.alpha(t) + process.sigma(t)))


def way(run: Trace) -> Float[np.ndarray, "n b h w c"]:
    """What the denoiser saw at each step, and the finished latent, in the scale of a flow.

    Divided by alpha + sigma, x_t of any process is (1 - s) x0 + s e with the share s of noise. So
    a denoiser that sees the same picture at every step walks along a straight line here.
    """
    process, t = mixing(run.artist.process), jnp.asarray([step.t for step in run.steps])
    scale = process.alpha(t) + process.sigma(t)
    canvases = [step.x_t / one for step, one in zip(run.steps, scale, strict=True)]
    return np.stack([*canvases, run.steps[-1].x_next])


def detour(ways: Float[Array | np.ndarray, "n b ..."]) -> Float[np.ndarray, " b"]:
    """How many times as long as the straight line between its ends each way is; 1 is straight."""
    flat: Any = np.asarray(ways, np.float64).reshape(*ways.shape[:2], -1)
    lengths = np.linalg.norm(np.diff(flat, axis=0), axis=-1).sum(axis=0)
    return np.asarray(lengths / np.linalg.norm(flat[-1] - flat[0], axis=-1))

"""What is likely, and who knows it: draws from the Gaussian of codes, and the denoiser's surprise.

An autoencoder says how a code looks as a picture, not which codes are those of pictures. Its prior
is what says that: a Gaussian of the codes that were seen, or a diffusion model.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffusion.pipeline import Artist
from diffusion.process import mixing


def gaussian_draws(
    codes: Float[Array | np.ndarray, "n h w z"], noise: Float[np.ndarray, "b n"]
) -> Float[np.ndarray, "b h w z"]:
    """Draws from the Gaussian that has the mean and the covariance of these codes.

    That covariance, of all numbers of a code with all others, is too large to be kept: each draw
    is the mean and a sum of the codes' differences from it, each times a number of the noise.

    Args:
        noise: standard normal, a number for each draw and code.
    """
    known = np.asarray(codes)
    mean = known.mean(axis=0)
    draws: np.ndarray = mean + np.tensordot(noise, known - mean, axes=1) / np.sqrt(len(known))
    return draws.astype(np.float32)


def surprise(
    artist: Artist, pictures: UInt8[np.ndarray, "n H W 3"], t: int, seed: int = 0
) -> float:
    """How far off the denoiser is when pictures are under noise, and nobody says what they show.

    The mean squared error of the latent that it sees, in units of a latent's variance. It is what a
    term of the bound on the likelihood is made of (Ho et al. 2020, eq. 8): small for what was
    expected.
    """
    x0 = artist.encode(pictures)
    noise = jax.random.normal(jax.random.key(seed), x0.shape)
    timesteps = jnp.full(len(x0), t)
    x_t = artist.process.add_noise(x0, noise, timesteps)
    context = jnp.repeat(artist.text_encoder(jnp.asarray(artist.tokenizer([""]))), len(x0), axis=0)
    prediction = artist.denoiser(x_t, timesteps, context)
    seen = mixing(artist.process).to_x0(prediction, x_t, timesteps)
    return float(jnp.square(seen - x0).mean())

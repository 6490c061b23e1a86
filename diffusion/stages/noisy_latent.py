"""2. The dotted canvas: pure noise to begin with, or a picture's latent with noise upon it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from diffusion.process.schedule import add_noise


def picture_keys(seed: Integer[Array, ""] | int, indices: Integer[Array, " b"]) -> Array:
    """One random key a picture, from the seed and the picture's number alone.

    So picture 3 of a seed is the same picture whatever else is painted beside it.
    """
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(indices)


def canvas(keys: Array, size: tuple[int, int, int]) -> Float[Array, "b h w z"]:
    """Standard normal noise of shape `size` (h, w, channels), one picture a key."""
    return jax.vmap(lambda key: jax.random.normal(key, size, jnp.float32))(keys)


def noisy_latent(
    latents: Float[Array, "b h w z"],
    noise: Float[Array, "b h w z"],
    timesteps: Int[Array, " b"],
    alpha_bars: Float[Array, " t"],
) -> Float[Array, "b h w z"]:
    """z_t: the scaled latent of a picture under the noise of timesteps 0 to t."""
    return add_noise(latents, noise, alpha_bars[timesteps])

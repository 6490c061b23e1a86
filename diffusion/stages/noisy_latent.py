"""2. The dotted canvas: the pure noise that every painting begins with.

A picture's latent under noise is `add_noise` of the process.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer


def picture_keys(seed: Integer[Array, ""] | int, indices: Integer[Array, " b"]) -> Array:
    """One random key a picture, from the seed and the picture's number alone.

    So picture 3 of a seed is the same picture whatever else is painted beside it.
    """
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(indices)


def mixed_noise(
    own: Float[Array, "*b f h w z"],
    common: Float[Array, "*b _ h w z"],
    share: float | Float[Array, "*b 1 1 1 1"],
) -> Float[Array, "*b f h w z"]:
    """The noise of the frames of a film, which have a share of its variance in common.

    What is common is one map for all frames, or each frame has its view of it.

    The mixed model of Ge et al. 2023 ("Preserve your own correlation"); its alpha^2 is
    share / (1 - share). What the denoiser decides in the noise is then nearly the same in all
    frames before any frame has heard of another.
    """
    return share**0.5 * common + (1.0 - share) ** 0.5 * own


def initial_noise(keys: Array, size: tuple[int, int, int]) -> Float[Array, "b h w z"]:
    """Standard normal noise of shape `size` (h, w, channels), one picture a key."""
    return jax.vmap(lambda key: jax.random.normal(key, size, jnp.float32))(keys)

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


def initial_noise(keys: Array, size: tuple[int, int, int]) -> Float[Array, "b h w z"]:
    """Standard normal noise of shape `size` (h, w, channels), one picture a key."""
    return jax.vmap(lambda key: jax.random.normal(key, size, jnp.float32))(keys)

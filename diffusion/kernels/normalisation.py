"""The statistics of a group normalisation in one pass over memory, which is its cost on a CPU."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def group_statistics(
    x: Float[Array, "b h w c"], groups: int
) -> tuple[Float[Array, "b g"], Float[Array, "b g"]]:
    """Mean and variance of each group of channels of each picture, in float32.

    Both come from sums over each channel. Measured from one of the channel's own values, E[x^2] -
    E[x]^2 keeps its digits even where the mean is much larger than the deviation; the result does
    not depend on that origin.
    """
    wide = x.astype(jnp.float32)
    origin = lax.stop_gradient(wide[:, :1, :1])
    offset = jnp.mean(wide - origin, axis=(1, 2))
    variance = jnp.mean(jnp.square(wide - origin), axis=(1, 2)) - jnp.square(offset)
    mean = (offset + origin[:, 0, 0]).reshape(len(x), groups, -1)

    # Law of total variance: within the channels of a group, and between their means.
    group_mean = mean.mean(axis=-1, keepdims=True)
    between = jnp.square(mean - group_mean)
    return group_mean[..., 0], jnp.mean(variance.reshape(mean.shape) + between, axis=-1)

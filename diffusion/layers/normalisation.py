"""Group normalisation (Wu & He 2018, section 3)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class GroupNorm(nnx.Module):
    """Each group of channels of a picture gets mean 0 and variance 1, then a learnt scale and bias.

    On a CPU the passes over memory are the cost, so mean and variance of every channel come from
    one pass, in float32, and all that follows is folded into one scale and one shift a channel.

    Raises ValueError where the channels do not divide into the groups.
    """

    def __init__(self, channels: int, groups: int, *, eps: float):
        if channels % groups:
            raise ValueError(f"norm_groups: {groups} groups do not divide {channels} channels")
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups = groups
        self.eps = eps

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, _, _, c = x.shape
        wide = x.astype(jnp.float32)
        # Measured from one of the channel's own values, E[x^2] - E[x]^2 keeps its digits even where
        # the mean is much larger than the deviation. The result does not depend on the origin.
        origin = lax.stop_gradient(wide[:, :1, :1])
        offset = jnp.mean(wide - origin, axis=(1, 2))
        variance = jnp.mean(jnp.square(wide - origin), axis=(1, 2)) - jnp.square(offset)
        mean = (offset + origin[:, 0, 0]).reshape(b, self.groups, c // self.groups)

        # Law of total variance: within the channels of a group, and between their means.
        group_mean = mean.mean(axis=-1, keepdims=True)
        group_variance = jnp.mean(
            variance.reshape(mean.shape) + jnp.square(mean - group_mean), axis=-1, keepdims=True
        )
        inverse = jnp.broadcast_to(lax.rsqrt(group_variance + self.eps), mean.shape).reshape(b, c)
        scale = inverse * self.scale[None].astype(jnp.float32)
        shift = self.bias[None] - jnp.broadcast_to(group_mean, mean.shape).reshape(b, c) * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).astype(x.dtype)

"""Group normalisation (Wu & He 2018, section 3)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from diffusion.kernels.normalisation import group_statistics


class GroupNorm(nnx.Module):
    """Each group of channels of a picture gets mean 0 and variance 1, then a learnt scale and bias.

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
        mean, variance = group_statistics(x, self.groups)
        return self.normalised(x, mean, variance)

    def normalised(
        self,
        x: Float[Array, "b h w c"],
        mean: Float[Array, "b g"],
        variance: Float[Array, "b g"],
    ) -> Float[Array, "b h w c"]:
        """(x - mean) / sqrt(variance + eps) * scale + bias, by one factor and shift a channel."""
        mean, inverse = (
            jnp.repeat(value, x.shape[3] // self.groups, axis=1)
            for value in (mean, lax.rsqrt(variance + self.eps))
        )
        factor = inverse * self.scale[None].astype(jnp.float32)
        shift = self.bias[None] - mean * factor
        y = x.astype(jnp.float32) * factor[:, None, None] + shift[:, None, None]
        return y.astype(x.dtype)

"""How the network is told how noisy the canvas is."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Real

from diffusion.layers.linear import Linear


def sinusoids(
    timesteps: Real[Array, " b"], width: int, shift: int = 0
) -> Float[Array, "b {width}"]:
    """Cosines, then sines, of the timestep at h = width/2 frequencies: 1, down to 10000^-((h-1)/h).

    The position code of Vaswani et al. 2017 (section 3.5); Stable Diffusion puts cosine first.

    Args:
        shift: 1 where the lowest frequency is 1/10000 itself, as in the files of DiT.
    """
    half = width // 2
    steps = jnp.arange(half, dtype=jnp.float32) / (half - shift)
    frequencies = jnp.exp(-math.log(10_000) * steps)
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def guidance_sinusoids(guidance: Float[Array, " b"], width: int) -> Float[Array, "b {width}"]:
    """Sines, then cosines, of 1000 (guidance - 1) at h = width/2 frequencies: 1 down to 1/10000.

    The code of Luo et al. 2023, section 4.2. Unlike `sinusoids` it has sines first, and its lowest
    frequency is 1/10000 itself.
    """
    half = width // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / (half - 1))
    angles = 1000.0 * (guidance.astype(jnp.float32)[:, None] - 1.0) * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeEmbedding(nnx.Module):
    """Timestep -> sinusoids -> Linear -> SiLU -> Linear.

    Args:
        guidance_width: of the code of a guidance scale, which a Linear adds to the sinusoids.
        shift: see `sinusoids`.
    """

    traced = True

    def __init__(
        self,
        channels: int,
        width: int,
        guidance_width: int | None = None,
        *,
        shift: int = 0,
        rngs: nnx.Rngs,
    ):
        self.linear1 = Linear(channels, width, rngs=rngs)
        self.linear2 = Linear(width, width, rngs=rngs)
        if guidance_width is not None:
            self.guidance = Linear(guidance_width, channels, use_bias=False, rngs=rngs)
        self.channels, self.guidance_width, self.shift = channels, guidance_width, shift

    def __call__(
        self, timesteps: Real[Array, " b"], guidance: Float[Array, " b"] | None = None
    ) -> Float[Array, "b t"]:
        dtype = self.linear1.kernel[...].dtype
        features = sinusoids(timesteps, self.channels, self.shift).astype(dtype)
        if guidance is not None and self.guidance_width is not None:
            code = guidance_sinusoids(guidance, self.guidance_width)
            features = features + self.guidance(code.astype(dtype))
        return self.linear2(jax.nn.silu(self.linear1(features)))

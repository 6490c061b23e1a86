"""How the network is told how noisy the canvas is."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


def sinusoids(timesteps: Int[Array, " b"], width: int) -> Float[Array, "b {width}"]:
    """Cosines, then sines, of the timestep at h = width/2 frequencies: 1, down to 10000^-((h-1)/h).

    The position code of Vaswani et al. 2017 (section 3.5); Stable Diffusion puts cosine first.
    """
    half = width // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nnx.Module):
    """Timestep -> sinusoids -> Linear -> SiLU -> Linear."""

    traced = True

    def __init__(self, channels: int, width: int, *, rngs: nnx.Rngs):
        self.linear1 = nnx.Linear(channels, width, rngs=rngs)
        self.linear2 = nnx.Linear(width, width, rngs=rngs)
        self.channels = channels

    def __call__(self, timesteps: Int[Array, " b"]) -> Float[Array, "b t"]:
        features = sinusoids(timesteps, self.channels).astype(self.linear1.kernel[...].dtype)
        return self.linear2(jax.nn.silu(self.linear1(features)))

"""Convolution as one matrix product: shifted copies of the map side by side ("im2col").

Chellapilla, Puri & Simard 2006. For a 3x3 kernel that is nine times the memory of the map, and
little where the map is small and the kernel large: there the product reads each weight once, at
the speed of memory.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.kernels.plain import AROUND, Padding


def windows(
    x: Float[Array, "b h w c"], size: int, stride: int, padding: Padding
) -> Float[Array, "b h2 w2 _"]:
    """The neighbourhoods of size x size, each row by row; zeros outside of the map."""
    framed = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    high, wide = (side - size + 1 for side in framed.shape[1:3])  # places of a first corner
    return jnp.concatenate(
        [
            framed[:, i : i + high : stride, j : j + wide : stride]
            for i in range(size)
            for j in range(size)
        ],
        axis=-1,
    )


def gathered(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    stride: int = 1,
    padding: Padding = AROUND,
) -> Float[Array, "b h2 w2 d"]:
    """All windows of the map, times the kernel as a matrix (k k c, d)."""
    return windows(x, len(kernel), stride, padding) @ kernel.reshape(-1, kernel.shape[-1])

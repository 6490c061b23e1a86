"""Convolution as one matrix product: shifted copies of the map side by side ("im2col").

Chellapilla, Puri & Simard 2006. For a 3x3 kernel that is nine times the memory of the map, and
little where the map is small and the kernel large: there the product reads each weight once, at
the speed of memory.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.layers.forms.plain import AROUND, Padding


def shifts(
    x: Float[Array, "b h w c"], size: int = 3, padding: Padding = AROUND
) -> Float[Array, "b h w _"]:
    """At each position its neighbourhood of size x size, row by row; zeros outside of the map."""
    h, w = x.shape[1:3]
    framed = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return jnp.concatenate(
        [framed[:, i : i + h, j : j + w] for i in range(size) for j in range(size)], axis=-1
    )


def gathered(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], padding: Padding = AROUND
) -> Float[Array, "b h w d"]:
    """All windows of the map, times the kernel as a matrix (k k c, d)."""
    return shifts(x, len(kernel), padding) @ kernel.reshape(-1, kernel.shape[-1])

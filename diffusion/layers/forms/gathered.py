"""Convolution as one matrix product: nine shifted copies of the map side by side ("im2col").

Chellapilla, Puri & Simard 2006. Nine times the memory of the map, which is little where the map is
small and the kernel large: there the product reads each weight once, at the speed of memory.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def shifts(x: Float[Array, "b h w c"]) -> Float[Array, "b h w 9*c"]:
    """At each position its neighbourhood of 3x3, row by row; zeros outside of the map."""
    h, w = x.shape[1:3]
    framed = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate(
        [framed[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=-1
    )


def gathered(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h w d"]:
    """All windows of the map, times the kernel as a matrix (9 c, d)."""
    return shifts(x) @ kernel.reshape(-1, kernel.shape[-1])

"""The convolution that XLA has: right for every shape and platform."""

from __future__ import annotations

from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


def plain(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    stride: int = 1,
    padding: Padding | None = None,
) -> Float[Array, "b h2 w2 d"]:
    """Every output is the sum over a window of the map, weighted by the kernel; NHWC, HWIO.

    Without a `padding` there is as much on all sides as keeps the size at stride 1.
    """
    around = (len(kernel) // 2,) * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding or (around, around),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

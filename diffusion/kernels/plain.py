"""The convolution that XLA has: right for every shape and platform."""

from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)
AROUND: Padding = ((1, 1), (1, 1))


def plain(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    stride: int = 1,
    padding: Padding = AROUND,
) -> Float[Array, "b h2 w2 d"]:
    """Every output is the sum over a window of the map, weighted by the kernel; NHWC, HWIO."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

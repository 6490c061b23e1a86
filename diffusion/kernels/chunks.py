"""A long sequence in parts, so that what is between input and output stays in the cache."""

from collections.abc import Callable

from jax import lax
from jaxtyping import Array, Float

from diffusion.kernels.device import suits_a_cpu

AT_ONCE = 2**21  # values of a large intermediate result at a time
POSITIONS = 512  # at a time, where each position is treated alone


def in_parts(
    layer: Callable[[Array], Array], x: Float[Array, "b n c"], width: int
) -> Float[Array, "b n d"]:
    """`layer(x)`, for a layer that treats each position alone; on a CPU some at a time.

    A feed forward layer over 4,096 positions of 320 channels takes 0.73 of the time (2026-11-24).

    Args:
        width: values that the layer makes of each position, in between.
    """
    b, n, c = x.shape
    if not suits_a_cpu(x) or b * n * width <= 2 * AT_ONCE:
        return layer(x)
    parts = x.reshape(-1, largest_divisor(b * n, POSITIONS), c)
    return lax.map(layer, parts).reshape(b, n, -1)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor up to a limit: to go through a sequence in equal parts."""
    return next(n for n in range(max(1, min(number, limit)), 0, -1) if number % n == 0)

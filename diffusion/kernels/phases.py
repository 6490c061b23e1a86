"""Nearest upsampling and a 3x3 convolution in one, with 4/9 of the multiplications.

After upsampling, the nine weights of a window meet only four different values: in each direction
an output at an even place sees w0 of the neighbour before and w1 + w2 of its own value, one at an
odd place w0 + w1 of its own and w2 of the neighbour after. So each of the four kinds of outputs is
a 2x2 convolution of the small map (Shi et al. 2016, "sub-pixel convolution", read backwards).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.kernels.data_dependency import awaiting
from diffusion.kernels.plain import plain

EVEN = np.array([[1, 0, 0], [0, 1, 1]])  # 3 weights -> 2, for the outputs at even places,
ODD = np.array([[1, 1, 0], [0, 0, 1]])  # and at odd ones


def upsampled(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "3 3 c d"],
    form: Callable[..., Float[Array, "b h w d"]] = plain,
) -> Float[Array, "b 2*h 2*w d"]:
    """The 3x3 convolution of x with each position repeated twice in both directions.

    Args:
        form: how to compute the four small convolutions.
    """
    b, h, w, c = x.shape
    d = kernel.shape[-1]

    def phase(row: int, column: int) -> Float[Array, "b h w d"]:
        weights = jnp.asarray(np.kron((EVEN, ODD)[row], (EVEN, ODD)[column]), kernel.dtype)
        summed = awaiting(x, weights) @ kernel.reshape(9, c * d)
        padding = ((1 - row, row), (1 - column, column))  # an even output looks up and left
        return form(x, summed.reshape(2, 2, c, d), padding=padding)

    y = jnp.stack([jnp.stack([phase(i, j) for j in range(2)], axis=3) for i in range(2)], axis=2)
    return y.reshape(b, 2 * h, 2 * w, d)

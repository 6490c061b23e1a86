"""Convolution with a quarter of the multiplications (Winograd 1980; Lavin & Gray 2016).

A product of polynomials can be taken at points: evaluate both, multiply the values, interpolate.
Four outputs of a convolution with three weights need six points in place of 4 * 3 multiplications,
in two dimensions 6 * 6 in place of 16 * 9. So a map is cut into tiles of 4x4, each with the ring
around it, and for each of the 36 points there is one matrix product over the channels:

    Y = A' [ (G k G') * (B' X B) ] A        (Lavin & Gray 2016, eq. 8, summed over channels)

The price is rounding, and the points decide how much. With the usual 0, +-1, +-2 a convolution in
float32 is off by 1e-5 of its largest output; with 0, +-2/3, +-3/2, whose powers stay near one, by
3e-6 (the plain one by 6e-7). They are reciprocals, which leaves only a few factors.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from diffusion.kernels.data_dependency import awaiting, one_by_one

TILE = 4  # outputs of a tile, in each direction
SIDE = 6  # inputs of a tile, and points: 0, a, -a, b, -b and infinity
A, B = 2 / 3, 3 / 2
STRIP = 2**22  # as many values of a map are at points at once, or as many as of the kernel
PART = 128  # output channels at a time: so much of a kernel at points stays in the cache

_a, _b = (np.array([1, p, p * p]) for p in (A, B))
_sign = np.array([1, -1, 1])
G = np.stack(
    [
        np.array([1, 0, 0]),
        _a / (2 * A**2 * (A**2 - B**2)),
        _a * _sign / (2 * A**2 * (A**2 - B**2)),
        _b / (2 * B**2 * (B**2 - A**2)),
        _b * _sign / (2 * B**2 * (B**2 - A**2)),
        np.array([0, 0, 1]),
    ]
)


def winograd(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"] | Float[Array, "36 c d"]
) -> Float[Array, "b h w d"]:
    """A 3x3 convolution, some rows of tiles and then some output channels at a time.

    Args:
        kernel: as it is, or at points already; then with all output channels at once.
    """
    b, h, w, c = x.shape
    d = kernel.shape[-1]
    high, wide = -(-h // TILE), -(-w // TILE)  # tiles; the last ones may hang over
    strips = -(-(SIDE**2) * b * high * wide * c // max(STRIP, SIDE**2 * c * d))
    rows = -(-high // strips)  # of tiles in a strip
    strips, size = -(-high // rows), rows * TILE
    around = (1, 1 + strips * size - h), (1, 1 + wide * TILE - w)
    framed = jnp.pad(x, ((0, 0), *around, (0, 0)))

    def strip(i: Array) -> Float[Array, "b rows w2 d"]:
        return _strip(lax.dynamic_slice_in_dim(framed, i * size, size + 2, axis=1), kernel)

    return one_by_one(strip, strips, axis=1, after=x)[:, :h, :w]


def _strip(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"] | Float[Array, "36 c d"]
) -> Float[Array, "b h-2 w-2 d"]:
    """The convolution of whole tiles and the ring around them."""
    b, high, wide = len(x), x.shape[1] // TILE, x.shape[2] // TILE
    d = kernel.shape[-1]
    values = map_at_points(x)
    if kernel.ndim == 3:
        return from_points(jnp.matmul(values, kernel), b, high, wide)
    size = d if d % PART else PART

    def part(i: Array) -> Float[Array, "b h w2 part"]:
        some = lax.dynamic_slice_in_dim(kernel, i * size, size, axis=3)
        products = jnp.matmul(values, kernel_at_points(some, after=values))
        return from_points(products, b, high, wide)

    return one_by_one(part, d // size, axis=3, after=values)


def kernel_at_points(kernel: Float[Array, "3 3 c d"], after: Array) -> Float[Array, "36 c d"]:
    """G k G': the kernel at every pair of points; see `awaiting`."""
    c, d = kernel.shape[2:]
    square = awaiting(after, jnp.asarray(np.kron(G, G), kernel.dtype))
    return (square @ kernel.reshape(9, c * d)).reshape(SIDE**2, c, d)


def map_at_points(x: Float[Array, "b h w c"]) -> Float[Array, "36 _ c"]:
    """B' x B: each tile, with the ring around it, at every pair of points.

    The barriers, here and below, keep XLA from doing the first half of a transform again for each
    result of the second: that would double its time, and take four times as long to compile.
    """
    high, wide = x.shape[1] // TILE * TILE, x.shape[2] // TILE * TILE
    lines = [x[:, i : i + high - TILE + 1 : TILE] for i in range(SIDE)]
    half = lax.optimization_barrier(jnp.stack(_into(lines)))
    columns = [half[:, :, :, i : i + wide - TILE + 1 : TILE] for i in range(SIDE)]
    values = jnp.stack(_into(columns), axis=1).reshape(SIDE**2, -1, x.shape[-1])
    return lax.optimization_barrier(values)


def from_points(
    products: Float[Array, "36 n d"], b: int, high: int, wide: int
) -> Float[Array, "b h w d"]:
    """A' y A: the outputs of all tiles, b * high * wide of them."""
    d = products.shape[-1]
    half = jnp.stack(_back(products.reshape(SIDE, SIDE, b, high, wide, d)), axis=2)
    y = jnp.stack(_back(lax.optimization_barrier(half)), axis=-2)  # b, 4, high, wide, 4, d
    return y.swapaxes(1, 2).reshape(b, high * TILE, wide * TILE, d)


def _into(x: Sequence[Array]) -> list[Array]:
    """B' x: the values at the points of a polynomial that six neighbours stand for."""
    a, b, both = (np.float32(factor) for factor in (A, B, A**2 + B**2))
    even_a, odd_a = x[4] - b * b * x[2], a * x[3] - b * x[1]
    even_b, odd_b = x[4] - a * a * x[2], b * x[3] - a * x[1]
    return [
        x[0] - both * x[2] + x[4],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        x[1] - both * x[3] + x[5],
    ]


def _back(y: Sequence[Array] | Array) -> list[Array]:
    """A' y: four outputs from the values at six points."""
    a, b = np.float32(A), np.float32(B)
    sum_a, difference_a = y[1] + y[2], a * (y[1] - y[2])
    sum_b, difference_b = y[3] + y[4], b * (y[3] - y[4])
    return [
        y[0] + sum_a + sum_b,
        difference_a + difference_b,
        a * a * sum_a + b * b * sum_b,
        a * a * difference_a + b * b * difference_b + y[5],
    ]

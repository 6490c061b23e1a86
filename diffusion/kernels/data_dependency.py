"""How to keep XLA from preparing everything at once.

What does not depend on the input, XLA may compute at the very beginning, and it does: transformed
kernels and empty maps of all layers would take gigabytes. (A barrier is gone when it decides.)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def awaiting(x: Array, matrix: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """The matrix as it is, but not before x is there."""
    return matrix + _zero(x).astype(matrix.dtype)


def one_by_one(part: Callable[[Array], Array], count: int, axis: int, after: Array) -> Array:
    """part(0), part(1), ... part(count - 1) computed one after the other, joined along an axis.

    `lax.map` would join them along a new one, which needs a second copy of the whole.
    """
    first = jnp.zeros((), jnp.int32)
    if count == 1:
        return part(first)
    like = jax.eval_shape(part, first)
    size = like.shape[axis]
    shape = (*like.shape[:axis], count * size, *like.shape[axis + 1 :])
    return lax.fori_loop(
        0,
        count,
        lambda i, whole: lax.dynamic_update_slice_in_dim(whole, part(i), i * size, axis),
        jnp.broadcast_to(_zero(after).astype(like.dtype), shape),
    )


def rounded(product: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """A product that is rounded before anything is added to it.

    A compiler may round product and sum together (one instruction does both). Here the sum that it
    finds is with a zero which it does not know.
    """
    return product + _zero(product).astype(product.dtype)


def _zero(x: Array) -> Array:
    """False: nothing is greater than infinity. But XLA does not know that, and waits for x."""
    return x[(0,) * x.ndim] > jnp.inf

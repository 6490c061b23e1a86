"""Attention in less memory: `softmax(Q K' / sqrt(d)) V` without the softmax in one piece.

The logits of a large map (4,096 x 4,096 a head at 512x512 pixels) would need gigabytes, be written
to memory and read again. A head and some queries at a time, they stay in the cache: 1,024
positions, 8 heads of 80, batch 2 take 42 ms in place of 95 (two cores, 2026-11-24). And where not
even all keys fit, the results of some are merged with those of the others (Milakov & Gimelshein
2018; Rabe & Staats 2021).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from diffusion.kernels.chunks import AT_ONCE, largest_divisor
from diffusion.kernels.device import has_flash_attention

FEW_KEYS = 512  # up to here all heads go side by side


def attend(
    query: Float[Array, "b n c"],
    key: Float[Array, "b m c"],
    value: Float[Array, "b m c"],
    heads: int,
    mask: Bool[Array, "n m"] | None = None,
) -> Float[Array, "b n c"]:
    """What `diffusion.layers.attention.attention` says, in the form that suits shape and device.

    Where cuDNN has one kernel for all of it (Dao et al. 2022), that is taken.

    Args:
        mask: True where query n may look at key m; None: everywhere.
    """
    b, n, c = query.shape
    m, d = key.shape[1], c // heads
    large = mask is None and m > FEW_KEYS
    if large and has_flash_attention(query, d):
        q, k, v = (x.reshape(b, -1, heads, d) for x in (query, key, value))
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn").reshape(b, n, c)

    def apart(x: Float[Array, "b n c"]) -> Float[Array, "bh n d"]:
        return x.reshape(b, -1, heads, d).swapaxes(1, 2).reshape(b * heads, -1, d)

    def mix(q: Array, k: Array, v: Array) -> Array:
        return finish(attend_partly(q, k, v, mask)).astype(v.dtype)

    query, key, value = apart(query * d**-0.5), apart(key), apart(value)
    if large:
        chunks = query.reshape(b * heads, -1, largest_divisor(n, AT_ONCE // m), d)
        mixed = lax.map(
            lambda head: lax.map(lambda chunk: mix(chunk, head[1], head[2]), head[0]),
            (chunks, key, value),
        )
    else:
        mixed = mix(query, key, value)
    return mixed.reshape(b, heads, n, d).swapaxes(1, 2).reshape(b, n, c)


class Partial(NamedTuple):
    """What each query has found among some of the keys."""

    highest: Float[Array, "*b n 1"]  # logit
    total: Float[Array, "*b n 1"]  # of the weights exp(logit - highest)
    mixed: Float[Array, "*b n d"]  # the sum of the values, each times its weight


def attend_partly(
    query: Float[Array, "*b n d"],  # over sqrt(d) already
    key: Float[Array, "*b m d"],
    value: Float[Array, "*b m d"],
    mask: Bool[Array, "#n m"] | None = None,
) -> Partial:
    """Each query looks at some keys; in float32, whatever they are in."""
    logits = jnp.matmul(query, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
    highest = lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits - highest)
    mixed = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return Partial(highest, weights.sum(axis=-1, keepdims=True), mixed)


def merge(some: Partial, others: Partial) -> Partial:
    """What was found among both, all weights relative to the highest logit of both."""
    highest = jnp.maximum(some.highest, others.highest)
    fade, fade_others = jnp.exp(some.highest - highest), jnp.exp(others.highest - highest)
    return Partial(
        highest,
        some.total * fade + others.total * fade_others,
        some.mixed * fade + others.mixed * fade_others,
    )


def finish(found: Partial) -> Float[Array, "*b n d"]:
    """The weighted mean of the values. Divided after the product: that saves a pass over (n, m)."""
    return found.mixed / found.total

"""Attention (Vaswani et al. 2017), and the transformer that lets a picture listen to words."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from diffusion.kernels.device import has_flash_attention, suits_a_cpu
from diffusion.layers.activations import exact_gelu
from diffusion.layers.normalisation import GroupNorm

FEW_KEYS = 512  # up to here all heads go side by side
AT_ONCE = 2**21  # values of a large intermediate result at a time, so that they stay in the cache


def attention(
    query: Float[Array, "b n c"],
    key: Float[Array, "b m c"],
    value: Float[Array, "b m c"],
    heads: int,
    mask: Bool[Array, "n m"] | None = None,
) -> Float[Array, "b n c"]:
    """softmax(Q K' / sqrt(d)) V in each head, d = c / heads (eq. 1); softmax in float32.

    The logits of a large map (4,096 x 4,096 a head at 512x512 pixels) would need gigabytes and be
    written to memory and read again; a head and some queries at a time, they stay in the cache.
    1,024 positions, 8 heads of 80, batch 2: 42 ms in place of 95 (two cores, 2026-11-24). Where
    cuDNN has one kernel for all of it (Dao et al. 2022), that is taken.

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

    query, key, value = apart(query * d**-0.5), apart(key), apart(value)
    if large:
        chunks = query.reshape(b * heads, -1, largest_divisor(n, AT_ONCE // m), d)
        mixed = lax.map(
            lambda head: lax.map(lambda chunk: _mix(chunk, head[1], head[2]), head[0]),
            (chunks, key, value),
        )
    else:
        mixed = _mix(query, key, value, mask)
    return mixed.reshape(b, heads, n, d).swapaxes(1, 2).reshape(b, n, c)


def attention_weights(
    query: Float[Array, "b n c"],
    key: Float[Array, "b m c"],
    heads: int,
    mask: Bool[Array, "n m"] | None = None,
) -> Float[Array, "b heads n m"]:
    """softmax(Q K' / sqrt(d)): how much each query of each head looks at each key, to be looked at.

    `attention` never holds them all. Each row sums to 1.
    """
    d = query.shape[2] // heads
    query, key = (x.reshape(*x.shape[:2], heads, d).swapaxes(1, 2) for x in (query, key))
    logits = jnp.einsum("bhnd,bhmd->bhnm", query * d**-0.5, key, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
    return jax.nn.softmax(logits, axis=-1)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor up to a limit: to go through a sequence in equal parts."""
    return next(n for n in range(max(1, min(number, limit)), 0, -1) if number % n == 0)


def _mix(
    query: Float[Array, "*b n d"],
    key: Float[Array, "*b m d"],
    value: Float[Array, "*b m d"],
    mask: Bool[Array, "n m"] | None = None,
) -> Float[Array, "*b n d"]:
    """For each query, the mean of the values, weighted by how well their keys match."""
    logits = jnp.matmul(query, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
    # Dividing by the sum after the product with V, not before it, saves a pass over (n, m).
    weights = jnp.exp(logits - lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    mixed = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return (mixed / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


class Attention(nnx.Module):
    """Multi-head attention of a sequence to itself, or to a context of another width."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context_width: int | None = None,
        qkv_bias: bool,  # the U-Net's have none; the text encoder's and the VAE's do
        rngs: nnx.Rngs,
    ):
        if width % heads:
            raise ValueError(f"heads: {heads} heads do not divide a width of {width}")
        context_width = context_width or width
        self.query = nnx.Linear(width, width, use_bias=qkv_bias, rngs=rngs)
        self.key = nnx.Linear(context_width, width, use_bias=qkv_bias, rngs=rngs)
        self.value = nnx.Linear(context_width, width, use_bias=qkv_bias, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.heads = heads

    def __call__(
        self,
        x: Float[Array, "b n c"],
        context: Float[Array, "b m d"] | None = None,
        mask: Bool[Array, "n m"] | None = None,
    ) -> Float[Array, "b n c"]:
        context = x if context is None else context
        h = attention(self.query(x), self.key(context), self.value(context), self.heads, mask)
        return self.out(h)


class FeedForward(nnx.Module):
    """GEGLU (Shazeer 2020): Linear c -> 8c, value times exact (erf) gelu of gate, Linear to c."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.linear1 = nnx.Linear(width, 8 * width, rngs=rngs)
        self.linear2 = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        b, n, c = x.shape
        if not suits_a_cpu(x) or b * n * 8 * c <= 2 * AT_ONCE:
            return self.on_some(x)
        # 512 positions at a time: 0.73 of the time for 4,096 positions of 320 (2026-11-24).
        some = x.reshape(-1, largest_divisor(b * n, 512), c)
        return lax.map(self.on_some, some).reshape(b, n, c)

    def on_some(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        value, gate = jnp.split(self.linear1(x), 2, axis=-1)
        return self.linear2(value * exact_gelu(gate))


class TransformerBlock(nnx.Module):
    """Look around in the picture, listen to the words, think: each added to what was there."""

    def __init__(self, width: int, heads: int, context_width: int, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.self_attention = Attention(width, heads, qkv_bias=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.cross_attention = Attention(
            width, heads, context_width=context_width, qkv_bias=False, rngs=rngs
        )
        self.norm3 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.feed_forward = FeedForward(width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n c"], context: Float[Array, "b m d"]
    ) -> Float[Array, "b n c"]:
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nnx.Module):
    """A transformer block over the positions of a map (Rombach et al. 2022, appendix E.2.1).

    Its two projections are 1x1 convolutions in the files of SD 1.x and Linear layers in those of
    SD 2.x: the same arithmetic on NHWC, so there is one form here.
    """

    def __init__(
        self, channels: int, heads: int, context_width: int, *, groups: int, rngs: nnx.Rngs
    ):
        self.norm = GroupNorm(channels, groups, eps=1e-6)
        self.project_in = nnx.Linear(channels, channels, rngs=rngs)
        self.block = TransformerBlock(channels, heads, context_width, rngs=rngs)
        self.project_out = nnx.Linear(
            channels, channels, kernel_init=jax.nn.initializers.zeros, rngs=rngs
        )

    def __call__(
        self, x: Float[Array, "b h w c"], context: Float[Array, "b m d"]
    ) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        tokens = self.project_in(self.norm(x).reshape(b, h * w, c))
        tokens = self.project_out(self.block(tokens, context))
        return x + tokens.reshape(b, h, w, c)

"""Attention (Vaswani et al. 2017), and the transformer that lets a picture listen to words."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from diffusion.kernels.attention import attend
from diffusion.kernels.chunks import in_parts
from diffusion.layers.activations import exact_gelu
from diffusion.layers.linear import Linear
from diffusion.layers.normalisation import GroupNorm


def attention(
    query: Float[Array, "b n c"],
    key: Float[Array, "b m c"],
    value: Float[Array, "b m c"],
    heads: int,
    mask: Bool[Array, "n m"] | None = None,
) -> Float[Array, "b n c"]:
    """softmax(Q K' / sqrt(d)) V in each head, d = c / heads (eq. 1).

    The equation, to be read and to be compared with: the networks run it as
    `diffusion.kernels.attention.attend`, which never holds all weights at once.
    """
    weights = attention_weights(query, key, heads, mask)
    mixed = weights.astype(value.dtype) @ _apart(value, heads)
    return mixed.swapaxes(1, 2).reshape(query.shape)


def attention_weights(
    query: Float[Array, "b n c"],
    key: Float[Array, "b m c"],
    heads: int,
    mask: Bool[Array, "n m"] | None = None,
) -> Float[Array, "b heads n m"]:
    """softmax(Q K' / sqrt(d)): how much each query looks at each key. Each row sums to 1.

    Args:
        mask: True where query n may look at key m; None: everywhere.
    """
    q, k = _apart(query, heads), _apart(key, heads)
    logits = jnp.matmul(q, k.mT, preferred_element_type=jnp.float32) / q.shape[-1] ** 0.5
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
    return jax.nn.softmax(logits, axis=-1)


def _apart(x: Float[Array, "b n c"], heads: int) -> Float[Array, "b heads n d"]:
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


class Attention(nnx.Module):
    """Multi-head attention of a sequence to itself, or to a context of another width."""

    traced = True

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context_width: int | None = None,
        qkv_bias: bool,  # the U-Net's have none; the text encoder's and the VAE's do
        out_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        if width % heads:
            raise ValueError(f"heads: {heads} heads do not divide a width of {width}")
        context_width = context_width or width
        self.query = Linear(width, width, use_bias=qkv_bias, rngs=rngs)
        self.key = Linear(context_width, width, use_bias=qkv_bias, rngs=rngs)
        self.value = Linear(context_width, width, use_bias=qkv_bias, rngs=rngs)
        self.out = Linear(width, width, use_bias=out_bias, rngs=rngs)
        self.heads = heads

    def __call__(
        self,
        x: Float[Array, "b n c"],
        context: Float[Array, "b m d"] | None = None,
        mask: Bool[Array, "n m"] | None = None,
    ) -> Float[Array, "b n c"]:
        context = x if context is None else context
        h = attend(self.query(x), self.key(context), self.value(context), self.heads, mask)
        return self.out(h)

    def weights(
        self,
        x: Float[Array, "b n c"],
        context: Float[Array, "b m d"] | None = None,
        mask: Bool[Array, "n m"] | None = None,
    ) -> Float[Array, "b heads n m"]:
        """How much each position of x looks at each of the context; what `__call__` never holds."""
        context = x if context is None else context
        return attention_weights(self.query(x), self.key(context), self.heads, mask)


class FeedForward(nnx.Module):
    """GEGLU (Shazeer 2020): Linear c -> 2d, value times exact (erf) gelu of gate, Linear d -> c.

    Args:
        inner: d; None: 4c.
    """

    traced = True

    def __init__(
        self, width: int, inner: int | None = None, *, use_bias: bool = True, rngs: nnx.Rngs
    ):
        inner = inner or 4 * width
        self.linear1 = Linear(width, 2 * inner, use_bias=use_bias, rngs=rngs)
        self.linear2 = Linear(inner, width, use_bias=use_bias, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        return in_parts(self.geglu, x, width=self.linear1.out_features)

    def geglu(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        value, gate = jnp.split(self.linear1(x), 2, axis=-1)
        return self.linear2(value * exact_gelu(gate))


class TransformerBlock(nnx.Module):
    """Look around in the picture, listen to the words, think: each added to what was there."""

    traced = True

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

    traced = True

    def __init__(
        self, channels: int, heads: int, context_width: int, *, groups: int, rngs: nnx.Rngs
    ):
        self.norm = GroupNorm(channels, groups, eps=1e-6)
        self.project_in = Linear(channels, channels, rngs=rngs)
        self.block = TransformerBlock(channels, heads, context_width, rngs=rngs)
        self.project_out = Linear(
            channels, channels, kernel_init=jax.nn.initializers.zeros, rngs=rngs
        )

    def __call__(
        self, x: Float[Array, "b h w c"], context: Float[Array, "b m d"]
    ) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        tokens = self.project_in(self.norm(x).reshape(b, h * w, c))
        tokens = self.project_out(self.block(tokens, context))
        return x + tokens.reshape(b, h, w, c)

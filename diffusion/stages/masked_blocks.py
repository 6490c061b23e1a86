"""What a transformer of codes is built of: three norms, a block for maps, a block for tokens.

Nothing here has a bias, and no norm but one takes a mean away (Patil et al. 2024,
https://arxiv.org/abs/2401.01808).
"""

import jax.numpy as jnp
from flax import nnx
from jax.nn import silu
from jax.nn.initializers import lecun_normal, zeros
from jaxtyping import Array, Float

from diffusion.config_codes import MaskedTransformerConfig
from diffusion.layers.activations import exact_gelu
from diffusion.layers.attention import Attention, FeedForward
from diffusion.layers.convolution import DepthwiseConv
from diffusion.layers.linear import Linear

EPS = 1e-6  # of every normalisation
WIDER = 4  # times as many channels in the middle of a block for maps


def rms_norm(width: int, *, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """x / sqrt(mean of x^2), times a scale (Zhang & Sennrich 2019)."""
    return nnx.RMSNorm(width, epsilon=EPS, rngs=rngs)


class ToldNorm(nnx.Module):
    """A norm, then scale and shift by what the network is told: Linear(silu(told)), cut in two.

    The Linear starts at zero, so that a new network is told nothing.
    """

    traced = True

    def __init__(self, norm: nnx.RMSNorm | nnx.LayerNorm, width: int, *, rngs: nnx.Rngs):
        self.norm = norm
        self.linear = _linear(width, 2 * width, closed=True, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n c"], told: Float[Array, "b c"]
    ) -> Float[Array, "b n c"]:
        scale, shift = jnp.split(self.linear(silu(told)), 2, axis=-1)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class ResponseNorm(nnx.Module):
    """Channels that answer more than others are strengthened (Woo et al. 2023, section 3.2).

    x + gamma x n + beta: n is a channel's norm over all places, over the mean of all channels'.
    """

    traced = True

    def __init__(self, channels: int):
        self.gamma = nnx.Param(jnp.zeros((1, 1, 1, channels)))
        self.beta = nnx.Param(jnp.zeros((1, 1, 1, channels)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        squares = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2), keepdims=True)
        norm = jnp.sqrt(squares)
        relative = (norm / (norm.mean(axis=-1, keepdims=True) + EPS)).astype(x.dtype)
        return self.gamma[...] * (x * relative) + self.beta[...] + x


class MapBlock(nnx.Module):
    """A ConvNeXt block (Woo et al. 2023), with scale and shift by what the network is told."""

    traced = True

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        channels, inner = config.channels, WIDER * config.channels
        self.depthwise = DepthwiseConv(channels, rngs=rngs)
        self.norm = rms_norm(channels, rngs=rngs)
        self.linear1 = _linear(channels, inner, rngs=rngs)
        self.response = ResponseNorm(inner)
        self.linear2 = _linear(inner, channels, rngs=rngs)
        self.told = _linear(config.width, 2 * channels, closed=True, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], told: Float[Array, "b d"]
    ) -> Float[Array, "b h w c"]:
        h = self.linear1(self.norm(self.depthwise(x)))
        x = x + self.linear2(self.response(exact_gelu(h)))
        scale, shift = jnp.split(self.told(silu(told))[:, None, None], 2, axis=-1)
        return x * (1 + scale) + shift


class MapAttention(nnx.Module):
    """The places of a map listen to the words, twice; they do not look at each other."""

    traced = True

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        channels, heads = config.channels, config.block_heads
        narrows = config.width != channels
        self.words = _linear(config.width, channels, rngs=rngs) if narrows else None
        self.norm1 = rms_norm(channels, rngs=rngs)
        self.attention1 = _attention(channels, heads, rngs=rngs)
        self.norm2 = rms_norm(channels, rngs=rngs)
        self.attention2 = _attention(channels, heads, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], words: Float[Array, "b m d"]
    ) -> Float[Array, "b h w c"]:
        heard = words if self.words is None else self.words(silu(words))
        tokens = x.reshape(x.shape[0], -1, x.shape[3])
        tokens = tokens + self.attention1(self.norm1(tokens), heard)
        tokens = tokens + self.attention2(self.norm2(tokens), heard)
        return tokens.reshape(x.shape)


class TokenBlock(nnx.Module):
    """Look around, listen to the words, think: each added to what was there."""

    traced = True

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        width, heads = config.width, config.heads
        self.norm1 = ToldNorm(rms_norm(width, rngs=rngs), width, rngs=rngs)
        self.self_attention = _attention(width, heads, rngs=rngs)
        self.norm2 = ToldNorm(rms_norm(width, rngs=rngs), width, rngs=rngs)
        self.cross_attention = _attention(width, heads, rngs=rngs)
        # The only norm of all that takes the mean away.
        norm3 = nnx.LayerNorm(width, epsilon=EPS, use_bias=False, rngs=rngs)
        self.norm3 = ToldNorm(norm3, width, rngs=rngs)
        self.feed_forward = FeedForward(width, config.mlp_width, use_bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n c"], told: Float[Array, "b c"], words: Float[Array, "b m c"]
    ) -> Float[Array, "b n c"]:
        x = x + self.self_attention(self.norm1(x, told))
        x = x + self.cross_attention(self.norm2(x, told), words)
        return x + self.feed_forward(self.norm3(x, told))


class Halve(nnx.Module):
    """Half the resolution: a norm, then a Linear of each 2x2 square."""

    traced = True

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.norm = rms_norm(channels, rngs=rngs)
        start = lecun_normal(in_axis=(0, 1, 2))
        self.kernel = nnx.Param(start(rngs.params(), (2, 2, channels, channels), jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        b, h, w, c = x.shape
        squares = self.norm(x).reshape(b, h // 2, 2, w // 2, 2, c)
        return jnp.einsum("bhiwjc,ijcd->bhwd", squares, self.kernel[...])


class Double(nnx.Module):
    """Twice the resolution: a norm, then a Linear from each place to a 2x2 square."""

    traced = True

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.norm = rms_norm(channels, rngs=rngs)
        start = lecun_normal(in_axis=3, out_axis=2)  # outputs before inputs, as in the files
        self.kernel = nnx.Param(start(rngs.params(), (2, 2, channels, channels), jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        b, h, w, c = x.shape
        squares = jnp.einsum("bhwc,ijdc->bhiwjd", self.norm(x), self.kernel[...])
        return squares.reshape(b, 2 * h, 2 * w, c)


def _linear(width: int, out: int, *, closed: bool = False, rngs: nnx.Rngs) -> Linear:
    start = zeros if closed else lecun_normal()
    return Linear(width, out, use_bias=False, kernel_init=start, rngs=rngs)


def _attention(width: int, heads: int, *, rngs: nnx.Rngs) -> Attention:
    return Attention(width, heads, qkv_bias=False, out_bias=False, rngs=rngs)

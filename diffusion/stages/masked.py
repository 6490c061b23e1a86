"""3A, 3B and 4 for codes: a transformer that fills in what is masked, guided by the words.

A picture is a map of code numbers, some of them hidden behind one more number, the mask. The
network says how likely each code is at each place (MaskGIT: Chang et al. 2022,
https://arxiv.org/abs/2202.04200). It is built as aMUSEd is (Patil et al. 2024,
https://arxiv.org/abs/2401.01808), so that one module holds the garden's and the official ones.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import silu
from jax.nn.initializers import normal
from jaxtyping import Array, Float, Int, Real

from diffusion.config_codes import SIZES, MaskedTransformerConfig
from diffusion.layers.convolution import PointwiseConv
from diffusion.layers.linear import Linear
from diffusion.layers.time_embedding import sinusoids
from diffusion.stages.masked_blocks import (
    Double,
    Halve,
    MapAttention,
    MapBlock,
    TokenBlock,
    rms_norm,
)

PIXELS = 16  # along the side of a code's place: sizes are told in pixels, as aMUSEd's have them
CROP = (0, 0)  # what is cut off at the left and at the top: nothing
SCORE = 6  # how beautiful, of 10


class CodeEmbedding(nnx.Module):
    """A learnt vector for each code and for the mask, normed and mixed."""

    traced = True

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        channels, start = config.channels, normal(0.02)
        vectors = nnx.Embed(config.vocabulary, channels, embedding_init=start, rngs=rngs)
        vectors.dtype = None  # the precision of the weights; Flax fixes float32 here
        self.vectors = vectors
        self.norm = rms_norm(channels, rngs=rngs)
        self.mix = PointwiseConv(channels, channels, rngs=rngs)

    def __call__(self, codes: Int[Array, "b h w"]) -> Float[Array, "b h w c"]:
        return self.mix(self.norm(self.vectors(codes)))


class Condition(nnx.Module):
    """What all blocks are told: the text summed up, and five sizes, each by sines.

    The sizes are width, height, what was cut off, and a mark for beauty. A network that has learnt
    from many pictures knows by them what is asked for ("micro-conditioning", Podell et al. 2023).
    """

    traced = True

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        given = config.context_width + SIZES * config.size_code
        self.linear1 = Linear(given, config.width, use_bias=False, rngs=rngs)
        self.linear2 = Linear(config.width, config.width, use_bias=False, rngs=rngs)
        self.size_code = config.size_code

    def __call__(
        self, summary: Float[Array, "b d"], sizes: Real[Array, "b 5"]
    ) -> Float[Array, "b c"]:
        code = sinusoids(sizes.ravel(), self.size_code).reshape(len(summary), -1)
        told = jnp.concatenate([summary, code.astype(summary.dtype)], axis=1)
        return self.linear2(silu(self.linear1(told)))


class MapBlocks(nnx.Module):
    """Blocks for maps, between the codes and the tokens, or on the way back."""

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        count = range(config.blocks)
        self.maps = nnx.List(MapBlock(config, rngs=rngs) for _ in count)
        self.attentions = nnx.List(MapAttention(config, rngs=rngs) for _ in count)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        told: Float[Array, "b d"],
        words: Float[Array, "b m d"],
    ) -> Float[Array, "b h w c"]:
        for block, attention in zip(self.maps, self.attentions, strict=True):
            x = attention(block(x, told), words)
        return x


class Exit(nnx.Module):
    """How likely each code is at each place: logits."""

    traced = True

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        channels = config.channels
        self.mix = PointwiseConv(channels, channels, rngs=rngs)
        self.norm = rms_norm(channels, rngs=rngs)
        self.logits = PointwiseConv(channels, config.codes, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w k"]:
        return self.logits(self.norm(self.mix(x)))


class MaskedTransformer(nnx.Module):
    """One glance at the codes: what is behind the masks?

    It is not told the time: how much is masked it sees. It has no code of place. The windows of the
    first blocks see the zeros around the map; those of the last blocks carry this on.
    """

    def __init__(self, config: MaskedTransformerConfig, *, rngs: nnx.Rngs):
        width, channels = config.width, config.channels
        self.words = Linear(config.context_width, width, use_bias=False, rngs=rngs)
        self.words_norm = rms_norm(width, rngs=rngs)
        self.condition = Condition(config, rngs=rngs)
        self.codes = CodeEmbedding(config, rngs=rngs)
        self.halve = Halve(channels, rngs=rngs) if config.halves else None
        self.down = MapBlocks(config, rngs=rngs)
        self.norm_in = rms_norm(channels, rngs=rngs)
        self.project_in = Linear(channels, width, use_bias=False, rngs=rngs)
        self.blocks = nnx.List(TokenBlock(config, rngs=rngs) for _ in range(config.layers))
        self.norm_out = rms_norm(width, rngs=rngs)
        self.project_out = Linear(width, channels, use_bias=False, rngs=rngs)
        self.up = MapBlocks(config, rngs=rngs)
        self.double = Double(channels, rngs=rngs) if config.halves else None
        self.exit = Exit(config, rngs=rngs)

    def __call__(
        self,
        codes: Int[Array, "b h w 1"],
        timesteps: Real[Array, " b"],
        context: Float[Array, "b m d"],  # the words; the last row sums them up
    ) -> Float[Array, "b h w k"]:
        b, h, w, _ = codes.shape
        words = self.words_norm(self.words(context[:, :-1]))
        sizes = jnp.asarray(np.array([PIXELS * w, PIXELS * h, *CROP, SCORE], np.float32))
        told = self.condition(context[:, -1], jnp.tile(sizes[None], (b, 1)))
        x = self.codes(codes[..., 0])
        x = self.down(x if self.halve is None else self.halve(x), told, words)
        tokens = self.project_in(self.norm_in(x.reshape(b, -1, x.shape[3])))
        for block in self.blocks:
            tokens = block(tokens, told, words)
        x = self.up(self.project_out(self.norm_out(tokens)).reshape(x.shape), told, words)
        return self.exit(x if self.double is None else self.double(x))

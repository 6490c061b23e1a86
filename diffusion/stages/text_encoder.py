"""1. The teacher's story: tokens become a context, a vector each that knows what came before it.

The text tower of CLIP (Radford et al. 2021, section 2.4): a causal, pre-LayerNorm transformer.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal
from jaxtyping import Array, Bool, Float, Int

from diffusion.config import TextEncoderConfig
from diffusion.layers.activations import exact_gelu, quick_gelu
from diffusion.layers.attention import Attention
from diffusion.layers.linear import Linear

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"quick_gelu": quick_gelu, "gelu": exact_gelu}


class TextLayer(nnx.Module):
    """Causal self-attention, then two Linear layers: each added to what was there."""

    traced = True

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(config.width, epsilon=config.eps, rngs=rngs)
        self.attention = Attention(config.width, config.heads, qkv_bias=True, rngs=rngs)
        self.norm2 = nnx.LayerNorm(config.width, epsilon=config.eps, rngs=rngs)
        self.linear1 = Linear(config.width, config.mlp_width, rngs=rngs)
        self.linear2 = Linear(config.mlp_width, config.width, rngs=rngs)
        self.activation = ACTIVATIONS[config.activation]

    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "n n"]) -> Float[Array, "b n d"]:
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.linear2(self.activation(self.linear1(self.norm2(x))))


class TokenEmbedding(nnx.Embed):
    """A learnt vector for each token, in the precision of the weights."""

    traced = True

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        start = normal(0.02)
        super().__init__(config.vocab_size, config.width, embedding_init=start, rngs=rngs)
        self.dtype = None  # Flax fixes float32 here


class TextEncoder(nnx.Module):
    """tokens (b, 77) -> context (b, 77, d): the last layer's states after the final LayerNorm.

    With a summary it is (b, 78, d): the states that the last layer hears, without a norm; and one
    row more, the projected last state of the end mark, as CLIP compares it with pictures.
    The mask is causal and nothing else: Stable Diffusion lets the U-Net read the padding too.
    Raises ValueError for an unknown activation.
    """

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        if config.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation {config.activation!r} is unknown; known: {known}")
        self.token_embedding = TokenEmbedding(config, rngs=rngs)
        self.position_embedding = nnx.Param(
            normal(0.01)(rngs.params(), (config.length, config.width), jnp.float32)
        )
        self.layers = nnx.List(TextLayer(config, rngs=rngs) for _ in range(config.layers))
        self.final_norm = nnx.LayerNorm(config.width, epsilon=config.eps, rngs=rngs)
        self.projection = (
            Linear(config.width, config.width, use_bias=False, rngs=rngs)
            if config.summary
            else None
        )

    def __call__(self, tokens: Int[Array, "b n"]) -> Float[Array, "b m d"]:
        n = tokens.shape[1]
        x = self.token_embedding(tokens) + self.position_embedding[:n][None]
        causal = jnp.tril(jnp.ones((n, n), dtype=bool))
        before = x
        for layer in self.layers:
            before, x = x, layer(x, causal)
        states = self.final_norm(x)
        if self.projection is None:
            return states
        end = tokens.argmax(axis=1)  # the end mark is the last token of the vocabulary
        summary = self.projection(states[jnp.arange(len(tokens)), end])
        return jnp.concatenate([before, summary[:, None]], axis=1)

"""What a sentence says of the first and of the last frame of a film.

"A red house, the sun sets": the denoiser of pictures has never seen anything happen. But it knows
"a red house, by day" and "a red house, at sunset". Prompt travel writes these two sentences, token
by token, and says where the view goes; between its ends a film goes straight.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import normal, zeros
from jaxtyping import Array, Float, Int

from diffusion.config import TextEncoderConfig
from diffusion.layers.linear import Linear
from diffusion.motion_config import PromptTravelConfig
from diffusion.stages.text_encoder import TextLayer


class Ends(NamedTuple):
    """A film as it begins, and as it ends."""

    logits: Float[Array, "b 2 n v"]  # of each token of the two sentences
    views: Float[Array, "b 2 3"]  # see `diffusion.stages.moving_noise`

    @property
    def tokens(self) -> Int[Array, "b 2 n"]:
        """The likeliest: what is written is one of the vocabulary's tokens, or another, and so the
        context of an end is one that the denoiser has learnt to hear."""
        return self.logits.argmax(axis=-1)


class PromptTravel(nnx.Module):
    """context (b, n, d) -> the sentences of both ends, and their views.

    The layers are those of the text encoder, without its mask: what happens is often said last, and
    changes what all words before it become. All tokens are written at once.
    """

    def __init__(self, config: PromptTravelConfig, *, rngs: nnx.Rngs):
        width = config.width
        sizes = TextEncoderConfig(
            width=width, heads=config.heads, mlp_width=4 * width, activation="gelu"
        )
        self.position_embedding = nnx.Param(
            normal(0.01)(rngs.params(), (config.length, width), jnp.float32)
        )
        self.layers = nnx.List(TextLayer(sizes, rngs=rngs) for _ in range(config.layers))
        self.final_norm = nnx.LayerNorm(width, epsilon=sizes.eps, rngs=rngs)
        self.written = Linear(width, 2 * config.vocab_size, rngs=rngs)
        self.views = Linear(width, 6, kernel_init=zeros, rngs=rngs)

    def __call__(self, context: Float[Array, "b n d"]) -> Ends:
        b, n, _ = context.shape
        x = context + self.position_embedding[:n][None]
        everywhere = jnp.ones((n, n), bool)
        for layer in self.layers:
            x = layer(x, everywhere)
        x = self.final_norm(x)
        logits = self.written(x).reshape(b, n, 2, -1).swapaxes(1, 2)
        return Ends(logits, self.views(x.mean(axis=1)).reshape(b, 2, 3))


def between(
    ends: Float[Array, "k 2 *n"], way: Float[Array | np.ndarray, " f"]
) -> Float[Array, "k f *n"]:
    """What each frame has of both ends, on the straight way from one to the other."""
    share = jnp.asarray(way).reshape(1, -1, *[1] * (ends.ndim - 2))
    return ends[:, :1] + share * (ends[:, 1:] - ends[:, :1])  # where both are the same, that

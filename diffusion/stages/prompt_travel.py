"""What a sentence says of the first and of the last frame of a film.

"A red house, the sun sets": the denoiser of pictures has never seen anything happen. But it knows
"a red house, by day" and "a red house, at sunset". Prompt travel writes these two sentences, token
by token, and says where the view goes; between its ends a film goes straight.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import normal, zeros
from jaxtyping import Array, Float, Int

from diffusion.config import TextEncoderConfig
from diffusion.layers.linear import Linear
from diffusion.motion_config import PromptTravelConfig
from diffusion.stages.text_encoder import TextLayer

VIEWS = 4  # numbers that say where view, clouds and trees are
MOVES = 0.03  # from which on they move; see `diffusion.stages.moving_noise.Views`


class Ends(NamedTuple):
    """A film as it begins, and as it ends.

    Each token is written, or copied from a place nearby in the sentence that was heard: where a
    clause falls away, all that follows moves up (pointers, See et al. 2017).
    """

    logits: Float[Array, "b 2 n choices"]  # of each token of the vocabulary, and of each copy
    copies: Int[Array, "b n k"]  # the tokens that can be copied to a place
    views: Float[Array, "b 2 4"]  # see `diffusion.stages.moving_noise.places`

    @property
    def tokens(self) -> Int[Array, "b 2 n"]:
        """What the likeliest choice gives."""
        chosen = self.logits.argmax(axis=-1)
        vocab = self.logits.shape[-1] - self.copies.shape[-1]
        place = jnp.maximum(chosen - vocab, 0)
        copied = jnp.take_along_axis(self.copies[:, None], place[..., None], axis=-1)[..., 0]
        return jnp.where(chosen < vocab, chosen, copied)

    def log_likelihood(self, tokens: Int[Array, "b 2 n"]) -> Float[Array, "b 2 n"]:
        """Of these sentences, token by token, by all choices that give it."""
        chances = jax.nn.log_softmax(self.logits, axis=-1)
        vocab = self.logits.shape[-1] - self.copies.shape[-1]
        written = jnp.take_along_axis(chances[..., :vocab], tokens[..., None], axis=-1)
        same = self.copies[:, None] == tokens[..., None]
        copied = jnp.where(same, chances[..., vocab:], -jnp.inf)
        return jax.nn.logsumexp(jnp.concatenate([written, copied], axis=-1), axis=-1)


class PromptTravel(nnx.Module):
    """context (b, n, d) and its tokens (b, n) -> the sentences of both ends, and their views.

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
        choices = config.vocab_size + 2 * config.reach + 1
        self.written = Linear(width, 2 * choices, rngs=rngs)
        self.views = Linear(width, 2 * VIEWS, kernel_init=zeros, rngs=rngs)
        self.reach = config.reach

    def __call__(self, context: Float[Array, "b n d"], tokens: Int[Array, "b n"]) -> Ends:
        b, n, _ = context.shape
        x = context + self.position_embedding[:n][None]
        everywhere = jnp.ones((n, n), bool)
        for layer in self.layers:
            x = layer(x, everywhere)
        x = self.final_norm(x)
        logits = self.written(x).reshape(b, n, 2, -1).swapaxes(1, 2)
        away = np.arange(-self.reach, self.reach + 1)
        places = np.clip(np.arange(n)[:, None] + away[None], 0, n - 1)
        return Ends(logits, tokens[:, places], self.views(x.mean(axis=1)).reshape(b, 2, VIEWS))


def told(
    tokens: Int[Array, "b n"], found: Ends
) -> tuple[Int[Array, "b 2 n"], Float[Array, "b 2 4"]]:
    """The sentences that films hear as they begin and end, and where their views are.

    One thing happens in a film, and what is written anew can be wrong. So a sentence is told as it
    is where view, clouds or trees move, or where nothing in it changes.
    """
    written, views = found.tokens, found.views
    moving = (jnp.abs(views) > MOVES).any((1, 2))[:, None, None]
    changes = (written[:, :1] != written[:, 1:]).any(-1, keepdims=True)
    said = jnp.where(changes & ~moving, written, jnp.asarray(tokens)[:, None])
    return said, jnp.where(moving, views, 0.0)


def between(
    ends: Float[Array, "k 2 *n"], way: Float[Array | np.ndarray, " f"]
) -> Float[Array, "k f *n"]:
    """What each frame has of both ends, on the straight way from one to the other."""
    share = jnp.asarray(way).reshape(1, -1, *[1] * (ends.ndim - 2))
    return ends[:, :1] + share * (ends[:, 1:] - ends[:, :1])  # where both are the same, that

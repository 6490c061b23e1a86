"""What a diffusion transformer is built of: modulation by time, and the block of PixArt and DiT."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import zeros
from jaxtyping import Array, Float

from diffusion.config import DiTConfig
from diffusion.kernels.chunks import in_parts
from diffusion.layers.attention import Attention
from diffusion.layers.linear import Linear

EPS = 1e-6
EPS_BEFORE_MLP_OF_DIT = 1e-5  # the reference's default, which the official file leaves alone
PARTS = 6  # of a block's modulation: shift, scale and gate of the attention, then of the MLP


def norm(width: int, eps: float = EPS, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A LayerNorm without numbers of its own: scale and shift come from the time."""
    return nnx.LayerNorm(width, epsilon=eps, use_bias=False, use_scale=False, rngs=rngs)


def modulate(
    x: Float[Array, "b n c"], shift: Float[Array, "b c"], scale: Float[Array, "b c"]
) -> Float[Array, "b n c"]:
    """Adaptive normalisation: what LayerNorm made even gets the scale and shift of its time."""
    return x * (1 + scale[:, None]) + shift[:, None]


def cut(latents: Float[Array, "b h w z"], p: int) -> Float[Array, "b n d"]:
    """A latent as p x p patches, row by row; the numbers of each by row, column and channel.

    Raises ValueError where the sides are no multiples of p.
    """
    b, h, w, z = latents.shape
    if h % p or w % p:
        raise ValueError(f"latents of {h}x{w}: the sides must be multiples of {p}")
    squares = latents.reshape(b, h // p, p, w // p, p, z).swapaxes(2, 3)
    return squares.reshape(b, -1, p * p * z)


def joined(patches: Float[Array, "b n d"], rows: int, p: int) -> Float[Array, "b h w z"]:
    """What `cut` made of a latent, put together again: `rows` rows of patches."""
    b, n, d = patches.shape
    squares = patches.reshape(b, rows, n // rows, p, p, d // p**2).swapaxes(2, 3)
    return squares.reshape(b, rows * p, n // rows * p, -1)


class LinearModulation(nnx.Module):
    """adaLN-Zero (Peebles & Xie 2023, section 3.2): Linear(silu(time)), cut into vectors.

    It starts at zero, so that every gate is closed and a new block is the identity.
    """

    traced = True

    def __init__(self, width: int, parts: int, *, rngs: nnx.Rngs):
        self.linear = Linear(width, parts * width, kernel_init=zeros, rngs=rngs)
        self.parts = parts

    def __call__(self, time: Float[Array, "b 1 c"]) -> Float[Array, "b p c"]:
        b, _, width = time.shape
        return self.linear(jax.nn.silu(time)).reshape(b, self.parts, width)


class TableModulation(nnx.Module):
    """adaLN-single (Chen et al. 2024, section 2.3): what all blocks share, plus a table."""

    traced = True

    def __init__(self, width: int, parts: int):
        self.table = nnx.Param(jnp.zeros((parts, width)))

    def __call__(self, time: Float[Array, "b q c"]) -> Float[Array, "b p c"]:
        return time + self.table[...][None]


class MLP(nnx.Module):
    """Linear c -> 4c, gelu in its tanh form, Linear to d."""

    traced = True

    def __init__(self, width: int, hidden: int, out: int, *, rngs: nnx.Rngs):
        self.linear1 = Linear(width, hidden, rngs=rngs)
        self.linear2 = Linear(hidden, out, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        return in_parts(self.think, x, width=self.linear1.out_features)

    def think(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        return self.linear2(jax.nn.gelu(self.linear1(x), approximate=True))


class DiTBlock(nnx.Module):
    """Look around, listen to the words (PixArt alone), think: each added to what was there."""

    traced = True

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        width, heads, listens = config.width, config.heads, config.classes is None
        self.modulation = (
            TableModulation(width, PARTS) if listens else LinearModulation(width, PARTS, rngs=rngs)
        )
        self.norm1 = norm(width, rngs=rngs)
        self.self_attention = Attention(width, heads, qkv_bias=True, rngs=rngs)
        self.cross_attention = _listening(width, heads, rngs=rngs) if listens else None
        self.norm2 = norm(width, EPS if listens else EPS_BEFORE_MLP_OF_DIT, rngs=rngs)
        self.feed_forward = MLP(width, 4 * width, width, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b n c"],
        time: Float[Array, "b p c"],  # the time vector itself, or the six vectors of all blocks
        context: Float[Array, "b m c"] | None = None,
    ) -> Float[Array, "b n c"]:
        parts = jnp.unstack(self.modulation(time), axis=1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        seen = self.self_attention(modulate(self.norm1(x), shift, scale))
        x = x + gate[:, None] * seen
        if self.cross_attention is not None:  # without a norm before it, as PixArt has it
            x = x + self.cross_attention(x, context)
        thought = self.feed_forward(modulate(self.norm2(x), mlp_shift, mlp_scale))
        return x + mlp_gate[:, None] * thought


def _listening(width: int, heads: int, *, rngs: nnx.Rngs) -> Attention:
    """It has no gate, so its exit begins closed."""
    attention = Attention(width, heads, qkv_bias=True, rngs=rngs)
    attention.out = Linear(width, width, kernel_init=zeros, rngs=rngs)
    return attention

"""3A, 3B and 4 in one: a transformer that denoises, of equal blocks in place of the U.

Without a sketch and a way back up, every block sees the whole canvas in the same patches. One
module holds PixArt (Chen et al. 2024, https://arxiv.org/abs/2310.00426), which the garden's is too,
and DiT (Peebles & Xie 2023, https://arxiv.org/abs/2212.09748), which hears a class in place of
words. They differ in what the time vector is and in how it reaches the blocks.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import silu
from jax.nn.initializers import lecun_normal, normal, zeros
from jaxtyping import Array, Float, Int, Real

from diffusion.config import DiTConfig
from diffusion.kernels.products import product
from diffusion.layers.linear import Linear
from diffusion.layers.time_embedding import TimeEmbedding
from diffusion.stages.dit_blocks import (
    EPS,
    MLP,
    PARTS,
    DiTBlock,
    LinearModulation,
    TableModulation,
    cut,
    joined,
    modulate,
    norm,
)

FREQUENCIES = 256  # sines and cosines of a timestep


class Told(NamedTuple):
    """What the blocks and the exit are told."""

    blocks: Float[Array, "b p c"]  # six vectors for all of them, or one that each makes six of
    exit: Float[Array, "b 1 c"]  # the time vector
    context: Float[Array, "b m c"] | None  # the words, as wide as a token


def place_code(
    rows: int, columns: int, width: int, base: int, scale: int = 1
) -> Float[np.ndarray, "n {width}"]:
    """Where each token is, row by row: half of the channels tell the column, half the row.

    Each half has the sines of all its frequencies, then the cosines; 1 down to 10000^-(1 - 4/width)
    (Vaswani et al. 2017, section 3.5). Places run from 0 to `base` over `scale`, however many there
    are: a larger canvas is squeezed onto the one that the network was trained on.
    """
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width // 4))

    def code(count: int) -> Float[np.ndarray, "{count} w"]:
        places = np.arange(count, dtype=np.float32) / np.float32(count / base) / np.float32(scale)
        angles = places.astype(np.float64)[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    column = np.tile(code(columns), (rows, 1))
    row = np.repeat(code(rows), columns, axis=0)
    return np.concatenate([column, row], axis=1).astype(np.float32)


class Patches(nnx.Module):
    """Each p x p patch of a latent becomes a token: a Linear of its numbers, plus its place."""

    traced = True

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        p = config.patch
        shape = (p, p, config.latent_channels, config.width)
        start = lecun_normal(in_axis=(0, 1, 2))
        self.kernel = nnx.Param(start(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(config.width))
        self.base, self.scale = config.sample_size // p, config.position_scale

    def __call__(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b n c"]:
        _, h, w, _ = latents.shape
        p, width = self.kernel.shape[0], self.kernel.shape[3]
        tokens = product(cut(latents, p), self.kernel[...].reshape(-1, width))
        place = place_code(h // p, w // p, width, self.base, self.scale)
        return tokens + self.bias[None, None] + jnp.asarray(place, tokens.dtype)[None]


class Words(nnx.Module):
    """PixArt: six vectors of the time for all blocks, and words by cross-attention."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.time = TimeEmbedding(FREQUENCIES, width, rngs=rngs)
        self.told_scale = config.told_scale
        if self.told_scale is not None:
            self.resolution = TimeEmbedding(FREQUENCIES, width // 3, rngs=rngs)
            self.aspect = TimeEmbedding(FREQUENCIES, width // 3, rngs=rngs)
        self.modulation = LinearModulation(width, PARTS, rngs=rngs)
        self.caption = MLP(config.context_width, width, width, rngs=rngs)

    def __call__(
        self,
        timesteps: Real[Array, " b"],
        context: Float[Array, "b m d"],
        size: tuple[int, int],
    ) -> Told:
        time = self.time(timesteps)
        if self.told_scale is not None:
            b, (h, w) = len(timesteps), size
            pixels = self.told_scale * jnp.tile(jnp.asarray(size), b)
            sides = self.resolution(pixels).reshape(b, -1)
            time = time + jnp.concatenate([sides, self.aspect(jnp.full(b, h / w))], axis=1)
        time = time[:, None]
        return Told(self.modulation(time), time, self.caption(context))


class Label(nnx.Module):
    """DiT: the vector of a class is added to that of the time; the last class is "any"."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        assert config.classes is not None
        self.time = TimeEmbedding(FREQUENCIES, config.width, shift=1, rngs=rngs)
        table = nnx.Embed(config.classes + 1, config.width, embedding_init=normal(0.02), rngs=rngs)
        table.dtype = None  # the precision of the weights; Flax fixes float32 here
        self.table = table

    def __call__(
        self, timesteps: Real[Array, " b"], labels: Int[Array, "b 1"], size: tuple[int, int]
    ) -> Told:
        time = self.time(timesteps)[:, None] + self.table(labels)
        return Told(time, time, None)


class WordsExit(nnx.Module):
    """The last norm of PixArt, with a table plus the time vector itself; a Linear to pixels."""

    traced = True

    def __init__(self, config: DiTConfig, out: int, *, rngs: nnx.Rngs):
        self.norm = norm(config.width, EPS, rngs=rngs)
        self.modulation = TableModulation(config.width, 2)
        self.linear = Linear(config.width, out, kernel_init=zeros, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n c"], time: Float[Array, "b 1 c"]
    ) -> Float[Array, "b n d"]:
        shift, scale = jnp.unstack(self.modulation(time), axis=1)
        return self.linear(modulate(self.norm(x), shift, scale))


class LabelExit(nnx.Module):
    """The last norm of DiT, with a Linear of the time and the class; a Linear to pixels."""

    traced = True

    def __init__(self, config: DiTConfig, out: int, *, rngs: nnx.Rngs):
        width = config.width
        self.norm = norm(width, EPS, rngs=rngs)
        self.linear1 = Linear(width, 2 * width, kernel_init=zeros, rngs=rngs)
        self.linear2 = Linear(width, out, kernel_init=zeros, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n c"], time: Float[Array, "b 1 c"]
    ) -> Float[Array, "b n d"]:
        shift, scale = jnp.split(self.linear1(silu(time[:, 0])), 2, axis=-1)
        return self.linear2(modulate(self.norm(x), shift, scale))


class DiT(nnx.Module):
    """One glance at the canvas: what in z_t is noise?

    A new network says zero: its gates are closed, and its exit is zero.
    """

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        channels = config.latent_channels * (2 if config.learned_variance else 1)
        out = config.patch**2 * channels
        self.patches = Patches(config, rngs=rngs)
        if config.classes is None:
            self.words = Words(config, rngs=rngs)
        else:
            self.label = Label(config, rngs=rngs)
        self.blocks = nnx.List(DiTBlock(config, rngs=rngs) for _ in range(config.layers))
        exit_ = WordsExit if config.classes is None else LabelExit
        self.exit = exit_(config, out, rngs=rngs)
        self.patch, self.listens = config.patch, config.classes is None

    def __call__(
        self,
        latents: Float[Array, "b h w z"],
        timesteps: Real[Array, " b"],
        context: Float[Array, "b m d"] | Int[Array, "b 1"],  # words, without filling; or a label
    ) -> Float[Array, "b h w z"]:
        """The first half of the channels, where the variance is predicted beside them."""
        _, h, w, z = latents.shape
        told = (self.words if self.listens else self.label)(timesteps, context, (h, w))
        x = self.patches(latents)
        for block in self.blocks:
            x = block(x, told.blocks, told.context)
        return joined(self.exit(x, told.exit), h // self.patch, self.patch)[..., :z]

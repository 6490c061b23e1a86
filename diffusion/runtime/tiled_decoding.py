"""5, where memory is short: the same picture as `VAE.decode`, painted tile by tile.

Tiles that are decoded apart from each other show their seams, for three reasons, and here none of
the three is approximated:

- A 3x3 convolution sees one position beyond the tile: so each tile comes with a halo of one.
- A GroupNorm takes mean and variance over the whole picture: so one layer is finished in all tiles
  before the next begins, and the statistics between them are those of all rows.
- Attention looks everywhere: so each tile looks at one tile after the other, with a softmax that
  keeps a running maximum and sum (Milakov & Gimelshein 2018; Rabe & Staats 2021).

What is between two layers waits in the memory of the host, as a list of rows. A layer takes rows
away as it goes, so that there is little more than one map at any time, and the device holds
nothing but the parameters and one tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.config import AutoencoderConfig, VAEConfig
from diffusion.layers.convolution import Conv2d, Upsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock
from diffusion.runtime.devices import free_memory
from diffusion.runtime.programs import Network
from diffusion.stages.vae import VAE, ImageAttention

Row: TypeAlias = Float[np.ndarray, "_ _"]  # one row of a map: (width, channels)
Window: TypeAlias = Float[Array, "h w c"]  # a tile and its halo of one; zero outside of the picture
Inside: TypeAlias = Bool[Array, "h w 1"]  # which positions of a window are in the picture
Affine: TypeAlias = tuple[Float[Array | np.ndarray, " c"], Float[Array | np.ndarray, " c"]]
# Of each query: its highest logit so far, and the sums of its weights and of its weighted values.
Heard: TypeAlias = tuple[Float[Array, "n 1"], Float[Array, "n 1"], Float[Array, "n c"]]


def decode_in_tiles(
    vae: VAE, latents: Float[Array | np.ndarray, "b h w z"], tile: int = 32
) -> Float[np.ndarray, "b H W k"]:
    """`vae.decode(latents)` in less memory: unscaled latents (b, h, w, 4) -> (b, f h, f w, 3).

    It differs from the whole decode by what float32 rounds, measured 5e-6. How many programs
    are compiled, and what they need, depends on `tile` and not on the picture; docs/memory.md has
    it beside that of the whole decode.

    Args:
        latents: any size; pictures are decoded one after the other.
        tile: positions along the side of a tile, the same at every resolution.

    Raises ValueError where the tile has no positions.
    """
    if tile < 1:
        raise ValueError(f"tile is {tile}; give 1 position or more, such as 32")
    return np.stack([_decode(vae, np.asarray(picture), tile) for picture in latents])


def decoder(
    config: AutoencoderConfig, autoencoder: Network, count: int, height: int, width: int
) -> Callable[[Any], Any]:
    """How an autoencoder decodes `count` latents of height x width pixels: whole, or in tiles.

    Tiles are for a VAE whose whole decode would take more than half of the free memory.
    """
    if not isinstance(config, VAEConfig):
        return autoencoder.decode
    if count * whole_decode_bytes(config, height, width) <= free_memory() // 2:
        return autoencoder.decode

    def in_tiles(latents: Any) -> Float[np.ndarray, "b H W k"]:
        unscaled = np.asarray(latents / config.scaling_factor, autoencoder.dtype)
        return decode_in_tiles(autoencoder.module, unscaled).astype(np.float32)

    return in_tiles


def whole_decode_bytes(config: VAEConfig, height: int, width: int) -> int:
    """What `VAE.decode` needs besides its parameters for one picture of height x width pixels.

    XLA's scratch on a CPU is up to 4.2 maps at the finest resolution, of the width with which the
    last level begins (SD; the garden's 3). So says `memory_analysis` of jax 0.10.2. The process of
    SD grew by 1,416 MiB at 512x512 and by 4,729 MiB at 1024x1024, compiling included: hence four
    and a half, and a quarter more.
    """
    before = (config.block_out_channels * 2)[1]
    return height * width * before * 9 // 2 * 4 * 5 // 4


def _decode(vae: VAE, latent: Float[np.ndarray, "h w z"], tile: int) -> Float[np.ndarray, "H W k"]:
    decoder = vae.decoder
    middle = decoder.middle
    rows = _in_tiles(_enter, (vae.post_quant_conv, decoder.conv_in), list(latent), tile)
    rows = _residual(middle.residual1, rows, tile)
    rows = _attend(middle.attention, rows, tile)
    rows = _residual(middle.residual2, rows, tile)
    for level in decoder.levels:
        for residual in level.residuals:
            rows = _residual(residual, rows, tile)
        if level.change is not None:
            rows = _in_tiles(_upsample, (level.change,), rows, tile)
    affine = _affine(decoder.norm_out, rows)
    return np.stack(_in_tiles(_leave, (decoder.conv_out, affine), rows, tile))


def _residual(block: ResidualBlock, rows: list[Row], tile: int) -> list[Row]:
    """A residual block; between its convolutions a map carries what will be added, too."""
    rows = _in_tiles(_first_half, (block, _affine(block.norm1, rows)), rows, tile)
    return _in_tiles(_second_half, (block, _affine(block.norm2, rows)), rows, tile)


def _in_tiles(
    layer: Callable[..., Array], arguments: tuple[Any, ...], rows: list[Row], tile: int
) -> list[Row]:
    """A map through `layer(*arguments, window, inside)`, which returns a tile without halo.

    Takes the rows out of the list when they are no longer needed.
    """
    width, channels = rows[0].shape
    padded = -(-width // tile) * tile + 2
    done: list[Row] = []
    above: list[Row] = []  # the last row of the band before, none at the top of the picture
    while rows:
        band = np.zeros((tile + 2, padded, channels), rows[0].dtype)
        inside = np.zeros((tile + 2, padded, 1), bool)
        first = 1 - len(above)
        for i, row in enumerate(above + rows[: tile + 1], start=first):
            band[i, 1 : width + 1] = row
            inside[i, 1 : width + 1] = True
        height = len(rows[:tile])
        above = rows[tile - 1 : tile]
        del rows[:tile]
        for left in range(0, width, tile):
            window = np.s_[:, left : left + tile + 2]
            y = np.asarray(layer(*arguments, band[window], inside[window]))
            scale = len(y) // tile
            if left == 0:
                shape = (scale * width, y.shape[2])
                done += [np.empty(shape, y.dtype) for _ in range(scale * height)]
            for row, part in zip(done[-scale * height :], y, strict=False):
                row[scale * left : scale * (left + tile)] = part[: scale * (width - left)]
    return done


def _affine(norm: GroupNorm, rows: list[Row]) -> Affine:
    """A GroupNorm of the map's first channels as one scale and one shift a channel, in float64."""
    scale = np.asarray(norm.scale, np.float64)
    c = len(scale)
    shape = (len(rows), norm.groups, c // norm.groups)
    mean = np.stack([row[:, :c].mean(axis=0, dtype=np.float64) for row in rows]).reshape(shape)
    variance = np.stack([row[:, :c].astype(np.float32).var(axis=0) for row in rows])
    variance = variance.astype(np.float64).reshape(shape)

    # Law of total variance: within the rows and channels of a group, and between their means.
    group_mean = mean.mean(axis=(0, 2), keepdims=True)
    group_variance = np.mean(variance + np.square(mean - group_mean), axis=(0, 2))
    scale = scale * np.repeat((group_variance + norm.eps) ** -0.5, shape[2])
    shift = np.asarray(norm.bias, np.float64) - np.repeat(group_mean.ravel(), shape[2]) * scale
    return scale.astype(np.float32), shift.astype(np.float32)


def _attend(attention: ImageAttention, rows: list[Row], tile: int) -> list[Row]:
    """Attention of tile^2 positions at a time to tile^2 positions at a time."""
    affine = _affine(attention.norm, rows)
    width, channels = rows[0].shape
    count = len(rows) * width
    size = tile * tile
    parts = -(-count // size)
    positions = np.zeros((parts * size, channels), rows[0].dtype)
    positions[:count] = np.concatenate(rows)
    inside = np.arange(parts * size) < count
    starts = [np.s_[start : start + size] for start in range(0, parts * size, size)]
    for_all = []
    for queries in starts:
        query, heard = _ask(attention, affine, positions[queries])
        for keys in starts:
            heard = _listen(attention, affine, query, positions[keys], inside[keys], heard)
        for_all.append(np.asarray(_answer(attention, positions[queries], heard)))
    return list(np.concatenate(for_all)[:count].reshape(len(rows), width, channels))


# One program for each of these and each shape of its parameters; none depends on the picture.


def _convolve(conv: Conv2d, x: Window) -> Float[Array, "h2 w2 d"]:
    """A 3x3 convolution of a window; the halo goes, and with it what the padding has touched.

    Without padding there is nothing to crop, but XLA's kernel for that is three times slower.
    """
    return conv(x[None])[0, 1:-1, 1:-1]


def _norm_silu(affine: Affine, x: Window, inside: Inside) -> Window:
    """The convolution's padding is zero after the norm, not before it."""
    scale, shift = affine
    normed = (x * scale[None, None] + shift[None, None]).astype(x.dtype)
    return jnp.where(inside, jax.nn.silu(normed), 0.0)


@jax.jit
def _enter(post_quant_conv: Conv2d, conv_in: Conv2d, x: Window, inside: Inside) -> Array:
    return _convolve(conv_in, jnp.where(inside, post_quant_conv(x[None])[0], 0.0))


@jax.jit
def _first_half(block: ResidualBlock, affine: Affine, x: Window, inside: Inside) -> Array:
    """Up to the second norm, and beside it, in the channels that follow, what will be added."""
    h = _convolve(block.conv1, _norm_silu(affine, x, inside))
    x = x[1:-1, 1:-1]
    kept = x if block.shortcut is None else block.shortcut(x[None])[0]
    return jnp.concatenate([h, kept], axis=-1)


@jax.jit
def _second_half(
    block: ResidualBlock, affine: Affine, x: Float[Array, "h w 2*c"], inside: Inside
) -> Array:
    h, kept = jnp.split(x, 2, axis=-1)
    return _convolve(block.conv2, _norm_silu(affine, h, inside)) + kept[1:-1, 1:-1]


@jax.jit
def _upsample(upsample: Upsample, x: Window, inside: Inside) -> Array:
    return upsample(x[None])[0, 2:-2, 2:-2]


@jax.jit
def _leave(conv_out: Conv2d, affine: Affine, x: Window, inside: Inside) -> Array:
    return _convolve(conv_out, _norm_silu(affine, x, inside))


@jax.jit
def _ask(
    attention: ImageAttention, affine: Affine, x: Float[Array, "n c"]
) -> tuple[Float[Array, "n c"], Heard]:
    """The queries of a part, and that nothing has been heard yet."""
    query = attention.attention.query(_normed(affine, x)) * x.shape[1] ** -0.5
    total = jnp.zeros((len(x), 1), jnp.float32)
    return query, (jnp.full_like(total, -jnp.inf), total, jnp.zeros(x.shape, jnp.float32))


@jax.jit
def _listen(
    attention: ImageAttention,
    affine: Affine,
    query: Float[Array, "n c"],
    x: Float[Array, "m c"],
    inside: Bool[Array, " m"],
    heard: Heard,
) -> Heard:
    """What was heard so far and what the positions of x say, weighed against the same maximum."""
    highest, total, mixed = heard
    normed = _normed(affine, x)
    key, value = attention.attention.key(normed), attention.attention.value(normed)
    logits = jnp.matmul(query, key.T, preferred_element_type=jnp.float32)
    logits = jnp.where(inside[None], logits, -jnp.inf)
    higher = jnp.maximum(highest, logits.max(axis=1, keepdims=True))
    weights, fade = jnp.exp(logits - higher), jnp.exp(highest - higher)
    total = total * fade + weights.sum(axis=1, keepdims=True)
    weights = weights.astype(value.dtype)
    return (
        higher,
        total,
        mixed * fade + jnp.matmul(weights, value, preferred_element_type=jnp.float32),
    )


@jax.jit
def _answer(attention: ImageAttention, x: Float[Array, "n c"], heard: Heard) -> Array:
    _, total, mixed = heard
    return x + attention.attention.out((mixed / total).astype(x.dtype))


def _normed(affine: Affine, x: Float[Array, "n c"]) -> Float[Array, "n c"]:
    scale, shift = affine
    return (x * scale[None] + shift[None]).astype(x.dtype)

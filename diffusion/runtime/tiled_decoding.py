"""5, where memory is short: the same picture as the VAE's `decode`, painted tile by tile.

Tiles that are decoded apart from each other show their seams, for three reasons, and here none of
the three is approximated:

- A 3x3 convolution sees one position beyond the tile: so each tile comes with a halo of one.
- A GroupNorm takes mean and variance over the whole picture: so one layer is finished in all tiles
  before the next begins.
- Attention looks everywhere: so what a tile finds in one tile is merged with what it finds in the
  others.

What is between two layers waits in the memory of the host, as a list of bands. A layer takes bands
away as it goes, so that there is little more than one map at any time, and the device holds
nothing but the parameters and one tile.

The layers and kernels are the decoder's own. What is written a second time is how a residual block
and an image attention are put together: between their halves all tiles have to come together.
"""

import itertools
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.config import AutoencoderConfig, VAEConfig
from diffusion.kernels.attention import Partial, attend_partly, finish, merge
from diffusion.layers.convolution import Conv2d, Upsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock
from diffusion.runtime.devices import free_memory
from diffusion.runtime.programs import Network
from diffusion.stages.autoencoder_blocks import ImageAttention
from diffusion.stages.vae import VAE

Bands: TypeAlias = list[Float[np.ndarray, "_ _ _"]]  # a map, `tile` rows each but for the last
Window: TypeAlias = Float[Array, "1 h w c"]  # a tile and its halo of one; zero outside the picture
Inside: TypeAlias = Bool[Array, "1 h w 1"]  # which positions of a window are in the picture
Statistics: TypeAlias = tuple[Float[Array, "1 g"], Float[Array, "1 g"]]  # mean and variance


def decode_in_tiles(
    vae: VAE, latents: Float[Array | np.ndarray, "b h w z"], tile: int = 32
) -> Float[np.ndarray, "b H W k"]:
    """`vae.decode(latents)` in less memory: latents (b, h, w, 4) -> (b, f h, f w, 3).

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
    scaled = np.asarray(latents)
    unscaled = (scaled / vae.scaling_factor).astype(scaled.dtype)
    return np.stack([_decode(vae, latent, tile) for latent in unscaled])


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
        latents = np.asarray(latents, autoencoder.dtype)
        return decode_in_tiles(autoencoder.module, latents).astype(np.float32)

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
    decoder, middle = vae.decoder, vae.decoder.middle
    bands = _cut(latent, tile)
    bands = _in_tiles(partial(_enter, vae.post_quant_conv, decoder.conv_in), bands, tile)
    bands = _residual(middle.residual1, bands, tile)
    if middle.attention is not None:
        bands = _attend(middle.attention, bands, tile)
    bands = _residual(middle.residual2, bands, tile)
    for level in decoder.levels:
        for residual in level.residuals:
            bands = _residual(residual, bands, tile)
        if level.change is not None:
            bands = _in_tiles(partial(_convolve, level.change), bands, tile)
    statistics = _statistics(decoder.norm_out, bands)
    leave = partial(_activate, decoder.norm_out, decoder.conv_out, statistics)
    return np.concatenate(_in_tiles(leave, bands, tile))


def _residual(block: ResidualBlock, bands: Bands, tile: int) -> Bands:
    """A residual block; between its convolutions a map carries what will be added, too."""
    bands = _in_tiles(partial(_first_half, block, _statistics(block.norm1, bands)), bands, tile)
    return _in_tiles(partial(_second_half, block, _statistics(block.norm2, bands)), bands, tile)


def _statistics(norm: GroupNorm, bands: Bands) -> Statistics:
    """Mean and variance of the groups of a map's first channels.

    Summed in float64, where E[x^2] - E[x]^2 keeps all digits that float32 has.
    """
    channels = norm.scale.shape[0]
    sums, count = np.zeros((2, channels)), 0
    for row in itertools.chain(*bands):
        x = row[:, :channels].astype(np.float64)
        sums += x.sum(axis=0), np.square(x).sum(axis=0)
        count += len(x)
    mean, square = (sums / count).reshape(2, 1, norm.groups, -1).mean(axis=-1)
    return jnp.asarray(mean, jnp.float32), jnp.asarray(square - mean**2, jnp.float32)


def _cut(rows: Float[np.ndarray, "h w c"], tile: int) -> Bands:
    return [rows[i : i + tile] for i in range(0, len(rows), tile)]


def _in_tiles(layer: Callable[..., Array], bands: Bands, tile: int) -> Bands:
    """A map through `layer(window, inside)`, which returns a tile without halo.

    Takes the bands out of the list when they are no longer needed.
    """
    done: Bands = []
    above = bands[0][:0]  # the last row of the band before, none at the top of the picture
    while bands:
        high, wide, channels = bands[0].shape
        window = np.zeros((tile + 2, -(-wide // tile) * tile + 2, channels), bands[0].dtype)
        inside = np.zeros((*window.shape[:2], 1), bool)
        row = 1 - len(above)
        for rows in (above, bands[0], *(below[:1] for below in bands[1:2])):
            here = np.s_[row : row + len(rows), 1 : wide + 1]
            window[here], inside[here] = rows, True
            row += len(rows)
        above = bands.pop(0)[-1:].copy()
        for left in range(0, wide, tile):
            part = np.s_[None, :, left : left + tile + 2]
            y = np.asarray(layer(window[part], inside[part]))[0]
            scale = len(y) // tile
            if left == 0:
                whole = np.empty((scale * high, scale * wide, y.shape[2]), y.dtype)
                done += _cut(whole, tile)
            place = whole[:, scale * left : scale * (left + tile)]
            place[:] = y[: place.shape[0], : place.shape[1]]
    return done


def _attend(attention: ImageAttention, bands: Bands, tile: int) -> Bands:
    """Attention of tile^2 positions at a time to tile^2 positions at a time."""
    statistics = _statistics(attention.norm, bands)
    x = np.concatenate(bands)
    count, channels, size = x.shape[0] * x.shape[1], x.shape[2], tile * tile
    flat = np.pad(x.reshape(count, channels), ((0, -count % size), (0, 0)))
    inside = (np.arange(len(flat)) < count).reshape(-1, 1, size)
    parts = flat.reshape(-1, 1, 1, size, channels)
    projected = [_project(attention, statistics, part) for part in parts]
    done = []
    for part, (q, _, _) in zip(parts, projected, strict=True):
        found = (
            _attend_partly(q, k, v, some) for (_, k, v), some in zip(projected, inside, strict=True)
        )
        done.append(np.asarray(_finish(attention, part, reduce(_merge, found))))
    return _cut(np.concatenate(done).reshape(-1, channels)[:count].reshape(x.shape), tile)


# One program for each of these and each shape of its parameters; none depends on the picture.


@jax.jit
def _convolve(layer: Conv2d | Upsample, x: Window, inside: Inside) -> Array:
    """A layer on a window; the halo goes, and with it what the padding has touched."""
    y = layer(x)
    halo = y.shape[1] // x.shape[1]
    return y[:, halo:-halo, halo:-halo]


@jax.jit
def _enter(post_quant_conv: Conv2d, conv_in: Conv2d, x: Window, inside: Inside) -> Array:
    return _convolve(conv_in, jnp.where(inside, post_quant_conv(x), 0.0), inside)


@jax.jit
def _activate(
    norm: GroupNorm, conv: Conv2d, statistics: Statistics, x: Window, inside: Inside
) -> Array:
    """conv(silu(norm(x))); the convolution's padding is zero after the norm, not before it."""
    normed = jnp.where(inside, norm.normalised(x, *statistics), 0.0)
    return _convolve(conv, jax.nn.silu(normed), inside)


@jax.jit
def _first_half(block: ResidualBlock, statistics: Statistics, x: Window, inside: Inside) -> Array:
    """Up to the second norm, and beside it, in the channels that follow, what will be added."""
    h = _activate(block.norm1, block.conv1, statistics, x, inside)
    kept = x[:, 1:-1, 1:-1]
    return jnp.concatenate([h, kept if block.shortcut is None else block.shortcut(kept)], axis=-1)


@jax.jit
def _second_half(block: ResidualBlock, statistics: Statistics, x: Window, inside: Inside) -> Array:
    h, kept = jnp.split(x, 2, axis=-1)
    return _activate(block.norm2, block.conv2, statistics, h, inside) + kept[:, 1:-1, 1:-1]


@jax.jit
def _project(attention: ImageAttention, statistics: Statistics, x: Window) -> tuple[Array, ...]:
    """Queries, scaled, keys and values of some positions."""
    normed = attention.norm.normalised(x, *statistics)[:, 0]
    inner = attention.attention
    return inner.query(normed) * x.shape[-1] ** -0.5, inner.key(normed), inner.value(normed)


_attend_partly, _merge = jax.jit(attend_partly), jax.jit(merge)


@jax.jit
def _finish(attention: ImageAttention, x: Window, found: Partial) -> Array:
    return x + attention.attention.out(finish(found).astype(x.dtype))[:, None]

"""What a painting begins with, besides noise: words, and perhaps an image and a mask."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.config import ModelConfig
from diffusion.images import from_uint8
from diffusion.process import Process
from diffusion.runtime.programs import Network
from diffusion.settings import Image, Mask, Resolved
from diffusion.text import emphasis
from diffusion.text.tokenizer import Tokenizer


class Conditioning(NamedTuple):
    """All that a painting begins with, but for the noise."""

    # Of the prompt; k = 2: and of the negative prompt. (k, b, n, d): one for each of the pictures.
    context: Float[Array, "k *b n d"]
    guidance: np.float32
    apart: np.float32 | None  # see `diffusion.process.tables.guide`
    seed: np.uint32
    known: Float[Array, "1 h w z"]  # the latent of a given image; zeros if there is none
    mask: Bool[Array, "1 h w 1"]  # where to paint; elsewhere what is known shall stay
    extra: Float[Array, "1 h w c"]  # what an inpainting denoiser sees beside x_t; c = 0 or 5
    from_image: bool  # does the painting begin with the image under noise?


def contexts(
    text_encoder: Network, tokenizer: Tokenizer, texts: Sequence[str], signs: bool
) -> Float[Array, "k n d"]:
    """What the denoiser hears of each text.

    Args:
        signs: do brackets and BREAK mean something? See `diffusion.text.emphasis`.
    """
    if not signs:
        emphasis.tell(texts)
        return text_encoder(jnp.asarray(tokenizer(texts)))
    tokens, weights = zip(*(emphasis.rows(tokenizer, text) for text in texts), strict=True)
    context = text_encoder(jnp.asarray(np.concatenate(tokens)))
    context = weighed(context, jnp.asarray(np.concatenate(weights)))
    ends = np.cumsum([len(rows) for rows in tokens])[:-1]
    return jnp.stack(alike([rows.reshape(-1, rows.shape[-1]) for rows in jnp.split(context, ends)]))


def weighed(context: Float[Array, "r n d"], weights: Float[Array, "r n"]) -> Float[Array, "r n d"]:
    """Each token's vector times its weight; then the row is scaled so that its mean stays.

    That is the rule of Stable Diffusion web UI, by which prompts that people share were tried. It
    has no derivation: without the second step, many heavy words make a context that is larger than
    any that the denoiser has learnt to hear. Where the mean is near zero and says nothing (it would
    have to change tenfold or change its sign), the row is not scaled.
    """
    changed = context * weights[..., None]
    before, after = (x.mean(axis=(1, 2), keepdims=True) for x in (context, changed))
    ratio = before / jnp.where(after == 0.0, 1.0, after)
    return changed * jnp.where((ratio > 0.1) & (ratio < 10.0), ratio, 1.0)


def alike(parts: Sequence[Float[Array, "*k _ d"]]) -> list[Float[Array, "*k n d"]]:
    """Contexts of different lengths, each repeated until all are equally long.

    Attention hears no difference: each key is there m times, and has an m-th of its weight each
    time.
    """
    length = math.lcm(*(part.shape[-2] for part in parts))
    return [jnp.concatenate([part] * (length // part.shape[-2]), axis=-2) for part in parts]


def words_for(context: Float[Array, "k *b n d"], count: int) -> Float[Array, "kb n d"]:
    """The context of each of `count` pictures, all of a branch side by side."""
    if context.ndim == 3:
        return jnp.repeat(context, count, axis=0)
    return context.reshape(-1, *context.shape[2:])


def condition(
    config: ModelConfig,
    process: Process,
    autoencoder: Network,
    context: Float[Array, "k n d"],
    asked: Resolved,
    image: Image | None,
    mask: Mask | None,
) -> Conditioning:
    """The conditioning of settings, with what a given image and mask become as latents."""
    size = asked.height, asked.width
    side = config.autoencoder.downscale
    h, w = size[0] // side, size[1] // side
    key = jax.random.key(asked.seed)
    known = jnp.zeros((1, h, w, config.denoiser.latent_channels))
    painted: np.ndarray = np.ones((1, h, w, 1), bool)
    if mask is not None:  # a latent is painted where any of its pixels is
        painted = np.asarray(mask.reshape(h, side, w, side).any(axis=(1, 3)))[None, ..., None]
    if image is not None:
        known = process.encode(autoencoder, jnp.asarray(from_uint8(image)[None]), key)
    extra = jnp.zeros((1, h, w, 0))
    if config.inpaints:
        kept = np.zeros((*size, 3), np.float32) if image is None else from_uint8(image)
        kept = kept * ~(np.ones(size, bool) if mask is None else mask)[..., None]
        beside = autoencoder.encode(kept[None], key)
        extra = jnp.concatenate([painted.astype(np.float32), beside], -1)
        painted = np.ones_like(painted)  # the denoiser itself leaves the rest as it is
    return Conditioning(
        context,
        np.float32(asked.guidance),
        None,
        np.uint32(asked.seed),
        known,
        jnp.asarray(painted),
        extra,
        from_image=image is not None and (mask is None or asked.strength < 1.0),
    )

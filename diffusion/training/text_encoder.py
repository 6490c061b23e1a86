"""Training the text encoder: a caption and its picture should point the same way (CLIP).

Radford et al. 2021: a text tower and an image tower, each ending in a unit vector; in a batch every
caption must find its picture and every picture its caption. The image tower is thrown away.

Telling a red house with a blue roof from a blue house with a red roof is hardly ever needed to tell
apart pictures drawn at random, so words would not learn where they belong. Half of each batch are
therefore near twins of the other half: the same scene and sentence but for one thing that is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from diffusion.config import ModelConfig, TextEncoderConfig
from diffusion.datasets.captions import caption
from diffusion.datasets.garden import ATTRIBUTES, Scene, is_held_out, render, sample_scenes, value
from diffusion.images import to_uint8
from diffusion.layers.convolution import Conv2d, Downsample
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock
from diffusion.stages.text_encoder import TextEncoder
from diffusion.tokenizer import Tokenizer
from diffusion.training.loop import Metrics, TrainConfig
from diffusion.weights.files import Params, shapes, split

IMAGE_WIDTHS = (24, 48, 96, 128)  # channels of the image tower, finest level first
IMAGE_SIZE = 32  # pixels along the side of the pictures that the image tower sees
TWIN_ATTRIBUTES = ("house", "roof", "roof_shape", "door", "tree_kind", "flowers", "sky", "light",
                   "trees", "style")  # fmt: skip


class Pairs(NamedTuple):
    """Captions and their pictures."""

    tokens: Int[Array | np.ndarray, "b n"]
    scenes: Scene


class ImageTower(nnx.Module):
    """Picture (b, 32, 32, 3) -> features (b, width): residual blocks, smaller and smaller."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        first, last = IMAGE_WIDTHS[0], IMAGE_WIDTHS[-1]
        self.conv_in = Conv2d(3, first, rngs=rngs)
        self.downs = nnx.List(Downsample(w, rngs=rngs) for w in IMAGE_WIDTHS[:-1])
        self.residuals = nnx.List(
            ResidualBlock(a, b, groups=8, eps=1e-5, rngs=rngs) for a, b in pairwise(IMAGE_WIDTHS)
        )
        self.norm = GroupNorm(last, 8, eps=1e-5)
        self.out = nnx.Linear(last * 16, width, rngs=rngs)  # 4x4 positions: where matters too

    def __call__(self, images: Float[Array, "b 32 32 3"]) -> Float[Array, "b d"]:
        h = self.conv_in(images)
        for down, residual in zip(self.downs, self.residuals, strict=True):
            h = residual(down(h))
        return self.out(jax.nn.silu(self.norm(h)).reshape(len(h), -1))


class CLIP(nnx.Module):
    """The two towers with their projections and the temperature."""

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        self.text = TextEncoder(config, rngs=rngs)
        self.text_projection = nnx.Linear(config.width, config.width, use_bias=False, rngs=rngs)
        self.image = ImageTower(config.width, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.log(1 / 0.07))

    def __call__(
        self, tokens: Int[Array, "b n"], images: Float[Array, "b h w 3"], eos: int
    ) -> Float[Array, "b b"]:
        """Cosine of each caption (row) with each picture, times the learnt scale (at most 100)."""
        states = self.text(tokens)
        ends = jnp.argmax(tokens == eos, axis=1)  # the first: padding repeats it
        text = self.text_projection(jnp.take_along_axis(states, ends[:, None, None], axis=1)[:, 0])
        image = self.image(images)
        text, image = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (text, image))
        return jnp.exp(jnp.minimum(self.logit_scale[...], jnp.log(100.0))) * text @ image.T


def contrastive_loss(logits: Float[Array, "b b"]) -> Float[Array, ""]:
    """Cross-entropy of finding the partner, in both directions (Radford et al. 2021, figure 3)."""
    own = jnp.arange(len(logits))
    losses = optax.softmax_cross_entropy_with_integer_labels
    return (losses(logits, own).mean() + losses(logits.T, own).mean()) / 2


def twin(scene: Scene, other: Scene, named: frozenset[str], rng: np.random.Generator) -> Scene:
    """`scene` with one thing changed that its caption names; each a batch of one.

    Where two parts of the house are named, they trade colours in half of the cases; else one
    attribute takes the value that it has in `other`. Where that leads to a held-out combination, or
    nothing can change, the twin is `other`.
    """
    changeable = [name for name in TWIN_ATTRIBUTES if name in named]
    coloured = [name for name in ("house", "roof", "door") if name in named]
    changed = other
    if len(coloured) > 1 and rng.random() < 0.5:
        a, b = rng.choice(coloured, 2, replace=False)
        word_a, word_b = value(scene, 0, a), value(scene, 0, b)
        if word_a in ATTRIBUTES[b] and word_b in ATTRIBUTES[a]:
            indices = {a: ATTRIBUTES[a].index(word_b), b: ATTRIBUTES[b].index(word_a)}
            changed = scene._replace(
                **{name: np.array([i], np.int32) for name, i in indices.items()}
            )
    elif changeable:
        name = rng.choice(changeable)
        changed = scene._replace(**{name: getattr(other, name)})
    return other if is_held_out(changed)[0] else changed


@dataclass
class TextTask:
    model: ModelConfig
    tokenizer: Tokenizer
    name: str = "text"

    def __post_init__(self) -> None:
        self.create = lambda seed: CLIP(self.model.text_encoder, rngs=nnx.Rngs(seed))
        self.structure, _ = shapes(partial(self.create, 0))

    def init(self, seed: int) -> Params:
        return split(self.create(seed))[1]

    def batch(self, rng: np.random.Generator, size: int) -> Pairs:
        scenes = sample_scenes(rng, size)
        texts = []
        for i in range(0, size, 2):
            first, second = (Scene(*(field[j : j + 1] for field in scenes)) for j in (i, i + 1))
            language = "tr" if rng.random() < 0.5 else "en"
            wording = int(rng.integers(2**32))  # the same for both, as far as the scenes allow
            said = caption(first, 0, np.random.default_rng(wording), language)
            second = twin(first, second, said.named, rng)
            for field, values in zip(scenes, second, strict=True):
                field[i + 1] = values[0]
            texts += [said.text]
            texts += [caption(second, 0, np.random.default_rng(wording), language).text]
        return Pairs(self.tokenizer(texts), scenes)

    def loss(self, params: Params, batch: Pairs, key: Array) -> tuple[Array, Metrics]:
        clip = nnx.merge(self.structure, params)
        logits = clip(
            jnp.asarray(batch.tokens), render(batch.scenes, IMAGE_SIZE), self.tokenizer.eos
        )
        own = jnp.arange(len(logits))
        right = jnp.mean(jnp.argmax(logits, axis=1) == own)
        return contrastive_loss(logits), {"retrieval": right}

    def picture(self, params: Params) -> np.ndarray:
        """Cosines of 32 captions (rows) and pictures (columns), from -1, black, to 1, white."""
        batch = self.batch(np.random.default_rng(0), 32)
        clip = nnx.merge(self.structure, params)
        logits = clip(
            jnp.asarray(batch.tokens), render(batch.scenes, IMAGE_SIZE), self.tokenizer.eos
        )
        cosines = logits / jnp.exp(jnp.minimum(clip.logit_scale[...], jnp.log(100.0)))
        pixels = np.repeat(np.repeat(to_uint8(cosines[..., None]), 8, axis=0), 8, axis=1)
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()


def text_encoder_of(clip: Params) -> Params:
    """The part of the trained towers that the art class keeps."""
    return clip["text"]


def preset() -> TrainConfig:
    return TrainConfig(
        steps=600, batch_size=128, learning_rate=1e-3, weight_decay=0.1, picture_every=200
    )

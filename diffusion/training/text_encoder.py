"""Training the text encoder: find the picture of a caption, and tell what the caption says.

Finding is CLIP (Radford et al. 2021): a text tower and an image tower, each ending in a unit
vector; in a batch every caption must find its picture and every picture its caption. Telling a red
house with a blue roof from a blue house with a red roof is hardly ever needed to tell apart
pictures drawn at random. Half of each batch are therefore near twins of the other half: the same
scene and sentence but for one thing that is named (see `twin`; one in five is the very same).

By finding alone, words become alike and the U-Net cannot tell them apart (docs/training.md). So
there are two more questions. Reading: what does the caption say of each attribute, or does it leave
it open? Every token from the end mark on must know, because the U-Net listens to all of them.
Spelling: each token must still tell which one it is.

Only the text tower is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffusion.config import ModelConfig, TextEncoderConfig
from diffusion.datasets.captions import Caption, any_motion, caption, said_by
from diffusion.datasets.curriculum import MOTION_SHARE
from diffusion.datasets.garden import ATTRIBUTES, Scene, is_held_out, render, sample_scenes, value
from diffusion.datasets.garden.motion import MOTIONS
from diffusion.images import to_uint8
from diffusion.layers.convolution import Conv2d, Downsample
from diffusion.layers.linear import Linear
from diffusion.layers.normalisation import GroupNorm
from diffusion.layers.residual import ResidualBlock
from diffusion.runtime.parameters import Params, shapes, split
from diffusion.stages.text_encoder import TextEncoder
from diffusion.text.tokenizer import Tokenizer
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import structure

DETAILED_SHARE = 0.5  # of the captions; see `diffusion.datasets.captions`
IMAGE_WIDTHS = (24, 48, 96, 128)  # channels of the image tower, finest level first
IMAGE_SIZE = 32  # pixels along the side of the pictures that the image tower sees
TWIN_ATTRIBUTES = ("house", "roof", "roof_shape", "door", "tree_kind", "flowers", "sky", "light",
                   "trees", "style")  # fmt: skip
READING_WEIGHT = 1.0  # of an attribute's cross-entropy, beside the contrastive one
SPELLING_WEIGHT = 0.1  # of a token's
NEAR_WEIGHT = 100.0  # of the squared distance from the contexts before: new heads pull hard
READ = {**ATTRIBUTES, "motion": tuple(MOTIONS)}  # what captions say, and what may be said of it
OPTIONS = tuple(len(words) + 1 for words in READ.values())  # the last: "left open"


class Pairs(NamedTuple):
    """Captions, their pictures, and what the captions say."""

    tokens: Int[Array | np.ndarray, "b n"]
    scenes: Scene
    said: Int[Array | np.ndarray, "b read"]  # a position in READ, or one beyond


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
        self.out = Linear(last * 16, width, rngs=rngs)  # 4x4 positions: where matters too

    def __call__(self, images: Float[Array, "b 32 32 3"]) -> Float[Array, "b d"]:
        h = self.conv_in(images)
        for down, residual in zip(self.downs, self.residuals, strict=True):
            h = residual(down(h))
        return self.out(jax.nn.silu(self.norm(h)).reshape(len(h), -1))


class Pupil(nnx.Module):
    """The two towers with their projections and the temperature, and the other two questions."""

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        self.text = TextEncoder(config, rngs=rngs)
        self.text_projection = Linear(config.width, config.width, use_bias=False, rngs=rngs)
        self.image = ImageTower(config.width, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.log(jnp.float32(1 / 0.07)))
        self.reading = Linear(config.width, sum(OPTIONS), rngs=rngs)
        self.spelling = Linear(config.width, config.vocab_size, rngs=rngs)

    def find(
        self,
        states: Float[Array, "b n d"],
        ends: Int[Array, " b"],
        images: Float[Array, "b h w 3"],
    ) -> Float[Array, "b b"]:
        """Cosine of each caption (row) with each picture, times the learnt scale (at most 100)."""
        text = self.text_projection(jnp.take_along_axis(states, ends[:, None, None], axis=1)[:, 0])
        image = self.image(images)
        text, image = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (text, image))
        return jnp.exp(jnp.minimum(self.logit_scale[...], jnp.log(100.0))) * text @ image.T

    def read(self, states: Float[Array, "b n d"]) -> list[Float[Array, "b n _"]]:
        """At each token the logits of what is said, attribute by attribute."""
        return jnp.split(self.reading(states), np.cumsum(OPTIONS)[:-1], axis=-1)


def contrastive_loss(logits: Float[Array, "b b"]) -> Float[Array, ""]:
    """Cross-entropy of finding the partner, in both directions (Radford et al. 2021, figure 3)."""
    own = jnp.arange(len(logits))
    losses = optax.softmax_cross_entropy_with_integer_labels
    return (losses(logits, own).mean() + losses(logits.T, own).mean()) / 2


def read_loss(
    answers: Sequence[Float[Array, "b n _"]],
    said: Int[Array, "b read"],
    asked: Bool[Array, "b n"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The cross-entropy of what captions say, summed over the attributes, of the tokens asked.

    Also returned is the share of these tokens that know all of it.
    """
    loss, understood = jnp.zeros(()), jnp.ones(asked.shape, bool)
    for column, logits in enumerate(x.astype(jnp.float32) for x in answers):
        truth = jnp.broadcast_to(said[:, column, None], asked.shape)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
        loss += jnp.mean(losses, where=asked)
        understood &= logits.argmax(axis=-1) == truth
    return loss, jnp.mean(understood, where=asked)


def twin(scene: Scene, other: Scene, named: frozenset[str], rng: np.random.Generator) -> Scene:
    """`scene` with one thing changed that its caption names; each a batch of one.

    Where two parts of the house are named, they trade colours in half of the cases; else one
    attribute takes the value that it has in `other`, which may be the same: a fifth of the twins
    are no different. Where that leads to a held-out combination, or nothing is named that could
    change, the twin is `other`.
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


def _say(scene: Scene, wording: int, language: str, detailed: bool, moves: bool) -> Caption:
    """The caption of a batch of one; the same `wording` chooses the same words."""
    motion = any_motion(scene, 0, np.random.default_rng(wording)) if moves else ""
    return caption(scene, 0, np.random.default_rng(wording), language, detailed, motion)


def pairs(tokenizer: Tokenizer, rng: np.random.Generator, size: int) -> Pairs:
    """Scenes, each second one the twin of the one before, and their captions."""
    scenes = sample_scenes(rng, size)
    said = []
    for i in range(0, size, 2):
        first, second = (Scene(*(field[j : j + 1] for field in scenes)) for j in (i, i + 1))
        language = "tr" if rng.random() < 0.5 else "en"
        wording = int(rng.integers(2**32))  # the same for both, as far as the scenes allow
        detailed, moves = rng.random() < DETAILED_SHARE, rng.random() < MOTION_SHARE
        say = partial(_say, wording=wording, language=language, detailed=detailed, moves=moves)
        words = [say(first)]
        second = twin(first, second, words[0].named, rng)
        for field, values in zip(scenes, second, strict=True):
            field[i + 1] = values[0]
        said += [*words, say(second)]
    return Pairs(tokenizer([one.text for one in said]), scenes, what_is_said(said, scenes))


@dataclass
class TextTask:
    model: ModelConfig
    tokenizer: Tokenizer
    known: Params | None = None  # of the text encoder that it begins with: its contexts are kept
    name: str = "text"

    def __post_init__(self) -> None:
        self.create = lambda seed: Pupil(self.model.text_encoder, rngs=nnx.Rngs(seed))
        self.structure, _ = shapes(partial(self.create, 0))
        self.text_structure, _ = structure(self.model.text_encoder)
        self.frozen: Params = {} if self.known is None else {"known": self.known}
        self.batch = partial(pairs, self.tokenizer)
        self.cosines = jax.jit(self._cosines)

    def init(self, seed: int) -> Params:
        return split(self.create(seed))[1]

    def loss(
        self, params: Params, frozen: Params, batch: Pairs, key: Array
    ) -> tuple[Array, Metrics]:
        pupil = nnx.merge(self.structure, params)
        tokens = jnp.asarray(batch.tokens)
        states = pupil.text(tokens)
        is_end = tokens == self.tokenizer.eos  # padding repeats the end mark
        ends = jnp.argmax(is_end, axis=1)
        images = render(batch.scenes, IMAGE_SIZE).astype(states.dtype)
        logits = pupil.find(states, ends, images).astype(jnp.float32)
        found = jnp.mean(jnp.argmax(logits, axis=1) == jnp.arange(len(logits)))

        finding = contrastive_loss(logits)
        reading, understood = read_loss(pupil.read(states), jnp.asarray(batch.said), is_end)
        spelt = pupil.spelling(states).astype(jnp.float32)
        letters = optax.softmax_cross_entropy_with_integer_labels(spelt, tokens)
        spelling = jnp.mean(letters, where=~is_end)
        loss = finding + READING_WEIGHT * reading + SPELLING_WEIGHT * spelling
        more = {}
        if "known" in frozen:
            near = self._distance(states, frozen["known"], batch)
            loss, more = loss + NEAR_WEIGHT * near, {"near": near}
        return loss, more | {
            "finding": finding,
            "reading": reading,
            "spelling": spelling,
            "found": found,
            "understood": understood,
        }

    def _distance(self, states: Array, known: Params, batch: Pairs) -> Array:
        """Of contexts from those before, where no new words are said: a U-Net knows them."""
        before = nnx.merge(self.text_structure, known)(jnp.asarray(batch.tokens))
        still = jnp.asarray(batch.said)[:, -1] == len(MOTIONS)
        return jnp.mean(jnp.square((states - before).astype(jnp.float32)).mean((1, 2)), where=still)

    def picture(self, params: Params) -> np.ndarray:
        """Cosines of 32 captions (rows) and pictures (columns), from -1, black, to 1, white."""
        batch = self.batch(np.random.default_rng(0), 32)
        cosines = to_uint8(self.cosines(params, batch.tokens, batch.scenes)[..., None])
        return np.tile(cosines.repeat(8, axis=0).repeat(8, axis=1), (1, 1, 3))

    def _cosines(self, params: Params, tokens: Int[Array, "b n"], scenes: Scene) -> Array:
        pupil = nnx.merge(self.structure, params)
        ends = jnp.argmax(tokens == self.tokenizer.eos, axis=1)
        logits = pupil.find(pupil.text(tokens), ends, render(scenes, IMAGE_SIZE))
        return logits / jnp.exp(jnp.minimum(pupil.logit_scale[...], jnp.log(100.0)))


def what_is_said(said: Sequence[Caption], scenes: Scene) -> Int[np.ndarray, "b read"]:
    """Of the scenes (`said_by`), and last what happens in them."""
    positions = {motion: i for i, motion in enumerate(MOTIONS)} | {"": len(MOTIONS)}
    happens = np.array([positions[caption.motion] for caption in said], np.int32)
    return np.column_stack([said_by(said, scenes), happens])


def text_encoder_of(pupil: Params) -> Params:
    """The part of what was trained that the art class keeps."""
    return pupil["text"]


def preset() -> TrainConfig:
    return TrainConfig(
        steps=1200, batch_size=64, learning_rate=1e-3, weight_decay=0.1, picture_every=500
    )

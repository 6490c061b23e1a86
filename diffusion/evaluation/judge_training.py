"""Training the judge: pictures that the renderer drew, and all that is true of them.

Half of the pictures are frames of clips: a view that has come closer, a tree that leans. What a VAE
or a generator paints is softer than what it was taught, so half are worn before the judge sees
them: blurred, noisy, a little paler or darker. The scenes come from seeds of their own, and a tenth
of them are of the combinations that are held out from everybody else: the judge must know what
nobody was shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from diffusion.datasets.garden import (
    ATTRIBUTES,
    Clips,
    is_there,
    render_moments,
    sample_clips,
    sample_scenes,
)
from diffusion.datasets.garden.motion import CHANGES, MOTIONS, STILL
from diffusion.evaluation.judge import SIZE, Judge, save
from diffusion.images import sheet, to_uint8
from diffusion.runtime.parameters import Params, precision, shapes, split
from diffusion.training.card import Order
from diffusion.training.log import Metrics, Watch
from diffusion.training.parts import DTYPE, run_task
from diffusion.training.train_config import TrainConfig

HELD_OUT_SHARE = 0.1
MOVING_SHARE = 0.5  # of the pictures: frames of clips
FRAMES = 16  # of which a picture is one
WORN_SHARE = 0.5
BLUR = 1.2  # the largest standard deviation, in pixels; four of them are the kernel
NOISE = 0.1  # the largest standard deviation, of values in [-1, 1]
CONTRAST, BRIGHTNESS = 0.1, 0.1  # the largest changes
REACH = 4


class Moments(NamedTuple):
    """A batch: of each clip one moment."""

    clips: Clips
    time: Float[np.ndarray, " b"]  # one of `FRAMES` times from 0 to 1


def draw(rng: np.random.Generator, count: int, held_out_share: float = HELD_OUT_SHARE) -> Moments:
    """Moments of clips and of still scenes; a share of both are held-out combinations."""
    moving = round(count * MOVING_SHARE)
    parts = []
    for size, sample in (moving, sample_clips), (count - moving, _still):
        held = round(size * held_out_share)
        parts += [sample(rng, size - held), sample(rng, held, held_out=True)]
    clips = jax.tree.map(lambda *fields: np.concatenate(fields), *parts)
    times = rng.integers(FRAMES, size=count) / (FRAMES - 1)
    return Moments(clips, times.astype(np.float32))


def _still(rng: np.random.Generator, count: int, *, held_out: bool = False) -> Clips:
    scenes = sample_scenes(rng, count, held_out=held_out)
    return Clips(scenes, np.full(count, STILL, np.int32))


def truth(batch: Moments, name: str) -> tuple[Int[Array, " b"], Bool[Array, " b"]]:
    """The value of an attribute in each picture, and in which pictures one can tell.

    While something changes, nobody can tell what it is; and sun and moon are behind the hills.
    """
    scenes, motion, time = batch.clips.scenes, batch.clips.motion, batch.time
    values = jnp.asarray(getattr(scenes, name))
    counts = jnp.asarray(is_there(scenes, name))
    for position, happens in enumerate(MOTIONS):
        if happens not in CHANGES:
            continue
        changing, _, *ends = CHANGES[happens]
        here = motion == position
        if changing == name:
            for end, word in enumerate(ends):
                values = jnp.where(here & (time == end), ATTRIBUTES[name].index(word), values)
            counts &= ~here | (time == 0) | (time == 1)
        elif (changing, name) == ("sky", "light"):
            counts &= ~here
    return values, counts


def blurred(images: Float[Array, "b h w c"], sigma: Float[Array, " b"]) -> Float[Array, "b h w c"]:
    """Each picture under a Gaussian blur of its own standard deviation, in pixels."""
    offsets = jnp.arange(-REACH, REACH + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets[None] / jnp.maximum(sigma, 1e-3)[:, None]))
    weights = weights / weights.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        around = [(0, 0)] * 4
        around[axis] = (REACH, REACH)
        wide = jnp.pad(images, around, mode="edge")
        n = images.shape[axis]
        shifted = [jax.lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(len(offsets))]
        images = jnp.einsum("bk,kbhwc->bhwc", weights, jnp.stack(shifted))
    return images


def worn(images: Float[Array, "b h w c"], key: Array) -> Float[Array, "b h w c"]:
    """`WORN_SHARE` of the pictures blurred, noisy, paler or stronger, darker or brighter."""
    b = len(images)
    keys = iter(jax.random.split(key, 6))

    def amount(largest: float, smallest: float = 0.0) -> Array:
        return jax.random.uniform(next(keys), (b, 1, 1, 1), minval=smallest, maxval=largest)

    soft = blurred(images, amount(BLUR)[:, 0, 0, 0])
    soft = soft * (1.0 + amount(CONTRAST, -CONTRAST)) + amount(BRIGHTNESS, -BRIGHTNESS)
    soft = soft + amount(NOISE) * jax.random.normal(next(keys), images.shape)
    return jnp.where(amount(1.0) < WORN_SHARE, jnp.clip(soft, -1.0, 1.0), images)


@dataclass
class JudgeTask:
    name: str = "judge"

    def __post_init__(self) -> None:
        self.create = lambda seed: Judge(rngs=nnx.Rngs(seed))
        self.structure, _ = shapes(partial(self.create, 0))
        self.frozen: Params = {}
        self.batch = draw
        self.answers = jax.jit(lambda params, images: nnx.merge(self.structure, params)(images))

    def init(self, seed: int) -> Params:
        return split(self.create(seed))[1]

    def loss(
        self, params: Params, frozen: Params, batch: Moments, key: Array
    ) -> tuple[Array, Metrics]:
        """Cross-entropy, summed over the attributes."""
        images = render_moments(batch.clips, batch.time, SIZE)
        images = worn(images, key).astype(precision(params))
        loss, wrong = jnp.zeros(()), jnp.zeros(())
        for name, logits in nnx.merge(self.structure, params)(images).items():
            true, counts = truth(batch, name)
            logits = logits.astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, true)
            answers = jnp.maximum(counts.sum(), 1)
            loss += jnp.sum(losses, where=counts) / answers
            wrong += jnp.sum(logits.argmax(1) != true, where=counts) / answers
        return loss, {"wrong": wrong / len(ATTRIBUTES)}

    def picture(self, params: Params) -> np.ndarray:
        """Worn pictures; those of which one answer or more is wrong have a frame."""
        batch = draw(np.random.default_rng(0), 32)
        images = render_moments(batch.clips, batch.time, SIZE)
        images = worn(images, jax.random.key(0))
        wrong = np.zeros(len(images), bool)
        for name, logits in self.answers(params, images).items():
            true, counts = truth(batch, name)
            wrong |= np.asarray(counts & (logits.argmax(1) != true))
        pictures = np.pad(to_uint8(images), ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)
        for i in np.flatnonzero(wrong):
            pictures[i, [0, 1, -2, -1]] = pictures[i, :, [0, 1, -2, -1]] = 200, 0, 0
        return sheet(pictures, columns=8)


def preset() -> TrainConfig:
    """The seed is the judge's own: it sees no scene that a generator was trained on."""
    return TrainConfig(
        steps=3000, batch_size=64, learning_rate=2e-3, weight_decay=0.05, ema=0.995, seed=1_000_003
    )


def train_judge(output: Path, settings: Sequence[str] = (), watch: Watch | None = None) -> None:
    """Train a judge into the folder `output`; see `diffusion.training.recipe.train_part`."""
    order = Order("judge", output, settings, watch)
    save(output, run_task(JudgeTask(), preset(), order), DTYPE)

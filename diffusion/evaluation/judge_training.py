"""Training the judge: pictures that the renderer drew, and all that is true of them.

What a VAE or a generator paints is softer than what it was taught. So half of the pictures are worn
before the judge sees them: blurred, noisy, a little paler or darker. The scenes come from seeds of
their own, and a tenth of them are of the combinations that are held out from everybody else: the
judge must know what nobody was shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from diffusion.datasets.garden import ATTRIBUTES, Scene, is_there, render, sample_scenes
from diffusion.evaluation.judge import SIZE, Judge, save
from diffusion.images import sheet, to_uint8
from diffusion.runtime.parameters import Params, precision, shapes, split
from diffusion.training.card import Order
from diffusion.training.log import Metrics, Watch
from diffusion.training.parts import DTYPE, run_task
from diffusion.training.train_config import TrainConfig

HELD_OUT_SHARE = 0.1
WORN_SHARE = 0.5
BLUR = 1.2  # the largest standard deviation, in pixels; four of them are the kernel
NOISE = 0.1  # the largest standard deviation, of values in [-1, 1]
CONTRAST, BRIGHTNESS = 0.1, 0.1  # the largest changes
REACH = 4


def draw(rng: np.random.Generator, count: int, held_out_share: float = HELD_OUT_SHARE) -> Scene:
    """Scenes of which a share are of held-out combinations."""
    held = round(count * held_out_share)
    parts = sample_scenes(rng, count - held), sample_scenes(rng, held, held_out=True)
    return Scene(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


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
        self, params: Params, frozen: Params, batch: Scene, key: Array
    ) -> tuple[Array, Metrics]:
        """Cross-entropy, summed over the attributes."""
        images = worn(render(batch, SIZE), key).astype(precision(params))
        loss, wrong = jnp.zeros(()), jnp.zeros(())
        for name, logits in nnx.merge(self.structure, params)(images).items():
            truth, counts = jnp.asarray(getattr(batch, name)), is_there(batch, name)
            logits = logits.astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
            answers = jnp.maximum(counts.sum(), 1)
            loss += jnp.sum(losses, where=counts) / answers
            wrong += jnp.sum(logits.argmax(1) != truth, where=counts) / answers
        return loss, {"wrong": wrong / len(ATTRIBUTES)}

    def picture(self, params: Params) -> np.ndarray:
        """Worn pictures; those of which one answer or more is wrong have a frame."""
        scenes = draw(np.random.default_rng(0), 32)
        images = worn(render(scenes, SIZE), jax.random.key(0))
        wrong = np.zeros(len(images), bool)
        for name, logits in self.answers(params, images).items():
            truth = np.asarray(getattr(scenes, name))
            wrong |= is_there(scenes, name) & (np.asarray(logits.argmax(1)) != truth)
        pictures = np.pad(to_uint8(images), ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)
        for i in np.flatnonzero(wrong):
            pictures[i, [0, 1, -2, -1]] = pictures[i, :, [0, 1, -2, -1]] = 200, 0, 0
        return sheet(pictures, columns=8)


def preset() -> TrainConfig:
    """The seed is the judge's own: it sees no scene that a generator was trained on."""
    return TrainConfig(
        steps=900, batch_size=64, learning_rate=2e-3, weight_decay=0.05, ema=0.995, seed=1_000_003
    )


def train_judge(output: Path, settings: Sequence[str] = (), watch: Watch | None = None) -> None:
    """Train a judge into the folder `output`; see `diffusion.training.recipe.train_part`."""
    order = Order("judge", output, settings, watch)
    save(output, run_task(JudgeTask(), preset(), order), DTYPE)

"""Training prompt travel: hear what happens, write how it begins and how it ends.

No picture is needed. A sentence that says what happens, and two that say how things are before and
afterwards, have the same words but for a clause. From the context of the first, the tokens of the
other two are to be written.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from diffusion.config import TextEncoderConfig
from diffusion.datasets.captions import travels
from diffusion.datasets.curriculum import CAPTION_DROPOUT, DETAILED_SHARE
from diffusion.datasets.garden import sample_clips
from diffusion.datasets.garden.motion import views
from diffusion.motion_config import PromptTravelConfig
from diffusion.runtime.parameters import Params, split
from diffusion.stages.prompt_travel import Ends
from diffusion.text.tokenizer import Tokenizer
from diffusion.training.data import Draw
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import create, structure

STILL_SHARE = 0.2  # of the sentences: nothing happens, and they stay what they are
VIEW_WEIGHT = 30.0  # of a view's squared error: hundredths of a side can be seen
SHOWN = 8  # sentences in a sample sheet


class Told(NamedTuple):
    tokens: Int[Array | np.ndarray, "b 3 n"]  # of what happens, of the beginning, of the end
    views: Float[Array | np.ndarray, "b 2 4"]


def examples(tokenizer: Tokenizer, rng: np.random.Generator, size: int) -> Told:
    clips = sample_clips(rng, size, STILL_SHARE)
    said = travels(clips, rng, DETAILED_SHARE)
    silent = rng.random(size) < CAPTION_DROPOUT
    texts = [("",) * 3 if quiet else travel for quiet, travel in zip(silent, said, strict=True)]
    tokens = np.stack([tokenizer([text[i] for text in texts]) for i in range(3)], axis=1)
    return Told(tokens, np.asarray(views(clips)) * ~silent[:, None, None])


@dataclass
class TravelTask:
    """Trains prompt travel for a text encoder, which stays as it is."""

    config: PromptTravelConfig
    text: TextEncoderConfig
    tokenizer: Tokenizer
    text_encoder: Params

    def __post_init__(self) -> None:
        self.name = "travel"
        self.frozen: Params = {"text_encoder": self.text_encoder}
        self.structure = structure(self.config)[0]
        self.text_structure = structure(self.text)[0]
        self.batch: Draw = partial(examples, self.tokenizer)

    def init(self, seed: int) -> Params:
        return split(create(self.config, nnx.Rngs(seed)))[1]

    def loss(
        self,
        params: Params,
        frozen: Params,
        batch: Any,  # `Told`
        key: Array,
    ) -> tuple[Array, Metrics]:
        """Cross-entropy of all tokens, and squared error of the views."""
        found = self._found(params, frozen, batch)
        written = jnp.asarray(batch.tokens)[:, 1:]
        losses = -found.log_likelihood(written)
        views = jnp.square(found.views - batch.views).mean()
        metrics = {
            "cross_entropy": losses.mean(),
            "right": (found.tokens == written).all(-1).mean(),  # sentences without a wrong token
            "error_of_views": views,
        }
        return losses.mean() + VIEW_WEIGHT * views, metrics

    def _found(self, params: Params, frozen: Params, batch: Any) -> Ends:
        tokens = jnp.asarray(batch.tokens)[:, 0]
        text_encoder = nnx.merge(self.text_structure, frozen["text_encoder"])
        found: Ends = nnx.merge(self.structure, params)(text_encoder(tokens), tokens)
        return found

    def picture(self, params: Params) -> np.ndarray:
        """Sentences, a row each: tokens that are written right are black, others white."""
        batch = self.batch(np.random.default_rng(0), SHOWN)
        wrong = self._found(params, self.frozen, batch).tokens != batch.tokens[:, 1:]
        rows = 255 * np.asarray(wrong, np.uint8).reshape(2 * SHOWN, -1)
        return np.repeat(np.kron(rows, np.ones((8, 8), np.uint8))[..., None], 3, 2)


def preset() -> TrainConfig:
    return TrainConfig(
        steps=2500, batch_size=64, learning_rate=2e-3, ema=0.999, checkpoint_every=100
    )

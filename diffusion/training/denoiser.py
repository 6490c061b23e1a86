"""Training a denoiser: show it a latent under noise and a caption, ask what the noise was."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from diffusion.config import ModelConfig
from diffusion.datasets.curriculum import CANDIDATES, MOTION_SHARE, practice
from diffusion.datasets.garden import Scene, render
from diffusion.images import sheet, to_uint8
from diffusion.process import process
from diffusion.process.samplers import Table, guide, table
from diffusion.process.sampling import finished, one_step, sample
from diffusion.runtime.parameters import Params, cast, precision, split
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.text.tokenizer import Tokenizer
from diffusion.training.data import Draw
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import SLOTS, architecture, create, structure

VIEWS = 4  # of each picture, under as many noises, as drawing, encoding and reading cost, too
BLIND_SHARE = 0.05  # of the examples show nothing but noise, as a painting begins
PREVIEWED = (  # what the sample sheets ask for, four pictures each
    "a red house with two old trees and yellow flowers",
    "a white house with a blue domed roof at night, the moon on the left",
    "karlı bir günde turuncu ev, üç çam",
    "gün batımında yeşil kapılı sarı ev, karakalem",
)


@dataclass(frozen=True)
class DenoiserTraining(TrainConfig):
    candidates: int = (
        CANDIDATES  # captions drawn for each that is learnt; 1: no hard ones more often
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}; give 1 or more")


class Captioned(NamedTuple):
    tokens: Int[Array | np.ndarray, "b n"]  # with the words dropped in some
    scenes: Scene


def examples(
    tokenizer: Tokenizer, candidates: int, rng: np.random.Generator, size: int
) -> Captioned:
    scenes, texts = practice(rng, size, candidates, motion_share=MOTION_SHARE)
    return Captioned(tokenizer(texts), scenes)


@dataclass
class DenoiserTask:
    """Trains whatever fills the slot: it is called with x_t, timesteps and context."""

    model: ModelConfig  # with the measured scaling factor
    tokenizer: Tokenizer
    text_encoder: Params  # trained; stays as it is
    autoencoder: Params  # trained; stays as it is
    candidates: int = field(default=CANDIDATES, kw_only=True)  # see `DenoiserTraining`

    def __post_init__(self) -> None:
        self.name = architecture(self.model.denoiser).part
        self.frozen: Params = {"text_encoder": self.text_encoder, "autoencoder": self.autoencoder}
        self.structures = {slot: structure(getattr(self.model, slot))[0] for slot in SLOTS}
        self.process = process(self.model.process)
        self.batch: Draw = partial(examples, self.tokenizer, self.candidates)
        self.advance = jax.jit(self._advance)
        self.encode_text = jax.jit(lambda frozen, words: self._frozen(frozen)[0](words))
        self.decode = jax.jit(lambda frozen, latents: self._frozen(frozen)[1].decode(latents))

    def _frozen(self, frozen: Params) -> tuple[Any, Any]:
        """Text encoder and autoencoder."""
        slots = ("text_encoder", "autoencoder")
        text, autoencoder = (nnx.merge(self.structures[slot], frozen[slot]) for slot in slots)
        return text, autoencoder

    def init(self, seed: int) -> Params:
        return split(create(self.model.denoiser, nnx.Rngs(seed)))[1]

    def loss(
        self, params: Params, frozen: Params, batch: Captioned, key: Array
    ) -> tuple[Array, Metrics]:
        """The weighted error of what is predicted, as the process counts it.

        At the last timestep a trace of the picture is left, enough to see how bright it is, and a
        denoiser that trusts it paints pale pictures from pure noise (Lin et al. 2024,
        https://arxiv.org/abs/2305.08891). So some examples begin as a painting does.
        """
        posterior_key, noise_key, time_key, blind_key = jax.random.split(key, 4)
        dtype = precision(params)
        latents, context = self.seen(frozen, batch, posterior_key, dtype)
        b = len(latents)
        noise = jax.random.normal(noise_key, latents.shape)
        t = self.process.draw_timesteps(time_key, b)
        blind = jax.random.bernoulli(blind_key, BLIND_SHARE, (b,))
        t = jnp.where(blind, jnp.asarray(self.process.timesteps(1, "trailing")), t)
        nothing = self.process.begin(noise, latents, jnp.ones((1, *latents.shape[1:3], 1), bool))
        x_t = self.process.add_noise(latents, noise, t)
        x_t = jnp.where(blind[:, None, None, None], nothing, x_t)
        denoiser = nnx.merge(self.structures["denoiser"], params)
        prediction = denoiser(cast(x_t, dtype), t, context).astype(jnp.float32)
        error = self.process.error(prediction, latents, noise, t)
        loss = jnp.mean(self.process.weight(t) * error)
        return loss, {"error": error.mean(), "error_when_noisy": error[b // 2 :].mean()}

    def seen(
        self, frozen: Params, batch: Captioned, key: Array, dtype: Any
    ) -> tuple[Shaped[Array, "b h w z"], Float[Array, "b n d"]]:
        """Latents, or codes, and contexts of a batch, `VIEWS` times each."""
        text_encoder, autoencoder = self._frozen(frozen)
        images = render(batch.scenes, self.model.image_size).astype(dtype)
        latents = self.process.encode(autoencoder, images, key)
        context = text_encoder(jnp.asarray(batch.tokens))
        return jnp.concatenate([latents] * VIEWS), jnp.concatenate([context] * VIEWS)

    def picture(self, params: Params) -> np.ndarray:
        """Four pictures for each of the sentences in `PREVIEWED`."""
        texts = [text for text in PREVIEWED for _ in range(4)]
        context = self.encode_text(self.frozen, self.tokenizer(texts + [""] * len(texts)))
        keys = picture_keys(0, jnp.arange(len(texts)))
        size = self.model.latent_size
        noise = initial_noise(keys, (size, size, self.model.denoiser.latent_channels))
        x_t = self.process.begin(
            noise, jnp.zeros_like(noise[:1]), jnp.ones((1, size, size, 1), bool)
        )
        walk = partial(self.advance, params, context, keys)
        latents = finished(sample(walk, x_t, self.preview()))
        return sheet(to_uint8(self.decode(self.frozen, latents)), columns=len(PREVIEWED) * 2)

    def preview(self) -> Table:
        """How the sample sheets are painted."""
        return table(next(iter(self.process.samplers), "dpm++2m"), self.process, 20)

    def _merged(self, params: Params) -> Any:
        return nnx.merge(self.structures["denoiser"], params)

    def _advance(
        self, params: Params, context: Array, keys: Array, x_t: Array, memory: Array,
        row: Table, call: Array,
    ) -> tuple[Array, Array, Array, Array]:  # fmt: skip
        """One step of a preview; see `diffusion.process.sampling.sample`."""
        denoiser = self._merged(params)

        def predict(x_t: Array, t: Array) -> Array:
            both = denoiser(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), context)
            conditional, unconditional = jnp.split(both, 2)
            return guide(unconditional, conditional, self.model.guidance)

        return one_step(self.process, predict, x_t, memory, row, call, keys)


def preset() -> DenoiserTraining:
    return DenoiserTraining(steps=8000, batch_size=8, learning_rate=1e-3, ema=0.999)

"""Training motion modules: show a clip under noise, let its frames hear of each other.

Guo et al. 2023, section 4.2. Text encoder, autoencoder and denoiser stay as they are. All frames of
a clip are as noisy as each other, each under noise of its own.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from diffusion.datasets.captions import clip_captions
from diffusion.datasets.curriculum import CAPTION_DROPOUT, DETAILED_SHARE
from diffusion.datasets.garden import Clips, render_clips, sample_clips
from diffusion.images import sheet, to_uint8
from diffusion.motion_config import MotionConfig
from diffusion.process.samplers import table
from diffusion.process.sampling import finished, sample
from diffusion.runtime.parameters import Params, precision, split
from diffusion.stages.moving import MovingDenoiser
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.text.tokenizer import Tokenizer
from diffusion.training.denoiser import DenoiserTask
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig
from diffusion.weights.architectures import create, structure

VIEWS = 2  # of each clip, under as many noises, as drawing and encoding its frames cost, too
STILL_SHARE = 0.2  # of the clips: nothing happens, so nothing is to move
SHOWN = 8  # frames of each film in a sample sheet
PREVIEWED = (  # what the sample sheets ask for, a film each
    "a red house with two old trees, the sun sets",
    "a white house in the snow",
    "mavi ev, kar yağmaya başlıyor",
    "a yellow house with purple flowers, the clouds drift to the left",
    "üç çam ve turuncu ev",
    "night falls over a house with a blue door",
)


class CaptionedClips(NamedTuple):
    tokens: Int[Array | np.ndarray, "b n"]  # with the words dropped in some
    clips: Clips


def examples(tokenizer: Tokenizer, rng: np.random.Generator, size: int) -> CaptionedClips:
    clips = sample_clips(rng, size, STILL_SHARE)
    said = clip_captions(clips, rng, DETAILED_SHARE)
    silent = rng.random(size) < CAPTION_DROPOUT
    texts = ["" if quiet else caption.text for quiet, caption in zip(silent, said, strict=True)]
    return CaptionedClips(tokenizer(texts), clips)


@dataclass
class MotionTask(DenoiserTask):
    """Trains the motion modules of a denoiser, which stays as it is."""

    denoiser: Params
    motion: MotionConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = "motion"
        self.frozen |= {"denoiser": self.denoiser}
        self.structures["motion"] = structure(self.motion)[0]
        self.batch = partial(examples, self.tokenizer)

    def init(self, seed: int) -> Params:
        return split(create(self.motion, nnx.Rngs(seed)))[1]

    def moving(self, params: Params, frozen: Params) -> MovingDenoiser:
        """The denoiser with the motion modules."""
        image = nnx.merge(self.structures["denoiser"], frozen["denoiser"])
        motion = nnx.merge(self.structures["motion"], params)
        length = self.motion.length
        return MovingDenoiser(image, motion, length, frames=length)

    def loss(
        self,
        params: Params,
        frozen: Params,
        batch: Any,  # `CaptionedClips`
        key: Array,
    ) -> tuple[Array, Metrics]:
        """Weighted squared error of the prediction, of all frames (Guo et al. 2023, eq. 4)."""
        posterior_key, noise_key, time_key = jax.random.split(key, 3)
        frames, dtype = self.motion.length, precision(params)
        latents, context = self.seen(frozen, batch, posterior_key, dtype)
        t = self.process.draw_timesteps(time_key, len(latents) // frames)
        each = jnp.repeat(t, frames)
        noise = jax.random.normal(noise_key, latents.shape)
        x_t = self.process.add_noise(latents, noise, each)
        denoiser = self.moving(params, frozen)
        prediction = denoiser(x_t.astype(dtype), each, context).astype(jnp.float32)
        error = self.process.error(prediction, latents, noise, each)
        loss = jnp.mean(self.process.weight(each) * error)
        return loss, {"error": error.mean(), "error_when_noisy": error[len(error) // 2 :].mean()}

    def seen(
        self, frozen: Params, batch: Any, key: Array, dtype: Any
    ) -> tuple[Float[Array, "bf h w z"], Float[Array, "bf n d"]]:
        """Latents and contexts of the frames of all clips, `VIEWS` times each."""
        text_encoder, autoencoder = self._frozen(frozen)
        frames = self.motion.length
        films = render_clips(batch.clips, frames, self.model.image_size).astype(dtype)
        latents = self.process.encode(autoencoder, films.reshape(-1, *films.shape[2:]), key)
        context = jnp.repeat(text_encoder(jnp.asarray(batch.tokens)), frames, axis=0)
        return jnp.concatenate([latents] * VIEWS), jnp.concatenate([context] * VIEWS)

    def picture(self, params: Params) -> np.ndarray:
        """A film for each of the sentences in `PREVIEWED`, a row each."""
        frames, size = self.motion.length, self.model.latent_size
        shown = np.linspace(0, frames - 1, min(frames, SHOWN)).round().astype(int)
        rows = table("dpm++2m", self.process, 20)
        films = []
        for i, text in enumerate(PREVIEWED):  # one program, and the memory of one film
            both = self.encode_text(self.frozen, self.tokenizer([text, ""]))
            context = jnp.repeat(both, frames, axis=0)
            keys = picture_keys(i, jnp.arange(frames))
            x_t = initial_noise(keys, (size, size, self.model.denoiser.latent_channels))
            whole = {"motion": params, "frozen": self.frozen}
            advance = partial(self.advance, whole, context, keys)
            latents = finished(sample(advance, x_t, rows))
            films.append(to_uint8(self.decode(self.frozen, latents))[shown])
        return sheet(np.concatenate(films), columns=len(shown))

    def _merged(self, params: Params) -> MovingDenoiser:
        return self.moving(params["motion"], params["frozen"])


def preset() -> TrainConfig:
    return TrainConfig(
        steps=6000, batch_size=2, learning_rate=5e-4, ema=0.999, checkpoint_every=100
    )

"""Training the U-Net: show it a latent under noise and a caption, ask what the noise was."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from diffusion.config import ModelConfig
from diffusion.datasets.curriculum import practice
from diffusion.datasets.garden import Scene, render
from diffusion.images import sheet, to_uint8
from diffusion.process.samplers import guide, plan, sample
from diffusion.process.schedule import alpha_bar_table, snr, target
from diffusion.stages.noisy_latent import canvas, noisy_latent, picture_keys
from diffusion.stages.text_encoder import TextEncoder
from diffusion.stages.unet import UNet
from diffusion.stages.vae import VAE
from diffusion.text.tokenizer import Tokenizer
from diffusion.training.loop import Metrics, TrainConfig
from diffusion.weights.files import Params, shapes, split

LOOKS = 4  # at each picture, under as many noises, as drawing, encoding and reading cost, too
GAMMA = 5.0  # the largest weight of a squared error of x0
TIMES = ((0.0, 0.15, 0.75, 1.0), (0.0, 0.3, 0.7, 1.0))  # share of the looks, of the schedule: half
# as many again from the middle, where small things that words name, such as flowers, are decided
SHOWN = (  # what the sample sheets ask for, four pictures each
    "a red house with two old trees and yellow flowers",
    "a white house with a blue domed roof at night, the moon on the left",
    "karlı bir günde turuncu ev, üç çam",
    "gün batımında yeşil kapılı sarı ev, karakalem",
)


class Captioned(NamedTuple):
    tokens: Int[Array | np.ndarray, "b n"]  # with the words dropped in some
    scenes: Scene


def weight(alpha_bar: Float[Array, " b"], kind: str) -> Float[Array, " b"]:
    """How much the squared error of a prediction counts at a noise level.

    The error of x0 counts as SNR, but at least 1, so that the words are learnt where only they tell
    what will be there (Salimans & Ho 2022, section 4), and at most gamma, as nobody sees what
    happens where the noise has nearly gone (min-SNR, Hang et al. 2023). The squared error of
    epsilon is SNR times, that of v SNR + 1 times the one of x0.
    """
    ratio = snr(alpha_bar)
    return jnp.clip(ratio, 1.0, GAMMA) / (ratio + (kind == "v"))


def draw_timesteps(key: Array, count: int, train_steps: int) -> Int[Array, " count"]:
    """One timestep from each of `count` equally likely parts of the schedule, least noise first.

    Less variance than `count` free draws have, and the same mean. So each of a picture's looks is
    from another part, and none of them sees it twice. More of them are from the middle (`TIMES`),
    as Esser et al. 2024, section 3.1, draw theirs.
    """
    u = (jnp.arange(count) + jax.random.uniform(key, (count,))) / count
    t = jnp.interp(u, *map(jnp.asarray, TIMES)) * train_steps
    return jnp.minimum(t.astype(jnp.int32), train_steps - 1)  # u may round to 1


@dataclass
class UNetTask:
    model: ModelConfig  # with the measured scaling factor
    tokenizer: Tokenizer
    text_encoder: Params  # trained; stays as it is
    vae: Params  # trained; stays as it is
    name: str = "unet"

    def __post_init__(self) -> None:
        rngs = partial(nnx.Rngs, 0)
        self.structure, _ = shapes(lambda: UNet(self.model.unet, rngs=rngs()))
        self.text_structure, _ = shapes(lambda: TextEncoder(self.model.text_encoder, rngs=rngs()))
        self.vae_structure, _ = shapes(lambda: VAE(self.model.vae, rngs=rngs()))
        self.alpha_bars = alpha_bar_table(self.model.schedule)
        self.show = jax.jit(self._show)

    def init(self, seed: int) -> Params:
        return split(UNet(self.model.unet, rngs=nnx.Rngs(seed)))[1]

    def batch(self, rng: np.random.Generator, size: int) -> Captioned:
        scenes, texts = practice(rng, size)
        return Captioned(self.tokenizer(texts), scenes)

    def loss(self, params: Params, batch: Captioned, key: Array) -> tuple[Array, Metrics]:
        """Weighted squared error of the prediction (Ho et al. 2020, eq. 14)."""
        kind = self.model.schedule.prediction
        posterior_key, noise_key, time_key = jax.random.split(key, 3)
        vae = nnx.merge(self.vae_structure, self.vae)
        images = render(batch.scenes, self.model.image_size)
        latents = vae.encode(images).sample(posterior_key) * self.model.vae.scaling_factor
        context = nnx.merge(self.text_structure, self.text_encoder)(jnp.asarray(batch.tokens))
        latents, context = (jnp.concatenate([x] * LOOKS) for x in (latents, context))

        b = len(latents)
        timesteps = draw_timesteps(time_key, b, self.model.schedule.train_steps)
        noise = jax.random.normal(noise_key, latents.shape)
        z = noisy_latent(latents, noise, timesteps, self.alpha_bars)
        alpha_bar = self.alpha_bars[timesteps]

        prediction = nnx.merge(self.structure, params)(z, timesteps, context)
        error = jnp.square(prediction - target(latents, noise, alpha_bar, kind)).mean((1, 2, 3))
        loss = jnp.mean(weight(alpha_bar, kind) * error)
        return loss, {"error": error.mean(), "error_when_noisy": error[b // 2 :].mean()}

    def picture(self, params: Params) -> np.ndarray:
        """Four pictures for each of the sentences in `SHOWN`."""
        return sheet(to_uint8(self.show(params)), columns=len(SHOWN) * 2)

    def _show(self, params: Params) -> Float[Array, "b h w c"]:
        size = self.model.latent_size
        texts = [text for text in SHOWN for _ in range(4)]
        words = jnp.asarray(self.tokenizer(texts + [""] * len(texts)))
        context = nnx.merge(self.text_structure, self.text_encoder)(words)
        unet = nnx.merge(self.structure, params)

        def predict(z: Array, timesteps: Array) -> Array:
            twice = jnp.concatenate([z, z])
            conditional, unconditional = jnp.split(
                unet(twice, jnp.concatenate([timesteps, timesteps]), context), 2
            )
            return guide(unconditional, conditional, self.model.guidance)

        keys = picture_keys(0, jnp.arange(len(texts)))
        z = canvas(keys, (size, size, self.model.unet.latent_channels))
        steps = plan("dpm++2m", self.model.schedule, 20)
        z = sample(predict, z, steps, keys, self.model.schedule.prediction)
        vae = nnx.merge(self.vae_structure, self.vae)
        return vae.decode(z / self.model.vae.scaling_factor)


def preset() -> TrainConfig:
    return TrainConfig(steps=8000, batch_size=8, learning_rate=1e-3, ema=0.999)

"""Teaching a denoiser to finish in a step or two: latent consistency distillation.

Luo et al. 2023. A teacher, the denoiser as it was, takes one guided step of DDIM from x_t to an
earlier t'. From both places the pupil must see the same finished latent; at the end of the way it
is what the teacher sees. So guidance is built in, and a step is one call. With `euler` and eight
trailing steps the garden loses nothing, so a step of the teacher is an eighth of the way.

What the pupil learns is a LoRA of the teacher (Luo et al. 2023b, https://arxiv.org/abs/2311.05556).
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Real

from diffusion.images import sheet, to_uint8
from diffusion.process import mixing
from diffusion.process.samplers import LCM_GRID, guide, table
from diffusion.process.sampling import finished, one_step, sample
from diffusion.runtime.parameters import Params, precision
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.training.denoiser import PREVIEWED, Captioned, DenoiserTask
from diffusion.training.log import Metrics
from diffusion.training.low_rank import factors, merged
from diffusion.training.train_config import TrainConfig

SKIPPED = 6  # of the grid's timesteps in one step of the teacher: 120 of 1,000
BEGINNING = 0.2  # share of the examples at the first timestep, from where a single step starts
HUBER = 0.03  # below this an error counts as squared, above as absolute
STEPS = 2  # calls of the sample sheets
RANK = 32


@dataclass
class DistillTask(DenoiserTask):
    """Trains the factors of a LoRA of `teacher`, with the model's guidance."""

    teacher: Params

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mixing = mixing(self.process)
        self.name = "distill"
        self.frozen |= {"teacher": self.teacher, "silence": jnp.asarray(self.tokenizer([""]))}
        grid = self.process.timesteps(min(LCM_GRID, self.process.train_steps), "trailing")
        self.grid = jnp.asarray(np.append(grid, [-1] * SKIPPED))  # -1: nothing but the picture

    def init(self, seed: int) -> Params:
        return factors(self.teacher, RANK, seed)

    def loss(
        self, params: Params, frozen: Params, batch: Captioned, key: Array
    ) -> tuple[Array, Metrics]:
        """How far apart the pupil's finished latents are, seen from both ends of a step."""
        keys = jax.random.split(key, 4)
        latents, context = self.seen(frozen, batch, keys[0], precision(params))
        pupil = self.pupil(frozen, params)
        b, noise = len(latents), jax.random.normal(keys[1], latents.shape)
        i = draw_places(keys[2], b, len(self.grid) - SKIPPED)
        t, earlier = self.grid[i], self.grid[i + SKIPPED]
        # In training x_t shows a trace of the picture even at the first timestep; in painting none.
        bare = (i == 0) & jax.random.bernoulli(keys[3], 0.5, (b,))
        x_t = jnp.where(_wide(bare), noise, self.process.add_noise(latents, noise, t))

        arrived = self._taught(frozen, x_t, t, earlier, context)
        looks = jnp.maximum(earlier, 0)
        target = self._sees(jax.lax.stop_gradient(pupil), arrived, looks, context)
        target = jnp.where(_wide(earlier < 0), arrived, target)
        difference = self._sees(pupil, x_t, t, context) - target
        error = jnp.sqrt(jnp.square(difference) + HUBER**2) - HUBER
        squared = jnp.square(difference).mean((1, 2, 3))
        first = jnp.sum(squared, where=i == 0) / jnp.maximum(jnp.sum(i == 0), 1)
        return error.mean(), {"squared": squared.mean(), "at_the_beginning": first}

    def pupil(self, frozen: Params, params: Params) -> Params:
        """The parameters of the denoiser that has learnt."""
        return merged(frozen["teacher"], params)

    def _sees(
        self, params: Params, x_t: Float[Array, "b h w c"], t: Real[Array, " b"], context: Array
    ) -> Float[Array, "b h w c"]:
        """The finished latent in what a denoiser says."""
        denoiser = nnx.merge(self.structures["denoiser"], params)
        said = denoiser(x_t.astype(precision(params)), t, context).astype(jnp.float32)
        return self.mixing.to_x0(said, x_t, t)

    def _taught(
        self, frozen: Params, x_t: Array, t: Array, earlier: Array, context: Array
    ) -> Float[Array, "b h w c"]:
        """Where one guided step of DDIM leads (Song et al. 2021, eq. 12)."""
        silent = self._frozen(frozen)[0](frozen["silence"])
        contexts = jnp.concatenate([context, jnp.repeat(silent, len(x_t), axis=0)])
        both = jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t])
        told, untold = jnp.split(self._sees(frozen["teacher"], both[0], both[1], contexts), 2)
        x0 = guide(untold, told, self.model.guidance)
        noise = (x_t - _wide(self.mixing.alpha(t)) * x0) / _wide(self.mixing.sigma(t))
        looks = jnp.maximum(earlier, 0)
        there = _wide(self.mixing.alpha(looks)) * x0 + _wide(self.mixing.sigma(looks)) * noise
        return jnp.where(_wide(earlier < 0), x0, there)

    def picture(self, params: Params) -> np.ndarray:
        """Four pictures for each of the sentences in `PREVIEWED`, in `STEPS` calls."""
        texts = [text for text in PREVIEWED for _ in range(4)]
        context = self.encode_text(self.frozen, self.tokenizer(texts))
        keys, size = picture_keys(0, jnp.arange(len(texts))), self.model.latent_size
        x_t = initial_noise(keys, (size, size, self.model.denoiser.latent_channels))
        rows = table("lcm", self.process, STEPS)
        pupil = self.pupil(self.frozen, params)
        latents = finished(sample(partial(self.advance, pupil, context, keys), x_t, rows))
        return sheet(to_uint8(self.decode(self.frozen, latents)), columns=len(PREVIEWED) * 2)

    def _advance(self, params, context, keys, x_t, memory, row, call):  # type: ignore[no-untyped-def]
        """One call of a preview: nobody is left out, for guidance is built in."""
        denoiser = nnx.merge(self.structures["denoiser"], params)
        predict = lambda x_t, t: denoiser(x_t, t, context)  # noqa: E731
        return one_step(self.process, predict, x_t, memory, row, call, keys)


def draw_places(key: Array, count: int, places: int) -> Int[Array, " count"]:
    """Positions in the grid of timesteps, evenly spread, and `BEGINNING` of them the first."""
    u = (jnp.arange(count) + jax.random.uniform(key, (count,))) / count
    rest = (u - BEGINNING) / (1.0 - BEGINNING) * places
    return jnp.clip(rest.astype(jnp.int32), 0, places - 1)


def _wide(x: Array) -> Array:
    return x[:, None, None, None]


def preset() -> TrainConfig:
    return TrainConfig(steps=3000, batch_size=8, learning_rate=1e-3, ema=0.998)

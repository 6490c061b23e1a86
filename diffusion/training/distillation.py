"""Teaching a denoiser to paint in half the steps: progressive distillation.

Salimans & Ho 2022 (https://arxiv.org/abs/2202.00512), algorithm 2. A teacher, the denoiser as it
was, takes two steps of Euler's from x_t. The pupil learns to arrive there in one. The teacher is
guided and the pupil is not: so guidance is built in (Meng et al. 2023,
https://arxiv.org/abs/2210.03142), and a step of the pupil is one call of the denoiser.

Each training halves the steps: from eight to four, from four to two, and from two to one.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from diffusion.config import ModelConfig
from diffusion.images import sheet, to_uint8
from diffusion.process import mixing
from diffusion.process.samplers import guide, table
from diffusion.process.sampling import finished, one_step, sample
from diffusion.runtime.parameters import Params, precision
from diffusion.stages.noisy_latent import initial_noise, picture_keys
from diffusion.training.denoiser import PREVIEWED, Captioned, DenoiserTask
from diffusion.training.log import Metrics
from diffusion.training.train_config import TrainConfig

SAMPLER, SPACING = "euler", "trailing"  # one line from place to place; it begins at the noise


@dataclass
class DistillTask(DenoiserTask):
    """Trains a pupil of `teacher`, which paints in half of the model's steps, without guidance."""

    teacher: Params

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mixing = mixing(self.process)
        self.name, self.steps = "distill", halved(self.model)
        self.frozen |= {"teacher": self.teacher, "silence": jnp.asarray(self.tokenizer([""]))}
        ours, theirs = (
            table(SAMPLER, self.process, steps, spacing=SPACING)
            for steps in (self.steps, 2 * self.steps)
        )
        self.rows, self.taught = (jax.tree.map(jnp.asarray, rows) for rows in (ours, theirs))

    def init(self, seed: int) -> Params:
        return self.teacher

    def loss(
        self, params: Params, frozen: Params, batch: Captioned, key: Array
    ) -> tuple[Array, Metrics]:
        """The error of what the pupil says, beside what would lead it where the teacher arrives."""
        posterior_key, noise_key, place_key = jax.random.split(key, 3)
        latents, context = self.seen(frozen, batch, posterior_key, precision(params))
        noise = jax.random.normal(noise_key, latents.shape)
        place = draw_places(place_key, len(latents), self.steps)
        row = jax.tree.map(lambda column: column[place], self.rows)
        t = row.timestep
        # In training x_t shows a trace of the picture even at the first timestep; in painting none.
        x_t = jnp.where(_wide(place == 0), noise, self.process.add_noise(latents, noise, t))

        arrived = self._two_steps(frozen, x_t, place, context)
        x0 = (arrived - _wide(row.z_from_z) * x_t) / _wide(row.z_from_x0)
        left = (x_t - _wide(self.mixing.alpha(t)) * x0) / _wide(self.mixing.sigma(t))
        said = self._says(params, x_t, t, context)
        error = self.mixing.error(said, x0, left, t)
        first = jnp.sum(error, where=place == 0) / jnp.maximum(jnp.sum(place == 0), 1)
        return error.mean(), {"error": error.mean(), "at_the_beginning": first}

    def _says(
        self, params: Params, x_t: Float[Array, "b h w c"], t: Array, context: Array
    ) -> Float[Array, "b h w c"]:
        denoiser = nnx.merge(self.structures["denoiser"], params)
        said: Array = denoiser(x_t.astype(precision(params)), t, context)
        return said.astype(jnp.float32)

    def _two_steps(
        self, frozen: Params, x_t: Array, place: Int[Array, " b"], context: Array
    ) -> Float[Array, "b h w c"]:
        """Where two of the teacher's steps lead, guided as the model is."""
        guided, contexts = self.model.guidance != 1.0, context
        if guided:
            silent = self._frozen(frozen)[0](frozen["silence"])
            contexts = jnp.concatenate([context, jnp.repeat(silent, len(x_t), axis=0)])
        for half in range(2):
            row = jax.tree.map(lambda column: column[2 * place + half], self.taught)  # noqa: B023
            seen, t = (jnp.concatenate([x] * (1 + guided)) for x in (x_t, row.timestep))
            said = self._says(frozen["teacher"], seen, t, contexts)
            if guided:
                told, untold = jnp.split(said, 2)
                said = guide(untold, told, self.model.guidance)
            x0 = self.mixing.to_x0(said, x_t, row.timestep)
            x_t = _wide(row.z_from_z) * x_t + _wide(row.z_from_x0) * x0
        return jax.lax.stop_gradient(x_t)

    def picture(self, params: Params) -> np.ndarray:
        """Four pictures for each of the sentences in `PREVIEWED`, in the pupil's steps."""
        texts = [text for text in PREVIEWED for _ in range(4)]
        context = self.encode_text(self.frozen, self.tokenizer(texts))
        keys, size = picture_keys(0, jnp.arange(len(texts))), self.model.latent_size
        x_t = initial_noise(keys, (size, size, self.model.denoiser.latent_channels))
        rows = table(SAMPLER, self.process, self.steps, spacing=SPACING)
        latents = finished(sample(partial(self.advance, params, context, keys), x_t, rows))
        return sheet(to_uint8(self.decode(self.frozen, latents)), columns=len(PREVIEWED) * 2)

    def _advance(self, params, context, keys, x_t, memory, row, call):  # type: ignore[no-untyped-def]
        """One call of a preview: nobody is left out, for guidance is built in."""
        predict = lambda x_t, t: self._says(params, x_t, t, context)  # noqa: E731
        return one_step(self.process, predict, x_t, memory, row, call, keys)


def halved(model: ModelConfig) -> int:
    """Half of the steps that a model takes, or of one less.

    Raises ValueError where it takes a single one.
    """
    if model.sampling.steps < 2:
        raise ValueError(f"{model.name} paints in one step already; distill another model")
    return model.sampling.steps // 2


def draw_places(key: Array, count: int, steps: int) -> Int[Array, " count"]:
    """Which of the steps, evenly spread; the first, where words decide most, twice as often."""
    u = (jnp.arange(count) + jax.random.uniform(key, (count,))) / count
    return jnp.clip((u * (steps + 1)).astype(jnp.int32) - 1, 0, steps - 1)


def _wide(x: Array) -> Array:
    return x[:, None, None, None]


def preset() -> TrainConfig:
    return TrainConfig(steps=2000, batch_size=8, learning_rate=1e-3, optimizer="muon", ema=0.998)

"""Teaching a denoiser to paint in half the steps: progressive distillation.

Salimans & Ho 2022 (https://arxiv.org/abs/2202.00512), algorithm 2. A teacher, the denoiser as it
was, takes two Euler steps from x_t. A student learns to arrive there in one. The teacher is guided
and the student is not: so guidance is built in (Meng et al. 2023, https://arxiv.org/abs/2210.03142),
and a step of the student is one call of the denoiser.

Each training halves the steps: eight become four, four become two, and two become one.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.config import ModelConfig
from diffusion.process import mixing
from diffusion.process.mixing import wide
from diffusion.process.samplers import SAMPLERS, SamplerTable, Table, guide, table
from diffusion.process.sampling import one_step
from diffusion.process.schedule import evenly_drawn
from diffusion.runtime.parameters import Params, precision
from diffusion.training.denoiser import Captioned, DenoiserTask, DenoiserTraining
from diffusion.training.log import Metrics

SAMPLER, SPACING = "euler", "trailing"  # straight steps, of which the first begins at pure noise


@dataclass
class DistillTask(DenoiserTask):
    """Trains a student to paint without guidance, in half as many steps as `teacher`."""

    teacher: Params

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mixing = mixing(self.process)
        self.name, self.steps = "distill", fewer(self.model)
        self.frozen |= {"teacher": self.teacher, "silence": jnp.asarray(self.tokenizer([""]))}
        self.rows, self.taught = (
            SAMPLERS[SAMPLER](self.mixing, steps, SPACING) for steps in (self.steps, 2 * self.steps)
        )

    def init(self, seed: int) -> Params:
        return self.teacher

    def loss(
        self, params: Params, frozen: Params, batch: Captioned, key: Array
    ) -> tuple[Array, Metrics]:
        """The weighted squared error of what the student says.

        Its target is what leads in one step to where the teacher arrives in two (algorithm 2); the
        weight is that of all training here, SNR but at least 1 (section 4, "truncated SNR") and
        at most 5.
        """
        posterior_key, noise_key, place_key = jax.random.split(key, 3)
        latents, context = self.seen(frozen, batch, posterior_key, precision(params))
        noise = jax.random.normal(noise_key, latents.shape)
        place = draw_places(place_key, len(latents), self.steps)
        t, from_x_t, from_x0 = _row(self.rows, place)
        # In training x_t shows a trace of the picture even at the first timestep; in painting none.
        x_t = jnp.where(wide(place == 0), noise, self.mixing.add_noise(latents, noise, t))

        arrived = self._two_steps(frozen, x_t, place, context)
        x0 = (arrived - from_x_t * x_t) / from_x0
        rest = (x_t - wide(self.mixing.alpha(t)) * x0) / wide(self.mixing.sigma(t))
        said = self._says(params, x_t, t, context)
        error = self.mixing.error(said, x0, rest, t)
        first = jnp.sum(error, where=place == 0) / jnp.maximum(jnp.sum(place == 0), 1)
        loss = jnp.mean(self.mixing.weight(t) * error)
        return loss, {"error": error.mean(), "error_of_the_first_step": first}

    def _says(
        self, params: Params, x_t: Float[Array, "b h w c"], t: Array, context: Array
    ) -> Float[Array, "b h w c"]:
        said: Array = self._merged(params)(x_t.astype(precision(params)), t, context)
        return said.astype(jnp.float32)

    def _two_steps(
        self, frozen: Params, x_t: Array, place: Int[Array, " b"], context: Array
    ) -> Float[Array, "b h w c"]:
        """Where two of the teacher's steps lead."""
        for half in range(2):
            t, from_x_t, from_x0 = _row(self.taught, 2 * place + half)
            x0 = self.mixing.to_x0(self._taught(frozen, x_t, t, context), x_t, t)
            x_t = from_x_t * x_t + from_x0 * x0
        return jax.lax.stop_gradient(x_t)

    def _taught(self, frozen: Params, x_t: Array, t: Array, context: Array) -> Array:
        """What the teacher says, guided as the model is."""
        teacher, scale = frozen["teacher"], self.model.guidance
        if scale == 1.0:
            return self._says(teacher, x_t, t, context)
        silent = jnp.repeat(self._frozen(frozen)[0](frozen["silence"]), len(x_t), axis=0)
        both = (jnp.concatenate(pair) for pair in ((x_t, x_t), (t, t), (context, silent)))
        conditional, unconditional = jnp.split(self._says(teacher, *both), 2)
        return guide(unconditional, conditional, scale)

    def preview(self) -> Table:
        """In the student's steps."""
        return table(SAMPLER, self.process, self.steps, spacing=SPACING)

    def _advance(
        self, params: Params, context: Array, keys: Array, x_t: Array, memory: Array,
        row: Table, call: Array,
    ) -> tuple[Array, Array, Array, Array]:  # fmt: skip
        """One step of a preview, without guidance."""

        def predict(x_t: Array, t: Array) -> Array:
            return self._says(params, x_t, t, context[: len(x_t)])

        return one_step(self.process, predict, x_t, memory, row, call, keys)


def fewer(model: ModelConfig) -> int:
    """The largest power of two below the steps that a model takes.

    So a student of a student is asked at timesteps that both have learnt.

    Raises ValueError where the model takes a single step, or is told its guidance scale.
    """
    if model.denoiser.guidance_width is not None:
        raise ValueError(f"{model.name} is a latent consistency model; it is distilled already")
    if model.sampling.steps < 2:
        raise ValueError(f"{model.name} paints in one step already; distill another model")
    return 1 << ((model.sampling.steps - 1).bit_length() - 1)


def draw_places(key: Array, count: int, steps: int) -> Int[Array, " count"]:
    """The step that each example is from, evenly spread.

    The first is drawn twice as often, as words decide most there.
    """
    drawn = jnp.floor(evenly_drawn(key, count) * (steps + 1)).astype(jnp.int32)
    return jnp.clip(drawn - 1, 0, steps - 1)


def _row(rows: SamplerTable, place: Int[Array, " b"]) -> tuple[Array, Array, Array]:
    """Of each example's row: its timestep, and the weights of x_t and x0 where it arrives."""
    columns = rows.timestep, rows.z_from_z, rows.z_from_x0
    t, from_x_t, from_x0 = (jnp.asarray(column)[place] for column in columns)
    return t, wide(from_x_t), wide(from_x0)


def preset() -> DenoiserTraining:
    return DenoiserTraining(
        steps=2000, batch_size=8, learning_rate=1e-3, optimizer="muon", ema=0.998
    )

"""The one loop: from noise to a latent, a call of the denoiser at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key, Real, Shaped

from diffusion.process import Process
from diffusion.process.samplers import Table

Latents = Shaped[Array, "b h w c"]  # or the numbers of codes, c = 1
Prediction = Float[Array, "b h w k"]
Predict = Callable[[Latents, Real[Array, " b"]], Prediction]


@dataclass(frozen=True)
class Step:
    """One call of the denoiser, and what came of it: a glance at the canvas."""

    index: int  # which of the steps, from 0 (Heun's method calls twice in a step)
    t: int | float  # the timestep: how noisy the denoiser was told that x_t is
    x_t: Latents  # what the denoiser saw
    prediction: Prediction  # what it said, after guidance: the noise, the velocity, logits
    x0: Latents  # the finished latent as it imagines it now
    x_next: Latents  # what it will see next; after the last step, the finished latent


# x_t, memory, a row of the table, the number of the call -> prediction, x0, next x_t, next memory
Advance = Callable[
    [Latents, Latents, Table, np.uint32], tuple[Prediction, Latents, Latents, Latents]
]


def sample(advance: Advance, x_t: Latents, table: Table) -> Iterator[Step]:
    """Every step from noise to latent, one as it is asked for.

    Args:
        advance: one call of the denoiser and one line of the table; `stepper` makes one.
        x_t: what to begin with: noise, or a picture's latent under the first row's noise.
        table: of a sampler.
    """
    memory = jnp.zeros_like(x_t)
    for call in range(len(table.timestep)):
        row = table.row(call)
        prediction, x0, x_next, memory = advance(x_t, memory, row, np.uint32(call))
        yield Step(int(row.step), row.timestep.item(), x_t, prediction, x0, x_next)
        x_t = x_next


def one_step(
    process: Process,
    predict: Predict,
    x_t: Latents,
    memory: Latents,
    row: Table,
    call: Integer[Array | np.generic, ""] | int,
    keys: Key[Array, " b"],
) -> tuple[Prediction, Latents, Latents, Latents]:
    """Denoiser, process and sampler: prediction, x0, next x_t, next memory.

    Args:
        predict: the denoiser with its context and guidance, from (x_t, timesteps).
        keys: one a picture, for the samplers that draw fresh noise.
    """
    t = jnp.full(len(x_t), row.timestep)
    prediction = predict(x_t, t)
    x0, x_next, memory = row.apply(process, prediction, x_t, memory, keys, call)
    return prediction, x0, x_next, memory


def stepper(process: Process, predict: Predict, keys: Key[Array, " b"]) -> Advance:
    """What `sample` asks for, compiled, for any denoiser."""
    return jax.jit(
        lambda x_t, memory, row, call: one_step(process, predict, x_t, memory, row, call, keys)
    )


def finished(steps: Iterator[Step]) -> Latents:
    """The finished latent: what the last step leaves."""
    for step in steps:
        latents = step.x_next
    return latents

"""A sampler is a table of coefficients: one row a call of the denoiser, one line of arithmetic.

Every sampler is linear in what it knows. x_t starts as standard normal noise. Each call reads x0
out of the prediction and applies `update`:

    x_t    <- z_from_z x_t + z_from_x0 x0 + z_from_memory memory + z_from_noise noise
    memory <- memory_from_z x_t + memory_from_x0 x0

A table is data, not code: another sampler or another number of steps never recompiles the network.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key, Real, Shaped

from diffusion.process import Mixing

Latents = Float[Array, "b h w c"]
Column = Float[Array | np.ndarray, "*calls"]
Level = Float[np.ndarray, " n"]
Single = Float[np.ndarray, "1"]
ONE, ZERO = np.ones(1), np.zeros(1)


@runtime_checkable
class Table(Protocol):
    """What the loop knows of a table, and the denoiser's program of a row: whatever the process."""

    @property
    def step(self) -> Int[Array | np.ndarray, "*calls"]:
        """Which of the user's steps each call belongs to, from 0."""

    @property
    def timestep(self) -> Real[Array | np.ndarray, "*calls"]:
        """What the denoiser is told."""

    def row(self, call: int) -> "Table": ...

    def last(self, keep: np.ndarray) -> "Table":
        """The rows at the end that `keep` says, for a painting that begins with a picture."""

    def apply(
        self,
        process: Any,  # that the table is for
        prediction: Float[Array, "b h w k"],
        x_t: Shaped[Array, "b h w c"],
        memory: Shaped[Array, "b h w c"],
        keys: Key[Array, " b"],
        call: Integer[Array | np.generic, ""] | int,
    ) -> tuple[Any, Any, Any]:
        """A row's step: x0, the next x_t, and the next memory, which is zeros at first."""


class SamplerTable(NamedTuple):
    """A sampler as a table, one row a call of the denoiser (numpy; a row has no leading axis)."""

    step: Int[Array | np.ndarray, "*calls"]  # which of the user's steps the call belongs to, from 0
    timestep: Real[Array | np.ndarray, "*calls"]  # what the denoiser is told
    z_from_z: Column
    z_from_x0: Column
    z_from_memory: Column
    z_from_noise: Column
    memory_from_z: Column
    memory_from_x0: Column

    def row(self, call: int) -> "SamplerTable":
        return SamplerTable(*(column[call] for column in self))

    def last(self, keep: np.ndarray) -> "SamplerTable":
        """Nothing is remembered at the start. The first x0 takes the place of the one before it,
        which makes the first step of DPM-Solver++(2M) one of first order."""
        table = SamplerTable(*(column[keep] for column in self))
        table.z_from_x0[0] += table.z_from_memory[0]
        table.z_from_memory[0] = 0.0
        return table

    def apply(
        self, process: Mixing, prediction: Latents, x_t: Latents, memory: Latents,
        keys: Key[Array, " b"], call: Any,
    ) -> tuple[Latents, Latents, Latents]:  # fmt: skip
        """See `Table.apply`."""
        x0 = process.to_x0(prediction, x_t, jnp.full(len(x_t), self.timestep))
        noise = noise_at(keys, call, x_t.shape[1:])
        return x0, *update(self, x_t, x0, memory, noise)


def update(
    row: SamplerTable, z: Latents, x0: Latents, memory: Latents, noise: Latents
) -> tuple[Latents, Latents]:
    """One row of a table applied: the only step that any sampler takes.

    Args:
        row: each field a scalar.
        z: x_t, the latent that the denoiser was shown.
        x0: the clean latent that it saw in it.
        memory: what the previous call left behind; zeros at the first call.
        noise: fresh standard normal noise.

    Returns x_t and memory for the next call; after the last call, the finished latent.
    """
    pulled = z * row.z_from_z + x0 * row.z_from_x0
    next_z = pulled + memory * row.z_from_memory + noise * row.z_from_noise
    return next_z, z * row.memory_from_z + x0 * row.memory_from_x0


def noise_at(keys: Key[Array, " b"], call: Any, shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Draw the noise of one call, each picture from its own key whatever else is in the batch."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, call), shape))(keys)


def guide(
    unconditional: Latents,
    conditional: Latents,
    scale: Float[Array, ""] | float,
    apart: Float[Array, ""] | None = None,
) -> Latents:
    """Push a prediction away from the empty prompt (Ho & Salimans 2022, eq. 6 with scale = 1 + w).

    Scale 0 ignores the prompt, 1 follows the network, more exaggerates what the prompt changes.

    Args:
        apart: how much of what each canvas of the batch has of its own, beside their mean, is kept
            of the conditional prediction; None: all are guided alike.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if apart is None:
        return guided
    own = conditional - conditional.mean(axis=0, keepdims=True)
    return guided.mean(axis=0, keepdims=True) + apart * own


def last_part(table: Table, steps: int, strength: float) -> Any:
    """Keep the calls of the last int(steps * strength) steps."""
    if not 0.0 < strength <= 1.0:
        raise ValueError(
            f"strength must be above 0 (keep the picture) and at most 1 (all new), got {strength}; "
            "0.6 is a good start"
        )
    kept = int(steps * strength)
    if kept == 0:
        raise ValueError(
            f"strength {strength} of {steps} steps is less than one step; choose a strength of "
            f"{np.ceil(1000 / steps) / 1000} or more, or more steps"
        )
    return table.last(np.asarray(table.step) >= steps - kept)


def levels_of_steps(
    process: Mixing, t: Real[np.ndarray, " n"], final: tuple[Single, Single] = (ONE, ZERO)
) -> tuple[Level, Level, Level, Level]:
    """alpha and sigma where each step begins, and where it ends; the last ends at `final`."""
    alpha, sigma = process.levels(t)
    return alpha, sigma, np.append(alpha[1:], final[0]), np.append(sigma[1:], final[1])


def along_slope(
    exploding: Level, alpha: Level, sigma: Level, next_alpha: Level
) -> tuple[Level, Level]:
    """The weights of x_t and x0 where the line through both arrives at a noise level `exploding`.

    The line is x0 + exploding d, in the scale where x = x0 + exploding e. No division by alpha: it
    may begin at pure noise, infinitely far out.
    """
    from_z = next_alpha * exploding / sigma
    return from_z, next_alpha - alpha * from_z


def make(t: Real[np.ndarray, " n"], **coefficients: np.ndarray) -> SamplerTable:
    """One call a step, in float32; a coefficient not named is zero."""
    columns = dict.fromkeys(SamplerTable._fields[2:], np.zeros(len(t))) | coefficients
    return SamplerTable(
        step=np.arange(len(t), dtype=np.int32),
        timestep=t,
        **{name: column.astype(np.float32) for name, column in columns.items()},
    )


def alternate(first: Array | np.ndarray, second: Array | np.ndarray) -> np.ndarray:
    """Interleave n rows with n - 1: first[0], second[0], first[1], ..., first[n - 1]."""
    rows = np.empty(len(first) + len(second), first.dtype)
    rows[::2], rows[1::2] = first, second
    return rows

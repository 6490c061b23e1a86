"""From noise to a latent: six samplers, one line of arithmetic.

Every sampler here is linear in what it knows, so each is only a table of coefficients: one row a
call of the denoiser. x_t starts as standard normal noise. Each call reads x0 out of the prediction
and applies `update`:

    x_t    <- z_from_z x_t + z_from_x0 x0 + z_from_memory memory + z_from_noise noise
    memory <- memory_from_z x_t + memory_from_x0 x0

A table is data, not code: another sampler or another number of steps never recompiles the network.
It is computed in float64 from alpha and sigma of the process, x_t = alpha x0 + sigma noise, so it
serves any process.

Papers that work with x = x0 + sigma e ("variance exploding") are brought to x_t by x = x_t / alpha;
their sigma is sigma / alpha here. `next_` marks where a step arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from diffusion.process import Process

Latents = Float[Array, "b h w c"]
Column = Float[Array | np.ndarray, "*calls"]
Level = Float[np.ndarray, " n"]
Single = Float[np.ndarray, "1"]
ONE, ZERO = np.ones(1), np.zeros(1)


class SamplerTable(NamedTuple):
    """A sampler as a table, one row a call of the denoiser (numpy; a row has no leading axis)."""

    step: Int[Array | np.ndarray, "*calls"]  # which of the user's steps the call belongs to, from 0
    timestep: Int[Array | np.ndarray, "*calls"]  # what the denoiser is told
    z_from_z: Column
    z_from_x0: Column
    z_from_memory: Column
    z_from_noise: Column
    memory_from_z: Column
    memory_from_x0: Column

    def row(self, call: int) -> SamplerTable:
        return SamplerTable(*(column[call] for column in self))


def ddpm(process: Process, steps: int) -> SamplerTable:
    """Ancestral sampling: draw from q(x_{t-1} | x_t, x0) (Ho et al. 2020, eq. 6 and 7).

    With timesteps left out, beta = 1 - alpha_bar_t / alpha_bar_{t-1} (Nichol & Dhariwal 2021, eq.
    19). The variance is the posterior's own ("fixed small"); the last step lands on x0, noiseless.
    """
    t = process.timesteps(steps)
    alpha, sigma, next_alpha, next_sigma = _steps(process, t)
    ratio = alpha / next_alpha
    added = sigma**2 - (ratio * next_sigma) ** 2  # beta, where alpha^2 + sigma^2 = 1
    return _table(
        t,
        z_from_z=ratio * next_sigma**2 / sigma**2,
        z_from_x0=next_alpha * added / sigma**2,
        z_from_noise=np.sqrt(added) * next_sigma / sigma,
    )


def ddim(process: Process, steps: int, eta: float = 0.0) -> SamplerTable:
    """DDIM: no noise at eta = 0, that of DDPM at eta = 1 (Song et al. 2021, eq. 12 and 16).

    As Stable Diffusion configures it, the last step stops at the first timestep, a trace of noise
    short of x0; at eta > 0 even that step draws noise.

    Raises ValueError if `steps` is not between 1 and T, or `eta` not between 0 and 1.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must be between 0 (no noise) and 1 (as much as ddpm), got {eta}")
    t = process.timesteps(steps)
    alpha, sigma, next_alpha, next_sigma = _steps(process, t, final=process.levels(np.array([0])))
    fresh = eta * (next_sigma / sigma) * np.sqrt(sigma**2 - (alpha / next_alpha * next_sigma) ** 2)
    # The weight of the paper's epsilon, which is (x_t - alpha x0) / sigma.
    direction = np.sqrt(next_sigma**2 - fresh**2) / sigma
    return _table(
        t,
        z_from_z=direction,
        z_from_x0=next_alpha - direction * alpha,
        z_from_noise=fresh,
    )


def euler(process: Process, steps: int) -> SamplerTable:
    """Euler's method on dx/dsigma = d = (x - x0) / sigma (Karras et al. 2022, alg. 1, line 5).

    This is DDIM at eta = 0, but for its last step, which goes all the way to sigma = 0.
    """
    t = process.timesteps(steps)
    alpha, sigma, next_alpha, next_sigma = _steps(process, t)
    gain = (next_sigma / next_alpha) / (sigma / alpha) - 1.0
    from_z, from_x0 = _along_slope(gain, alpha, next_alpha)
    return _table(t, z_from_z=from_z, z_from_x0=from_x0)


def euler_ancestral(process: Process, steps: int) -> SamplerTable:
    """Euler steps that fall below the next sigma and climb back with fresh noise.

    Made popular by Crowson's k-diffusion. Its split, sigma_down^2 + sigma_up^2 = next_sigma^2, is
    the ancestral sampler of Song et al. 2021 ("Score-based generative modeling through SDEs",
    appendix F). In the scale of x_t that is the posterior of Ho et al.: the table equals `ddpm`'s.
    """
    t = process.timesteps(steps)
    alpha, sigma, next_alpha, next_sigma = _steps(process, t)
    exploding, next_exploding = sigma / alpha, next_sigma / next_alpha
    up = next_exploding * np.sqrt(1.0 - (next_exploding / exploding) ** 2)
    down = np.sqrt(next_exploding**2 - up**2)
    from_z, from_x0 = _along_slope(down / exploding - 1.0, alpha, next_alpha)
    return _table(
        t,
        z_from_z=from_z,
        z_from_x0=from_x0,
        z_from_noise=next_alpha * up,
    )


def heun(process: Process, steps: int) -> SamplerTable:
    """Heun's second-order method (Karras et al. 2022, alg. 1): 2 steps - 1 calls.

    A step is two calls. The first is Euler's, and remembers x + (dt / 2) d, half the way along the
    slope d found here; the second adds the other half along the slope d' found at the far end. The
    last step, to sigma = 0 where d' does not exist, is Euler's alone.
    """
    t = process.timesteps(steps)
    alpha, sigma, next_alpha, next_sigma = _steps(process, t)
    exploding, next_exploding = sigma / alpha, next_sigma / next_alpha
    dt = next_exploding - exploding
    whole_from_z, whole_from_x0 = _along_slope(dt / exploding, alpha, next_alpha)
    half_from_z, half_from_x0 = _along_slope(dt / 2.0 / exploding, alpha, next_alpha)
    predictor = _table(
        t,
        z_from_z=whole_from_z,
        z_from_x0=whole_from_x0,
        memory_from_z=half_from_z,
        memory_from_x0=half_from_x0,
    )
    gain = dt[:-1] / 2.0 / exploding[1:]  # (dt / 2) d' = gain (x - x0)
    corrector = _table(
        t[1:],
        z_from_z=gain,
        z_from_x0=-gain * alpha[1:],
        z_from_memory=np.ones(steps - 1),
    )
    return SamplerTable(*map(_alternate, predictor, corrector))


def dpm_solver_2m(process: Process, steps: int) -> SamplerTable:
    """DPM-Solver++(2M), second order from one call a step (Lu et al. 2022, arXiv 2211.01095).

    Algorithm 2. With lambda = log(alpha / sigma) and h the step in it, e^{-h} is the ratio of
    sigma / alpha; the memory is the last x0. First order where there is no past (first step) and
    where h is infinite (last step, which lands on x0).
    """
    process.timesteps(steps)  # refuses a wrong number in its own words
    # As Stable Diffusion configures this solver: one timestep more is spaced, the cleanest dropped.
    t = process.timesteps(min(steps + 1, process.train_steps))[:steps]
    alpha, sigma, next_alpha, next_sigma = _steps(process, t)
    ratio = (next_sigma / next_alpha) / (sigma / alpha)
    h = -np.diff(np.log(sigma / alpha))
    half_inverse_r = np.zeros(steps)  # 1 / (2 r) with r = h_{i-1} / h_i
    half_inverse_r[1:-1] = h[1:] / (2.0 * h[:-1])
    weight = next_alpha * (1.0 - ratio)
    return _table(
        t,
        z_from_z=next_sigma / sigma,
        z_from_x0=weight * (1.0 + half_inverse_r),
        z_from_memory=-weight * half_inverse_r,
        memory_from_x0=np.ones(steps),
    )


SAMPLERS: Mapping[str, Callable[[Process, int], SamplerTable]] = MappingProxyType(
    {
        "ddpm": ddpm,
        "ddim": ddim,
        "euler": euler,
        "euler_a": euler_ancestral,
        "heun": heun,
        "dpm++2m": dpm_solver_2m,
    }
)


def table(
    name: str, process: Process, steps: int, *, eta: float = 0.0, strength: float = 1.0
) -> SamplerTable:
    """The table of a sampler, by its name in `SAMPLERS`, for `steps` steps.

    Args:
        eta: how much noise "ddim" draws; see there.
        strength: how much of the way is gone. Image to image enters late: at 0.4, only the last
            40 % of the steps are taken, from a picture with the noise of the first row (Meng et al.
            2022, "SDEdit", alg. 1). `SamplerTable.step` counts as if all were taken.

    Raises:
        ValueError: if the name is unknown, `steps` is not between 1 and T, `eta` is not between 0
            and 1, or `eta` is given to a sampler other than "ddim"; if `strength` is not above 0
            and at most 1, or leaves no step to take.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; choose one of {', '.join(SAMPLERS)}")
    if name == "ddim":
        return _last_part(ddim(process, steps, eta), steps, strength)
    if eta != 0.0:
        raise ValueError(f'eta belongs to the sampler "ddim"; leave it out with {name!r}')
    return _last_part(SAMPLERS[name](process, steps), steps, strength)


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


def guide(unconditional: Latents, conditional: Latents, scale: Float[Array, ""] | float) -> Latents:
    """Push a prediction away from the empty prompt (Ho & Salimans 2022, eq. 6 with scale = 1 + w).

    Scale 0 ignores the prompt, 1 follows the network, more exaggerates what the prompt changes.
    """
    return unconditional + scale * (conditional - unconditional)


def _last_part(table: SamplerTable, steps: int, strength: float) -> SamplerTable:
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
    table = SamplerTable(*(column[table.step >= steps - kept] for column in table))
    # Nothing is remembered at the start. The first x0 takes the place of the one before it, which
    # makes the first step of DPM-Solver++(2M) one of first order.
    table.z_from_x0[0] += table.z_from_memory[0]
    table.z_from_memory[0] = 0.0
    return table


def _steps(
    process: Process, t: Int[np.ndarray, " n"], final: tuple[Single, Single] = (ONE, ZERO)
) -> tuple[Level, Level, Level, Level]:
    """alpha and sigma where each step begins, and where it ends; the last ends at `final`."""
    alpha, sigma = process.levels(t)
    return alpha, sigma, np.append(alpha[1:], final[0]), np.append(sigma[1:], final[1])


def _along_slope(gain: Level, alpha: Level, next_alpha: Level) -> tuple[Level, Level]:
    """The weights of x_t and x0 in x + gain (x - x0), gain = dt / sigma, in the scale of x_t."""
    return next_alpha / alpha * (1.0 + gain), -next_alpha * gain


def _table(t: Int[np.ndarray, " n"], **coefficients: np.ndarray) -> SamplerTable:
    """One call a step, in float32; a coefficient not named is zero."""
    columns = dict.fromkeys(SamplerTable._fields[2:], np.zeros(len(t))) | coefficients
    return SamplerTable(
        step=np.arange(len(t), dtype=np.int32),
        timestep=t,
        **{name: column.astype(np.float32) for name, column in columns.items()},
    )


def _alternate(first: Array | np.ndarray, second: Array | np.ndarray) -> np.ndarray:
    """Interleave n rows with n - 1: first[0], second[0], first[1], ..., first[n - 1]."""
    rows = np.empty(len(first) + len(second), first.dtype)
    rows[::2], rows[1::2] = first, second
    return rows

"""From noise to a latent: six samplers, one line of arithmetic.

Every sampler here is linear in what it knows, so each is only a table of coefficients: a `Plan`,
one row a call of the network. The state z always lives in the variance preserving scale of training
and starts as standard normal noise. Each call reads x0 out of the prediction and applies `update`:

    z      <- z_from_z z + z_from_x0 x0 + z_from_memory memory + z_from_noise noise
    memory <- memory_from_z z + memory_from_x0 x0

A plan is data, not code: another sampler or another number of steps never recompiles the network.

Papers that work with x = x0 + sigma e ("variance exploding") are brought to z by
x = z / sqrt(alpha_bar), sigma^2 = (1 - alpha_bar) / alpha_bar. `next_` marks where a step arrives.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key

from diffusion.config import ScheduleConfig
from diffusion.process import schedule

Latents = Float[Array, "b h w c"]
Predict = Callable[[Latents, Int[Array, " b"]], Latents]
Column = Float[Array | np.ndarray, "*calls"]


class Plan(NamedTuple):
    """A sampler as a table, one row a call of the network (numpy; a row has no leading axis)."""

    step: Int[Array | np.ndarray, "*calls"]  # which of the user's steps the call belongs to, from 0
    timestep: Int[Array | np.ndarray, "*calls"]  # what the network is told
    alpha_bar: Column  # the signal left in z at that timestep
    z_from_z: Column
    z_from_x0: Column
    z_from_memory: Column
    z_from_noise: Column
    memory_from_z: Column
    memory_from_x0: Column


def ddpm(config: ScheduleConfig, steps: int) -> Plan:
    """Plan ancestral sampling: draw from q(z_{t-1} | z_t, x0) (Ho et al. 2020, eq. 6 and 7).

    With timesteps left out, beta = 1 - alpha_bar_t / alpha_bar_{t-1} (Nichol & Dhariwal 2021, eq.
    19). The variance is the posterior's own ("fixed small"); the last step lands on x0, noiseless.
    """
    t = schedule.timesteps(config, steps)
    alpha_bar, next_alpha_bar = _alpha_bars(config, t, final=1.0)
    beta = 1.0 - alpha_bar / next_alpha_bar
    variance = beta * (1.0 - next_alpha_bar) / (1.0 - alpha_bar)
    return _plan(
        t,
        alpha_bar,
        z_from_z=np.sqrt(1.0 - beta) * (1.0 - next_alpha_bar) / (1.0 - alpha_bar),
        z_from_x0=np.sqrt(next_alpha_bar) * beta / (1.0 - alpha_bar),
        z_from_noise=np.sqrt(variance),
    )


def ddim(config: ScheduleConfig, steps: int, eta: float = 0.0) -> Plan:
    """Plan DDIM: no noise at eta = 0, that of DDPM at eta = 1 (Song et al. 2021, eq. 12 and 16).

    As Stable Diffusion configures it, the last step stops at alpha_bar[0], a trace of noise short
    of x0; at eta > 0 even that step draws noise.

    Raises:
        ValueError: if `steps` is not between 1 and T, or `eta` not between 0 and 1.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must be between 0 (no noise) and 1 (as much as ddpm), got {eta}")
    t = schedule.timesteps(config, steps)
    alpha_bar, next_alpha_bar = _alpha_bars(config, t, final=schedule.alpha_bars(config)[0])
    sigma = eta * np.sqrt(
        (1.0 - next_alpha_bar) / (1.0 - alpha_bar) * (1.0 - alpha_bar / next_alpha_bar)
    )
    # The weight of the paper's epsilon, which is (z - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar).
    direction = np.sqrt(1.0 - next_alpha_bar - sigma**2) / np.sqrt(1.0 - alpha_bar)
    return _plan(
        t,
        alpha_bar,
        z_from_z=direction,
        z_from_x0=np.sqrt(next_alpha_bar) - direction * np.sqrt(alpha_bar),
        z_from_noise=sigma,
    )


def euler(config: ScheduleConfig, steps: int) -> Plan:
    """Plan Euler's method on dx/dsigma = d = (x - x0) / sigma (Karras et al. 2022, alg. 1, line 5).

    This is DDIM at eta = 0, but for its last step, which goes all the way to sigma = 0.
    """
    t = schedule.timesteps(config, steps)
    alpha_bar, next_alpha_bar = _alpha_bars(config, t, final=1.0)
    dt = _sigma(next_alpha_bar) - _sigma(alpha_bar)
    from_z, from_x0 = _along_slope(dt, alpha_bar, next_alpha_bar)
    return _plan(t, alpha_bar, z_from_z=from_z, z_from_x0=from_x0)


def euler_ancestral(config: ScheduleConfig, steps: int) -> Plan:
    """Plan Euler steps that fall below the next sigma and climb back with fresh noise.

    Made popular by Crowson's k-diffusion. Its split, sigma_down^2 + sigma_up^2 = next_sigma^2, is
    the ancestral sampler of Song et al. 2021 ("Score-based generative modeling through SDEs",
    appendix F). In the scale of z that is the posterior of Ho et al.: the table equals `ddpm`'s.
    """
    t = schedule.timesteps(config, steps)
    alpha_bar, next_alpha_bar = _alpha_bars(config, t, final=1.0)
    sigma, next_sigma = _sigma(alpha_bar), _sigma(next_alpha_bar)
    sigma_up = next_sigma * np.sqrt(1.0 - (next_sigma / sigma) ** 2)
    sigma_down = np.sqrt(next_sigma**2 - sigma_up**2)
    from_z, from_x0 = _along_slope(sigma_down - sigma, alpha_bar, next_alpha_bar)
    return _plan(
        t,
        alpha_bar,
        z_from_z=from_z,
        z_from_x0=from_x0,
        z_from_noise=np.sqrt(next_alpha_bar) * sigma_up,
    )


def heun(config: ScheduleConfig, steps: int) -> Plan:
    """Plan Heun's second-order method (Karras et al. 2022, alg. 1): 2 steps - 1 calls.

    A step is two calls. The first is Euler's, and remembers x + (dt / 2) d, half the way along the
    slope d found here; the second adds the other half along the slope d' found at the far end. The
    last step, to sigma = 0 where d' does not exist, is Euler's alone.
    """
    t = schedule.timesteps(config, steps)
    alpha_bar, next_alpha_bar = _alpha_bars(config, t, final=1.0)
    dt = _sigma(next_alpha_bar) - _sigma(alpha_bar)
    whole_from_z, whole_from_x0 = _along_slope(dt, alpha_bar, next_alpha_bar)
    half_from_z, half_from_x0 = _along_slope(dt / 2.0, alpha_bar, next_alpha_bar)
    predictor = _plan(
        t,
        alpha_bar,
        z_from_z=whole_from_z,
        z_from_x0=whole_from_x0,
        memory_from_z=half_from_z,
        memory_from_x0=half_from_x0,
    )
    far, far_alpha_bar = t[1:], alpha_bar[1:]
    gain = dt[:-1] / 2.0 / _sigma(far_alpha_bar)  # (dt / 2) d' = gain (x - x0)
    corrector = _plan(
        far,
        far_alpha_bar,
        z_from_z=gain,
        z_from_x0=-gain * np.sqrt(far_alpha_bar),
        z_from_memory=np.ones(steps - 1),
    )
    return Plan(*map(_alternate, predictor, corrector))


def dpm_solver_2m(config: ScheduleConfig, steps: int) -> Plan:
    """Plan DPM-Solver++(2M), second order from one call a step (Lu et al. 2022, arXiv 2211.01095).

    Algorithm 2. With lambda = -log sigma and h the step in it, e^{-h} is the ratio of the sigmas;
    the memory is the last x0. First order where there is no past (first step) and where h is
    infinite (last step, which lands on x0).
    """
    schedule.check_steps(config, steps)
    # As Stable Diffusion configures this solver: one timestep more is spaced, the cleanest dropped.
    t = schedule.timesteps(config, min(steps + 1, config.train_steps))[:steps]
    alpha_bar, next_alpha_bar = _alpha_bars(config, t, final=1.0)
    sigma, next_sigma = _sigma(alpha_bar), _sigma(next_alpha_bar)
    h = -np.diff(np.log(sigma))
    half_inverse_r = np.zeros(steps)  # 1 / (2 r) with r = h_{i-1} / h_i
    half_inverse_r[1:-1] = h[1:] / (2.0 * h[:-1])
    weight = np.sqrt(next_alpha_bar) * (1.0 - next_sigma / sigma)
    return _plan(
        t,
        alpha_bar,
        z_from_z=np.sqrt(next_alpha_bar / alpha_bar) * next_sigma / sigma,
        z_from_x0=weight * (1.0 + half_inverse_r),
        z_from_memory=-weight * half_inverse_r,
        memory_from_x0=np.ones(steps),
    )


SAMPLERS: Mapping[str, Callable[[ScheduleConfig, int], Plan]] = MappingProxyType(
    {
        "ddpm": ddpm,
        "ddim": ddim,
        "euler": euler,
        "euler_a": euler_ancestral,
        "heun": heun,
        "dpm++2m": dpm_solver_2m,
    }
)


def plan(
    name: str, config: ScheduleConfig, steps: int, *, eta: float = 0.0, strength: float = 1.0
) -> Plan:
    """Look a sampler up by its name in `SAMPLERS` and plan `steps` steps of it.

    Args:
        eta: how much noise "ddim" draws; see there.
        strength: how much of the way is gone. Image to image enters late: at 0.4, only the last
            40 % of the steps are taken, from a picture with the noise of the first row's alpha_bar
            (Meng et al. 2022, "SDEdit", alg. 1). `Plan.step` counts as if all were taken.

    Raises:
        ValueError: if the name is unknown, `steps` is not between 1 and T, `eta` is not between 0
            and 1, or `eta` is given to a sampler other than "ddim"; if `strength` is not above 0
            and at most 1, or leaves no step to take.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; choose one of {', '.join(SAMPLERS)}")
    if name == "ddim":
        return _last_part(ddim(config, steps, eta), steps, strength)
    if eta != 0.0:
        raise ValueError(f'eta belongs to the sampler "ddim"; leave it out with {name!r}')
    return _last_part(SAMPLERS[name](config, steps), steps, strength)


def update(
    row: Plan, z: Latents, x0: Latents, memory: Latents, noise: Latents
) -> tuple[Latents, Latents]:
    """Apply one row of a plan: the only step that any sampler takes.

    Args:
        row: one row of a plan, each field a scalar.
        z: the latent that the network was shown.
        x0: the clean latent that it saw in z.
        memory: what the previous call left behind; zeros at the first call.
        noise: fresh standard normal noise.

    Returns:
        z and memory for the next call; after the last call, z is the finished latent.
    """
    next_z = (
        z * row.z_from_z
        + x0 * row.z_from_x0
        + memory * row.z_from_memory
        + noise * row.z_from_noise
    )
    return next_z, z * row.memory_from_z + x0 * row.memory_from_x0


def noise_at(
    keys: Key[Array, " b"], call: Integer[Array, ""] | int, shape: tuple[int, ...]
) -> Float[Array, "b ..."]:
    """Draw the noise of one call, each picture from its own key whatever else is in the batch."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, call), shape))(keys)


def guide(unconditional: Latents, conditional: Latents, scale: Float[Array, ""] | float) -> Latents:
    """Push a prediction away from the empty prompt (Ho & Salimans 2022, eq. 6 with scale = 1 + w).

    Scale 0 ignores the prompt, 1 follows the network, more exaggerates what the prompt changes.
    """
    return unconditional + scale * (conditional - unconditional)


def sample(predict: Predict, z: Latents, plan: Plan, keys: Key[Array, " b"], kind: str) -> Latents:
    """Run a whole plan from noise to latent: the sampling loop at its plainest.

    Args:
        predict: the network with its context and guidance, from (z, timesteps) to a prediction.
        z: standard normal noise, the canvas to begin with.
        plan: what to do, from `plan`.
        keys: one key a picture, for the samplers that draw fresh noise.
        kind: what the network predicts, "epsilon" or "v".
    """

    def call(
        state: tuple[Latents, Latents], inputs: tuple[Array, Plan]
    ) -> tuple[tuple[Latents, Latents], None]:
        z, memory = state
        index, row = inputs
        timesteps = jnp.full(z.shape[0], row.timestep)
        alpha_bar = jnp.full(z.shape[0], row.alpha_bar)
        x0 = schedule.to_x0(predict(z, timesteps), z, alpha_bar, kind)
        return update(row, z, x0, memory, noise_at(keys, index, z.shape[1:])), None

    calls = jnp.arange(len(plan.timestep))
    (z, _), _ = jax.lax.scan(call, (z, jnp.zeros_like(z)), (calls, plan))
    return z


def _last_part(plan: Plan, steps: int, strength: float) -> Plan:
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
    plan = Plan(*(column[plan.step >= steps - kept] for column in plan))
    # Nothing is remembered at the start. The first x0 takes the place of the one before it, which
    # makes the first step of DPM-Solver++(2M) one of first order.
    plan.z_from_x0[0] += plan.z_from_memory[0]
    plan.z_from_memory[0] = 0.0
    return plan


def _alpha_bars(
    config: ScheduleConfig, t: Int[np.ndarray, " n"], final: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return alpha_bar where each step begins and where it ends; the last ends at `final`."""
    alpha_bar = schedule.alpha_bars(config)[t]
    return alpha_bar, np.append(alpha_bar[1:], final)


def _sigma(alpha_bar: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the noise level of the variance exploding scale, x = x0 + sigma e."""
    return np.sqrt((1.0 - alpha_bar) / alpha_bar)


def _along_slope(
    dt: Float[np.ndarray, " n"],
    alpha_bar: Float[np.ndarray, " n"],
    next_alpha_bar: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the weights of z and x0 in x + dt d, with d = (x - x0) / sigma, in the scale of z."""
    gain = dt / _sigma(alpha_bar)
    return np.sqrt(next_alpha_bar / alpha_bar) * (1.0 + gain), -np.sqrt(next_alpha_bar) * gain


def _plan(
    t: Int[np.ndarray, " n"], alpha_bar: Float[np.ndarray, " n"], **coefficients: np.ndarray
) -> Plan:
    """Build a plan of one call a step, in float32; a coefficient not named is zero."""
    columns = dict.fromkeys(Plan._fields[3:], np.zeros(len(t))) | coefficients
    return Plan(
        step=np.arange(len(t), dtype=np.int32),
        timestep=t,
        alpha_bar=alpha_bar.astype(np.float32),
        **{name: column.astype(np.float32) for name, column in columns.items()},
    )


def _alternate(first: Array | np.ndarray, second: Array | np.ndarray) -> np.ndarray:
    """Interleave n rows with n - 1: first[0], second[0], first[1], ..., first[n - 1]."""
    rows = np.empty(len(first) + len(second), first.dtype)
    rows[::2], rows[1::2] = first, second
    return rows

"""From noise to a latent: the samplers, each a table of coefficients (`diffusion.process.tables`).

A table is computed in float64 from alpha and sigma of the process, x_t = alpha x0 + sigma noise, so
it serves any process.

Papers that work with x = x0 + sigma e ("variance exploding") are brought to x_t by x = x_t / alpha;
their sigma is sigma / alpha here. `next_` marks where a step arrives.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from diffusion.process import Mixing, Process
from diffusion.process.tables import (
    SamplerTable,
    Table,
    along_slope,
    alternate,
    guide,
    last_part,
    levels_of_steps,
    make,
    noise_at,
    update,
)

__all__ = [
    "SAMPLERS", "SamplerTable", "Table", "ddim", "ddpm", "dpm_solver_2m", "euler",
    "euler_ancestral", "guide", "heun", "lcm", "noise_at", "table", "update",
]  # fmt: skip

LCM_GRID = 50  # timesteps that latent consistency models are distilled on


def ddpm(process: Mixing, steps: int, spacing: str = "leading") -> SamplerTable:
    """Ancestral sampling: draw from q(x_{t-1} | x_t, x0) (Ho et al. 2020, eq. 6 and 7).

    With timesteps left out, beta = 1 - alpha_bar_t / alpha_bar_{t-1} (Nichol & Dhariwal 2021, eq.
    19). The variance is the posterior's own ("fixed small"); the last step lands on x0, noiseless.
    """
    t = process.timesteps(steps, spacing)
    alpha, sigma, next_alpha, next_sigma = levels_of_steps(process, t)
    ratio = alpha / next_alpha
    added = sigma**2 - (ratio * next_sigma) ** 2  # beta, where alpha^2 + sigma^2 = 1
    return make(
        t,
        z_from_z=ratio * next_sigma**2 / sigma**2,
        z_from_x0=next_alpha * added / sigma**2,
        z_from_noise=np.sqrt(added) * next_sigma / sigma,
    )


def ddim(process: Mixing, steps: int, spacing: str = "leading", eta: float = 0.0) -> SamplerTable:
    """DDIM: no noise at eta = 0, that of DDPM at eta = 1 (Song et al. 2021, eq. 12 and 16).

    As Stable Diffusion configures it, the last step stops at the first timestep, a trace of noise
    short of x0, and draws noise at eta > 0. Other processes arrive at x0 (`Process.last_levels`).
    With "linspace" a step goes T // steps timesteps on, as in the reference: not quite to the next.

    Raises ValueError if `steps` is not between 1 and T, or `eta` not between 0 and 1.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must be between 0 (no noise) and 1 (as much as ddpm), got {eta}")
    t = process.timesteps(steps, spacing)
    alpha, sigma, next_alpha, next_sigma = levels_of_steps(process, t, process.last_levels())
    if spacing == "linspace":
        lands = t - process.train_steps // steps
        there = process.levels(np.maximum(lands, 0))
        next_alpha, next_sigma = (
            np.where(lands < 0, last, level)
            for last, level in zip(process.last_levels(), there, strict=True)
        )
    added = np.maximum(sigma**2 - (alpha / next_alpha * next_sigma) ** 2, 0.0)  # 0 may round below
    fresh = eta * (next_sigma / sigma) * np.sqrt(added)
    # The weight of the paper's epsilon, which is (x_t - alpha x0) / sigma.
    direction = np.sqrt(next_sigma**2 - fresh**2) / sigma
    return make(
        t,
        z_from_z=direction,
        z_from_x0=next_alpha - direction * alpha,
        z_from_noise=fresh,
    )


def euler(process: Mixing, steps: int, spacing: str = "leading") -> SamplerTable:
    """Euler's method on dx/dsigma = d = (x - x0) / sigma (Karras et al. 2022, alg. 1, line 5).

    This is DDIM at eta = 0, but for its last step, which goes all the way to sigma = 0. On a
    rectified flow it is Euler's method on dx/ds = v, too: x0 and x_t span the same line.
    """
    t = process.timesteps(steps, spacing)
    alpha, sigma, next_alpha, next_sigma = levels_of_steps(process, t)
    from_z, from_x0 = along_slope(next_sigma / next_alpha, alpha, sigma, next_alpha)
    return make(t, z_from_z=from_z, z_from_x0=from_x0)


def euler_ancestral(process: Mixing, steps: int, spacing: str = "leading") -> SamplerTable:
    """Euler steps that fall below the next sigma and climb back with fresh noise.

    Made popular by Crowson's k-diffusion. Its split, sigma_down^2 + sigma_up^2 = next_sigma^2, is
    the ancestral sampler of Song et al. 2021 ("Score-based generative modeling through SDEs",
    appendix F). In the scale of x_t that is the posterior of Ho et al.: the table equals `ddpm`'s.
    """
    t = process.timesteps(steps, spacing)
    alpha, sigma, next_alpha, next_sigma = levels_of_steps(process, t)
    next_exploding = next_sigma / next_alpha
    up = next_exploding * np.sqrt(1.0 - (next_exploding * alpha / sigma) ** 2)
    down = np.sqrt(next_exploding**2 - up**2)
    from_z, from_x0 = along_slope(down, alpha, sigma, next_alpha)
    return make(
        t,
        z_from_z=from_z,
        z_from_x0=from_x0,
        z_from_noise=next_alpha * up,
    )


def heun(process: Mixing, steps: int, spacing: str = "leading") -> SamplerTable:
    """Heun's second-order method (Karras et al. 2022, alg. 1): 2 steps - 1 calls.

    A step is two calls. The first is Euler's, and remembers x + (dt / 2) d, half the way along the
    slope d found here; the second adds the other half along the slope d' found at the far end. The
    last step, to sigma = 0 where d' does not exist, is Euler's alone.

    Raises ValueError where the way begins at pure noise, with a sigma / alpha that is infinite.
    """
    t = process.timesteps(steps, spacing)
    alpha, sigma, next_alpha, next_sigma = levels_of_steps(process, t)
    if alpha[0] == 0.0:
        raise ValueError(
            '"heun" cannot halve the way from pure noise, which this model begins with; choose '
            '"dpm++2m", which is of second order, too'
        )
    exploding, next_exploding = sigma / alpha, next_sigma / next_alpha
    dt = next_exploding - exploding
    whole_from_z, whole_from_x0 = along_slope(next_exploding, alpha, sigma, next_alpha)
    half_from_z, half_from_x0 = along_slope(exploding + dt / 2.0, alpha, sigma, next_alpha)
    predictor = make(
        t,
        z_from_z=whole_from_z,
        z_from_x0=whole_from_x0,
        memory_from_z=half_from_z,
        memory_from_x0=half_from_x0,
    )
    gain = dt[:-1] / 2.0 / exploding[1:]  # (dt / 2) d' = gain (x - x0)
    corrector = make(
        t[1:],
        z_from_z=gain,
        z_from_x0=-gain * alpha[1:],
        z_from_memory=np.ones(steps - 1),
    )
    return SamplerTable(*map(alternate, predictor, corrector))


def dpm_solver_2m(process: Mixing, steps: int, spacing: str = "leading") -> SamplerTable:
    """DPM-Solver++(2M), second order from one call a step (Lu et al. 2022, arXiv 2211.01095).

    Algorithm 2. With lambda = log(alpha / sigma) and h the step in it, e^{-h} is the ratio of
    sigma / alpha; the memory is the last x0. First order where there is no past (first step) and
    where h is infinite (last step, which lands on x0), or was (from pure noise).
    """
    t = process.timesteps(steps, spacing)
    if spacing == "leading":
        # As Stable Diffusion configures it here: one timestep more is spaced, the cleanest dropped.
        t = process.timesteps(min(steps + 1, process.train_steps))[:steps]
    alpha, sigma, next_alpha, next_sigma = levels_of_steps(process, t)
    ratio = (next_sigma / next_alpha) * (alpha / sigma)
    with np.errstate(divide="ignore"):
        h = np.diff(np.log(alpha / sigma))
    half_inverse_r = np.zeros(steps)  # 1 / (2 r) with r = h_{i-1} / h_i
    half_inverse_r[1:-1] = h[1:] / (2.0 * h[:-1])
    weight = next_alpha * (1.0 - ratio)
    return make(
        t,
        z_from_z=next_sigma / sigma,
        z_from_x0=weight * (1.0 + half_inverse_r),
        z_from_memory=-weight * half_inverse_r,
        memory_from_x0=np.ones(steps),
    )


def lcm(process: Mixing, steps: int, spacing: str = "leading") -> SamplerTable:
    """Latent consistency: jump to x0, take fresh noise, jump again (Luo et al. 2023, alg. 3).

    For denoisers that were distilled to see x0 at once. The jump is c_out x0 + c_skip x_t, with
    s = 10 t, c_skip = 0.25 / (s^2 + 0.25) and c_out = s / sqrt(s^2 + 0.25) (Song et al. 2023,
    appendix C): 0 and 1 to float32, but for the smallest t. The timesteps are always spread over
    the 50 of the distillation, noisiest first, whatever the spacing.

    Raises ValueError if `steps` is not between 1 and 50.
    """
    grid = process.timesteps(min(LCM_GRID, process.train_steps), "trailing")
    if not 1 <= steps <= len(grid):
        raise ValueError(f'"lcm" takes 1 to {len(grid)} steps, got {steps}; 4 is a good start')
    t = grid[np.floor(np.linspace(0, len(grid), steps, endpoint=False)).astype(int)]
    _, _, next_alpha, next_sigma = levels_of_steps(process, t)
    s = 10.0 * t.astype(float)
    c_skip, c_out = 0.25 / (s**2 + 0.25), s / np.sqrt(s**2 + 0.25)
    return make(
        t,
        z_from_z=next_alpha * c_skip,
        z_from_x0=next_alpha * c_out,
        z_from_noise=next_sigma,
    )


SAMPLERS: Mapping[str, Callable[[Mixing, int, str], SamplerTable]] = MappingProxyType(
    {
        "ddpm": ddpm,
        "ddim": ddim,
        "euler": euler,
        "euler_a": euler_ancestral,
        "heun": heun,
        "dpm++2m": dpm_solver_2m,
        "lcm": lcm,
    }
)


def table(
    name: str,
    process: Process,
    steps: int,
    *,
    spacing: str = "leading",
    eta: float = 0.0,
    strength: float = 1.0,
) -> Table:
    """The table of a sampler, by its name in `SAMPLERS` or of the process, for `steps` steps.

    Args:
        spacing: of the timesteps, one of `SPACINGS`; see `Process.timesteps`.
        eta: how much noise "ddim" draws; see there.
        strength: how much of the way is gone. Image to image enters late: at 0.4, only the last
            40 % of the steps are taken, from a picture with the noise of the first row (Meng et al.
            2022, "SDEdit", alg. 1). `SamplerTable.step` counts as if all were taken.

    Raises:
        ValueError: if the name or the spacing is unknown, `steps` is not between 1 and T, `eta` is
            not between 0 and 1, or `eta` is given to a sampler other than "ddim"; if `strength` is
            not above 0 and at most 1, or leaves no step to take.
    """
    own: Any = process
    known: Mapping[str, Callable[[Any, int, str], Any]] = process.samplers or SAMPLERS
    if name not in known:
        raise ValueError(f"unknown sampler {name!r}; choose one of {', '.join(known)}")
    if name == "ddim":
        return last_part(ddim(own, steps, spacing, eta), steps, strength)
    if eta != 0.0:
        raise ValueError(f'eta belongs to the sampler "ddim"; leave it out with {name!r}')
    return last_part(known[name](process, steps, spacing), steps, strength)
